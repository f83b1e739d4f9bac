"""The perturbation of the word embeddings: start, ascent, projection (Eq. 6-7; FreeLB, Zhu et al. 2020)."""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, ops

from mindspore_rt.cells import backend, noise


def start(
    shape: tuple[int, int, int], attention_mask: np.ndarray, initial_norm: float, seed: int, step: int, rank: int = 0
) -> np.ndarray:
    """Draw the perturbation that a step starts from: uniform in [-1, 1], times initial_norm / sqrt(tokens * hidden).

    Args:
        shape: Batch, length and hidden size.
        attention_mask: (batch, length) float32, 1 for tokens and 0 for padding, where the perturbation is zero.
        initial_norm: eps0 of FreeLB.
        seed: Seed of the training.
        step: Number of the update.
        rank: Number of the worker.

    Returns:
        Float32 of `shape`.
    """
    draw = noise.generator(seed, noise.PERTURBATION, step, rank=rank).random(shape, dtype=np.float32) * 2 - 1
    size = initial_norm / np.sqrt(attention_mask.sum(1) * shape[2])
    return (draw * attention_mask[:, :, None] * size[:, None, None]).astype(np.float32)


class DeviceStart:
    """Draws `start` on a GPU or an Ascend, from the random numbers of the device instead of NumPy's.

    Args:
        initial_norm: eps0 of FreeLB.
        source: Source of the device's noise.
    """

    def __init__(self, initial_norm: float, source: noise.IntegerNoise) -> None:
        self.source = source

        @backend.jit
        def scaled(numbers: Tensor, attention_mask: Tensor) -> Tensor:
            tokens = attention_mask.sum(1).reshape(-1, 1, 1)
            size = initial_norm / ops.sqrt(tokens * numbers.shape[2])
            return (numbers * 2.0 - 1.0) * attention_mask.reshape(*attention_mask.shape, 1) * size

        self.scaled = scaled

    def __call__(self, shape: tuple[int, int, int], attention_mask: Tensor, step: int) -> Tensor:
        """Return the perturbation of one update; see `start` for the arguments."""
        (numbers,) = self.source.draw_at([noise.PERTURBATION], [shape], step)
        return self.scaled(numbers, attention_mask)


def ascend(delta: Tensor, gradient: Tensor, rate: float, max_norm: float) -> Tensor:
    """Take one step up the loss, delta + rate g / ||g||, and project onto ||delta|| <= max_norm.

    Norms are Frobenius norms over one sentence, at least 1e-8.

    Args:
        delta: Perturbation (batch, length, hidden) float32.
        gradient: Gradient of the loss for it.
        rate: Length of the step.
        max_norm: Bound of the projection; 0 for none.
    """
    delta = delta + rate * gradient / ops.maximum(_norm(gradient), 1e-8)
    if max_norm > 0:
        delta = delta * ops.minimum(max_norm / ops.maximum(_norm(delta), 1e-8), 1.0)
    return delta


def _norm(x: Tensor) -> Tensor:
    return ops.sqrt((x * x).sum(axis=(1, 2), keepdims=True))
