"""The results of a victim on unchanged texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


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
