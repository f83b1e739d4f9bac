"""The objectives of training: fine-tuning, FreeLB and the mask search, each with its compiled graphs.

InfoBERT, the longest objective, has a module of its own.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, mutable, ops

from configs.contract.experiment import schema
from mindspore_rt import parallel
from mindspore_rt.cells import backend, gate, noise
from mindspore_rt.cells.encoder import Draws, EncoderClassifier
from mindspore_rt.cells.float64_ops import cross_entropy
from mindspore_rt.data.batches import Batch
from mindspore_rt.training import adversary
from mindspore_rt.training.loss_scale import LossScale
from mindspore_rt.training.optimizer import Clear, Masks, WeightUpdate, adamw, clip_factor, linear_schedule


class Objective(ABC):
    """What the trainer needs of an objective.

    Args:
        model: Classifier that computes the loss.
        settings: Section of the configuration.
        total_steps: Number of updates of the whole training.
        seed: Seed of noise and perturbation. Every worker draws other numbers from it.
    """

    def __init__(self, model: EncoderClassifier, settings: schema.Updates, total_steps: int, seed: int) -> None:
        self.model, self.settings, self.total_steps = model, settings, total_steps
        self.seed, self.rank = seed, parallel.rank()
        self.noise = noise.source(seed, self.rank)
        self.loss_scale, self.vote = LossScale(model), parallel.StopVote()

    @abstractmethod
    def step(self, batch: Batch, index: int, asked: bool = False) -> dict[str, float]:
        """Make update number `index` (from 0) on one batch and return figures for the log.

        `asked` is whether this worker was asked to stop. With several workers, the figure `stop_requests` counts those.
        """

    @abstractmethod
    def state(self) -> dict[str, Parameter]:
        """Return by name every array that a checkpoint must hold."""

    def metrics(self) -> dict[str, float]:
        """Return more figures for the log that are too costly to compute at every step."""
        return {}

    def learning_rate(self, index: int) -> float:
        """Return the learning rate of update number `index`."""
        return self.settings.learning_rate * linear_schedule(index, self.total_steps, self.settings.warmup)

    def draws(self, batch: Batch, index: int, ascent: int = 0) -> Draws:
        """Return the noise of one pass of update number `index`."""
        return self.noise.draw(self.model.noise_shapes(*batch.ids.shape), index, ascent)


class WeightTraining(Objective):
    """An objective over all weights, or over those of a ticket; see `Objective` for the other arguments.

    A subclass compiles its graphs in `build`, which the constructor calls last.

    Args:
        masks: Masks of a ticket by matrix, True where a weight is kept. The pruned weights must be zero at the start;
            they stay exactly zero, since their gradients are masked. No gate is needed in the forward pass.
    """

    def __init__(
        self,
        model: EncoderClassifier,
        settings: schema.Training,
        total_steps: int,
        seed: int,
        masks: Masks | None = None,
    ) -> None:
        super().__init__(model, settings, total_steps, seed)
        self.update = WeightUpdate(model, settings, masks or {}, self.loss_scale)
        self.build()

    @abstractmethod
    def build(self) -> None:
        """Compile the graphs of an update."""

    def state(self) -> dict[str, Parameter]:
        """Return the weights, their moments and the loss scale."""
        return {**self.model.weights(), **self.update.optimizer.state(), **self.loss_scale.state()}


class FineTuning(WeightTraining):
    """Cross entropy on clean text (Table 5)."""

    def build(self) -> None:
        """Compile the one graph of an update."""
        self.graph = self._compile()

    def _compile(self) -> Callable:
        model, update, scale, vote = self.model, self.update, self.loss_scale, self.vote

        def loss_of(ids: Tensor, attention_mask: Tensor, token_types: Tensor, targets: Tensor, draws: Draws) -> Tensor:
            return cross_entropy(model(model.embed(ids), attention_mask, token_types, draws), targets) * scale()

        value_and_grad = ms.value_and_grad(loss_of, None, weights=list(update.parameters))

        @backend.jit
        def step(
            ids: Tensor,
            attention_mask: Tensor,
            token_types: Tensor,
            targets: Tensor,
            draws: Draws,
            rates: tuple,
            ballot: tuple,
        ) -> Tensor:
            loss, gradients = value_and_grad(ids, attention_mask, token_types, targets, draws)
            loss = loss / scale()
            norm, overflow = update(gradients, rates)
            return ops.stack((loss, norm, *vote(ballot), *scale.adjust(overflow)))

        return step

    def step(self, batch: Batch, index: int, asked: bool = False) -> dict[str, float]:
        """Make one update; returns the loss, the norm of the gradient before clipping and the learning rate."""
        rate = self.learning_rate(index)
        rates = self.update.optimizer.rates(rate, index + 1)
        values = fetch(self.graph(*batch.tensors(), self.draws(batch, index), rates, self.vote.ballot(asked)))
        names = ("loss", "gradient_norm", *self.vote.names)
        return {**self.loss_scale.figures(names, values), "learning_rate": rate}


class AdversarialObjective(Objective):
    """An adversarial objective in the form of FreeLB (section 3.2, Eq. 6-7; Zhu et al. 2020).

    One step makes K forward-backward passes on one batch. Between two passes the perturbation of the word embeddings
    takes an ascent step. The gradients of loss / K are summed in `gradient_sums`, and one update follows. The graph of
    one pass is compiled once and called K times; unrolled, it would take twice the memory.
    """

    settings: schema.AdversarialTraining | schema.MaskSearch

    def prepare_passes(self, trained: Sequence[Parameter]) -> None:
        """Compile the graph of a pass, which sums the gradients of the parameters `trained`."""
        self.device_start = (
            adversary.DeviceStart(self.settings.initial_norm, self.noise)
            if isinstance(self.noise, noise.IntegerNoise)
            else None
        )
        self.trained = list(trained)
        self.gradient_sums = [
            Parameter(np.zeros(p.shape, np.float32), name=f"{p.name}.grad", requires_grad=False) for p in self.trained
        ]
        self.ascent = self._compile_pass()

    def _compile_pass(self) -> Callable:
        model, settings, sums, scale = self.model, self.settings, self.gradient_sums, self.loss_scale
        count, assign_add = len(sums), ops.AssignAdd()

        def loss_of(
            delta: Tensor, ids: Tensor, attention_mask: Tensor, token_types: Tensor, targets: Tensor, draws: Draws
        ) -> Tensor:
            logits = model(model.embed(ids) + delta, attention_mask, token_types, draws)
            return cross_entropy(logits, targets) * (scale() / settings.ascent_steps)

        value_and_grad = ms.value_and_grad(loss_of, 0, weights=self.trained)

        @backend.jit
        def one_pass(
            ids: Tensor, attention_mask: Tensor, token_types: Tensor, targets: Tensor, delta: Tensor, draws: Draws
        ) -> tuple[Tensor, Tensor]:
            loss, (slope, gradients) = value_and_grad(delta, ids, attention_mask, token_types, targets, draws)
            for i in range(count):
                assign_add(sums[i], gradients[i])
            return loss / scale(), adversary.ascend(delta, slope / scale(), settings.ascent_rate, settings.max_norm)

        return one_pass

    def accumulate(self, batch: Batch, index: int, new_noise: bool) -> tuple[Tensor, ...]:
        """Make the K passes of an update, and sum their gradients.

        Args:
            batch: Sentences of the update.
            index: Number of the update.
            new_noise: Draw new noise for each pass, in place of the same for all.

        Returns:
            The adversarial loss of each pass, divided by K, on the device.
        """
        settings, tensors = self.settings, batch.tensors()
        delta = self.start(batch, index)
        losses = []
        for ascent in range(settings.ascent_steps):
            if new_noise or ascent == 0:
                draws = self.draws(batch, index, ascent)
            loss, delta = self.ascent(*tensors, delta, draws)
            losses.append(loss)
        return mutable(tuple(losses))

    def figures(self, values: list[float]) -> dict[str, float]:
        """Name what the graph of an update returns: losses of the passes, gradient norm, stop vote, loss scale."""
        passes, names = self.settings.ascent_steps, ("adversarial_loss", "gradient_norm", *self.vote.names)
        return self.loss_scale.figures(names, [sum(values[:passes]), *values[passes:]])

    def start(self, batch: Batch, index: int) -> Tensor:
        """Draw the perturbation that update `index` starts from, (rows, length, hidden) float32."""
        shape = (*batch.ids.shape, self.model.config.hidden_size)
        if self.device_start:
            return self.device_start(shape, Tensor(batch.attention_mask), index)
        size = self.settings.initial_norm
        return Tensor(adversary.start(shape, batch.attention_mask, size, self.seed, index, self.rank))


class FreeLB(AdversarialObjective, WeightTraining):
    """Adversarial training of all weights, or of those of a ticket. The K passes share one dropout mask."""

    def build(self) -> None:
        """Compile the graphs of a pass and of the update."""
        self.prepare_passes(list(self.model.weights().values()))
        self.apply = self._compile_update()

    def _compile_update(self) -> Callable:
        sums, update, clear = tuple(self.gradient_sums), self.update, Clear(self.gradient_sums)
        scale, vote = self.loss_scale, self.vote

        @backend.jit
        def apply(losses: tuple, rates: tuple, ballot: tuple) -> Tensor:
            norm, overflow = update(sums, rates)
            clear()
            return ops.stack((*losses, norm, *vote(ballot), *scale.adjust(overflow)))

        return apply

    def step(self, batch: Batch, index: int, asked: bool = False) -> dict[str, float]:
        """Make one update; returns the adversarial loss, the gradient's norm before clipping and the learning rate."""
        losses = self.accumulate(batch, index, new_noise=False)
        rate = self.learning_rate(index)
        rates = self.update.optimizer.rates(rate, index + 1)
        values = fetch(self.apply(losses, rates, self.vote.ballot(asked)))
        return {**self.figures(values), "learning_rate": rate}


class RobustSearch(AdversarialObjective):
    """Mask search: the adversarial loss of the masked model plus lambda times the L0 term (Eq. 8).

    The scores (log alpha) are learned, the weights are frozen. Gates and dropout have new noise in every pass.

    With `compat: official` this follows the official code where it departs from the paper: the segments of a pair are
    dropped; the L0 term is the mean of the matrices' means; lambda's schedule runs three times too fast; and the
    gradients of the weights, which that code computes but neither clears nor uses, count in the clipped norm and are
    scaled by the clip.

    Args:
        model: Masked classifier.
        settings: Section of the configuration.
        total_steps: Number of updates of the whole search.
        seed: Seed of noise and perturbation.
        compat: `paper` or `official`.
    """

    settings: schema.MaskSearch

    def __init__(
        self,
        model: EncoderClassifier,
        settings: schema.MaskSearch,
        total_steps: int,
        seed: int,
        compat: str = "paper",
    ) -> None:
        super().__init__(model, settings, total_steps, seed)
        self.official, self.scores = compat == "official", model.log_alpha()
        self.prepare_passes(self.scores + (list(model.weights().values()) if self.official else []))
        self.optimizer = adamw(self.scores, settings.weight_decay, [True] * len(self.scores))
        self.apply, self.mask_sums = self._compile_update(), self._compile_sums()

    def _compile_update(self) -> Callable:
        scores, optimizer, count = self.scores, self.optimizer, len(self.scores)
        sums, stale = tuple(self.gradient_sums), tuple(self.gradient_sums[count:])
        masks, assign, clip_norm = sum(p.size for p in scores), ops.Assign(), self.settings.clip_norm
        shares = Tensor(np.float32([1 / (count * p.size) if self.official else 1 / masks for p in scores]))
        average, clear = parallel.average(self.trained), Clear(self.gradient_sums[:count])
        scale, vote = self.loss_scale, self.vote

        @backend.jit
        def apply(losses: tuple, l0_weight: Tensor, rates: tuple, ballot: tuple) -> Tensor:
            averaged, factor_of_loss = average(sums), scale()
            gradients, unused = averaged[:count], averaged[count:]
            norm = optimizer.norm(gradients, unused) / factor_of_loss
            factor, overflow = clip_factor(norm, clip_norm), scale.overflow(norm)
            optimizer(gradients, rates, factor / factor_of_loss, l0_weight * shares, overflow)
            clear()
            scales = scale.adjust(overflow)
            for stale_sum, gradient in zip(stale, unused):
                clipped = gradient * factor
                if overflow is not None:  # what remains of the stale gradients has the next loss scale
                    clipped = ops.masked_fill(clipped * (scales[0] / factor_of_loss), overflow, 0.0)
                assign(stale_sum, clipped)
            return ops.stack((*losses, norm, *vote(ballot), *scales))

        return apply

    def _compile_sums(self) -> Callable[[], Tensor]:
        scores = tuple(self.scores)

        @backend.jit
        def sums() -> Tensor:
            return ops.stack([gate.mask_sums(score) for score in scores])

        return sums

    def l0_weight(self, index: int) -> float:
        """Return lambda at an update: 0 for the share `l0_start` of all steps, then a linear rise over `l0_ramp`."""
        settings = self.settings
        # The official code adds the three inputs of a batch to a counter of batches, before it computes lambda.
        counted = 3 * (index + 1) if self.official else index
        since = counted - settings.l0_start * self.total_steps
        ramp = settings.l0_ramp * self.total_steps
        if since < 0:
            return 0.0
        return settings.l0_weight * (1.0 if since >= ramp else since / ramp)

    def step(self, batch: Batch, index: int, asked: bool = False) -> dict[str, float]:
        """Make one update; returns its adversarial loss, gradient norm before clipping, learning rate and lambda."""
        if self.official:
            batch = dataclasses.replace(batch, token_types=np.zeros_like(batch.token_types))
        losses = self.accumulate(batch, index, new_noise=True)
        rate = self.learning_rate(index)
        l0_weight, rates = self.l0_weight(index), self.optimizer.rates(rate, index + 1)
        values = fetch(self.apply(losses, Tensor(np.float32(l0_weight)), rates, self.vote.ballot(asked)))
        return {**self.figures(values), "learning_rate": rate, "l0_weight": l0_weight}

    def metrics(self) -> dict[str, float]:
        """Return the L0 term, and the shares of settled masks and of masks below 1/2 (`gate.mask_statistics`)."""
        if backend.on_device():
            return gate.statistics_of_sums(self.mask_sums().asnumpy(), sum(p.size for p in self.scores))
        return gate.mask_statistics([p.asnumpy() for p in self.scores])

    def state(self) -> dict[str, Parameter]:
        """Return scores, moments, loss scale and, under `official`, the sums of the weights' gradients."""
        stale = self.gradient_sums[len(self.scores) :]
        return {**{p.name: p for p in (*self.scores, *stale)}, **self.optimizer.state(), **self.loss_scale.state()}


def fetch(figures: Tensor) -> list[float]:
    """Copy the figures of an update from the device: the one time in an update that the host waits for it."""
    return figures.asnumpy().tolist()
