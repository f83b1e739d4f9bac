"""Which model is this? The one place that knows the names of model directories."""

from __future__ import annotations

import re
from dataclasses import dataclass

from configs.contract.errors import UserError

NAME = re.compile(r"(\w+)(?:-([0-9]+(?:\.[0-9]+)?))?(?:-back-([0-9]+))?(?:@([0-9]+))?")


@dataclass(frozen=True)
class ModelId:
    """One model of a seed. `str()` gives the name of its directory, such as `robust-0.30-back-1` or `freelb@000120`.

    Attributes:
        method: A key of `METHODS`, or the name of a classifier of the user's own (`attack.victims`).
        sparsity: Share of pruned weights in the name; None where the method has one model only.
        epochs_back: Number of search epochs between the ticket's scores and the last ones.
        snapshot: Number of updates after which training wrote this copy; None for the model at its end.
    """

    method: str
    sparsity: float | None = None
    epochs_back: int = 0
    snapshot: int | None = None

    def __str__(self) -> str:
        sparsity = "" if self.sparsity is None else f"-{sparsity_name(self.sparsity)}"
        back = f"-back-{self.epochs_back}" if self.epochs_back else ""
        return f"{self.method}{sparsity}{back}" + ("" if self.snapshot is None else f"@{self.snapshot:06d}")

    @classmethod
    def parse(cls, name: str) -> ModelId:
        """Read the name of a directory.

        Raises:
            UserError: No model has such a name.
        """
        match = NAME.fullmatch(name)
        if not match:
            raise UserError(f"{name!r:.80} is not the name of a model, such as finetune or robust-0.30")
        method, sparsity, back, snapshot = match.groups()
        return cls(method, float(sparsity) if sparsity else None, int(back or 0), int(snapshot) if snapshot else None)

    def record(self) -> dict[str, str | float | int | None]:
        """Return a candidate as `choice.json` states it."""
        return {"model": str(self), "sparsity": self.sparsity, "epochs_back": self.epochs_back}


def sparsity_name(sparsity: float) -> str:
    """Return `0.30`, or `0.875` where two decimals would be another sparsity."""
    short = f"{sparsity:.2f}"
    return short if float(short) == sparsity else f"{sparsity:g}"
