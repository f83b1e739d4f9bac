"""Parts of BERT for CPUs without a compiler, where MindSpore's own primitives for them are slow or keep memory.

They are made of other primitives. `primitive_cells.py` chooses them.
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn, ops


class BiasAdd(nn.Cell):
    """BiasAdd, whose gradient is a thin matrix product: several times as fast as the primitive's own."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.bias_add, self.matmul = ops.BiasAdd(), ops.MatMul()

    def construct(self, x: Tensor, bias: Tensor) -> Tensor:
        """Add `bias` (columns,) to every row of `x` (rows, columns)."""
        return self.bias_add(x, bias)

    def bprop(self, x: Tensor, bias: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of x and bias."""
        return dout, self.matmul(ops.ones((1, dout.shape[0]), dout.dtype), dout).reshape(bias.shape)


class LayerNorm(nn.Cell):
    """LayerNorm of rows. Means over rows are thin matrix products, several times as fast as the reduction kernels.

    Returns the result and, for the gradient, the normalised rows, both (rows, hidden), and the inverse deviation of
    each row in 8 equal columns, (rows, 8).

    Args:
        hidden: Size of a row.
        epsilon: Added to the variance.
    """

    def __init__(self, hidden: int, epsilon: float) -> None:
        super().__init__(auto_prefix=False)
        self.average = Tensor(np.full((hidden, 8), 1 / hidden, np.float32))
        self.spread = Tensor(np.full((8, hidden), 1 / 8, np.float32))
        self.matmul, self.bias_add, self.rsqrt = ops.MatMul(), ops.BiasAdd(), ops.Rsqrt()
        self.epsilon = epsilon

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the norm of `x` (rows, hidden), and what the gradient needs."""
        centred = x - self.matmul(self.matmul(x, self.average), self.spread)
        scale = self.rsqrt(self.matmul(centred * centred, self.average) + self.epsilon)
        normal = centred * self.matmul(scale, self.spread)
        return self.bias_add(centred * self.matmul(scale, self.spread * weight), bias), normal, scale

    def bprop(self, x: Tensor, weight: Tensor, bias: Tensor, out: tuple, dout: tuple) -> tuple[Tensor, ...]:
        """Return the gradients of x, weight and bias."""
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


class SwapMiddle(nn.Cell):
    """Transpose from (a, b, c, d) to (a, c, b, d), by a gather of rows. It is its own inverse, so its own gradient.

    MindSpore's Transpose for the CPU keeps an index of 8 bytes for every element that it ever moved, as long as the
    process lives. Gathering rows keeps none, and is faster.
    """

    def construct(self, x: Tensor) -> Tensor:
        """Swap the axes in the middle."""
        return _gather_middle(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, ...]:
        """Return the gradient of x."""
        return (_gather_middle(dout),)


def _gather_middle(x: Tensor) -> Tensor:
    a, b, c, d = x.shape
    return ops.gather(x.reshape(-1, d), _swapped_rows(a, b, c), 0).reshape(a, c, b, d)


@ops.constexpr
def _swapped_rows(a: int, b: int, c: int) -> Tensor:
    """Return where row (i, k, j) of (a, c, b, d) is in (a, b, c, d), int32 (a * b * c,)."""
    return Tensor(np.arange(a * b * c, dtype=np.int32).reshape(a, b, c).transpose(0, 2, 1).reshape(-1))
