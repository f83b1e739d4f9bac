"""What is minimised: one class an objective, each with one compiled forward-backward graph.

An objective has `step(batch, index) -> dict of floats`, one update of the parameters, and `state()`, every
array that a checkpoint must hold.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops

from configs import schema
from mindspore_rt import adversary, gate, noise
from mindspore_rt.bert import BertClassifier
from mindspore_rt.data import Batch
from mindspore_rt.optimizer import AdamW, clip_scale, linear_schedule, no_decay


def cross_entropy(logits, targets):
    """`targets` (batch, labels) are one-hot rows over the number of sentences; filler rows are zero."""
    return -(ops.log_softmax(logits, -1) * targets).sum()


class FineTuning:
    """Cross entropy on clean text (Table 5). With `masks`, the pruned weights stay exactly zero: they start
    as zeros and their gradients are masked, so no gate stands in the forward pass."""

    def __init__(
        self,
        model: BertClassifier,
        settings: schema.Training,
        total_steps: int,
        seed: int,
        masks: dict[str, np.ndarray] | None = None,
    ):
        self.model, self.settings, self.total_steps = model, settings, total_steps
        self.noise = noise.noise_for(seed)
        names, parameters = zip(*model.weights().items(), strict=True)
        self.optimizer = AdamW(parameters, settings.weight_decay, [not no_decay(n) for n in names])
        self.graph = self._compile(names, parameters, masks or {})

    def _compile(self, names, parameters, masks):
        model, optimizer, clip_norm = self.model, self.optimizer, self.settings.clip_norm
        keep = [
            Parameter(masks[n].astype(np.float32), name=f"{n}.keep", requires_grad=False) if n in masks else None
            for n in names
        ]

        def loss_of(ids, attention_mask, token_types, targets, draws):
            return cross_entropy(model(model.embed(ids), attention_mask, token_types, draws), targets)

        value_and_grad = ms.value_and_grad(loss_of, None, weights=list(parameters))

        @ms.jit
        def update(ids, attention_mask, token_types, targets, draws, rates):
            loss, gradients = value_and_grad(ids, attention_mask, token_types, targets, draws)
            gradients = tuple(g if k is None else g * k for g, k in zip(gradients, keep))
            if clip_norm > 0:
                scale = clip_scale(gradients, clip_norm)
                gradients = tuple(g * scale for g in gradients)
            optimizer(gradients, rates)
            return loss

        return update

    def step(self, batch: Batch, index: int) -> dict[str, float]:
        rate = self.settings.learning_rate * linear_schedule(index, self.total_steps, self.settings.warmup)
        draws = self.noise.draw(self.model.noise_shapes(*batch.ids.shape), index)
        loss = self.graph(*batch.tensors(), draws, self.optimizer.rates(rate, index + 1))
        return {"loss": float(loss.asnumpy()), "learning_rate": rate}

    def state(self) -> dict[str, Parameter]:
        return {**self.model.weights(), **self.optimizer.state()}


class RobustSearch:
    """Adversarial loss of the masked model plus lambda times the L0 term (Eq. 8), in FreeLB's form (section 4.4).

    One step: K forward-backward passes on one batch, the perturbation climbing in between, fresh mask and
    dropout noise each time; the mask gradients of loss / K add up, are clipped, get the gradient of
    lambda R(m), and make one AdamW update. The weights are frozen. The graph of one pass is compiled once and
    called K times: unrolled, it would take twice the memory.
    """

    def __init__(self, model: BertClassifier, settings: schema.Search, total_steps: int, seed: int):
        self.model, self.settings, self.total_steps, self.seed = model, settings, total_steps, seed
        self.noise = noise.noise_for(seed)
        self.scores = model.log_alpha()
        self.optimizer = AdamW(self.scores, settings.weight_decay, [True] * len(self.scores))
        self.total = [Parameter(np.zeros(p.shape, np.float32), name=f"{p.name}.grad", requires_grad=False)
                      for p in self.scores]
        self.ascent, self.update = self._compile_pass(), self._compile_update()

    def _compile_pass(self):
        model, settings, total = self.model, self.settings, self.total
        count, assign_add = len(self.scores), ops.AssignAdd()

        def loss_of(delta, embeddings, attention_mask, token_types, targets, draws):
            logits = model(embeddings + delta, attention_mask, token_types, draws)
            return cross_entropy(logits, targets) / settings.ascent_steps

        value_and_grad = ms.value_and_grad(loss_of, 0, weights=self.scores)

        @ms.jit
        def one_pass(ids, attention_mask, token_types, targets, delta, draws):
            loss, (slope, gradients) = value_and_grad(
                delta, model.embed(ids), attention_mask, token_types, targets, draws
            )
            for i in range(count):
                assign_add(total[i], gradients[i])
            return loss, adversary.ascend(delta, slope, settings.ascent_rate, settings.max_norm)

        return one_pass

    def _compile_update(self):
        scores, total, optimizer = self.scores, self.total, self.optimizer
        clip_norm, masks, assign = self.settings.clip_norm, sum(p.size for p in self.scores), ops.Assign()

        @ms.jit
        def update(l0_weight, rates):
            gradients = tuple(total)
            if clip_norm > 0:
                scale = clip_scale(gradients, clip_norm)
                gradients = tuple(g * scale for g in gradients)
            gradients = tuple(g + gate.l0_gradient(a) * (l0_weight / masks) for g, a in zip(gradients, scores))
            optimizer(gradients, rates)
            for gradient in total:
                assign(gradient, ops.zeros_like(gradient))
            return l0_weight

        return update

    def l0_weight(self, index: int) -> float:
        """lambda at update `index`: 0 for the first `l0_start` of all steps, then a linear rise over `l0_ramp`."""
        settings = self.settings
        since = index - settings.l0_start * self.total_steps
        ramp = settings.l0_ramp * self.total_steps
        share = 1.0 if since >= ramp else max(0.0, since / ramp)
        return settings.l0_weight * share

    def step(self, batch: Batch, index: int) -> dict[str, float]:
        settings, hidden = self.settings, self.model.config.hidden_size
        shape = (*batch.ids.shape, hidden)
        delta = Tensor(adversary.start(shape, batch.attention_mask, settings.initial_norm, self.seed, index))
        loss = 0.0
        for ascent in range(settings.ascent_steps):
            draws = self.noise.draw(self.model.noise_shapes(*batch.ids.shape), index, ascent)
            part, delta = self.ascent(*batch.tensors(), delta, draws)
            loss += float(part.asnumpy())
        rate = settings.learning_rate * linear_schedule(index, self.total_steps, settings.warmup)
        l0_weight = self.l0_weight(index)
        self.update(Tensor(np.float32(l0_weight)), self.optimizer.rates(rate, index + 1))
        return {"adversarial_loss": loss, "learning_rate": rate, "l0_weight": l0_weight}

    def metrics(self) -> dict[str, float]:
        """L0 term and shares of settled masks, for the log."""
        return gate.mask_statistics([p.asnumpy() for p in self.scores])

    def state(self) -> dict[str, Parameter]:
        return {**{p.name: p for p in self.scores}, **self.optimizer.state()}
