"""BERT for classification as MindSpore cells, for graph mode.

Every parameter carries its Hugging Face name, so no conversion table exists. A pass without noise is
deterministic (no dropout, Eq. 5 masks); a pass with noise is a training pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mindspore
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from configs.contract import matrices
from configs.contract.errors import UserError
from mindspore_rt.cells import float64_ops, gate, kernel_cells, kernels, primitive_cells

MOST_LAYERS = 1000


@dataclass(frozen=True)
class BertConfig:
    """The part of a Hugging Face `config.json` that shapes the computation."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float = 1e-12

    @classmethod
    def from_dict(cls, values: dict, where: str) -> BertConfig:
        """Raises `UserError` naming `where` if this is not a BERT that these cells compute."""
        if not isinstance(values, dict):
            raise UserError(f"{where}: missing, or not a JSON object; give the config.json of a BERT")
        if values.get("model_type") == "roberta":
            raise UserError(
                f"{where}: a RoBERTa; it has no segments, its positions start at 2, its pieces are bytes: give a BERT"
            )
        for key, expected in (
            ("model_type", "bert"),
            ("hidden_act", "gelu"),
            ("position_embedding_type", "absolute"),
        ):
            if values.get(key, expected if key != "model_type" else None) != expected:
                raise UserError(f"{where}: {key} is {values.get(key)!r}, only {expected!r} is supported")
        if values.get("is_decoder"):
            raise UserError(f"{where}: is_decoder is set; a classifier needs an encoder")
        required = [name for name, f in cls.__dataclass_fields__.items() if name != "layer_norm_eps"]
        wrong = [name for name in required if type(values.get(name)) is not int or values[name] < 1]
        if wrong:
            raise UserError(f"{where}: {', '.join(wrong)} missing or not a positive whole number")
        if values["num_hidden_layers"] > MOST_LAYERS:  # each has sixteen names, all of which are made up soon
            told = f"num_hidden_layers is {values['num_hidden_layers']}, no BERT has so many"
            raise UserError(f"{where}: {told}; give the config.json of the model")
        if not 0 < _number(values.get("layer_norm_eps", cls.layer_norm_eps)) < 1:
            raise UserError(f"{where}: layer_norm_eps is {values['layer_norm_eps']!r}, not a number between 0 and 1")
        if values["hidden_size"] % values["num_attention_heads"]:
            raise UserError(f"{where}: hidden_size is no multiple of num_attention_heads")
        return cls(**{name: values[name] for name in cls.__dataclass_fields__ if name in values})

    def prunable(self) -> dict[str, tuple[int, int]]:
        return matrices.prunable_shapes(self.num_hidden_layers, self.hidden_size, self.intermediate_size)

    def parameters(self, labels: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter of the classifier."""
        hidden = self.hidden_size
        shapes = {
            "bert.embeddings.word_embeddings.weight": (self.vocab_size, hidden),
            "bert.embeddings.position_embeddings.weight": (self.max_position_embeddings, hidden),
            "bert.embeddings.token_type_embeddings.weight": (self.type_vocab_size, hidden),
            "bert.embeddings.LayerNorm.weight": (hidden,),
            "bert.embeddings.LayerNorm.bias": (hidden,),
        }
        for name, shape in self.prunable().items():
            shapes[name] = shape
            shapes[name.replace(".weight", ".bias")] = shape[:1]
        for layer in range(self.num_hidden_layers):
            for part in ("attention.output", "output"):
                for kind in ("weight", "bias"):
                    shapes[f"bert.encoder.layer.{layer}.{part}.LayerNorm.{kind}"] = (hidden,)
        return {**shapes, "classifier.weight": (labels, hidden), "classifier.bias": (labels,)}


def _number(value) -> float:
    return value if type(value) in (int, float) else math.nan


@dataclass(frozen=True)
class Places:
    """Numbers of the places where a training pass takes noise: dropouts first, then gates."""

    layers: int

    embedding: int = 0

    def attention(self, layer: int) -> int:
        return 1 + 3 * layer

    def attention_output(self, layer: int) -> int:
        return 2 + 3 * layer

    def output(self, layer: int) -> int:
        return 3 + 3 * layer

    @property
    def classifier(self) -> int:
        return 1 + 3 * self.layers

    def gate(self, index: int) -> int:
        return self.classifier + 1 + index


def parts():
    """The module whose cells the model is built of: `fused` where its kernels run, else `plain`."""
    return kernel_cells if kernels.available() else primitive_cells


class Product(nn.Cell):
    """A matrix product, computed in `amp` ("float16", "bfloat16") if that is not None; float32 in and out."""

    def __init__(self, primitive, amp: str | None):
        super().__init__(auto_prefix=False)
        self.product, self.dtype = primitive, getattr(mindspore, amp) if amp else None

    def construct(self, a, b):
        if self.dtype is None:
            return self.product(a, b)
        return ops.cast(self.product(ops.cast(a, self.dtype), ops.cast(b, self.dtype)), mindspore.float32)


class Linear(nn.Cell):
    """x (rows, in) -> x W^T + b (rows, out)."""

    def __init__(self, rows: int, columns: int, name: str, amp: str | None):
        super().__init__(auto_prefix=False)
        self.weight = Parameter(np.zeros((rows, columns), np.float32), name=f"{name}.weight")
        self.bias = Parameter(np.zeros(rows, np.float32), name=f"{name}.bias")
        self.matmul, self.add_bias = Product(ops.MatMul(transpose_b=True), amp), parts().AddBias()

    def construct(self, x, draws):
        return self.add_bias(self.matmul(x, self.weight), self.bias)


class MaskedLinear(Linear):
    """A linear layer whose weight is multiplied by its mask; `block` (rows, columns) weights share one score."""

    def __init__(
        self, rows: int, columns: int, name: str, amp: str | None, place: int, seed: int, mask_p: float, block
    ):
        super().__init__(rows, columns, name, amp)
        if rows % block[0] or columns % block[1]:
            raise UserError(f"search.granularity: {list(block)} does not divide the {rows} x {columns} matrix {name}")
        grid = (rows // block[0], columns // block[1])
        self.log_alpha = Parameter(
            np.full(grid, gate.initial_log_alpha(mask_p), np.float32), name=f"{name}.weight.log_alpha"
        )
        single = tuple(block) == (1, 1)  # the kernel knows one score a weight only
        self.masked = parts().MaskedWeight(place, seed) if single else primitive_cells.MaskedWeight(place, seed, block)

    def construct(self, x, draws):
        return self.add_bias(self.matmul(x, self.masked(self.weight, self.log_alpha, draws)), self.bias)


class Layer(nn.Cell):
    """One encoder layer on (batch * length, hidden). `rates`: dropout of hidden states and of attention.

    The last layer returns (batch, hidden): of its output the classifier reads the first token only, so that the
    others' queries, attention and feed-forward are left out. That changes no logit and no gradient.
    """

    def __init__(self, config: BertConfig, layer: int, linear, rates, seed: int, amp: str | None):
        super().__init__(auto_prefix=False)
        name, places, cells = f"bert.encoder.layer.{layer}", Places(config.num_hidden_layers), parts()

        def norm(part, place):
            return cells.AddNorm(
                config.hidden_size, config.layer_norm_eps, f"{name}.{part}.LayerNorm", rates[0], place, seed
            )

        self.query, self.key, self.value = (linear(layer, kind) for kind in ("query", "key", "value"))
        self.attention_output = linear(layer, "attention output")
        self.intermediate, self.output = linear(layer, "intermediate"), linear(layer, "output")
        self.attention_norm = norm("attention.output", places.attention_output(layer))
        self.output_norm = norm("output", places.output(layer))
        self.gelu = cells.Gelu()
        self.last = layer == config.num_hidden_layers - 1
        self.split, self.join = cells.SplitHeads(config.num_attention_heads), cells.JoinHeads()
        factor = 1 / math.sqrt(config.hidden_size // config.num_attention_heads)
        self.share = cells.AttentionShare(factor, rates[1], places.attention(layer), seed)
        self.scores, self.mix = Product(ops.BatchMatMul(transpose_b=True), amp), Product(ops.BatchMatMul(), amp)

    def construct(self, x, padding, draws):
        asking = x.reshape(padding.shape[0], -1, x.shape[-1])[:, 0] if self.last else x
        query = self.split(self.query(asking, draws), padding)
        key = self.split(self.key(x, draws), padding)
        value = self.split(self.value(x, draws), padding)
        context = self.mix(self.share(self.scores(query, key), padding, draws), value)
        asking = self.attention_norm(self.attention_output(self.join(context), draws), asking, draws)
        hidden = self.output(self.gelu(self.intermediate(asking, draws)), draws)
        return self.output_norm(hidden, asking, draws)


class BertClassifier(nn.Cell):
    """BERT with a pooler and a linear classifier.

    Args:
        config: shape of the encoder.
        labels: number of classes.
        dropout: rate for hidden states, attention and classifier; `attention_dropout` if attention's differs.
        masked: multiply every prunable matrix by its mask (`mask_p`, `block` as in `schema.Search`).
        seed: of the device's own random numbers; on CPU noise is passed in instead.
        amp: dtype of the matrix products, "float16" or "bfloat16", None for float32. Everything else, the parameters
            and their gradients included, stays float32.
    """

    def __init__(
        self,
        config: BertConfig,
        labels: int,
        dropout=0.1,
        masked=False,
        mask_p=0.9,
        block=(1, 1),
        seed=0,
        attention_dropout: float | None = None,
        amp: str | None = None,
    ):
        super().__init__(auto_prefix=False)
        self.config, self.labels, self.masked, self.amp = config, labels, masked, amp
        hidden, places, shapes = config.hidden_size, Places(config.num_hidden_layers), config.prunable()
        order = {name: index for index, name in enumerate(shapes)}

        def linear_named(name):
            cell, where = name.removesuffix(".weight"), places.gate(order[name])
            if masked:
                return MaskedLinear(*shapes[name], cell, amp, where, seed, mask_p, block)
            return Linear(*shapes[name], cell, amp)

        self.rates = rates = (dropout, dropout if attention_dropout is None else attention_dropout)

        def layer(index):
            return Layer(config, index, lambda at, kind: linear_named(matrices.matrix_name(at, kind)), rates, seed, amp)

        prefix = "bert.embeddings"
        self.word_embeddings = _table(config.vocab_size, hidden, f"{prefix}.word_embeddings.weight")
        positions = config.max_position_embeddings
        self.position_embeddings = _table(positions, hidden, f"{prefix}.position_embeddings.weight")
        self.token_type_embeddings = _table(config.type_vocab_size, hidden, f"{prefix}.token_type_embeddings.weight")
        self.norm = parts().AddNorm(hidden, config.layer_norm_eps, f"{prefix}.LayerNorm", 0.0, places.embedding, seed)
        self.dropout = parts().Dropout(dropout, places.embedding, seed)
        self.layers = nn.CellList([layer(i) for i in range(config.num_hidden_layers)], auto_prefix=False)
        self.pooler = linear_named(matrices.POOLER)
        self.classifier_dropout = parts().Dropout(dropout, places.classifier, seed)
        self.classifier = Linear(labels, hidden, "classifier", amp)

    def embed(self, ids):
        """ids (batch, length) int32 -> word embeddings (batch, length, hidden): what a perturbation is added to."""
        return ops.gather(self.word_embeddings, ids, 0)

    def construct(self, embeddings, attention_mask, token_types, draws):
        """Logits (batch, labels).

        embeddings: (batch, length, hidden) float32 word embeddings. attention_mask: (batch, length) float32,
        1 for tokens and 0 for padding. token_types: (batch, length) int32. draws: the noise of all places
        (see `noise_shapes`), or None for a deterministic pass.
        """
        x = self.inputs(embeddings, token_types, draws)
        return self.classify(self.encode(x, attention_mask, draws), draws)

    def inputs(self, embeddings, token_types, draws):
        """Word embeddings to the input of the first layer, (batch * length, hidden)."""
        batch, length, hidden = embeddings.shape
        where = self.position_embeddings[:length] + ops.gather(self.token_type_embeddings, token_types, 0)
        x = self.norm(embeddings.reshape(batch * length, hidden), where.reshape(batch * length, hidden), None)
        return self.dropout(x, draws)

    def encode(self, x, attention_mask, draws):
        """The first token of the last layer's output, (batch, hidden)."""
        padding = (1.0 - attention_mask) * -10000.0
        for layer in self.layers:
            x = layer(x, padding, draws)
        return x

    def classify(self, first, draws):
        """Logits (batch, labels) from what `encode` gives."""
        pooled = float64_ops.tanh(self.pooler(first, draws))
        return self.classifier(self.classifier_dropout(pooled, draws), draws)

    def noise_shapes(self, batch: int, length: int) -> list[tuple[int, ...]]:
        """Shapes of the uniform numbers one training pass takes, place by place. None are drawn for dropout 0."""
        hidden_rate, attention_rate = self.rates
        heads, hidden = self.config.num_attention_heads, self.config.hidden_size

        def layer(asking):
            """`asking` tokens of each sentence go through it."""
            token = (batch * asking, hidden) if hidden_rate else (1,)
            return [(batch, heads, asking, length) if attention_rate else (1,), token, token]

        token, first = ((batch * n, hidden) if hidden_rate else (1,) for n in (length, 1))
        layers = layer(length) * (self.config.num_hidden_layers - 1) + layer(1)
        return [token, *layers, first, *(p.shape for p in self.log_alpha())]

    def log_alpha(self) -> list[Parameter]:
        """The scores, in the order of `prunable`; empty if the model is not masked."""
        cells = [cell for _, cell in self.cells_and_names() if isinstance(cell, MaskedLinear)]
        order = {name: index for index, name in enumerate(self.config.prunable())}
        return sorted((c.log_alpha for c in cells), key=lambda p: order[p.name.removesuffix(".log_alpha")])

    def weights(self) -> dict[str, Parameter]:
        """All parameters but the scores, by their Hugging Face name."""
        return {p.name: p for p in self.get_parameters() if not p.name.endswith(".log_alpha")}

    def load(self, weights: dict[str, np.ndarray]) -> None:
        """Set every weight. Raises `KeyError` for a missing one."""
        for name, parameter in self.weights().items():
            parameter.set_data(Tensor(np.ascontiguousarray(weights[name], np.float32)))


def _table(rows: int, columns: int, name: str) -> Parameter:
    return Parameter(np.zeros((rows, columns), np.float32), name=name)
