"""The one list of prunable matrices; everything else asks it.

Every linear layer of the encoder, and BERT's pooler: for BERT-base 73 matrices with 85,524,480 weights, for
RoBERTa-base 72 with 84,934,656, because the whole head of RoBERTa starts at random (`families`).
Embeddings, LayerNorm, biases and the classifier are never pruned.
"""

from __future__ import annotations

from collections.abc import Iterable

from configs.contract.basics.errors import UserError
from configs.contract.inputs.families import FAMILIES, Family

LAYER_MATRICES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention output": "attention.output.dense",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
}
BERT = FAMILIES["bert"]


def matrix_name(layer: int, kind: str, body: str = BERT.body) -> str:
    """Hugging Face name of one matrix; `kind` is a key of `LAYER_MATRICES`, `body` is `Family.body`."""
    return f"{body}.encoder.layer.{layer}.{LAYER_MATRICES[kind]}.weight"


def body_of(names: Iterable[str]) -> str:
    """Return the body that prunable matrices belong to: the first part of their names."""
    return next(iter(names)).partition(".")[0]


def prunable_shapes(layers: int, hidden: int, intermediate: int, family: Family = BERT) -> dict[str, tuple[int, int]]:
    """Name and shape (out, in) of every prunable matrix, in the order of the forward pass."""
    shapes = {}
    for layer in range(layers):
        for kind in LAYER_MATRICES:
            rows = intermediate if kind == "intermediate" else hidden
            columns = intermediate if kind == "output" else hidden
            shapes[matrix_name(layer, kind, family.body)] = (rows, columns)
    if family.pooled:
        shapes[f"{family.dense}.weight"] = (hidden, hidden)
    return shapes


def block(granularity: str, hidden: int) -> tuple[int, int]:
    """Return how many rows and columns of weights share one score, as in the official code.

    There is a score for each weight, for each input column of `hidden` rows, or for each `hidden` x `hidden` matrix.
    """
    return {"weight": (1, 1), "neuron": (hidden, 1), "matrix": (hidden, hidden)}[granularity]


def groups(name: str, shape: tuple[int, int], block: tuple[int, int]) -> tuple[int, int]:
    """Return into how many groups of rows and of columns a block divides a matrix; each pair of groups has one score.

    Raises:
        UserError: It does not divide the matrix.
    """
    if shape[0] % block[0] or shape[1] % block[1]:
        raise UserError(
            f"search.granularity: {list(block)} does not divide the {shape[0]} x {shape[1]} matrix {name}; set "
            "search.granularity=weight, or choose a model whose intermediate_size is a multiple of its hidden_size"
        )
    return shape[0] // block[0], shape[1] // block[1]
