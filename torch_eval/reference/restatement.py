"""What the official code computes, restated in PyTorch: masked BERT, search, draw, retraining.

Without a checkout of the official repository (`official_checkout.py` runs one), the MindSpore half is timed and
compared with this module. Where that code departs from the paper, this module follows the code. Equation numbers are
the paper's.

Noise is drawn by torch unless it is given, so that both frameworks can compute with the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune
from transformers import BertConfig, BertForSequenceClassification

GAMMA, ZETA, BETA = -0.1, 1.1, 2 / 3
U_MIN = 1e-4
MASK_P = 0.9  # deterministic mask at the start
START = math.log((MASK_P - GAMMA) / (ZETA - MASK_P))  # the score that gives it
L0_SHIFT = BETA * math.log(-GAMMA / ZETA)
KEPT, PRUNED = 20.0, -20.0  # scores of a drawn ticket: so large that no noise changes their masks
MASKED_LAYERS = ("query", "key", "value", "dense")  # of the encoder and the pooler, by the last part of their name


# --- the masked model -------------------------------------------------------------------------------------


def sampled_mask(log_alpha: Tensor, u: Tensor) -> Tensor:
    """Return the masks of Eq. 1-3 for uniform numbers `u` of the same shape, clamped to [1e-4, 1 - 1e-4]."""
    u = u.clamp(U_MIN, 1 - U_MIN)
    s = torch.sigmoid((u.log() - (1 - u).log() + log_alpha) / BETA)
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0.0, 1.0)


def deterministic_mask(log_alpha: Tensor) -> Tensor:
    """Return the masks of Eq. 5."""
    return (torch.sigmoid(log_alpha) * (ZETA - GAMMA) + GAMMA).clamp(0.0, 1.0)


class MaskedLinear(nn.Module):
    """A linear layer whose weight (out, in) is multiplied by a mask with one score for each `block` of weights.

    Scores are shared with a stride: with `block` (b, c), weight (i, j) has score (i mod out/b, j mod in/c). In training
    mode the mask is sampled, from `u` if that is set and from fresh uniform numbers otherwise; else it is Eq. 5.

    Args:
        linear: Layer whose weight and bias are taken.
        block: Rows and columns of weights that share one score.
    """

    def __init__(self, linear: nn.Linear, block: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        rows, columns = linear.weight.shape
        self.weight, self.bias, self.block = linear.weight, linear.bias, block
        grid = (rows // block[0], columns // block[1])
        self.log_alpha = nn.Parameter(torch.full(grid, START, dtype=linear.weight.dtype))
        self.u: Tensor | None = None

    def mask(self) -> Tensor:
        """Return the mask, of the scores' shape."""
        if not self.training:
            return deterministic_mask(self.log_alpha)
        return sampled_mask(self.log_alpha, torch.rand_like(self.log_alpha) if self.u is None else self.u)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        rows, columns = self.log_alpha.shape
        blocks = self.weight.view(self.block[0], rows, self.block[1], columns)
        return F.linear(x, (blocks * self.mask()[:, None, :]).view_as(self.weight), self.bias)


class MaskedBert(BertForSequenceClassification):
    """transformers' BERT classifier with a mask on every linear layer of the encoder and the pooler (73 in BERT-base).

    Attention is the eager form: a faster one, chosen by transformers, is another class, whose layers the official code
    passes over.

    Args:
        config: Shape of the model.
        block: Rows and columns of weights that share one score.
    """

    def __init__(self, config: BertConfig, block: tuple[int, int] = (1, 1)) -> None:
        config._attn_implementation = "eager"
        super().__init__(config)
        for name, layer in list(self.bert.named_modules()):
            parent, _, last = name.rpartition(".")
            if last in MASKED_LAYERS and isinstance(layer, nn.Linear):
                setattr(self.bert.get_submodule(parent), last, MaskedLinear(layer, block))

    def masked_layers(self) -> dict[str, MaskedLinear]:
        """Return the masked layers by the name of the weight, in the order of the forward pass."""
        return {f"{name}.weight": m for name, m in self.named_modules() if isinstance(m, MaskedLinear)}

    def log_alpha(self) -> dict[str, nn.Parameter]:
        """Return the scores by the name of the weight."""
        return {name: layer.log_alpha for name, layer in self.masked_layers().items()}

    def weights(self) -> dict[str, nn.Parameter]:
        """Return all parameters but the scores."""
        return {name: p for name, p in self.named_parameters() if not name.endswith("log_alpha")}

    def use_gates(self, u: dict[str, Tensor] | None) -> None:
        """Sample the next masks from these uniform numbers, by the name of the weight; None: draw them."""
        for name, layer in self.masked_layers().items():
            layer.u = None if u is None else u[name]

    def fix_ticket(self, masks: dict[str, Tensor]) -> None:
        """Settle every mask at 1 or 0 (`masks`: bool or 0/1, of the scores' shape) through its score, +20 or -20."""
        for name, parameter in self.log_alpha().items():
            mask = masks[name].to(parameter)
            parameter.data = KEPT * mask + PRUNED * (1 - mask)


def l0_term(log_alpha: Iterable[Tensor]) -> Tensor:
    """Return Eq. 4 as the mean of the matrices' means, where the paper has one mean over all scores."""
    probabilities = [torch.sigmoid(a - L0_SHIFT) for a in log_alpha]
    return sum(p.sum() / p.numel() for p in probabilities) / len(probabilities)


# --- the optimizer ----------------------------------------------------------------------------------------


class AdamW(torch.optim.Optimizer):
    """AdamW as in transformers up to version 4, which the official code imports.

    Moments are bias-corrected, eps is added to the uncorrected square root of v, and weights decay after the step.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        correct_bias: bool = True,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "correct_bias": correct_bias}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            (beta1, beta2), rate = group["betas"], group["lr"]
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state.update(update=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
                state["update"] += 1
                m = state["m"].mul_(beta1).add_(p.grad, alpha=1 - beta1)
                v = state["v"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                size = rate
                if group["correct_bias"]:
                    size *= math.sqrt(1 - beta2 ** state["update"]) / (1 - beta1 ** state["update"])
                p.addcdiv_(m, v.sqrt().add_(group["eps"]), value=-size)
                if group["weight_decay"]:
                    p.mul_(1 - rate * group["weight_decay"])


def linear_schedule(index: int, total: int, warmup: float) -> float:
    """Return the factor of the peak learning rate at update `index` (from 0). Warm-up steps are not rounded."""
    rise = warmup * total
    if index < rise:
        return index / max(1.0, rise)
    return max(0.0, (total - index) / max(1.0, total - rise))


# --- search -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search."""

    total_steps: int
    learning_rate: float = 0.1
    weight_decay: float = 1e-6
    warmup: float = 0.1
    clip_norm: float = 1.0
    ascent_steps: int = 5
    ascent_rate: float = 0.03
    initial_norm: float = 0.05
    l0_weight: float = 0.5
    l0_start: float = 0.1
    l0_ramp: float = 0.3
    freeze: bool = False  # off: weights get gradients that are never used or zeroed, and count in the clipped norm

    def l0_weight_at(self, index: int) -> float:
        """Return lambda at update `index` (from 0): 0, then linear, then constant.

        The schedule counts the three inputs of a batch where it means batches.
        """
        since = 3 * (index + 1) - self.l0_start * self.total_steps
        return self.l0_weight * max(0.0, min(1.0, since / (self.l0_ramp * self.total_steps)))


@dataclass
class SearchNoise:
    """All random numbers of one search step. Dropout is torch's own: switch it off to compare exactly.

    Attributes:
        start: Start of the perturbation, (batch, length, hidden) in [-1, 1].
        gates: For each pass, the uniform numbers of every mask by the name of its weight.
    """

    start: Tensor
    gates: list[dict[str, Tensor]]


def start_perturbation(embeddings: Tensor, attention_mask: Tensor, initial_norm: float, draw: Tensor | None) -> Tensor:
    """Return (batch, length, hidden): uniform in [-1, 1], times initial_norm / sqrt(tokens * hidden); 0 on padding."""
    draw = torch.empty_like(embeddings).uniform_(-1, 1) if draw is None else draw
    tokens = attention_mask.to(embeddings)
    size = initial_norm / torch.sqrt(tokens.sum(1) * embeddings.shape[2])
    return draw * tokens[:, :, None] * size[:, None, None]


def ascend(delta: Tensor, gradient: Tensor, rate: float) -> Tensor:
    """Return Eq. 7, (batch, length, hidden), with the l2 norm of each sentence, at least 1e-8, without a projection."""
    norm = torch.norm(gradient.flatten(1), dim=1)[:, None, None]
    return delta + rate * gradient / norm.clamp(min=1e-8)


class RestatedSearch:
    """Mask search (Eq. 6-8, section 4.4): K passes with ascents between them, clip, L0 gradient, one AdamW update.

    `inputs` of a step are `input_ids` and `attention_mask` (batch, length), `labels` (batch,). Token types are dropped.

    Args:
        model: Masked classifier.
        settings: Hyper-parameters.
    """

    def __init__(self, model: MaskedBert, settings: SearchSettings) -> None:
        self.model, self.settings = model.train(), settings
        if settings.freeze:
            for parameter in model.weights().values():
                parameter.requires_grad_(False)
        self.scores = list(model.log_alpha().values())
        self.optimizer = AdamW(self.scores, settings.learning_rate, eps=1e-8, weight_decay=settings.weight_decay)

    def step(
        self, inputs: dict[str, Tensor], labels: Tensor, index: int, noise: SearchNoise | None = None
    ) -> dict[str, float]:
        """Make update number `index` (from 0) and return the loss, lambda and the learning rate."""
        losses = self.accumulate(inputs, labels, noise)
        return {"loss": sum(losses), **self.update(index)}

    def accumulate(self, inputs: dict[str, Tensor], labels: Tensor, noise: SearchNoise | None = None) -> list[float]:
        """Run the K passes, sum their gradients in every parameter's `grad`, and return each pass's loss / K."""
        model, settings, losses = self.model, self.settings, []
        self.optimizer.zero_grad()
        embed, mask = model.get_input_embeddings(), inputs["attention_mask"]
        embeddings = embed(inputs["input_ids"])
        delta = start_perturbation(embeddings, mask, settings.initial_norm, noise and noise.start).detach()
        for ascent in range(settings.ascent_steps):
            model.use_gates(noise and noise.gates[ascent])
            delta.requires_grad_()
            logits = model(inputs_embeds=delta + embeddings, attention_mask=mask).logits
            loss = F.cross_entropy(logits, labels) / settings.ascent_steps
            losses.append(loss.item())
            loss.backward()
            if ascent < settings.ascent_steps - 1:
                delta = ascend(delta.detach(), delta.grad, settings.ascent_rate)
                embeddings = embed(inputs["input_ids"])
        return losses

    def update(self, index: int) -> dict[str, float]:
        """Clip the accumulated gradients, add the gradient of lambda R(m), and update the scores."""
        settings = self.settings
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        l0_weight = settings.l0_weight_at(index)
        (l0_weight * l0_term(self.scores)).backward()
        rate = settings.learning_rate * linear_schedule(index, settings.total_steps, settings.warmup)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        return {"l0_weight": l0_weight, "learning_rate": rate}


# --- draw and retrain -------------------------------------------------------------------------------------


def draw(log_alpha: dict[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Return masks (bool, True where kept) of global L1 pruning of the float32 sigmoids; torch breaks ties."""
    flat = torch.cat([torch.sigmoid(a.detach().float()).flatten() for a in log_alpha.values()])
    mask = prune.L1Unstructured(float(sparsity)).compute_mask(flat, torch.ones_like(flat)).bool()
    parts = mask.split([a.numel() for a in log_alpha.values()])
    return {name: part.view_as(a) for (name, a), part in zip(log_alpha.items(), parts, strict=True)}


class RestatedRetraining:
    """Fine-tuning of a ticket, as the official code runs it: the masked model with scores at +20 and -20.

    Every forward pass samples all masks, which come out at exactly 1 or 0 whatever the noise, and every backward pass
    carries a gradient, zero, to the scores. Nothing clips. Pruned weights keep their pre-trained values behind
    their masks, and decay.

    Args:
        model: Masked classifier whose scores are those of a ticket (`fix_ticket`).
        total_steps: Number of updates of the whole training.
        learning_rate: Peak of the schedule.
        weight_decay: Of weights but biases and LayerNorm.
        warmup: Share of the updates in which the learning rate rises.
    """

    def __init__(
        self,
        model: MaskedBert,
        total_steps: int,
        learning_rate: float = 2e-5,
        weight_decay: float = 0.01,
        warmup: float = 0.1,
    ) -> None:
        self.model, self.total_steps = model.train(), total_steps
        self.learning_rate, self.warmup = learning_rate, warmup
        groups: dict[float, list[nn.Parameter]] = {weight_decay: [], 0.0: []}
        for name, parameter in model.weights().items():
            groups[0.0 if name.endswith("bias") or "LayerNorm.weight" in name else weight_decay].append(parameter)
        self.optimizer = AdamW([{"params": p, "weight_decay": d} for d, p in groups.items()], learning_rate, eps=1e-8)

    def step(self, inputs: dict[str, Tensor], labels: Tensor, index: int) -> dict[str, float]:
        """Make update number `index` (from 0) and return the loss and the learning rate."""
        self.model.zero_grad()
        loss = F.cross_entropy(self.model(**inputs).logits, labels)
        loss.backward()
        rate = self.learning_rate * linear_schedule(index, self.total_steps, self.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return {"loss": loss.item(), "learning_rate": rate}
