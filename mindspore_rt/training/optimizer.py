"""AdamW in its reference form, and the learning-rate schedule.

The L0 gradient of one score is about 1e-10 at BERT-base size, so where eps stands decides what gets pruned:
moments are bias-corrected, eps (1e-8) is added to the uncorrected square root of v, and the decay is
decoupled and applied after the step, as in the AdamW of Hugging Face transformers up to version 4.
`mindspore.nn.AdamWeightDecay` (eps 1e-6, no correction) would never prune.
"""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, mutable, nn, ops

from mindspore_rt.cells import kernels
from mindspore_rt.cells.gate import l0_gradient
from mindspore_rt.cells.kernels import kernel, scalar

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def linear_schedule(step: int, total: int, warmup: float) -> float:
    """Factor of the peak learning rate at update `step` (from 0): up for `warmup * total` updates, or for `warmup`
    updates if that is above 1, then down to 0. As in the official code the number of warm-up updates is not rounded."""
    rise = min(float(total), warmup if warmup > 1 else warmup * total)
    if step < rise:
        return step / max(1, rise)
    return max(0.0, (total - step) / max(1, total - rise))


class AdamW(nn.Cell):
    """Updates `parameters` in place. `decays` says for each whether weight decay applies to it; `keep` has a bool mask,
    or None, for each: where it is false there is no gradient."""

    def __init__(self, parameters: list[Parameter], weight_decay: float, decays: list[bool], keep=None):
        super().__init__(auto_prefix=False)
        self.weight_decay, self.parameters = weight_decay, tuple(parameters)
        self.moment1 = tuple(_zeros_like(p, "moment1") for p in parameters)
        self.moment2 = tuple(_zeros_like(p, "moment2") for p in parameters)
        self.keep = tuple(
            mask if mask is None else Parameter(mask.astype(bool), name=f"{p.name}.keep", requires_grad=False)
            for p, mask in zip(parameters, keep or [None] * len(parameters), strict=True)
        )
        form = FusedForm if kernels.available() else PlainForm
        self.form = form(self.parameters, self.moment1, self.moment2, tuple(decays), self.keep)

    def construct(self, gradients, rates, factor=1.0, penalties=None):
        """One update with gradient * `factor`, plus `penalties`[i] times the derivative of the L0 term (Eq. 4).

        `gradients`: one tensor for each parameter; `rates`: what `rates` returns; `factor`: a scalar; `penalties`: a
        tensor (parameters,), all of which then must be scores without `keep`, or None.
        """
        self.form.update(gradients, rates, factor, penalties)
        return rates[0]

    def norm(self, gradients, others=()):
        """l2 norm of all gradients together, of the kept entries only, and of `others`, which are whole."""
        return ops.sqrt(self.form.square_sum(gradients, others))

    def rates(self, learning_rate: float, update: int) -> tuple[Tensor, ...]:
        """What update number `update` (from 1) needs, float32."""
        return self.form.rates(learning_rate, update, learning_rate * self.weight_decay)

    def state(self) -> dict[str, Parameter]:
        """Moments by name, for checkpoints."""
        return {p.name: p for p in (*self.moment1, *self.moment2)}


class FusedForm(nn.Cell):
    """All updates in one CPU kernel: one pass over each parameter, its moments and its gradient."""

    def __init__(self, parameters, moment1, moment2, decays, keep):
        super().__init__(auto_prefix=False)
        self.count = len(parameters)
        self.state = (*parameters, *moment1, *moment2)
        self.one, self.everything = Tensor(np.ones(1, np.float32)), Tensor(np.ones(1, bool))
        self.decays, self.keep = Tensor(np.float32(decays)), tuple(self.everything if k is None else k for k in keep)
        self.adamw = kernel("adamw", like=(scalar,), writes=3 * self.count, reads=3 + 2 * self.count)
        self.adamw_scores = kernel("adamw_scores", like=(scalar,), writes=3 * self.count, reads=4 + self.count)
        self.sum = kernel("square_sum", like=(scalar,))

    def update(self, gradients, rates, factor, penalties):
        factor = self.one * factor
        if penalties is None:
            self.adamw(*self.state, rates[0], self.decays, factor, *gradients, *self.keep)
        else:
            self.adamw_scores(*self.state, rates[0], self.decays, factor, *gradients, penalties)

    def square_sum(self, gradients, others):
        return self.sum(*gradients, *others, *self.keep, *((self.everything,) * len(others))).reshape(())

    def rates(self, learning_rate: float, update: int, shrink: float) -> tuple[Tensor, ...]:
        step = learning_rate * (1 - BETA2**update) ** 0.5 / (1 - BETA1**update)
        return mutable((Tensor(np.float32([step, 1 - BETA1, 1 - BETA2, EPSILON, shrink])),))


class PlainForm(nn.Cell):
    """The same by MindSpore's primitives, for each parameter by itself."""

    def __init__(self, parameters, moment1, moment2, decays, keep):
        super().__init__(auto_prefix=False)
        self.parameters, self.moment1, self.moment2 = parameters, moment1, moment2
        self.decays, self.keep, self.count = decays, keep, len(parameters)
        self.adam, self.assign_sub = ops.Adam(), ops.AssignSub()
        self.half_square = ops.L2Loss()  # sum(x^2) / 2 in one pass; a product and a sum take four times as long

    def update(self, gradients, rates, factor, penalties):
        for i in range(self.count):
            self._update(i, gradients[i] * factor, rates, None if penalties is None else penalties[i])

    # By itself, since MindSpore nests what follows a branch: 200 rounds of a loop with branches are too deep for it.
    def _update(self, i, gradient, rates, penalty):
        learning_rate, power1, power2, beta1, beta2, epsilon, shrink = rates
        parameter, gradient = self.parameters[i], self._kept(gradient, self.keep[i])
        if penalty is not None:
            gradient = gradient + l0_gradient(parameter) * penalty
        # p - lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps): the primitive is the reference form.
        self.adam(
            parameter, self.moment1[i], self.moment2[i], power1, power2, learning_rate, beta1, beta2, epsilon, gradient
        )
        if self.decays[i]:
            self.assign_sub(parameter, parameter * shrink)

    def square_sum(self, gradients, others):
        total = 0.0
        for i in range(self.count):
            total = total + self.half_square(self._kept(gradients[i], self.keep[i]))
        for tensor in others:
            total = total + self.half_square(tensor)
        return total * 2.0

    def _kept(self, gradient, keep):
        return gradient if keep is None else gradient * ops.cast(keep, gradient.dtype)

    def rates(self, learning_rate: float, update: int, shrink: float) -> tuple[Tensor, ...]:
        values = (learning_rate, BETA1**update, BETA2**update, BETA1, BETA2, EPSILON, shrink)
        return mutable(tuple(Tensor(np.float32(v)) for v in values))


class Clear(nn.Cell):
    """Sets parameters that hold accumulated gradients to zero."""

    def __init__(self, parameters: list[Parameter]):
        super().__init__(auto_prefix=False)
        self.parameters, self.assign = tuple(parameters), ops.Assign()
        self.kernel = kernel("clear", like=(scalar,), writes=len(parameters)) if kernels.available() else None

    def construct(self):
        if self.kernel is not None:
            self.kernel(*self.parameters)
        else:
            for parameter in self.parameters:
                self.assign(parameter, ops.zeros_like(parameter))


def no_decay(name: str) -> bool:
    """Biases and LayerNorm weights are not decayed."""
    return name.endswith(".bias") or "LayerNorm" in name


def clip_factor(norm, clip_norm: float):
    """What brings a global norm down to `clip_norm`, as torch.nn.utils.clip_grad_norm_; 1 if that is 0."""
    return ops.minimum(clip_norm / (norm + 1e-6), 1.0) if clip_norm > 0 else 1.0


def _zeros_like(parameter: Parameter, kind: str) -> Parameter:
    return Parameter(np.zeros(parameter.shape, np.float32), name=f"{parameter.name}.{kind}", requires_grad=False)
