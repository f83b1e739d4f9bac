"""AdamW in its reference form, and the learning-rate schedule.

The L0 gradient of one score is about 1e-10 at BERT-base size, so where eps is added decides what is pruned. Here the
moments are bias-corrected, eps (1e-8) is added to the uncorrected square root of v, and the decay is decoupled and
applied after the step, as in the AdamW of Hugging Face transformers up to version 4.
`mindspore.nn.AdamWeightDecay` (eps 1e-6, no bias correction) would never prune.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import Parameter, Tensor, mutable, nn, ops

from configs.contract.experiment import schema
from mindspore_rt import parallel
from mindspore_rt.cells import backend
from mindspore_rt.cells.backend import Backend
from mindspore_rt.cells.encoder import EncoderClassifier
from mindspore_rt.cells.gate import l0_gradient
from mindspore_rt.cells.kernels import kernel, scalar
from mindspore_rt.training.loss_scale import LossScale

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
Tensors = Sequence[Tensor]
Masks = dict[str, np.ndarray]  # of a ticket, by matrix: bool, True where a weight is kept


def linear_schedule(step: int, total: int, warmup: float) -> float:
    """Return the factor of the peak learning rate at one update: a linear rise to 1, then a linear fall to 0.

    Args:
        step: Number of the update, from 0.
        total: Number of updates.
        warmup: Updates of the rise, as a share of `total`, or as a number if above 1. As in the official code it is
            not rounded.
    """
    rise = min(float(total), warmup if warmup > 1 else warmup * total)
    if step < rise:
        return step / max(1, rise)
    return max(0.0, (total - step) / max(1, total - rise))


def adamw(
    parameters: Sequence[Parameter],
    weight_decay: float,
    decays: Sequence[bool],
    keep: Sequence[np.ndarray | None] | None = None,
) -> AdamW:
    """Build the optimizer in the form of this process's backend; see `AdamW` for the arguments."""
    form = KernelAdamW if backend.current() is Backend.KERNELS else PrimitiveAdamW
    return form(parameters, weight_decay, decays, keep)


class AdamW(nn.Cell):
    """Updates parameters in place.

    A subclass makes its operators in `build`, which the constructor calls last, and computes with them in `update`,
    `square_sum`, `rates` and `without_change`.

    Args:
        parameters: Float32, of any shape.
        weight_decay: Decoupled decay.
        decays: For each parameter, whether it is decayed.
        keep: For each parameter a mask, bool of its shape, or None. Where the mask is False the gradient counts as 0.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        weight_decay: float,
        decays: Sequence[bool],
        keep: Sequence[np.ndarray | None] | None = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.weight_decay, self.parameters, self.decays = weight_decay, tuple(parameters), tuple(decays)
        self.moment1 = tuple(_zeros_like(p, "moment1") for p in parameters)
        self.moment2 = tuple(_zeros_like(p, "moment2") for p in parameters)
        self.keep = tuple(
            mask if mask is None else Parameter(mask.astype(bool), name=f"{p.name}.keep", requires_grad=False)
            for p, mask in zip(parameters, keep or [None] * len(parameters), strict=True)
        )
        self.count = len(self.parameters)
        self.build()

    def construct(
        self,
        gradients: Tensors,
        rates: Tensors,
        factor: Tensor | float = 1.0,
        penalties: Tensor | None = None,
        skip: Tensor | None = None,
    ) -> Tensor:
        """Make one update.

        Args:
            gradients: One tensor for each parameter.
            rates: Result of the method `rates`.
            factor: Scalar that the gradients are multiplied by.
            penalties: (parameters,) float32, weights of the L0 terms (Eq. 4) whose derivatives are added to the
                gradients. All parameters must then be scores without `keep`. None adds nothing.
            skip: Bool scalar. True changes neither parameters nor moments, whatever the gradients hold. `factor` must
                then be a tensor.

        Returns:
            The first of `rates`; a graph needs some output.
        """
        if skip is not None:
            gradients = tuple(ops.masked_fill(gradient, skip, 0.0) for gradient in gradients)
            factor, rates = ops.masked_fill(factor, skip, 0.0), self.without_change(rates, skip)
        self.update(gradients, rates, factor, penalties)
        return rates[0]

    def norm(self, gradients: Tensors, others: Tensors = ()) -> Tensor:
        """Return the l2 norm of all gradients together, where `keep` is True, and of `others`, which count whole."""
        return ops.sqrt(self.square_sum(gradients, others))

    def state(self) -> dict[str, Parameter]:
        """Return the moments by name, for checkpoints."""
        return {p.name: p for p in (*self.moment1, *self.moment2)}


class KernelAdamW(AdamW):
    """All updates in one CPU kernel: one pass over each parameter, its moments and its gradient."""

    def build(self) -> None:
        """Make the kernels and their constant inputs."""
        self.changed = (*self.parameters, *self.moment1, *self.moment2)
        self.one, self.everything = Tensor(np.ones(1, np.float32)), Tensor(np.ones(1, bool))
        self.changing = Tensor([True, True, True, False, True])  # of the rates, all but epsilon
        self.decayed = Tensor(np.float32(self.decays))
        self.masks = tuple(self.everything if mask is None else mask for mask in self.keep)
        self.adamw = kernel("adamw", like=(scalar,), writes=3 * self.count, reads=3 + 2 * self.count)
        self.adamw_scores = kernel("adamw_scores", like=(scalar,), writes=3 * self.count, reads=4 + self.count)
        self.sum = kernel("square_sum", like=(scalar,))

    def update(self, gradients: Tensors, rates: Tensors, factor: Tensor | float, penalties: Tensor | None) -> None:
        """Make one update; see `AdamW.construct`."""
        factor = self.one * factor
        if penalties is None:
            self.adamw(*self.changed, rates[0], self.decayed, factor, *gradients, *self.masks)
        else:
            self.adamw_scores(*self.changed, rates[0], self.decayed, factor, *gradients, penalties)

    def square_sum(self, gradients: Tensors, others: Tensors) -> Tensor:
        """Return the sum of the squares that `AdamW.norm` takes the root of."""
        return self.sum(*gradients, *others, *self.masks, *((self.everything,) * len(others))).reshape(())

    def rates(self, learning_rate: float, update: int) -> tuple[Tensor, ...]:
        """Return what update number `update` (from 1) needs: the five rates of the kernel `adamw`, float32 (5,)."""
        step = learning_rate * (1 - BETA2**update) ** 0.5 / (1 - BETA1**update)
        shrink = learning_rate * self.weight_decay
        return mutable((Tensor(np.float32([step, 1 - BETA1, 1 - BETA2, EPSILON, shrink])),))

    def without_change(self, rates: Tensors, skip: Tensor) -> Tensors:
        """Return the rates with which an update without gradients changes nothing, if `skip` is true."""
        return (ops.masked_fill(rates[0], ops.logical_and(skip, self.changing), 0.0),)


class PrimitiveAdamW(AdamW):
    """The same by MindSpore's primitives, parameter by parameter."""

    def build(self) -> None:
        """Make the primitives."""
        self.adam, self.assign_sub = ops.Adam(), ops.AssignSub()
        # L2Loss is sum(x^2) / 2 in one pass: on CPU a product and a sum take four times as long. On GPU it adds all
        # elements to one number, one after the other and in no fixed order.
        self.half_square = None if backend.on_device() else ops.L2Loss()

    def update(self, gradients: Tensors, rates: Tensors, factor: Tensor | float, penalties: Tensor | None) -> None:
        """Make one update; see `AdamW.construct`."""
        for i in range(self.count):
            self._update(i, gradients[i] * factor, rates, None if penalties is None else penalties[i])

    # A method of its own: MindSpore nests what follows a branch, and a loop of 200 rounds with branches is too deep.
    def _update(self, i: int, gradient: Tensor, rates: Tensors, penalty: Tensor | None) -> None:
        learning_rate, power1, power2, beta1, beta2, epsilon, shrink = rates
        parameter, gradient = self.parameters[i], self._masked(gradient, self.keep[i])
        if penalty is not None:
            gradient = gradient + l0_gradient(parameter) * penalty
        # p - lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps): the primitive is the reference form.
        self.adam(
            parameter, self.moment1[i], self.moment2[i], power1, power2, learning_rate, beta1, beta2, epsilon, gradient
        )
        if self.decays[i]:
            self.assign_sub(parameter, parameter * shrink)

    def square_sum(self, gradients: Tensors, others: Tensors) -> Tensor:
        """Return the sum of the squares that `AdamW.norm` takes the root of."""
        total = 0.0
        for i in range(self.count):
            total = total + self._square_sum(self._masked(gradients[i], self.keep[i]))
        for tensor in others:
            total = total + self._square_sum(tensor)
        return total

    def _square_sum(self, x: Tensor) -> Tensor:
        return (x * x).sum() if self.half_square is None else self.half_square(x) * 2.0

    def _masked(self, gradient: Tensor, keep: Parameter | None) -> Tensor:
        return gradient if keep is None else gradient * ops.cast(keep, gradient.dtype)

    def rates(self, learning_rate: float, update: int) -> tuple[Tensor, ...]:
        """Return what update number `update` (from 1) needs: seven float32 scalars, as `_update` takes them."""
        shrink = learning_rate * self.weight_decay
        values = (learning_rate, BETA1**update, BETA2**update, BETA1, BETA2, EPSILON, shrink)
        return mutable(tuple(Tensor(np.float32(v)) for v in values))

    def without_change(self, rates: Tensors, skip: Tensor) -> Tensors:
        """Return the rates with which an update without gradients changes nothing, if `skip` is true."""
        learning_rate, power1, power2, beta1, beta2, epsilon, shrink = rates
        learning_rate, shrink = (ops.masked_fill(rate, skip, 0.0) for rate in (learning_rate, shrink))
        beta1, beta2 = (ops.masked_fill(beta, skip, 1.0) for beta in (beta1, beta2))
        return learning_rate, power1, power2, beta1, beta2, epsilon, shrink


class WeightUpdate(nn.Cell):
    """One AdamW update of all weights from their gradients: averaged over the workers, masked, clipped.

    Args:
        model: Classifier whose weights are updated.
        settings: Section of the configuration.
        masks: Masks of a ticket by matrix; empty to update all weights.
        scale: Loss scale of the gradients.
    """

    def __init__(self, model: EncoderClassifier, settings: schema.Training, masks: Masks, scale: LossScale) -> None:
        super().__init__(auto_prefix=False)
        names, parameters = zip(*model.weights().items(), strict=True)
        self.parameters, self.clip_norm, self.scale = parameters, settings.clip_norm, scale
        decays, keep = [not no_decay(n) for n in names], [masks.get(n) for n in names]
        self.optimizer = adamw(parameters, settings.weight_decay, decays, keep)
        self.average = parallel.average(parameters)

    def construct(
        self, gradients: tuple[Tensor, ...], rates: tuple[Tensor, ...], other_norms: tuple[Tensor, ...] = ()
    ) -> tuple[Tensor, Tensor | None]:
        """Update the weights.

        Args:
            gradients: One tensor for each weight, times the loss scale.
            rates: `rates` of the optimizer for this update.
            other_norms: Norms of other gradients of this update; an overflow of these skips it too.

        Returns:
            Global l2 norm of the gradients before clipping, without the loss scale; `LossScale.overflow`, with which
            the update was skipped.
        """
        gradients, scale = self.average(gradients), self.scale()
        norm = self.optimizer.norm(gradients) / scale
        overflow = self.scale.overflow(norm, *other_norms)
        self.optimizer(gradients, rates, clip_factor(norm, self.clip_norm) / scale, None, overflow)
        return norm, overflow


class Clear(nn.Cell):
    """Sets parameters that hold sums of gradients to zero.

    Args:
        parameters: Float32, of any shape.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        super().__init__(auto_prefix=False)
        self.parameters, self.assign = tuple(parameters), ops.Assign()
        uses_kernel = backend.current() is Backend.KERNELS
        self.kernel = kernel("clear", like=(scalar,), writes=len(parameters)) if uses_kernel else None

    def construct(self) -> None:
        """Clear all of them."""
        if self.kernel is not None:
            self.kernel(*self.parameters)
        else:
            for parameter in self.parameters:
                self.assign(parameter, ops.zeros_like(parameter))


def no_decay(name: str) -> bool:
    """Tell whether a parameter is exempt from weight decay: biases and LayerNorm weights are."""
    return name.endswith(".bias") or "LayerNorm" in name


def clip_factor(norm: Tensor, clip_norm: float) -> Tensor | float:
    """Return the factor that scales a global norm down to `clip_norm`, as torch.nn.utils.clip_grad_norm_ does.

    Args:
        norm: Scalar.
        clip_norm: Largest norm; 0 switches clipping off.
    """
    return ops.minimum(clip_norm / (norm + 1e-6), 1.0) if clip_norm > 0 else 1.0


def _zeros_like(parameter: Parameter, kind: str) -> Parameter:
    return Parameter(np.zeros(parameter.shape, np.float32), name=f"{parameter.name}.{kind}", requires_grad=False)
