"""The results of a victim on unchanged texts, and whether it has learned anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch_eval.attack.records import CleanResults


def results(logits: Sequence[Sequence[float]], labels: Sequence[int]) -> dict:
    """Return what the manifest of a clean test states.

    `accuracy`, the number of texts `n`, how many classes are predicted at all (`predicted_classes`), and the share of
    the commonest label (`majority_share`), which is the accuracy of a model that predicts nothing else.
    """
    predictions = [row.index(max(row)) for row in logits]
    return {
        "accuracy": sum(a == b for a, b in zip(predictions, labels)) / len(labels),
        "n": len(labels),
        "predicted_classes": len(set(predictions)),
        "majority_share": max(Counter(labels).values()) / len(labels),
    }


def unlearned(found: CleanResults) -> str | None:
    """Say in which way a model has learned nothing, if it has: its accuracy under attack then means nothing.

    Results of older versions lack what this needs, and say nothing.
    """
    if found.predicted_classes == 1:
        return "predicts one class only"
    if found.majority_share is not None and found.accuracy <= found.majority_share:
        return f"is no better than always predicting the commonest label ({found.majority_share:.1%})"
    return None
