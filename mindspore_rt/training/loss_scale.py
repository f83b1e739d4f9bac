"""The dynamic loss scale of float16: without it, small gradients would become zero."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mindspore_rt.cells.encoder import EncoderClassifier

FIRST, LARGEST, SMALLEST = 2.0**16, 2.0**24, 1.0
PATIENCE = 1000  # updates in a row with finite gradients, after which the scale doubles


class LossScale(nn.Cell):
    """Factor of the loss, a power of two.

    Gradients that are not finite show that it is too large: their update is skipped, and the scale halves. After
    `PATIENCE` other updates in a row it doubles. The graph of the update decides this, so that nothing waits for the
    host. All workers decide alike, since they share the averaged gradients. Without float16 the factor is 1, and
    neither checkpoints nor graphs hold a scale.

    Args:
        model: Classifier whose loss is scaled.
    """

    def __init__(self, model: EncoderClassifier) -> None:
        super().__init__(auto_prefix=False)
        self.dynamic = model.amp == "float16"
        self.scale, self.streak, self.skipped = (
            Parameter(Tensor(np.float32(value)), name=name, requires_grad=False)
            for name, value in (("loss_scale", FIRST), ("loss_scale.streak", 0), ("loss_scale.skipped", 0))
        )
        self.assign = ops.Assign()

    def construct(self) -> Tensor | float:
        """Return the factor."""
        return self.scale * 1.0 if self.dynamic else 1.0  # a copy: `adjust` changes the parameter

    def overflow(self, *norms: Tensor) -> Tensor | None:
        """Return whether a norm of gradients is not finite, a bool scalar; None without float16."""
        if not self.dynamic:
            return None
        total = 0.0
        for norm in norms:
            total = total + norm
        return ops.logical_not(ops.isfinite(total))

    def adjust(self, overflow: Tensor | None) -> tuple[Tensor, ...]:
        """Count an update, once all of its gradients are used.

        Args:
            overflow: Result of the method of this name.

        Returns:
            What `figures` reads last: the new scale and the updates skipped so far, or nothing.
        """
        if overflow is None:
            return ()
        streak, scale = self.streak + 1.0, self.scale * 1.0
        grown = ops.select(streak >= PATIENCE, ops.minimum(scale * 2, LARGEST), scale)
        scale = ops.select(overflow, scale / 2, grown)
        skipped = self.skipped + ops.cast(overflow, scale.dtype)
        streak = ops.select(ops.logical_or(overflow, streak >= PATIENCE), streak * 0, streak)
        self.assign(self.scale, scale)
        self.assign(self.streak, streak)
        self.assign(self.skipped, skipped)
        return scale, skipped

    def figures(self, names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
        """Name the figures of an update for the log.

        Args:
            names: Names of the first values.
            values: Those, and behind them what `adjust` returned.

        Returns:
            The figures. Those that are not finite are left out, because their update was skipped, unless the scale has
            fallen below the smallest one: then they end the training.
        """
        figures = dict(zip(names, values))
        if not self.dynamic:
            return figures
        scale, skipped = values[len(names) :]
        if scale >= SMALLEST:
            figures = {name: value for name, value in figures.items() if math.isfinite(value)}
        return {**figures, "loss_scale": scale, "skipped_updates": skipped}

    def state(self) -> dict[str, Parameter]:
        """Return by name what a checkpoint must hold; nothing without float16."""
        return {p.name: p for p in (self.scale, self.streak, self.skipped)} if self.dynamic else {}
