"""Functions that MindSpore's float32 kernels on CPU compute too roughly.

tanh is off by 1e-6 there, log_softmax and softplus by 2e-6 to 4e-6, up to thirty times what float32 allows, and they
stand where every gradient passes. Their numbers are few, so they are computed in float64; on other devices in float32.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import context, ops


@ops.constexpr
def _dtype():
    return ms.float64 if context.get_context("device_target") == "CPU" else ms.float32


def tanh(x):
    return ops.cast(ops.tanh(ops.cast(x, _dtype())), x.dtype)


def cross_entropy(logits, targets):
    """Sum over rows of -targets log softmax(logits), both (batch, labels). `targets` are one-hot rows over the number
    of sentences, zero for filler rows."""
    x, y = ops.cast(logits, _dtype()), ops.cast(targets, _dtype())
    loss = (ops.logsumexp(x, -1) * y.sum(-1) - (x * y).sum(-1)).sum()
    return ops.cast(loss, logits.dtype)


def log_softmax(x):
    """Over the last axis."""
    wide = ops.cast(x, _dtype())
    return ops.cast(wide - ops.logsumexp(wide, -1, True), x.dtype)


def softplus(x):
    """log(1 + e^x)."""
    wide = ops.cast(x, _dtype())
    return ops.cast(ops.maximum(wide, 0.0) + ops.log(1.0 + ops.exp(-ops.abs(wide))), x.dtype)
