"""AdamW in its reference form, and the learning-rate schedule.

The L0 gradient of one score is about 1e-10 at BERT-base size, so where eps stands decides what gets pruned:
moments are bias-corrected, eps (1e-8) is added to the uncorrected square root of v, and the decay is
decoupled and applied after the step, as in the AdamW of Hugging Face transformers up to version 4.
`mindspore.nn.AdamWeightDecay` (eps 1e-6, no correction) would never prune.
"""

from __future__ import annotations

import math

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def linear_schedule(step: int, total: int, warmup: float) -> float:
    """Factor of the peak learning rate at update `step` (from 0): up over the first `warmup * total`, then down to 0."""
    rise = int(warmup * total)
    if step < rise:
        return step / max(1, rise)
    return max(0.0, (total - step) / max(1, total - rise))


class AdamW(nn.Cell):
    """Updates `parameters` in place. `decays` says for each whether weight decay applies to it."""

    def __init__(self, parameters: list[Parameter], weight_decay: float, decays: list[bool]):
        super().__init__(auto_prefix=False)
        self.count, self.weight_decay = len(parameters), weight_decay
        self.decays = tuple(decays)
        self.parameters = tuple(parameters)
        self.moment1 = tuple(_zeros_like(p, "moment1") for p in parameters)
        self.moment2 = tuple(_zeros_like(p, "moment2") for p in parameters)
        self.adam = ops.AdamWeightDecay()

    def construct(self, gradients, rate, decay):
        """`rate` and `decay` are the float32 scalars of `rates`; `gradients` one tensor for each parameter."""
        for i in range(self.count):
            amount = decay if self.decays[i] else 0.0 * decay
            self.adam(
                self.parameters[i], self.moment1[i], self.moment2[i], rate, BETA1, BETA2, EPSILON, amount, gradients[i]
            )
        return rate

    def rates(self, learning_rate: float, update: int) -> tuple[Tensor, Tensor]:
        """What the primitive needs for update number `update` (from 1).

        The primitive computes p - rate (m / (sqrt(v) + eps) + decay p). With s the bias-corrected step size, the
        reference is (p - s m / (sqrt(v) + eps)) (1 - lr wd): the same for rate = s (1 - lr wd), decay = lr wd / rate.
        """
        size = learning_rate * math.sqrt(1 - BETA2**update) / (1 - BETA1**update)
        shrink = learning_rate * self.weight_decay
        rate = size * (1 - shrink)
        return Tensor(np.float32(rate)), Tensor(np.float32(shrink / rate if rate else 0.0))

    def state(self) -> dict[str, Parameter]:
        """Moments by name, for checkpoints."""
        return {p.name: p for p in (*self.moment1, *self.moment2)}


def no_decay(name: str) -> bool:
    """Biases and LayerNorm weights are not decayed."""
    return name.endswith(".bias") or "LayerNorm" in name


def clip_scale(gradients, clip_norm: float):
    """Factor that brings the global norm of all gradients down to `clip_norm`, as torch.nn.utils.clip_grad_norm_."""
    total = 0.0
    for gradient in gradients:
        total = total + (gradient * gradient).sum()
    return ops.minimum(clip_norm / (ops.sqrt(total) + 1e-6), 1.0)


def _zeros_like(parameter: Parameter, kind: str) -> Parameter:
    return Parameter(np.zeros(parameter.shape, np.float32), name=f"{parameter.name}.{kind}", requires_grad=False)
