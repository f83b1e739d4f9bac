"""The parts of BERT that cost the most after the matrix products, each as one CPU kernel of `kernels.cc`.

Same classes, same arguments, same results as in `plain.py`. `draws` is the key of a pass (`noise.KernelNoise`), or None
for a deterministic one. Every backward pass is written out; a gradient that nobody asks for has a kernel of its own
or none, so that it drops out of the graph.
"""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mindspore_rt.cells.kernels import kernel, rows

NO_KEY = np.zeros(4, np.int32)


class AddBias(nn.Cell):
    """x (rows, columns), bias (columns) -> x + bias by row."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.forward, self.backward = kernel("add_bias", like=(0,)), kernel("add_bias_parameters", like=(1,))

    def construct(self, x, bias):
        return self.forward(x, bias)

    def bprop(self, x, bias, out, dout):
        return dout, self.backward(dout, bias)


class Gelu(nn.Cell):
    """Exact gelu, x Phi(x)."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.forward, self.backward = kernel("gelu", like=(0,)), kernel("gelu_backward", like=(0,))

    def construct(self, x):
        return self.forward(x)

    def bprop(self, x, out, dout):
        return (self.backward(dout, x),)


class Dropout(nn.Cell):
    """Inverted dropout with the uniform numbers of one place; the identity without noise."""

    def __init__(self, rate: float, place: int, seed: int):
        super().__init__(auto_prefix=False)
        self.rate, self.place, self.drop = rate, place, _Dropout(rate, place)

    def construct(self, x, draws):
        return x if draws is None or self.rate == 0 else self.drop(x, draws)


class _Dropout(nn.Cell):
    def __init__(self, rate: float, place: int):
        super().__init__(auto_prefix=False)
        self.word, self.settings = Tensor(np.int32([place])), Tensor(np.float32([rate]))
        self.dropout = kernel("dropout", like=(0,))

    def construct(self, x, key):
        return self.dropout(x, key, self.word, self.settings)

    def bprop(self, x, key, out, dout):
        return self.dropout(dout, key, self.word, self.settings), ops.zeros_like(key)


class AddNorm(nn.Cell):
    """(x, residual) -> LayerNorm(dropout(x) + residual), all (rows, hidden); the norm is over the last axis.
    Parameters `name`.weight and `name`.bias."""

    def __init__(self, hidden: int, epsilon: float, name: str, rate: float, place: int, seed: int):
        super().__init__(auto_prefix=False)
        self.weight = Parameter(np.ones(hidden, np.float32), name=f"{name}.weight")
        self.bias = Parameter(np.zeros(hidden, np.float32), name=f"{name}.bias")
        self.place, self.no_key = place, Tensor(NO_KEY)
        self.noisy, self.still = _AddNorm(epsilon, rate, place), _AddNorm(epsilon, 0.0, place)

    def construct(self, x, residual, draws):
        if draws is None:
            return self.still(x, residual, self.weight, self.bias, self.no_key)[0]
        return self.noisy(x, residual, self.weight, self.bias, draws)[0]


class _AddNorm(nn.Cell):
    def __init__(self, epsilon: float, rate: float, place: int):
        super().__init__(auto_prefix=False)
        self.word, self.settings = Tensor(np.int32([place])), Tensor(np.float32([rate, epsilon]))
        self.forward = kernel("add_norm", like=(0, 0, rows))
        self.backward = kernel("add_norm_backward", like=(0, 0))
        self.parameters_backward = kernel("add_norm_parameters", like=(2, 2))

    def construct(self, x, residual, weight, bias, key):
        return self.forward(x, residual, weight, bias, key, self.word, self.settings)

    def bprop(self, x, residual, weight, bias, key, out, dout):
        gradient, normal, scale = dout[0], out[1], out[2]
        dx, dresidual = self.backward(gradient, normal, scale, weight, key, self.word, self.settings)
        dweight, dbias = self.parameters_backward(gradient, normal, weight)
        return dx, dresidual, dweight, dbias, ops.zeros_like(key)


class SplitHeads(nn.Cell):
    """x (batch * length, heads * width), padding (batch, any) -> (batch, heads, length, width)."""

    def __init__(self, heads: int):
        super().__init__(auto_prefix=False)

        def shape(x, padding):
            return [padding[0], heads, x[0] // padding[0], x[1] // heads]

        self.split, self.join = kernel("split_heads", like=(shape,)), kernel("join_heads", like=(_joined,))

    def construct(self, x, padding):
        return self.split(x, padding)

    def bprop(self, x, padding, out, dout):
        return self.join(dout), ops.zeros_like(padding)


class JoinHeads(nn.Cell):
    """(batch, heads, length, width) -> (batch * length, heads * width)."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.join, self.split = kernel("join_heads", like=(_joined,)), kernel("split_heads", like=(1,))

    def construct(self, x):
        return self.join(x)

    def bprop(self, x, out, dout):
        return (self.split(dout, x),)


def _joined(x):
    batch, heads, length, width = x
    return [batch * length, heads * width]


class AttentionShare(nn.Cell):
    """scores (batch, heads, queries, length), padding (batch, length), 0 or a large negative number ->
    dropout(softmax(factor * scores + padding)) over the last axis."""

    def __init__(self, factor: float, rate: float, place: int, seed: int):
        super().__init__(auto_prefix=False)
        self.rate, self.place, self.no_key = rate, place, Tensor(NO_KEY)
        self.noisy, self.still = _AttentionShare(factor, rate, place), _AttentionShare(factor, 0.0, place)

    def construct(self, scores, padding, draws):
        if draws is None or self.rate == 0:
            return self.still(scores, padding, self.no_key)
        return self.noisy(scores, padding, draws)[1]


class _AttentionShare(nn.Cell):
    """Returns the share, and with dropout also the dropped share."""

    def __init__(self, factor: float, rate: float, place: int):
        super().__init__(auto_prefix=False)
        self.rate, self.word, self.settings = rate, Tensor(np.int32([place])), Tensor(np.float32([rate, factor]))
        self.softmax = kernel("attention_share", like=(0,))
        self.dropped = kernel("dropped_attention_share", like=(0, 0))
        self.backward = kernel("attention_share_backward", like=(0,))

    def construct(self, scores, padding, key):
        if self.rate == 0:
            return self.softmax(scores, padding, self.settings)
        return self.dropped(scores, padding, key, self.word, self.settings)

    def bprop(self, scores, padding, key, out, dout):
        share, gradient = (out, dout) if self.rate == 0 else (out[0], dout[1])
        dscores = self.backward(gradient, share, key, self.word, self.settings)
        return dscores, ops.zeros_like(padding), ops.zeros_like(key)


class MaskedWeight(nn.Cell):
    """(weight, log_alpha) of one shape -> weight times its mask: Eq. 1-3 with noise, Eq. 5 without."""

    def __init__(self, place: int, seed: int):
        super().__init__(auto_prefix=False)
        self.place, self.noisy, self.still = place, _Sampled(place), _Deterministic()

    def construct(self, weight, log_alpha, draws):
        return self.still(weight, log_alpha) if draws is None else self.noisy(weight, log_alpha, draws)


class _Sampled(nn.Cell):
    def __init__(self, place: int):
        super().__init__(auto_prefix=False)
        self.word = Tensor(np.int32([place]))
        self.masked, self.backward = kernel("masked_weight", like=(0,)), kernel("masked_weight_backward", like=(0,))

    def construct(self, weight, log_alpha, key):
        return self.masked(weight, log_alpha, key, self.word)

    def bprop(self, weight, log_alpha, key, out, dout):
        # The product is symmetric: a weight's gradient is the output's, masked.
        dweight = self.masked(dout, log_alpha, key, self.word)
        return dweight, self.backward(dout, weight, log_alpha, key, self.word), ops.zeros_like(key)


class _Deterministic(nn.Cell):
    def __init__(self):
        super().__init__(auto_prefix=False)
        self.masked = kernel("still_masked_weight", like=(0,))
        self.backward = kernel("still_masked_weight_backward", like=(0,))

    def construct(self, weight, log_alpha):
        return self.masked(weight, log_alpha)

    def bprop(self, weight, log_alpha, out, dout):
        return self.masked(dout, log_alpha), self.backward(dout, weight, log_alpha)
