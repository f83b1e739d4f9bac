"""The parts of BERT that cost the most after the matrix products, each as one CPU kernel of `kernels.cc`.

The classes, their arguments and their results are those of `primitive_cells.py`. The argument `draws` of a cell is the
key of a pass (`noise.KernelNoise`), or None for a deterministic pass. Every gradient is written out. Gradients that may
not be needed have kernels of their own, so that the compiler can drop them.
"""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mindspore_rt.cells.kernels import Shape, kernel, rows

NO_KEY = np.zeros(4, np.int32)


class AddBias(nn.Cell):
    """Bias of a linear layer."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.forward, self.backward = kernel("add_bias", like=(0,)), kernel("add_bias_backward", like=(1,))

    def construct(self, x: Tensor, bias: Tensor) -> Tensor:
        """Add `bias` (columns,) to every row of `x` (rows, columns)."""
        return self.forward(x, bias)

    def bprop(self, x: Tensor, bias: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of x and bias."""
        return dout, self.backward(dout, bias)


class Gelu(nn.Cell):
    """Exact GELU, x Phi(x), with Phi the distribution function of the normal distribution."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.forward, self.backward = kernel("gelu", like=(0,)), kernel("gelu_backward", like=(0,))

    def construct(self, x: Tensor) -> Tensor:
        """Apply it to each element of `x`, of any shape."""
        return self.forward(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, ...]:
        """Return the gradient of x."""
        return (self.backward(dout, x),)


class Dropout(nn.Cell):
    """Inverted dropout.

    Args:
        rate: Probability of a zero.
        place: Number of the place whose uniform numbers decide.
    """

    def __init__(self, rate: float, place: int) -> None:
        super().__init__(auto_prefix=False)
        self.rate, self.drop = rate, _Dropout(rate, place)

    def construct(self, x: Tensor, draws: Tensor | None) -> Tensor:
        """Drop elements of `x`, of any shape; return it as it is without noise."""
        return x if draws is None or self.rate == 0 else self.drop(x, draws)


class _Dropout(nn.Cell):
    """Dropout with noise. It is linear, so the gradient is the same kernel on the output's gradient."""

    def __init__(self, rate: float, place: int) -> None:
        super().__init__(auto_prefix=False)
        self.place_word, self.settings = Tensor(np.int32([place])), Tensor(np.float32([rate]))
        self.dropout = kernel("dropout", like=(0,))

    def construct(self, x: Tensor, key: Tensor) -> Tensor:
        return self.dropout(x, key, self.place_word, self.settings)

    def bprop(self, x: Tensor, key: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, ...]:
        return self.dropout(dout, key, self.place_word, self.settings), ops.zeros_like(key)


class AddNorm(nn.Cell):
    """LayerNorm(dropout(x) + residual), with parameters `name`.weight and `name`.bias.

    Args:
        hidden: Size of the last axis, over which the norm is taken.
        epsilon: Added to the variance.
        name: Prefix of the parameters.
        rate: Dropout rate.
        place: Number of the dropout's place.
    """

    def __init__(self, hidden: int, epsilon: float, name: str, rate: float, place: int) -> None:
        super().__init__(auto_prefix=False)
        self.weight = Parameter(np.ones(hidden, np.float32), name=f"{name}.weight")
        self.bias = Parameter(np.zeros(hidden, np.float32), name=f"{name}.bias")
        self.no_key = Tensor(NO_KEY)
        self.noisy, self.deterministic = _AddNorm(epsilon, rate, place), _AddNorm(epsilon, 0.0, place)

    def construct(self, x: Tensor, residual: Tensor, draws: Tensor | None) -> Tensor:
        """Return the norm of two tensors (rows, hidden)."""
        if draws is None:
            return self.deterministic(x, residual, self.weight, self.bias, self.no_key)[0]
        return self.noisy(x, residual, self.weight, self.bias, draws)[0]


class _AddNorm(nn.Cell):
    """Returns the result, and for the gradient the normalised rows and the inverse deviation of each row."""

    def __init__(self, epsilon: float, rate: float, place: int) -> None:
        super().__init__(auto_prefix=False)
        self.place_word, self.settings = Tensor(np.int32([place])), Tensor(np.float32([rate, epsilon]))
        self.forward = kernel("add_norm", like=(0, 0, rows))
        self.backward = kernel("add_norm_backward", like=(0, 0))
        self.parameters_backward = kernel("add_norm_parameters_backward", like=(2, 2))

    def construct(
        self, x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, key: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        return self.forward(x, residual, weight, bias, key, self.place_word, self.settings)

    def bprop(
        self, x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, key: Tensor, out: tuple, dout: tuple
    ) -> tuple[Tensor, ...]:
        gradient, normal, scale = dout[0], out[1], out[2]
        dx, dresidual = self.backward(gradient, normal, scale, weight, key, self.place_word, self.settings)
        dweight, dbias = self.parameters_backward(gradient, normal, weight)
        return dx, dresidual, dweight, dbias, ops.zeros_like(key)


class SplitHeads(nn.Cell):
    """Rows of hidden states to attention heads.

    Args:
        heads: Number of heads.
    """

    def __init__(self, heads: int) -> None:
        super().__init__(auto_prefix=False)

        def shape(x: Shape, padding: Shape) -> Shape:
            return [padding[0], heads, x[0] // padding[0], x[1] // heads]

        self.split, self.join = kernel("split_heads", like=(shape,)), kernel("join_heads", like=(_joined,))

    def construct(self, x: Tensor, padding: Tensor) -> Tensor:
        """Turn `x` (batch * length, heads * width) into (batch, heads, length, width); `padding` gives the batch."""
        return self.split(x, padding)

    def bprop(self, x: Tensor, padding: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of x and padding."""
        return self.join(dout), ops.zeros_like(padding)


class JoinHeads(nn.Cell):
    """Attention heads to rows of hidden states: the inverse of `SplitHeads`."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.join, self.split = kernel("join_heads", like=(_joined,)), kernel("split_heads", like=(1,))

    def construct(self, x: Tensor) -> Tensor:
        """Turn `x` (batch, heads, length, width) into (batch * length, heads * width)."""
        return self.join(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, ...]:
        """Return the gradient of x."""
        return (self.split(dout, x),)


def _joined(x: Shape) -> Shape:
    batch, heads, length, width = x
    return [batch * length, heads * width]


class AttentionProbabilities(nn.Cell):
    """dropout(softmax(factor * scores + padding)) over the last axis.

    Args:
        factor: 1 / sqrt(width of a head).
        rate: Dropout rate.
        place: Number of the dropout's place.
    """

    def __init__(self, factor: float, rate: float, place: int) -> None:
        super().__init__(auto_prefix=False)
        self.rate, self.no_key = rate, Tensor(NO_KEY)
        self.noisy = _AttentionProbabilities(factor, rate, place)
        self.deterministic = _AttentionProbabilities(factor, 0.0, place)

    def construct(self, scores: Tensor, padding: Tensor, draws: Tensor | None) -> Tensor:
        """Return probabilities of the shape of `scores`.

        `scores` is (batch, heads, queries, length); `padding` (batch, length) is 0, or a large negative number where
        there is no token.
        """
        if draws is None or self.rate == 0:
            return self.deterministic(scores, padding, self.no_key)
        return self.noisy(scores, padding, draws)[1]


class _AttentionProbabilities(nn.Cell):
    """Returns the probabilities; with dropout a pair, before and after it."""

    def __init__(self, factor: float, rate: float, place: int) -> None:
        super().__init__(auto_prefix=False)
        self.rate, self.place_word = rate, Tensor(np.int32([place]))
        self.settings = Tensor(np.float32([rate, factor]))
        self.softmax = kernel("attention_probabilities", like=(0,))
        self.dropped = kernel("dropped_attention_probabilities", like=(0, 0))
        self.backward = kernel("attention_probabilities_backward", like=(0,))

    def construct(self, scores: Tensor, padding: Tensor, key: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if self.rate == 0:
            return self.softmax(scores, padding, self.settings)
        return self.dropped(scores, padding, key, self.place_word, self.settings)

    def bprop(
        self, scores: Tensor, padding: Tensor, key: Tensor, out: Tensor | tuple, dout: Tensor | tuple
    ) -> tuple[Tensor, ...]:
        probabilities, gradient = (out, dout) if self.rate == 0 else (out[0], dout[1])
        dscores = self.backward(gradient, probabilities, key, self.place_word, self.settings)
        return dscores, ops.zeros_like(padding), ops.zeros_like(key)


class MaskedWeight(nn.Cell):
    """A weight times its mask: Eq. 1-3 with noise, Eq. 5 without.

    Args:
        place: Number of the gate's place.
    """

    def __init__(self, place: int) -> None:
        super().__init__(auto_prefix=False)
        self.noisy, self.deterministic = _SampledMaskedWeight(place), _DeterministicMaskedWeight()

    def construct(self, weight: Tensor, log_alpha: Tensor, draws: Tensor | None) -> Tensor:
        """Return the masked weight; all are float32 of one shape."""
        return self.deterministic(weight, log_alpha) if draws is None else self.noisy(weight, log_alpha, draws)


class _SampledMaskedWeight(nn.Cell):
    """Eq. 1-3, the stochastic gate."""

    def __init__(self, place: int) -> None:
        super().__init__(auto_prefix=False)
        self.place_word = Tensor(np.int32([place]))
        self.masked, self.backward = kernel("masked_weight", like=(0,)), kernel("masked_weight_backward", like=(0,))

    def construct(self, weight: Tensor, log_alpha: Tensor, key: Tensor) -> Tensor:
        return self.masked(weight, log_alpha, key, self.place_word)

    def bprop(self, weight: Tensor, log_alpha: Tensor, key: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, ...]:
        # The product is symmetric: a weight's gradient is the output's, masked.
        dweight = self.masked(dout, log_alpha, key, self.place_word)
        return dweight, self.backward(dout, weight, log_alpha, key, self.place_word), ops.zeros_like(key)


class _DeterministicMaskedWeight(nn.Cell):
    """Eq. 5, the deterministic gate."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.masked = kernel("deterministic_masked_weight", like=(0,))
        self.backward = kernel("deterministic_masked_weight_backward", like=(0,))

    def construct(self, weight: Tensor, log_alpha: Tensor) -> Tensor:
        return self.masked(weight, log_alpha)

    def bprop(self, weight: Tensor, log_alpha: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, ...]:
        return self.masked(dout, log_alpha), self.backward(dout, weight, log_alpha)
