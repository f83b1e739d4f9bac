"""The PyTorch workers of the bench of training steps.

    python -m torch_eval.bench.torch_step_worker CASE official|frozen|transformers [official=PATH]

The protocol is in `configs/contract/basics/bench_case.py`. With `official=PATH`, the step is that of a checkout of the
official repository (`reference/official_checkout.py`) instead of our restatement of it (`reference/restatement.py`).
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForSequenceClassification

from configs.contract.basics import bench_case
from configs.contract.basics.bench_case import LABELS, TOTAL_STEPS, StepCase
from configs.contract.run.stage import versions
from torch_eval.reference import restatement
from torch_eval.reference.official_checkout import Checkout


def set_weights(model: torch.nn.Module) -> None:
    """Set every weight of a PyTorch BERT classifier to its random value; mask scores stay as they are."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "log_alpha" not in name and "mask_scores" not in name:
                parameter.copy_(torch.from_numpy(bench_case.weight(name, tuple(parameter.shape))))


def torch_inputs(case: StepCase) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return the inputs by the names of transformers, each (batch, length), and labels (batch,)."""
    ids, labels = map(torch.from_numpy, case.inputs())
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}, labels


def torch_config(case: StepCase) -> BertConfig:
    """Return the shape of a case's model."""
    return BertConfig(**case.config(), num_labels=LABELS)


def transformers_step(case: StepCase) -> Callable[[], float]:
    """Return a step of transformers' BERT, unchanged.

    Returns:
        For fine-tuning, a step with PyTorch's AdamW and a clip at norm 1, which returns the loss. For evaluation, a
        forward pass, which returns the sum of the logits.

    Raises:
        ValueError: transformers has no such step.
    """
    model, (inputs, labels) = BertForSequenceClassification(torch_config(case)), torch_inputs(case)
    set_weights(model)
    if case.task == "evaluate":
        model.eval()
        return torch.no_grad()(lambda: model(**inputs).logits.sum().item())
    if case.task != "finetune":
        raise ValueError(f"transformers has no {case.task} step")
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.01)
    index = itertools.count()

    def step() -> float:
        optimizer.zero_grad()
        loss = cross_entropy(model(**inputs).logits, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = 2e-5 * restatement.linear_schedule(next(index), TOTAL_STEPS, 0.1)
        optimizer.step()
        return loss.item()

    return step


def restated_step(case: StepCase, freeze: bool) -> Callable[[], float]:
    """Return a step of our restatement of the official code, which returns the loss.

    Args:
        case: A search or a retraining.
        freeze: Freeze the weights in a search, as they should be; the official code computes gradients for them.

    Raises:
        ValueError: The official code has no such step of its own.
    """
    model, (inputs, labels) = restatement.MaskedBert(torch_config(case)), torch_inputs(case)
    set_weights(model)
    trained: restatement.RestatedSearch | restatement.RestatedRetraining
    if case.task == "search":
        settings = restatement.SearchSettings(TOTAL_STEPS, ascent_steps=case.passes, freeze=freeze)
        trained = restatement.RestatedSearch(model, settings)
    elif case.task == "retrain":
        model.fix_ticket(torch_masks(model.log_alpha()))
        trained = restatement.RestatedRetraining(model, TOTAL_STEPS)
    else:
        raise ValueError(f"the official code has no {case.task} step of its own")
    index = itertools.count()
    return lambda: trained.step(inputs, labels, next(index))["loss"]


def torch_masks(log_alpha: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the random mask of each matrix that has scores."""
    return {name: torch.from_numpy(bench_case.mask(name, tuple(a.shape))) for name, a in log_alpha.items()}


def run_checkout(path: Path, case: StepCase, freeze: bool, turns: Iterable) -> None:
    """Run a checkout's own training loop.

    Args:
        path: Folder of the checkout.
        case: A search or a retraining.
        freeze: Freeze the weights in a search, as they should be.
        turns: Lets the loop make one step for each item.
    """
    checkout = Checkout(path)
    model, (inputs, labels) = checkout.model(torch_config(case)), torch_inputs(case)
    set_weights(model)
    scores = checkout.log_alpha(model)
    for parameter in model.parameters():
        parameter.requires_grad_(not freeze or any(parameter is s for s in scores.values()))
    batches = ((inputs, labels) for _ in turns)
    if case.task == "search":
        checkout.search(model, batches, TOTAL_STEPS, adv_steps=case.passes, lambda_amp=0.5)
    else:
        masks = torch_masks({name: alpha[0, :, 0] for name, alpha in scores.items()})
        checkout.retrain(model, masks, batches, TOTAL_STEPS)


def main() -> None:
    """Serve steps to the bench."""
    case, (variant, *others), answers = bench_case.start()
    torch.set_num_threads(bench_case.THREADS)
    torch.manual_seed(0)
    turns = bench_case.serve(answers, {"versions": versions("torch", "transformers")})
    freeze = variant == "frozen"
    if others:
        run_checkout(Path(others[0].removeprefix("official=")), case, freeze, turns)
        return
    step = transformers_step(case) if variant == "transformers" else restated_step(case, freeze)
    for _ in turns:
        if not math.isfinite(step()):
            sys.exit("the loss is not finite")


if __name__ == "__main__":
    main()
