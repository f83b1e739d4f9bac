"""The parts of BERT that `kernel_cells.py` has as CPU kernels, in MindSpore's own primitives.

For GPU, Ascend, and CPUs without a compiler. Arguments are those of the cells of the same names there. The argument
`draws` is the noise of a pass (see `noise.py`), or None for a deterministic pass.
"""

from __future__ import annotations

import math

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mindspore_rt.cells import backend, cpu_forms, gate, noise


class AddBias(nn.Cell):
    """Bias of a linear layer."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.bias_add = ops.BiasAdd() if backend.on_device() else cpu_forms.BiasAdd()

    def construct(self, x: Tensor, bias: Tensor) -> Tensor:
        """Add `bias` (columns,) to every row of `x` (rows, columns)."""
        return self.bias_add(x, bias)


class Gelu(nn.Cell):
    """Exact GELU, x Phi(x), with Phi the distribution function of the normal distribution."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.with_distribution = _Gelu()

    def construct(self, x: Tensor) -> Tensor:
        """Apply it to each element of `x`, of any shape."""
        return self.with_distribution(x)[0]


class _Gelu(nn.Cell):
    """(x Phi(x), Phi(x)), with the gradient Phi(x) + x phi(x): the primitive's own takes three times as long."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.erf, self.exp = ops.Erf(), ops.Exp()

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        cdf = self.erf(x * math.sqrt(0.5)) * 0.5 + 0.5
        return x * cdf, cdf

    def bprop(self, x: Tensor, out: tuple, dout: tuple) -> tuple[Tensor, ...]:
        return (dout[0] * (out[1] + x * self.exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))),)


class Dropout(nn.Cell):
    """Inverted dropout."""

    def __init__(self, rate: float, place: int) -> None:
        super().__init__(auto_prefix=False)
        self.rate, self.scale = rate, 1 / (1 - rate)
        self.uniform = noise.uniform_cell(place)

    def construct(self, x: Tensor, draws: tuple | None) -> Tensor:
        """Drop elements of `x`, of any shape; return it as it is without noise."""
        if draws is None or self.rate == 0:
            return x
        keep = ops.cast(self.uniform(draws, x) >= self.rate, x.dtype)
        return x * (keep * self.scale)


class AddNorm(nn.Cell):
    """LayerNorm(dropout(x) + residual), with parameters `name`.weight and `name`.bias."""

    def __init__(self, hidden: int, epsilon: float, name: str, rate: float, place: int) -> None:
        super().__init__(auto_prefix=False)
        self.weight = Parameter(np.ones(hidden, np.float32), name=f"{name}.weight")
        self.bias = Parameter(np.zeros(hidden, np.float32), name=f"{name}.bias")
        self.dropout = Dropout(rate, place)
        self.normalise = ops.LayerNorm(-1, -1, epsilon) if backend.on_device() else cpu_forms.LayerNorm(hidden, epsilon)

    def construct(self, x: Tensor, residual: Tensor, draws: tuple | None) -> Tensor:
        """Return the norm of two tensors (rows, hidden)."""
        return self.normalise(self.dropout(x, draws) + residual, self.weight, self.bias)[0]


class SplitHeads(nn.Cell):
    """Rows of hidden states to attention heads."""

    def __init__(self, heads: int) -> None:
        super().__init__(auto_prefix=False)
        self.heads, self.swap = heads, _swap_middle()

    def construct(self, x: Tensor, padding: Tensor) -> Tensor:
        """Turn `x` (batch * length, heads * width) into (batch, heads, length, width); `padding` gives the batch."""
        return self.swap(x.reshape(padding.shape[0], -1, self.heads, x.shape[-1] // self.heads))


class JoinHeads(nn.Cell):
    """Attention heads to rows of hidden states: the inverse of `SplitHeads`."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.swap = _swap_middle()

    def construct(self, x: Tensor) -> Tensor:
        """Turn `x` (batch, heads, length, width) into (batch * length, heads * width)."""
        return self.swap(x).reshape(-1, x.shape[1] * x.shape[3])


def _swap_middle() -> nn.Cell:
    return _Transpose() if backend.on_device() else cpu_forms.SwapMiddle()


class _Transpose(nn.Cell):
    """From (a, b, c, d) to (a, c, b, d)."""

    def construct(self, x: Tensor) -> Tensor:
        return x.transpose(0, 2, 1, 3)


class AttentionProbabilities(nn.Cell):
    """dropout(softmax(factor * scores + padding)) over the last axis."""

    def __init__(self, factor: float, rate: float, place: int) -> None:
        super().__init__(auto_prefix=False)
        self.factor, self.softmax, self.dropout = factor, ops.Softmax(-1), Dropout(rate, place)

    def construct(self, scores: Tensor, padding: Tensor, draws: tuple | None) -> Tensor:
        """Return probabilities of the shape of `scores`."""
        batch, length = padding.shape
        return self.dropout(self.softmax(scores * self.factor + padding.reshape(batch, 1, 1, length)), draws)


class MaskedWeight(nn.Cell):
    """A weight times its mask: Eq. 1-3 with noise, Eq. 5 without.

    Args:
        place: Number of the gate's place.
        block: Rows and columns of weights that share one score. The sharing has a stride, as in the official code: of
            a grid of (g, h) scores weight (i, j) has score (i mod g, j mod h).
    """

    def __init__(self, place: int, block: tuple[int, int] = (1, 1)) -> None:
        super().__init__(auto_prefix=False)
        self.block, self.uniform = block, noise.uniform_cell(place)
        has_logit = backend.current() is backend.Backend.GPU  # on Ascend it is left to the host's processor
        self.gate = gate.DeviceGate(has_logit) if backend.on_device() else gate.SampledGate()

    def construct(self, weight: Tensor, log_alpha: Tensor, draws: Tensor | tuple | None) -> Tensor:
        """Return the masked weight, float32 of the shape of `weight`."""
        if draws is None:
            mask = gate.deterministic_mask(log_alpha)
        else:
            mask = self.gate(log_alpha, self.uniform(draws, log_alpha))
        return weight * (mask if self.block == (1, 1) else ops.tile(mask, self.block))
