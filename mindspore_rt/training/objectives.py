"""What is minimised: one class an objective, each with a compiled forward-backward graph.

InfoBERT, the longest, has a module of its own.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from configs.contract import schema
from mindspore_rt import parallel
from mindspore_rt.cells import gate, noise
from mindspore_rt.cells.bert import BertClassifier
from mindspore_rt.cells.float64_ops import cross_entropy
from mindspore_rt.data.batches import Batch
from mindspore_rt.training import adversary
from mindspore_rt.training.optimizer import AdamW, Clear, clip_factor, linear_schedule, no_decay

LOSS_SCALE = 1024.0  # keeps small gradients of float16 matmuls above their smallest number


class Objective(Protocol):
    """What the trainer needs of an objective."""

    def step(self, batch: Batch, index: int) -> dict[str, float]:
        """Make update number `index` (from 0) on one batch and return figures for the log."""

    def state(self) -> dict[str, Parameter]:
        """Return by name every array that a checkpoint must hold."""

    def metrics(self) -> dict[str, float]:
        """Return more figures for the log that are too costly to compute at every step."""
        return {}


class FineTuning(Objective):
    """Cross entropy on clean text (Table 5). With `masks`, the pruned weights stay exactly zero: they start
    as zeros and their gradients are masked, so no gate stands in the forward pass."""

    def __init__(
        self,
        model: BertClassifier,
        settings: schema.Training,
        total_steps: int,
        seed: int,
        masks: dict[str, np.ndarray] | None = None,
        rank: int = 0,
    ):
        self.model, self.settings, self.total_steps = model, settings, total_steps
        self.noise = noise.source(seed, rank)
        self.update = WeightUpdate(model, settings, masks or {})
        self.graph = self._compile()

    def _compile(self):
        model, update, scale = self.model, self.update, loss_scale(self.model)

        def loss_of(ids, attention_mask, token_types, targets, draws):
            return cross_entropy(model(model.embed(ids), attention_mask, token_types, draws), targets) * scale

        value_and_grad = ms.value_and_grad(loss_of, None, weights=list(update.parameters))

        @ms.jit
        def step(ids, attention_mask, token_types, targets, draws, rates):
            loss, gradients = value_and_grad(ids, attention_mask, token_types, targets, draws)
            return loss / scale, update(gradients, rates)

        return step

    def step(self, batch: Batch, index: int) -> dict[str, float]:
        rate = self.settings.learning_rate * linear_schedule(index, self.total_steps, self.settings.warmup)
        draws = self.noise.draw(self.model.noise_shapes(*batch.ids.shape), index)
        loss, norm = self.graph(*batch.tensors(), draws, self.update.optimizer.rates(rate, index + 1))
        return {"loss": value(loss), "gradient_norm": value(norm), "learning_rate": rate}

    def state(self) -> dict[str, Parameter]:
        return {**self.model.weights(), **self.update.optimizer.state()}


class WeightUpdate(nn.Cell):
    """One AdamW update of all weights from their gradients: averaged over the workers, masked, clipped."""

    def __init__(self, model: BertClassifier, settings: schema.Training, masks: dict[str, np.ndarray]):
        super().__init__(auto_prefix=False)
        names, parameters = zip(*model.weights().items(), strict=True)
        self.parameters, self.clip_norm, self.scale = parameters, settings.clip_norm, loss_scale(model)
        decays, keep = [not no_decay(n) for n in names], [masks.get(n) for n in names]
        self.optimizer = AdamW(parameters, settings.weight_decay, decays, keep)
        self.average = parallel.average(parameters)

    def construct(self, gradients, rates):
        """Returns the global norm before clipping."""
        gradients = self.average(gradients)
        norm = self.optimizer.norm(gradients) / self.scale
        self.optimizer(gradients, rates, clip_factor(norm, self.clip_norm) / self.scale)
        return norm


class Ascents(Objective):
    """FreeLB's form of an adversarial objective (section 4.4; Zhu et al. 2020).

    One step: K forward-backward passes on one batch, the perturbation climbing in between; the gradients of loss / K
    add up in `total`, and one update follows. The graph of one pass is compiled once and called K times: unrolled, it
    would take twice the memory.
    """

    def __init__(self, model: BertClassifier, settings, seed: int, rank: int, trained: list[Parameter]):
        self.model, self.settings, self.seed, self.rank = model, settings, seed, rank
        self.noise = noise.source(seed, rank)
        self.trained = list(trained)
        self.total = [
            Parameter(np.zeros(p.shape, np.float32), name=f"{p.name}.grad", requires_grad=False) for p in self.trained
        ]
        self.ascent = self._compile_pass()

    def _compile_pass(self):
        model, settings, total, scale = self.model, self.settings, self.total, loss_scale(self.model)
        count, assign_add = len(total), ops.AssignAdd()

        def loss_of(delta, ids, attention_mask, token_types, targets, draws):
            logits = model(model.embed(ids) + delta, attention_mask, token_types, draws)
            return cross_entropy(logits, targets) * (scale / settings.ascent_steps)

        value_and_grad = ms.value_and_grad(loss_of, 0, weights=self.trained)

        @ms.jit
        def one_pass(ids, attention_mask, token_types, targets, delta, draws):
            loss, (slope, gradients) = value_and_grad(delta, ids, attention_mask, token_types, targets, draws)
            for i in range(count):
                assign_add(total[i], gradients[i])
            return loss / scale, adversary.ascend(delta, slope / scale, settings.ascent_rate, settings.max_norm)

        return one_pass

    def climb(self, batch: Batch, index: int, fresh: bool) -> float:
        """All K passes of update `index`; the adversarial loss. `fresh` noise at every pass, or the same at all."""
        settings, tensors = self.settings, batch.tensors()
        delta = self.start(batch, index)
        loss = 0.0
        for ascent in range(settings.ascent_steps):
            draws = self.noise.draw(self.model.noise_shapes(*batch.ids.shape), index, ascent if fresh else 0)
            part, delta = self.ascent(*tensors, delta, draws)
            loss += value(part)
        return loss

    def start(self, batch: Batch, index: int) -> Tensor:
        shape = (*batch.ids.shape, self.model.config.hidden_size)
        size = self.settings.initial_norm
        return Tensor(adversary.start(shape, batch.attention_mask, size, self.seed, index, self.rank))


class FreeLB(Ascents):
    """Adversarial training of all weights. The dropout mask stays the same over the K passes, but on a device, where it
    cannot be drawn twice (noise.py). With `masks`, pruned weights stay exactly zero."""

    def __init__(
        self,
        model: BertClassifier,
        settings: schema.AdversarialTraining,
        total_steps: int,
        seed: int,
        masks: dict[str, np.ndarray] | None = None,
        rank: int = 0,
    ):
        super().__init__(model, settings, seed, rank, list(model.weights().values()))
        self.total_steps = total_steps
        self.update = WeightUpdate(model, settings, masks or {})
        self.apply = self._compile_update()

    def _compile_update(self):
        total, update, clear = tuple(self.total), self.update, Clear(self.total)

        @ms.jit
        def apply(rates):
            norm = update(total, rates)
            clear()
            return norm

        return apply

    def step(self, batch: Batch, index: int) -> dict[str, float]:
        loss = self.climb(batch, index, fresh=False)
        rate = self.settings.learning_rate * linear_schedule(index, self.total_steps, self.settings.warmup)
        norm = self.apply(self.update.optimizer.rates(rate, index + 1))
        return {"adversarial_loss": loss, "gradient_norm": value(norm), "learning_rate": rate}

    def state(self) -> dict[str, Parameter]:
        return {**self.model.weights(), **self.update.optimizer.state()}


class RobustSearch(Ascents):
    """Adversarial loss of the masked model plus lambda times the L0 term (Eq. 8): the masks are learned, the weights
    are frozen. Mask and dropout noise are fresh at every pass.

    Where `compat` is `official`, this follows the official code where it departs from the paper:
    the pair's segments are dropped; the L0 term is the mean of the matrices' means; lambda's schedule runs three
    times too fast; and the weights' gradients, which it computes, never zeroes and never uses, count in the clip and
    are scaled by it.
    """

    def __init__(
        self,
        model: BertClassifier,
        settings: schema.Search,
        total_steps: int,
        seed: int,
        compat: str = "paper",
        rank: int = 0,
    ):
        self.official, self.total_steps = compat == "official", total_steps
        self.scores = model.log_alpha()
        stale = list(model.weights().values()) if self.official else []
        super().__init__(model, settings, seed, rank, self.scores + stale)
        self.optimizer = AdamW(self.scores, settings.weight_decay, [True] * len(self.scores))
        self.update = self._compile_update()

    def _compile_update(self):
        scores, optimizer, count = self.scores, self.optimizer, len(self.scores)
        total, stale = tuple(self.total), tuple(self.total[count:])
        masks, assign, clip_norm = sum(p.size for p in scores), ops.Assign(), self.settings.clip_norm
        shares = Tensor(np.float32([1 / (count * p.size) if self.official else 1 / masks for p in scores]))
        average, scale, clear = parallel.average(self.trained), loss_scale(self.model), Clear(self.total[:count])

        @ms.jit
        def update(l0_weight, rates):
            averaged = average(total)
            gradients, unused = averaged[:count], averaged[count:]
            norm = optimizer.norm(gradients, unused) / scale
            factor = clip_factor(norm, clip_norm)
            optimizer(gradients, rates, factor / scale, l0_weight * shares)
            clear()
            for kept, gradient in zip(stale, unused):
                assign(kept, gradient * factor)
            return norm

        return update

    def l0_weight(self, index: int) -> float:
        """lambda at update `index`: 0 for the first `l0_start` of all steps, then a linear rise over `l0_ramp`."""
        settings = self.settings
        # The official code counts the three inputs of a batch where it means batches, and counts before it asks.
        done = 3 * (index + 1) if self.official else index
        since = done - settings.l0_start * self.total_steps
        ramp = settings.l0_ramp * self.total_steps
        if since < 0:
            return 0.0
        return settings.l0_weight * (1.0 if since >= ramp else since / ramp)

    def step(self, batch: Batch, index: int) -> dict[str, float]:
        if self.official:
            batch = dataclasses.replace(batch, token_types=np.zeros_like(batch.token_types))
        loss = self.climb(batch, index, fresh=True)
        rate = self.settings.learning_rate * linear_schedule(index, self.total_steps, self.settings.warmup)
        l0_weight = self.l0_weight(index)
        norm = self.update(Tensor(np.float32(l0_weight)), self.optimizer.rates(rate, index + 1))
        figures = {"adversarial_loss": loss, "gradient_norm": value(norm)}
        return {**figures, "learning_rate": rate, "l0_weight": l0_weight}

    def metrics(self) -> dict[str, float]:
        """L0 term and shares of settled and of pruned masks, for the log."""
        return gate.mask_statistics([p.asnumpy() for p in self.scores])

    def state(self) -> dict[str, Parameter]:
        stale = self.total[len(self.scores) :]
        return {**{p.name: p for p in (*self.scores, *stale)}, **self.optimizer.state()}


def loss_scale(model: BertClassifier) -> float:
    return LOSS_SCALE if getattr(model, "amp", None) == "float16" else 1.0


def value(tensor: Tensor) -> float:
    return float(tensor.asnumpy())
