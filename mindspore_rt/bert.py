"""BERT for classification as MindSpore cells, for graph mode.

Every parameter carries its Hugging Face name, so no conversion table exists. A pass without noise is
deterministic (no dropout, Eq. 5 masks); a pass with noise is a training pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from configs.errors import UserError
from mindspore_rt import gate, noise, prunable


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
        if values["hidden_size"] % values["num_attention_heads"]:
            raise UserError(f"{where}: hidden_size is no multiple of num_attention_heads")
        return cls(**{name: values[name] for name in cls.__dataclass_fields__ if name in values})

    def prunable(self) -> dict[str, tuple[int, int]]:
        return prunable.prunable_shapes(self.num_hidden_layers, self.hidden_size, self.intermediate_size)

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


class Gelu(nn.Cell):
    """Exact gelu, x Phi(x), with its gradient Phi(x) + x phi(x): the primitive's own takes three times as long."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.erf, self.exp = ops.Erf(), ops.Exp()

    def construct(self, x):
        cdf = self.erf(x * math.sqrt(0.5)) * 0.5 + 0.5
        return x * cdf, cdf

    def bprop(self, x, out, dout):
        return (dout[0] * (out[1] + x * self.exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))),)


class LayerNorm(nn.Cell):
    """LayerNorm over the last axis of (rows, hidden). The row means are thin matmuls, which on CPU are several
    times as fast as the reduction kernels; the gradient is the usual closed form."""

    def __init__(self, hidden: int, epsilon: float, name: str):
        super().__init__(auto_prefix=False)
        self.weight = Parameter(np.ones(hidden, np.float32), name=f"{name}.weight")
        self.bias = Parameter(np.zeros(hidden, np.float32), name=f"{name}.bias")
        self.normalise = _Normalise(hidden, epsilon)

    def construct(self, x):
        return self.normalise(x, self.weight, self.bias)[0]


class _Normalise(nn.Cell):
    def __init__(self, hidden: int, epsilon: float):
        super().__init__(auto_prefix=False)
        self.average = Tensor(np.full((hidden, 8), 1 / hidden, np.float32))
        self.spread = Tensor(np.full((8, hidden), 1 / 8, np.float32))
        self.matmul, self.bias_add, self.rsqrt = ops.MatMul(), ops.BiasAdd(), ops.Rsqrt()
        self.epsilon = epsilon

    def construct(self, x, weight, bias):
        centred = x - self.matmul(self.matmul(x, self.average), self.spread)
        scale = self.rsqrt(self.matmul(centred * centred, self.average) + self.epsilon)
        normal = centred * self.matmul(scale, self.spread)
        return self.bias_add(centred * self.matmul(scale, self.spread * weight), bias), normal, scale

    def bprop(self, x, weight, bias, out, dout):
        gradient, normal, scale = dout[0], out[1], out[2]
        weighted = self.average * weight.reshape(-1, 1)
        mean = self.matmul(gradient, weighted)
        slope = self.matmul(gradient * normal, weighted)
        dx = (
            gradient * self.matmul(scale, self.spread * weight)
            - self.matmul(mean * scale, self.spread)
            - normal * self.matmul(slope * scale, self.spread)
        )
        ones = ops.ones((1, x.shape[0]), x.dtype)
        dweight, dbias = self.matmul(ones, gradient * normal), self.matmul(ones, gradient)
        return dx, dweight.reshape(weight.shape), dbias.reshape(bias.shape)


class Dropout(nn.Cell):
    """Inverted dropout with the uniform numbers of one place; the identity without noise."""

    def __init__(self, rate: float, place: int, seed: int):
        super().__init__(auto_prefix=False)
        self.rate, self.scale = rate, 1 / (1 - rate)
        self.uniform = noise.uniform_cell(place, seed)

    def construct(self, x, draws):
        if draws is None or self.rate == 0:
            return x
        keep = ops.cast(self.uniform(draws, x.shape) >= self.rate, x.dtype)
        return x * (keep * self.scale)


class Linear(nn.Cell):
    """x (rows, in) -> x W^T + b (rows, out)."""

    def __init__(self, rows: int, columns: int, name: str):
        super().__init__(auto_prefix=False)
        self.weight = Parameter(np.zeros((rows, columns), np.float32), name=f"{name}.weight")
        self.bias = Parameter(np.zeros(rows, np.float32), name=f"{name}.bias")
        self.matmul, self.bias_add = ops.MatMul(transpose_b=True), ops.BiasAdd()

    def construct(self, x, draws):
        return self.bias_add(self.matmul(x, self.weight), self.bias)


class MaskedLinear(Linear):
    """A linear layer whose weight is multiplied by its mask; one score for each `block` of weights."""

    def __init__(self, rows: int, columns: int, name: str, place: int, seed: int, mask_p: float, block):
        super().__init__(rows, columns, name)
        if rows % block[0] or columns % block[1]:
            raise UserError(f"search.block: {list(block)} does not divide the {rows} x {columns} matrix {name}")
        self.grid = (rows // block[0], columns // block[1])
        self.block, self.shape = tuple(block), (rows, columns)
        self.log_alpha = Parameter(
            np.full(self.grid, gate.initial_log_alpha(mask_p), np.float32), name=f"{name}.weight.log_alpha"
        )
        self.gate, self.uniform = gate.SampledGate(), noise.uniform_cell(place, seed)

    def mask(self, draws):
        if draws is None:
            mask = gate.deterministic_mask(self.log_alpha)
        else:
            mask = self.gate(self.log_alpha, self.uniform(draws, self.grid))
        if self.block == (1, 1):
            return mask
        grid, block = self.grid, self.block
        mask = ops.tile(mask.reshape(grid[0], 1, grid[1], 1), (1, block[0], 1, block[1]))
        return mask.reshape(self.shape)

    def construct(self, x, draws):
        return self.bias_add(self.matmul(x, self.weight * self.mask(draws)), self.bias)


class Layer(nn.Cell):
    """One encoder layer on (batch * length, hidden)."""

    def __init__(self, config: BertConfig, layer: int, linear, dropout):
        super().__init__(auto_prefix=False)
        name, places = f"bert.encoder.layer.{layer}", Places(config.num_hidden_layers)
        self.query, self.key, self.value = (linear(layer, kind) for kind in ("query", "key", "value"))
        self.attention_output = linear(layer, "attention output")
        self.intermediate, self.output = linear(layer, "intermediate"), linear(layer, "output")
        self.attention_norm = LayerNorm(
            config.hidden_size, config.layer_norm_eps, f"{name}.attention.output.LayerNorm"
        )
        self.output_norm = LayerNorm(config.hidden_size, config.layer_norm_eps, f"{name}.output.LayerNorm")
        self.attention_dropout = dropout(places.attention(layer))
        self.attention_output_dropout = dropout(places.attention_output(layer))
        self.output_dropout = dropout(places.output(layer))
        self.gelu = Gelu()
        self.scores, self.mix = ops.BatchMatMul(transpose_b=True), ops.BatchMatMul()
        self.softmax = ops.Softmax(-1)
        self.heads = config.num_attention_heads
        self.scale = 1 / math.sqrt(config.hidden_size // config.num_attention_heads)

    def split(self, x, batch, length):
        return x.reshape(batch, length, self.heads, -1).transpose(0, 2, 1, 3)

    def construct(self, x, padding, draws, batch, length):
        query = self.split(self.query(x, draws), batch, length)
        key = self.split(self.key(x, draws), batch, length)
        value = self.split(self.value(x, draws), batch, length)
        share = self.softmax(self.scores(query, key) * self.scale + padding)
        context = self.mix(self.attention_dropout(share, draws), value)
        context = context.transpose(0, 2, 1, 3).reshape(batch * length, -1)
        context = self.attention_output(context, draws)
        x = self.attention_norm(x + self.attention_output_dropout(context, draws))
        hidden = self.output(self.gelu(self.intermediate(x, draws))[0], draws)
        return self.output_norm(x + self.output_dropout(hidden, draws))


class BertClassifier(nn.Cell):
    """BERT with a pooler and a linear classifier.

    Args:
        config: shape of the encoder.
        labels: number of classes.
        dropout: rate for hidden states, attention and classifier.
        masked: multiply every prunable matrix by its mask (`mask_p`, `block` as in `schema.Search`).
        seed: of the device's own random numbers; host noise is passed in instead.
    """

    def __init__(self, config: BertConfig, labels: int, dropout=0.1, masked=False, mask_p=0.9, block=(1, 1), seed=0):
        super().__init__(auto_prefix=False)
        self.config, self.labels, self.dropout_rate, self.masked = config, labels, dropout, masked
        hidden, places, shapes = config.hidden_size, Places(config.num_hidden_layers), config.prunable()
        order = {name: index for index, name in enumerate(shapes)}

        def linear_named(name):
            cell, where = name.removesuffix(".weight"), places.gate(order[name])
            if masked:
                return MaskedLinear(*shapes[name], cell, where, seed, mask_p, block)
            return Linear(*shapes[name], cell)

        def dropout_at(place):
            return Dropout(dropout, place, seed)

        prefix = "bert.embeddings"
        self.word_embeddings = _table(config.vocab_size, hidden, f"{prefix}.word_embeddings.weight")
        positions = config.max_position_embeddings
        self.position_embeddings = _table(positions, hidden, f"{prefix}.position_embeddings.weight")
        self.token_type_embeddings = _table(config.type_vocab_size, hidden, f"{prefix}.token_type_embeddings.weight")
        self.norm = LayerNorm(hidden, config.layer_norm_eps, f"{prefix}.LayerNorm")
        self.dropout = dropout_at(places.embedding)
        self.layers = nn.CellList(
            [
                Layer(config, i, lambda layer, kind: linear_named(prunable.matrix_name(layer, kind)), dropout_at)
                for i in range(config.num_hidden_layers)
            ],
            auto_prefix=False,
        )
        self.pooler = linear_named(prunable.POOLER)
        self.classifier_dropout = dropout_at(places.classifier)
        self.classifier = Linear(labels, hidden, "classifier")
        self.tanh = ops.Tanh()

    def embed(self, ids):
        """ids (batch, length) int32 -> word embeddings (batch, length, hidden): what a perturbation is added to."""
        return ops.gather(self.word_embeddings, ids, 0)

    def construct(self, embeddings, attention_mask, token_types, draws):
        """Logits (batch, labels).

        embeddings: (batch, length, hidden) float32 word embeddings. attention_mask: (batch, length) float32,
        1 for tokens and 0 for padding. token_types: (batch, length) int32. draws: the noise of all places
        (see `noise_shapes`), or None for a deterministic pass.
        """
        batch, length, hidden = embeddings.shape
        x = embeddings + self.position_embeddings[:length] + ops.gather(self.token_type_embeddings, token_types, 0)
        x = self.dropout(self.norm(x.reshape(batch * length, hidden)), draws)
        padding = ((1.0 - attention_mask) * -10000.0).reshape(batch, 1, 1, length)
        for layer in self.layers:
            x = layer(x, padding, draws, batch, length)
        first = x.reshape(batch, length, hidden)[:, 0]
        pooled = self.tanh(self.pooler(first, draws))
        return self.classifier(self.classifier_dropout(pooled, draws), draws)

    def noise_shapes(self, batch: int, length: int) -> list[tuple[int, ...]]:
        """Shapes of the uniform numbers one training pass takes, place by place. None are drawn for dropout 0."""
        config, rows = self.config, batch * length
        token = (rows, config.hidden_size)
        layer = [(batch, config.num_attention_heads, length, length), token, token]
        shapes = [token, *(layer * config.num_hidden_layers), (batch, config.hidden_size)]
        if self.dropout_rate == 0:
            shapes = [(1,)] * len(shapes)
        return shapes + [p.shape for p in self.log_alpha()]

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
