"""Functions that MindSpore's float32 kernels compute too roughly on CPU.

There tanh is off by 1e-6, log_softmax and softplus by 2e-6 to 4e-6: up to thirty times what float32 allows, at places
that every gradient passes. They see few numbers, so they are computed in float64; on other devices in float32.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, ops

from mindspore_rt.cells import backend


@ops.constexpr
def _dtype() -> object:
    return ms.float32 if backend.on_device() else ms.float64


def tanh(x: Tensor) -> Tensor:
    """Return tanh of each element, in the dtype of `x`."""
    return ops.cast(ops.tanh(ops.cast(x, _dtype())), x.dtype)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the sum over rows of -targets log softmax(logits), a scalar.

    Args:
        logits: (batch, labels) float32.
        targets: (batch, labels) float32, one-hot rows divided by the number of sentences; zeros for filler rows.
    """
    x, y = ops.cast(logits, _dtype()), ops.cast(targets, _dtype())
    loss = (ops.logsumexp(x, -1) * y.sum(-1) - (x * y).sum(-1)).sum()
    return ops.cast(loss, logits.dtype)


def log_softmax(x: Tensor) -> Tensor:
    """Return log softmax over the last axis, in the dtype of `x`."""
    wide = ops.cast(x, _dtype())
    return ops.cast(wide - ops.logsumexp(wide, -1, True), x.dtype)


def softplus(x: Tensor) -> Tensor:
    """Return log(1 + e^x) of each element, in the dtype of `x`."""
    wide = ops.cast(x, _dtype())
    return ops.cast(ops.maximum(wide, 0.0) + ops.log(1.0 + ops.exp(-ops.abs(wide))), x.dtype)
