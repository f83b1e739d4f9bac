"""The perturbation of the word embeddings: start, ascend, project (Eq. 6-7; FreeLB, Zhu et al. 2020)."""

from __future__ import annotations

import numpy as np
from mindspore import ops

from mindspore_rt.cells import noise


def start(shape, attention_mask: np.ndarray, initial_norm: float, seed: int, step: int, rank: int = 0) -> np.ndarray:
    """Random start of a step, float32 of `shape` (batch, length, hidden).

    Uniform in [-1, 1] times initial_norm / sqrt(tokens * hidden) for each sentence, zero on padding.
    """
    draw = noise.generator(seed, noise.PERTURBATION, step, rank=rank).random(shape, dtype=np.float32) * 2 - 1
    size = initial_norm / np.sqrt(attention_mask.sum(1) * shape[2])
    return (draw * attention_mask[:, :, None] * size[:, None, None]).astype(np.float32)


def ascend(delta, gradient, rate: float, max_norm: float):
    """One step up the loss: delta + rate g / ||g||, projected onto ||delta|| <= max_norm if that is not 0.

    Tensors are (batch, length, hidden); norms are Frobenius norms of one sentence, at least 1e-8.
    """
    delta = delta + rate * gradient / ops.maximum(_norm(gradient), 1e-8)
    if max_norm > 0:
        delta = delta * ops.minimum(max_norm / ops.maximum(_norm(delta), 1e-8), 1.0)
    return delta


def _norm(x):
    return ops.sqrt((x * x).sum(axis=(1, 2), keepdims=True))
