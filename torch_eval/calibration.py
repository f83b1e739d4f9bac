"""Temperature scaling (Guo et al. 2017): a model that is too sure can look robust, its scores being all the same."""

from __future__ import annotations

import math
from typing import Sequence

RANGE = (0.05, 20.0)


def fit(logits: Sequence[Sequence[float]], labels: Sequence[int]) -> dict:
    """The temperature that makes the labels likeliest, and the mean negative log-likelihood before and after it."""
    import torch
    from scipy.optimize import minimize_scalar

    scores, truth = torch.tensor(logits, dtype=torch.float64), torch.tensor(labels)

    def loss(log_temperature: float) -> float:
        return torch.nn.functional.cross_entropy(scores / math.exp(log_temperature), truth).item()

    found = minimize_scalar(loss, bounds=[math.log(end) for end in RANGE], method="bounded")
    return {"temperature": round(math.exp(found.x), 4), "nll": loss(0.0), "nll_calibrated": loss(found.x)}
