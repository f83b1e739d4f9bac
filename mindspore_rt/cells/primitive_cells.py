"""The parts of BERT that `fused.py` has as CPU kernels, in MindSpore's own primitives: for GPU, Ascend, and CPUs
without a compiler. Same classes, same arguments, same results."""

from __future__ import annotations

import math

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mindspore_rt.cells import gate, noise


class AddBias(nn.Cell):
    """x (rows, columns), bias (columns) -> x + bias by row. The bias's gradient is a thin matmul, which on CPU is
    several times as fast as the primitive's own."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.bias_add, self.matmul = ops.BiasAdd(), ops.MatMul()

    def construct(self, x, bias):
        return self.bias_add(x, bias)

    def bprop(self, x, bias, out, dout):
        return dout, self.matmul(ops.ones((1, dout.shape[0]), dout.dtype), dout).reshape(bias.shape)


class Gelu(nn.Cell):
    """Exact gelu, x Phi(x)."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.with_distribution = _Gelu()

    def construct(self, x):
        return self.with_distribution(x)[0]


class _Gelu(nn.Cell):
    """(x Phi(x), Phi(x)), with the gradient Phi(x) + x phi(x): the primitive's own takes three times as long."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.erf, self.exp = ops.Erf(), ops.Exp()

    def construct(self, x):
        cdf = self.erf(x * math.sqrt(0.5)) * 0.5 + 0.5
        return x * cdf, cdf

    def bprop(self, x, out, dout):
        return (dout[0] * (out[1] + x * self.exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))),)


class Dropout(nn.Cell):
    """Inverted dropout with the uniform numbers of one place; the identity without noise."""

    def __init__(self, rate: float, place: int, seed: int):
        super().__init__(auto_prefix=False)
        self.rate, self.scale = rate, 1 / (1 - rate)
        self.uniform = noise.uniform_cell(place, seed)

    def construct(self, x, draws):
        if draws is None or self.rate == 0:
            return x
        keep = ops.cast(self.uniform(draws, x) >= self.rate, x.dtype)
        return x * (keep * self.scale)


class AddNorm(nn.Cell):
    """(x, residual) -> LayerNorm(dropout(x) + residual), all (rows, hidden); the norm is over the last axis.
    Parameters `name`.weight and `name`.bias."""

    def __init__(self, hidden: int, epsilon: float, name: str, rate: float, place: int, seed: int):
        super().__init__(auto_prefix=False)
        self.weight = Parameter(np.ones(hidden, np.float32), name=f"{name}.weight")
        self.bias = Parameter(np.zeros(hidden, np.float32), name=f"{name}.bias")
        self.dropout, self.normalise = Dropout(rate, place, seed), _Normalise(hidden, epsilon)

    def construct(self, x, residual, draws):
        return self.normalise(self.dropout(x, draws) + residual, self.weight, self.bias)[0]


class _Normalise(nn.Cell):
    """LayerNorm. The row means are thin matmuls, which on CPU are several times as fast as the reduction kernels; the
    gradient is the usual closed form."""

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


class SplitHeads(nn.Cell):
    """x (batch * length, heads * width), padding (batch, any) -> (batch, heads, length, width)."""

    def __init__(self, heads: int):
        super().__init__(auto_prefix=False)
        self.heads, self.swap = heads, swap_middle()

    def construct(self, x, padding):
        return self.swap(x.reshape(padding.shape[0], -1, self.heads, x.shape[-1] // self.heads))


class JoinHeads(nn.Cell):
    """(batch, heads, length, width) -> (batch * length, heads * width)."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.swap = swap_middle()

    def construct(self, x):
        return self.swap(x).reshape(-1, x.shape[1] * x.shape[3])


def swap_middle() -> nn.Cell:
    """(a, b, c, d) -> (a, c, b, d). MindSpore's Transpose for the CPU keeps an index of 8 bytes for every element
    that it ever moved, as long as the process lives; gathering rows keeps none, and is faster."""
    return _GatherMiddle() if noise.on_host() else _TransposeMiddle()


class _TransposeMiddle(nn.Cell):
    def construct(self, x):
        return x.transpose(0, 2, 1, 3)


class _GatherMiddle(nn.Cell):
    """Its own inverse, so its own gradient."""

    def construct(self, x):
        return _gather_middle(x)

    def bprop(self, x, out, dout):
        return (_gather_middle(dout),)


def _gather_middle(x):
    a, b, c, d = x.shape
    return ops.gather(x.reshape(-1, d), _swapped_rows(a, b, c), 0).reshape(a, c, b, d)


@ops.constexpr
def _swapped_rows(a: int, b: int, c: int) -> Tensor:
    """Where row (i, k, j) of (a, c, b, d) lies in (a, b, c, d), int32 (a * b * c,)."""
    return Tensor(np.arange(a * b * c, dtype=np.int32).reshape(a, b, c).transpose(0, 2, 1).reshape(-1))


class AttentionShare(nn.Cell):
    """scores (batch, heads, queries, length), padding (batch, length), 0 or a large negative number ->
    dropout(softmax(factor * scores + padding)) over the last axis."""

    def __init__(self, factor: float, rate: float, place: int, seed: int):
        super().__init__(auto_prefix=False)
        self.factor, self.softmax, self.dropout = factor, ops.Softmax(-1), Dropout(rate, place, seed)

    def construct(self, scores, padding, draws):
        batch, length = padding.shape
        return self.dropout(self.softmax(scores * self.factor + padding.reshape(batch, 1, 1, length)), draws)


class MaskedWeight(nn.Cell):
    """(weight, log_alpha) -> weight times its mask: Eq. 1-3 with noise, Eq. 5 without.
    `block` (rows, columns) weights share one score, with a stride, as in the official code: of a grid of (g, h) scores
    weight (i, j) has score (i mod g, j mod h)."""

    def __init__(self, place: int, seed: int, block=(1, 1)):
        super().__init__(auto_prefix=False)
        self.block, self.gate, self.uniform = tuple(block), gate.SampledGate(), noise.uniform_cell(place, seed)

    def construct(self, weight, log_alpha, draws):
        if draws is None:
            mask = gate.deterministic_mask(log_alpha)
        else:
            mask = self.gate(log_alpha, self.uniform(draws, log_alpha))
        return weight * (mask if self.block == (1, 1) else ops.tile(mask, self.block))
