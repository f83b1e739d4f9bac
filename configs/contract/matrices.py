"""The one list of prunable matrices; everything else asks it.

Every linear layer of the encoder and the pooler: for BERT-base 73 matrices with 85,524,480 weights.
Embeddings, LayerNorm, biases and the classifier are never pruned.
"""

from __future__ import annotations

LAYER_MATRICES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention output": "attention.output.dense",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
}
POOLER = "bert.pooler.dense.weight"


def matrix_name(layer: int, kind: str) -> str:
    """Hugging Face name of one matrix; `kind` is a key of `LAYER_MATRICES`."""
    return f"bert.encoder.layer.{layer}.{LAYER_MATRICES[kind]}.weight"


def prunable_shapes(layers: int, hidden: int, intermediate: int) -> dict[str, tuple[int, int]]:
    """Name and shape (out, in) of every prunable matrix, in the order of the forward pass."""
    shapes = {}
    for layer in range(layers):
        for kind in LAYER_MATRICES:
            rows = intermediate if kind == "intermediate" else hidden
            columns = intermediate if kind == "output" else hidden
            shapes[matrix_name(layer, kind)] = (rows, columns)
    shapes[POOLER] = (hidden, hidden)
    return shapes


def block(granularity: str, hidden: int) -> tuple[int, int]:
    """Return how many rows and columns of weights share one score, as in the official code.

    There is a score for each weight, for each input column of `hidden` rows, or for each `hidden` x `hidden` matrix.
    """
    return {"weight": (1, 1), "neuron": (hidden, 1), "matrix": (hidden, hidden)}[granularity]
