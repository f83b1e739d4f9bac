"""BERT and its relatives for classification as MindSpore cells, for graph mode.

Every parameter has its Hugging Face name, so that no conversion table is needed. A pass without noise is deterministic
(no dropout, masks of Eq. 5); a pass with noise is a training pass (dropout, masks of Eq. 1-3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TypeAlias

import mindspore
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from configs.contract.inputs import matrices
from configs.contract.inputs.matrices import LAYER_MATRICES
from mindspore_rt.cells import backend, float64_ops, gate, kernel_cells, primitive_cells
from mindspore_rt.cells.backend import Backend
from mindspore_rt.cells.encoder_config import EncoderConfig

# The noise of a pass from `noise.py`: a key, or the numbers of every place; None for a deterministic pass.
Draws: TypeAlias = Tensor | tuple | None


@dataclass(frozen=True)
class NoisePlaces:
    """Numbers of the places where a training pass takes noise: dropouts first, then gates.

    Attributes:
        layers: Number of encoder layers.
        head: Number of dropouts in the head: before its last layer, in some families also before its dense layer.
        embedding: Place of the dropout of the embeddings.
    """

    layers: int
    head: int = 1
    embedding: int = 0

    def attention(self, layer: int) -> int:
        """Dropout of the attention probabilities."""
        return 1 + 3 * layer

    def attention_output(self, layer: int) -> int:
        """Dropout after the attention."""
        return 2 + 3 * layer

    def output(self, layer: int) -> int:
        """Dropout after the feed-forward part."""
        return 3 + 3 * layer

    @property
    def classifier(self) -> int:
        """Dropout before the classifier."""
        return 1 + 3 * self.layers

    @property
    def dense(self) -> int:
        """Dropout before the head's dense layer."""
        return self.classifier + 1

    def gate(self, index: int) -> int:
        """Gate of the prunable matrix with this index."""
        return self.classifier + self.head + index


def cells() -> ModuleType:
    """Return the module whose cells the backend builds the model of."""
    return kernel_cells if backend.current() is Backend.KERNELS else primitive_cells


class MixedPrecisionProduct(nn.Cell):
    """A matrix product whose inputs and output are float32.

    Args:
        primitive: MatMul or BatchMatMul.
        amp: dtype of the computation, "float16" or "bfloat16"; None for float32.
    """

    def __init__(self, primitive: ops.Primitive, amp: str | None) -> None:
        super().__init__(auto_prefix=False)
        self.product, self.dtype = primitive, getattr(mindspore, amp) if amp else None

    def construct(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the product, float32."""
        if self.dtype is None:
            return self.product(a, b)
        return ops.cast(self.product(ops.cast(a, self.dtype), ops.cast(b, self.dtype)), mindspore.float32)


class Linear(nn.Cell):
    """A linear layer, x W^T + b.

    Args:
        rows: Number of outputs.
        columns: Number of inputs.
        name: Prefix of the parameters `weight` (rows, columns) and `bias` (rows,).
        amp: dtype of the product; None for float32.
    """

    def __init__(self, rows: int, columns: int, name: str, amp: str | None) -> None:
        super().__init__(auto_prefix=False)
        self.weight = Parameter(np.zeros((rows, columns), np.float32), name=f"{name}.weight")
        self.bias = Parameter(np.zeros(rows, np.float32), name=f"{name}.bias")
        self.matmul, self.add_bias = MixedPrecisionProduct(ops.MatMul(transpose_b=True), amp), cells().AddBias()

    def construct(self, x: Tensor, draws: Draws) -> Tensor:
        """Map `x` (any, columns) to (any, rows)."""
        return self.add_bias(self.matmul(x, self.weight), self.bias)


class MaskedLinear(Linear):
    """A linear layer whose weight is multiplied by its mask; the scores are the parameter `weight.log_alpha`.

    Args:
        rows: Number of outputs.
        columns: Number of inputs.
        name: Prefix of the parameters.
        amp: dtype of the product; None for float32.
        place: Number of the gate's place.
        mask_p: Value of every deterministic mask (Eq. 5) at the start.
        block: Rows and columns of weights that share one score.

    Raises:
        UserError: `block` does not divide the matrix.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        name: str,
        amp: str | None,
        place: int,
        mask_p: float,
        block: tuple[int, int],
    ) -> None:
        super().__init__(rows, columns, name, amp)
        grid = matrices.groups(f"{name}.weight", (rows, columns), block)
        self.log_alpha = Parameter(
            np.full(grid, gate.initial_log_alpha(mask_p), np.float32), name=f"{name}.weight.log_alpha"
        )
        single = block == (1, 1)  # the kernel knows one score a weight only
        self.masked = cells().MaskedWeight(place) if single else primitive_cells.MaskedWeight(place, block)

    def construct(self, x: Tensor, draws: Draws) -> Tensor:
        """Map `x` (any, columns) to (any, rows)."""
        return self.add_bias(self.matmul(x, self.masked(self.weight, self.log_alpha, draws)), self.bias)


class Layer(nn.Cell):
    """One encoder layer.

    The classifier reads only the first token of the last layer's output. So the last layer computes the queries, the
    attention and the feed-forward part of that token alone, which changes no logit and no gradient.

    Args:
        config: Shape of the encoder.
        layer: Number of the layer, from 0.
        linear: Makes the linear layer of a name.
        rates: Dropout rates of hidden states and of attention probabilities.
        amp: dtype of the matrix products; None for float32.
    """

    def __init__(
        self,
        config: EncoderConfig,
        layer: int,
        linear: Callable[[str], Linear],
        rates: tuple[float, float],
        amp: str | None,
    ) -> None:
        super().__init__(auto_prefix=False)
        name, parts = f"{config.family.body}.encoder.layer.{layer}", cells()
        places = NoisePlaces(config.num_hidden_layers)

        def norm(part: str, place: int) -> nn.Cell:
            return parts.AddNorm(config.hidden_size, config.layer_norm_eps, f"{name}.{part}.LayerNorm", rates[0], place)

        def matrix(kind: str) -> Linear:
            return linear(f"{name}.{LAYER_MATRICES[kind]}")

        self.query, self.key, self.value = map(matrix, ("query", "key", "value"))
        self.attention_output = matrix("attention output")
        self.intermediate, self.output = matrix("intermediate"), matrix("output")
        self.attention_norm = norm("attention.output", places.attention_output(layer))
        self.output_norm = norm("output", places.output(layer))
        self.gelu = parts.Gelu()
        self.last = layer == config.num_hidden_layers - 1
        self.split, self.join = parts.SplitHeads(config.num_attention_heads), parts.JoinHeads()
        factor = 1 / math.sqrt(config.hidden_size // config.num_attention_heads)
        self.probabilities = parts.AttentionProbabilities(factor, rates[1], places.attention(layer))
        self.scores = MixedPrecisionProduct(ops.BatchMatMul(transpose_b=True), amp)
        self.mix = MixedPrecisionProduct(ops.BatchMatMul(), amp)

    def construct(self, x: Tensor, padding: Tensor, draws: Draws) -> Tensor:
        """Turn `x` (batch * length, hidden) into the same shape; the last layer returns (batch, hidden).

        `padding` (batch, length) is 0 for tokens and a large negative number for padding.
        """
        queried = x.reshape(padding.shape[0], -1, x.shape[-1])[:, 0] if self.last else x
        query = self.split(self.query(queried, draws), padding)
        key = self.split(self.key(x, draws), padding)
        value = self.split(self.value(x, draws), padding)
        context = self.mix(self.probabilities(self.scores(query, key), padding, draws), value)
        queried = self.attention_norm(self.attention_output(self.join(context), draws), queried, draws)
        hidden = self.output(self.gelu(self.intermediate(queried, draws)), draws)
        return self.output_norm(hidden, queried, draws)


class EncoderClassifier(nn.Cell):
    """An encoder of any family of `FAMILIES` with its head.

    Positions count every piece of a text, also a padding piece that a text spells (transformers gives it none).

    Args:
        config: Shape of the encoder.
        labels: Number of classes.
        dropout: Rate for hidden states, attention probabilities and the classifier's input.
        masked: Multiply every prunable matrix by its mask.
        mask_p: Value of every deterministic mask (Eq. 5) at the start.
        block: Rows and columns of weights that share one score.
        attention_dropout: Rate for attention probabilities, if it differs from `dropout`.
        amp: dtype of the matrix products, "float16" or "bfloat16"; None for float32. Everything else, the parameters
            and their gradients included, stays float32.
    """

    def __init__(
        self,
        config: EncoderConfig,
        labels: int,
        dropout: float = 0.1,
        masked: bool = False,
        mask_p: float = 0.9,
        block: tuple[int, int] = (1, 1),
        attention_dropout: float | None = None,
        amp: str | None = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.config, self.labels, self.masked, self.amp = config, labels, masked, amp
        hidden, family, shapes = config.hidden_size, config.family, config.parameters(labels)
        self.noise_places = places = NoisePlaces(config.num_hidden_layers, 1 if family.pooled else 2)
        order = {name: index for index, name in enumerate(config.prunable())}

        def linear(name: str) -> Linear:
            rows, columns = shapes[f"{name}.weight"]
            index = order.get(f"{name}.weight")
            if masked and index is not None:
                return MaskedLinear(rows, columns, name, amp, places.gate(index), mask_p, block)
            return Linear(rows, columns, name, amp)

        self.rates = rates = (dropout, dropout if attention_dropout is None else attention_dropout)
        prefix = f"{family.body}.embeddings"
        self.word_embeddings = _table(config.vocab_size, hidden, f"{prefix}.word_embeddings.weight")
        positions, self.first_position = config.max_position_embeddings, config.first_position
        self.position_embeddings = _table(positions, hidden, f"{prefix}.position_embeddings.weight")
        self.token_type_embeddings = _table(config.type_vocab_size, hidden, f"{prefix}.token_type_embeddings.weight")
        self.norm = cells().AddNorm(hidden, config.layer_norm_eps, f"{prefix}.LayerNorm", 0.0, places.embedding)
        self.dropout = cells().Dropout(dropout, places.embedding)
        layers = [Layer(config, index, linear, rates, amp) for index in range(config.num_hidden_layers)]
        self.layers = nn.CellList(layers, auto_prefix=False)
        self.dense_dropout = cells().Dropout(0.0 if family.pooled else dropout, places.dense)
        self.dense, self.activation = linear(family.dense), ACTIVATIONS[family.activation]()
        self.classifier_dropout = cells().Dropout(dropout, places.classifier)
        self.classifier = linear(family.output)

    def embed(self, ids: Tensor) -> Tensor:
        """Look up the word embeddings, to which a perturbation is added: ids (batch, length) int32 to (.., hidden)."""
        return ops.gather(self.word_embeddings, ids, 0)

    def construct(self, embeddings: Tensor, attention_mask: Tensor, token_types: Tensor, draws: Draws) -> Tensor:
        """Compute the logits.

        Args:
            embeddings: Word embeddings (batch, length, hidden) float32.
            attention_mask: (batch, length) float32, 1 for tokens and 0 for padding.
            token_types: (batch, length) int32, 0 for the first text and 1 for the second.
            draws: Noise of all places, from `noise.source(..).draw(noise_shapes(..))`; None for a deterministic pass.

        Returns:
            Logits (batch, labels) float32.
        """
        x = self.inputs(embeddings, token_types, draws)
        return self.classify(self.encode(x, attention_mask, draws), draws)

    def inputs(self, embeddings: Tensor, token_types: Tensor, draws: Draws) -> Tensor:
        """Turn word embeddings into the input of the first layer, (batch * length, hidden)."""
        batch, length, hidden = embeddings.shape
        positions = self.position_embeddings[self.first_position : self.first_position + length]
        others = positions + ops.gather(self.token_type_embeddings, token_types, 0)
        x = self.norm(embeddings.reshape(batch * length, hidden), others.reshape(batch * length, hidden), None)
        return self.dropout(x, draws)

    def encode(self, x: Tensor, attention_mask: Tensor, draws: Draws) -> Tensor:
        """Return the first token of the last layer's output, (batch, hidden)."""
        padding = (1.0 - attention_mask) * -10000.0
        for layer in self.layers:
            x = layer(x, padding, draws)
        return x

    def classify(self, first: Tensor, draws: Draws) -> Tensor:
        """Compute the logits (batch, labels) from what `encode` returns."""
        dense = self.activation(self.dense(self.dense_dropout(first, draws), draws))
        return self.classifier(self.classifier_dropout(dense, draws), draws)

    def noise_shapes(self, batch: int, length: int) -> list[tuple[int, ...]]:
        """Return the shapes of the uniform numbers that a training pass takes, place by place.

        A dropout of rate 0 takes none; its shape is (1,).
        """
        hidden_rate, attention_rate = self.rates
        heads, hidden = self.config.num_attention_heads, self.config.hidden_size

        def layer(queries: int) -> list[tuple[int, ...]]:
            token = (batch * queries, hidden) if hidden_rate else (1,)
            return [(batch, heads, queries, length) if attention_rate else (1,), token, token]

        token, first = ((batch * n, hidden) if hidden_rate else (1,) for n in (length, 1))
        layers = layer(length) * (self.config.num_hidden_layers - 1) + layer(1)
        return [token, *layers, *[first] * self.noise_places.head, *(p.shape for p in self.log_alpha())]

    def log_alpha(self) -> list[Parameter]:
        """Return the scores in the order of `EncoderConfig.prunable`; none if the model is not masked."""
        masked = [cell for _, cell in self.cells_and_names() if isinstance(cell, MaskedLinear)]
        order = {name: index for index, name in enumerate(self.config.prunable())}
        return sorted((c.log_alpha for c in masked), key=lambda p: order[matrix_of(p)])

    def weights(self) -> dict[str, Parameter]:
        """Return all parameters but the scores by their Hugging Face names."""
        return {p.name: p for p in self.get_parameters() if not p.name.endswith(".log_alpha")}

    def load(self, weights: dict[str, np.ndarray]) -> None:
        """Set every weight by its Hugging Face name, as float32.

        Raises:
            KeyError: One is missing.
        """
        for name, parameter in self.weights().items():
            backend.put(parameter, np.ascontiguousarray(weights[name], np.float32))


def matrix_of(scores: Parameter) -> str:
    """Return the name of the matrix that a parameter has the scores of."""
    return scores.name.removesuffix(".log_alpha")


class Tanh(nn.Cell):
    """The hyperbolic tangent."""

    def construct(self, x: Tensor) -> Tensor:
        """Return tanh of each element."""
        return float64_ops.tanh(x)


ACTIVATIONS: dict[str, Callable[[], nn.Cell]] = {"tanh": Tanh, "gelu": lambda: cells().Gelu()}  # of heads


def _table(rows: int, columns: int, name: str) -> Parameter:
    return Parameter(np.zeros((rows, columns), np.float32), name=name)


class Deployed(nn.Cell):
    """The deterministic pass from token ids to logits, which `convert` exports.

    Args:
        model: Classifier.
    """

    def __init__(self, model: EncoderClassifier) -> None:
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, ids: Tensor, attention_mask: Tensor, token_types: Tensor) -> Tensor:
        """Compute the logits (batch, labels) from ids, attention mask and token types, all (batch, length)."""
        return self.model(self.model.embed(ids), attention_mask, token_types, None)
