"""AdamW in its reference form, and the learning-rate schedule.

The L0 gradient of one score is about 1e-10 at BERT-base size, so where eps stands decides what gets pruned:
moments are bias-corrected, eps (1e-8) is added to the uncorrected square root of v, and the decay is
decoupled and applied after the step, as in the AdamW of Hugging Face transformers up to version 4.
`mindspore.nn.AdamWeightDecay` (eps 1e-6, no correction) would never prune.
"""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, mutable, nn, ops

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def linear_schedule(step: int, total: int, warmup: float) -> float:
    """Factor of the peak learning rate at update `step` (from 0): up for `warmup * total` updates, then down to 0."""
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
        self.adam, self.assign_sub = ops.Adam(), ops.AssignSub()

    def construct(self, gradients, rates):
        """`rates` is what `rates` returns; `gradients` one tensor for each parameter."""
        learning_rate, power1, power2, beta1, beta2, epsilon, shrink = rates
        for i in range(self.count):
            parameter = self.parameters[i]
            # p - lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps): the primitive is the reference form.
            self.adam(
                parameter, self.moment1[i], self.moment2[i], power1, power2, learning_rate, beta1, beta2, epsilon,
                gradients[i],
            )
            if self.decays[i]:
                self.assign_sub(parameter, parameter * shrink)
        return learning_rate

    def rates(self, learning_rate: float, update: int) -> tuple[Tensor, ...]:
        """Float32 scalars of update number `update` (from 1)."""
        values = (
            learning_rate, BETA1**update, BETA2**update, BETA1, BETA2, EPSILON, learning_rate * self.weight_decay
        )
        return mutable(tuple(Tensor(np.float32(v)) for v in values))

    def state(self) -> dict[str, Parameter]:
        """Moments by name, for checkpoints."""
        return {p.name: p for p in (*self.moment1, *self.moment2)}


def no_decay(name: str) -> bool:
    """Biases and LayerNorm weights are not decayed."""
    return name.endswith(".bias") or "LayerNorm" in name


def clip_scale(gradients, clip_norm: float):
    """Factor that brings the global norm of all gradients down to `clip_norm`, as torch.nn.utils.clip_grad_norm_."""
    half_square, total = ops.L2Loss(), 0.0  # sum(x^2) / 2 in one pass; a product and a sum take four times as long
    for gradient in gradients:
        total = total + half_square(gradient)
    return ops.minimum(clip_norm / (ops.sqrt(total * 2.0) + 1e-6), 1.0)


def _zeros_like(parameter: Parameter, kind: str) -> Parameter:
    return Parameter(np.zeros(parameter.shape, np.float32), name=f"{parameter.name}.{kind}", requires_grad=False)
