"""Temperature scaling (Guo et al. 2017): a model that is too sure can look robust, its scores being all the same.

It only ever softens: on a dev set that is (nearly) all right, likelihood alone asks for ever sharper scores, the very
certainty that this is to remove.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

RANGE = (1.0, 20.0)


def fit(logits: Sequence[Sequence[float]], labels: Sequence[int]) -> dict:
    """The temperature that makes the labels likeliest, and the mean negative log-likelihood before and after it."""
    import torch
    from scipy.optimize import minimize_scalar

    scores, truth = torch.tensor(logits, dtype=torch.float64), torch.tensor(labels)

    def loss(log_temperature: float) -> float:
        return torch.nn.functional.cross_entropy(scores / math.exp(log_temperature), truth).item()

    found = minimize_scalar(loss, bounds=[math.log(end) for end in RANGE], method="bounded")
    # The search never tries the ends themselves.
    best = min((math.log(RANGE[0]), found.x, math.log(RANGE[1])), key=loss)
    return {"temperature": round(math.exp(best), 4), "nll": loss(0.0), "nll_calibrated": loss(best)}
