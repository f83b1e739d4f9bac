"""The hard-concrete gate (Louizos et al. 2018), Eq. 1-5 of the paper.

With u uniform and z = log u - log(1 - u) + log alpha: s = sigmoid(z / beta), m = clamp(s (zeta - gamma) + gamma, 0, 1).
As s = (1 + tanh(z / (2 beta))) / 2 and gamma = 1 - zeta, m = clamp(1/2 + (zeta - gamma)/2 tanh(z / (2 beta)), 0, 1):
one tanh and one hard sigmoid, clamp((x + 3) / 6, 0, 1), in place of a sigmoid, a division and a clamp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops.auto_generate import gen_ops_prim

GAMMA, ZETA, BETA = -0.1, 1.1, 2 / 3
U_MIN = 1e-4  # u is clamped to [1e-4, 1 - 1e-4], as in the official code: log 0 never occurs
HALF_WIDTH = (ZETA - GAMMA) / 2
SETTLED_ZERO = -GAMMA / (ZETA - GAMMA)  # sigmoid(log alpha) below 1/12: the deterministic mask is exactly 0
SETTLED_ONE = (1 - GAMMA) / (ZETA - GAMMA)  # above 11/12: exactly 1
LOGIT_ZERO, LOGIT_ONE = (math.log(s / (1 - s)) for s in (SETTLED_ZERO, SETTLED_ONE))
L0_SHIFT = BETA * math.log(-GAMMA / ZETA)  # Eq. 4: P(m > 0) = sigmoid(log alpha - L0_SHIFT)


def initial_log_alpha(mask_p: float) -> float:
    """Return the log alpha whose deterministic mask (Eq. 5) is `mask_p`: log 5 = 1.609 for 0.9."""
    s = (mask_p - GAMMA) / (ZETA - GAMMA)
    return math.log(s / (1 - s))


class SampledGate(nn.Cell):
    """The stochastic gate, Eq. 1-3, with little work and memory, for a CPU.

    The gradient is derived by hand. Inside the clamp, with t = tanh(z / (2 beta)),
    dm/dlog_alpha = HALF_WIDTH (1 - t^2) / (2 beta); outside it is 0. As t = (m - 1/2) / HALF_WIDTH,
    the backward pass needs only the mask: dm/dlog_alpha = (zeta - m)(m - gamma) / (2 beta HALF_WIDTH) for 0 < m < 1.
    """

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.hard_sigmoid, self.hard_sigmoid_grad = ops.HSigmoid(), gen_ops_prim.HSigmoidGrad()
        self.log, self.tanh = ops.Log(), ops.Tanh()

    def construct(self, log_alpha: Tensor, u: Tensor) -> Tensor:
        """Return masks in [0, 1] for scores and uniform numbers, all float32 of one shape."""
        u = ops.clamp(u, U_MIN, 1 - U_MIN)
        t = self.tanh((self.log(u) - self.log(1.0 - u) + log_alpha) * (0.5 / BETA))
        return self.hard_sigmoid(t * (6 * HALF_WIDTH))

    def bprop(self, log_alpha: Tensor, u: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient of log_alpha; u has none."""
        # HSigmoidGrad passes dout / 6 where -3 < 6 m - 3 < 3 and 0 elsewhere, both edges included: cheaper than a
        # select. (ReLU6Grad passes its upper edge, where all masks settled at 1 are.)
        inside = self.hard_sigmoid_grad(dout, out * 6.0 - 3.0)
        slope = (ZETA - out) * (out - GAMMA) * (3 / (BETA * HALF_WIDTH))
        return inside * slope, ops.zeros_like(u)


class DeviceGate(nn.Cell):
    """The stochastic gate, Eq. 1-3, for a device, of few primitives: each reads and writes one number for each score.

    Args:
        has_logit: Whether the device itself computes the primitive of log u - log(1 - u) with a clamp.
    """

    def __init__(self, has_logit: bool) -> None:
        super().__init__(auto_prefix=False)
        self.logit = ops.Logit(U_MIN) if has_logit else None
        self.scaled_tanh, self.hard_sigmoid = _ScaledTanh(), ops.HSigmoid()

    def construct(self, log_alpha: Tensor, u: Tensor) -> Tensor:
        """Return masks in [0, 1] for scores and uniform numbers, all float32 of one shape."""
        if self.logit is None:
            u = ops.clamp(u, U_MIN, 1 - U_MIN)
            logit = ops.log(u / (1.0 - u))
        else:
            logit = self.logit(u)
        return self.hard_sigmoid(self.scaled_tanh(logit + log_alpha)[0])


class _ScaledTanh(nn.Cell):
    """(6 HALF_WIDTH t, t) with t = tanh(z / (2 beta)). MindSpore's own gradient would multiply by a number twice."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.tanh, self.tanh_grad = ops.Tanh(), gen_ops_prim.TanhGrad()

    def construct(self, z: Tensor) -> tuple[Tensor, Tensor]:
        t = self.tanh(z * (0.5 / BETA))
        return t * (6 * HALF_WIDTH), t

    def bprop(self, z: Tensor, out: tuple, dout: tuple) -> tuple[Tensor, ...]:
        return (self.tanh_grad(out[1], dout[0]) * (3 * HALF_WIDTH / BETA),)


def deterministic_mask(log_alpha: Tensor) -> Tensor:
    """Return the masks of Eq. 5, without noise and beta: clamp(sigmoid(log_alpha) (zeta - gamma) + gamma, 0, 1)."""
    return ops.clamp(ops.sigmoid(log_alpha) * (ZETA - GAMMA) + GAMMA, 0.0, 1.0)


def l0_gradient(log_alpha: Tensor) -> Tensor:
    """Return the derivative of each mask's term of Eq. 4: p (1 - p) with p = sigmoid(log_alpha - L0_SHIFT)."""
    p = ops.sigmoid(log_alpha - L0_SHIFT)
    return p * (1.0 - p)


def mask_statistics(log_alpha: list[np.ndarray]) -> dict[str, float]:
    """Compute the L0 term (Eq. 4) and the shares of settled masks (Figure 1) over all matrices.

    Args:
        log_alpha: Scores of every matrix.

    Returns:
        `l0_term`, the mean of P(m > 0) over all masks; `settled_zero` and `settled_one`, the shares of masks that Eq. 5
        makes exactly 0 and 1; `sparsity_at_threshold`, the share of masks of Eq. 5 below 1/2. All are 0 to 1.
    """
    sums = (
        sum(float(np.sum(1 / (1 + np.exp(L0_SHIFT - a)), dtype=np.float64)) for a in log_alpha),
        sum(int((a < LOGIT_ZERO).sum()) for a in log_alpha),
        sum(int((a > LOGIT_ONE).sum()) for a in log_alpha),
        sum(int((a < 0).sum()) for a in log_alpha),
    )
    return _shares(sums, sum(a.size for a in log_alpha))


def mask_sums(log_alpha: Tensor) -> Tensor:
    """Compute on the device what `mask_statistics` sums over one matrix, (4,) float32, which counts up to 2^24 masks.

    Args:
        log_alpha: Scores of the matrix.
    """
    counts = (log_alpha < LOGIT_ZERO, log_alpha > LOGIT_ONE, log_alpha < 0.0)
    return ops.stack((ops.sigmoid(log_alpha - L0_SHIFT).sum(), *[ops.cast(c, ms.float32).sum() for c in counts]))


def statistics_of_sums(sums: np.ndarray, masks: int) -> dict[str, float]:
    """Return `mask_statistics` for the sums of every matrix, (matrices, 4), and the number of all masks."""
    return _shares(sums.sum(0, dtype=np.float64).tolist(), masks)


def _shares(sums: Sequence[float], masks: int) -> dict[str, float]:
    names = ("l0_term", "settled_zero", "settled_one", "sparsity_at_threshold")
    return {name: total / masks for name, total in zip(names, sums, strict=True)}
