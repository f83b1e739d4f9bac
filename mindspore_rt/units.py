"""Whole heads and neurons, the units that a structured ticket prunes.

A head owns its rows of query, key and value and its columns of attention output; a neuron owns its row of intermediate
and its column of output. The pooler has no units.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import numpy as np

from configs.contract.inputs.matrices import LAYER_MATRICES, body_of, matrix_name

T = TypeVar("T")


def prune(scores: dict[str, np.ndarray], heads: int, sparsity: float) -> dict[str, np.ndarray]:
    """Return the masks of `Ticket.structured`, which has the arguments and the rules."""
    shapes = {name: s.shape for name, s in scores.items()}
    head_count, neuron_count = _count_to_prune(shapes, heads, sparsity)
    matrices = _layer_matrices(scores)
    kept_heads = _keep_heads(np.array([_head_means(m, heads) for m in matrices]), head_count)
    neuron_means = np.array([_neuron_means(m) for m in matrices])
    kept_neurons = np.ones(neuron_means.shape, bool)
    np.put_along_axis(kept_neurons, np.argsort(neuron_means, 1, "stable")[:, :neuron_count], False, 1)
    return masks(shapes, kept_heads, kept_neurons)


def remaining(ticket_masks: dict[str, np.ndarray], heads: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return which heads and which neurons keep a weight, each as one boolean array for each layer."""
    layers = _layer_matrices(ticket_masks)
    kept_heads = [layer["query"].reshape(heads, -1).any(1) for layer in layers]
    return kept_heads, [layer["intermediate"].any(1) for layer in layers]


def masks(
    shapes: dict[str, tuple[int, int]], kept_heads: Iterable[np.ndarray], kept_neurons: Iterable[np.ndarray]
) -> dict[str, np.ndarray]:
    """Return masks that keep whole heads and neurons, given as one boolean array for each layer."""
    result = {name: np.ones(shape, bool) for name, shape in shapes.items()}
    for layer, heads, neurons in zip(_layer_matrices(result), kept_heads, kept_neurons):
        rows = np.repeat(heads, len(layer["query"]) // len(heads))
        for kind in ("query", "key", "value"):
            layer[kind][~rows] = False
        layer["attention output"][:, ~rows] = False
        layer["intermediate"][~neurons] = False
        layer["output"][:, ~neurons] = False
    return result


def most_structured(shapes: dict[str, tuple[int, int]], heads: int) -> float:
    """Return the sparsity of a structured ticket that keeps one head and one neuron in each layer, and the pooler.

    Args:
        shapes: Name and shape of every prunable matrix.
        heads: Number of heads of a layer.
    """
    layers, neurons, of_head, of_neuron = _units(shapes, heads)
    return (layers * (heads - 1) * of_head + (neurons - 1) * of_neuron) / _total(shapes)


def _count_to_prune(shapes: dict[str, tuple[int, int]], heads: int, sparsity: float) -> tuple[int, int]:
    """Return how many heads of all layers and neurons of each layer make up `sparsity` of all weights."""
    layers, neurons, of_head, of_neuron = _units(shapes, heads)
    weights = sparsity * _total(shapes)
    prunable = layers * heads * of_head + neurons * of_neuron
    head_count = min(round(weights / prunable * layers * heads), layers * (heads - 1))
    neuron_count = round((weights - head_count * of_head) / of_neuron)
    if sparsity < 0 or neuron_count > neurons - 1:
        most = most_structured(shapes, heads)
        raise ValueError(f"a structured ticket has a sparsity from 0 to {most:.4f}, not {sparsity}")
    return head_count, max(neuron_count, 0)


def _units(shapes: dict[str, tuple[int, int]], heads: int) -> tuple[int, int, int, int]:
    """Return the numbers of layers, neurons of a layer, weights of a head, and weights of one neuron of every layer."""
    layers = _layer_matrices(shapes)
    (rows, columns), (neurons, _) = layers[0]["query"], layers[0]["intermediate"]
    return len(layers), neurons, 4 * rows * columns // heads, 2 * columns * len(layers)


def _total(shapes: dict[str, tuple[int, int]]) -> int:
    return sum(rows * columns for rows, columns in shapes.values())


def _head_means(matrices: dict[str, np.ndarray], heads: int) -> np.ndarray:
    """Return the mean score of each head, (heads,) float64."""
    parts = [matrices[kind].reshape(heads, -1) for kind in ("query", "key", "value")]
    parts.append(np.ascontiguousarray(matrices["attention output"].T).reshape(heads, -1))
    return np.mean([part.mean(1, dtype=np.float64) for part in parts], 0)


def _neuron_means(matrices: dict[str, np.ndarray]) -> np.ndarray:
    """Return the mean score of each neuron, (neurons,) float64."""
    into, out = matrices["intermediate"].mean(1, dtype=np.float64), matrices["output"].mean(0, dtype=np.float64)
    return (into + out) / 2


def _keep_heads(means: np.ndarray, count: int) -> np.ndarray:
    """Return (layers, heads) bool, False for the `count` lowest means; the highest of every layer stays True."""
    keep = np.ones(means.shape, bool)
    candidates = means.copy()
    candidates[np.arange(len(means)), means.argmax(1)] = np.inf
    keep.flat[np.argsort(candidates, None, "stable")[:count]] = False
    return keep


def _layer_matrices(values: dict[str, T]) -> list[dict[str, T]]:
    """Return what belongs to the matrices of each layer, by the keys of `LAYER_MATRICES`."""
    layers = sum(1 for name in values if name.endswith(LAYER_MATRICES["query"] + ".weight"))
    body = body_of(values)
    return [{kind: values[matrix_name(i, kind, body)] for kind in LAYER_MATRICES} for i in range(layers)]
