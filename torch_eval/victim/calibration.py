"""Temperature scaling (Guo et al. 2017).

The scores of an overconfident model are all nearly 1: they do not guide the search of an attack, so the model can look
robust. Temperatures below 1 are not allowed. On a dev set that is classified without errors, likelihood asks for ever
sharper scores, which is the overconfidence that this removes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

RANGE = (1.0, 20.0)


def fit(logits: Sequence[Sequence[float]], labels: Sequence[int]) -> dict:
    """Fit the temperature that makes the labels likeliest.

    Args:
        logits: (examples, labels).
        labels: (examples,).

    Returns:
        `temperature`, and the mean negative log-likelihood before (`nll`) and after (`nll_calibrated`).
    """
    import torch
    from scipy.optimize import minimize_scalar

    scores, truth = torch.tensor(logits, dtype=torch.float64), torch.tensor(labels)

    def loss(log_temperature: float) -> float:
        return torch.nn.functional.cross_entropy(scores / math.exp(log_temperature), truth).item()

    minimum = minimize_scalar(loss, bounds=[math.log(end) for end in RANGE], method="bounded")
    # The search never tries the ends themselves.
    best = min((math.log(RANGE[0]), minimum.x, math.log(RANGE[1])), key=loss)
    return {"temperature": round(math.exp(best), 4), "nll": loss(0.0), "nll_calibrated": loss(best)}
