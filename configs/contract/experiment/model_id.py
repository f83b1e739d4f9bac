"""Which model is this? The one place that knows the names of model directories."""

from __future__ import annotations

import re
from dataclasses import dataclass

from configs.contract.basics.errors import UserError

NAME = re.compile(r"(\w+)(?:-([0-9]+(?:\.[0-9]+)?))?(?:-back-([0-9]+))?(?:-epochs-([0-9]+))?(?:@([0-9]+))?")


@dataclass(frozen=True)
class ModelId:
    """One model of a seed. `str()` gives its directory, such as `robust-0.30-back-1` or `freelb-epochs-10@000120`.

    Attributes:
        method: A key of `METHODS`, or the name of a classifier of the user's own (`attack.victims`).
        sparsity: Share of pruned weights in the name; None where the method has one model only.
        epochs_back: Number of search epochs between the ticket's scores and the last ones.
        epochs: Length of its training; None for the first of `lengths`, or for that of its section.
        snapshot: Number of updates after which training wrote this copy; None for the model at its end.
    """

    method: str
    sparsity: float | None = None
    epochs_back: int = 0
    epochs: int | None = None
    snapshot: int | None = None

    def __str__(self) -> str:
        sparsity = "" if self.sparsity is None else f"-{sparsity_name(self.sparsity)}"
        back = f"-back-{self.epochs_back}" if self.epochs_back else ""
        epochs = "" if self.epochs is None else f"-epochs-{self.epochs}"
        return f"{self.method}{sparsity}{back}{epochs}" + ("" if self.snapshot is None else f"@{self.snapshot:06d}")

    @classmethod
    def parse(cls, name: str) -> ModelId:
        """Read the name of a directory.

        Raises:
            UserError: No model has such a name.
        """
        match = NAME.fullmatch(name)
        if not match:
            raise UserError(f"{name!r:.80} is not the name of a model, such as finetune or robust-0.30")
        method, sparsity, back, epochs, snapshot = match.groups()
        whole = (int(number) if number else None for number in (epochs, snapshot))
        return cls(method, float(sparsity) if sparsity else None, int(back or 0), *whole)

    def record(self) -> dict[str, str | float | int | None]:
        """Return a candidate as `choice.json` states it."""
        return {"model": str(self), "sparsity": self.sparsity, "epochs_back": self.epochs_back}


def sparsity_name(sparsity: float) -> str:
    """Return `0.30`, or `0.875` where two decimals would be another sparsity."""
    short = f"{sparsity:.2f}"
    return short if float(short) == sparsity else f"{sparsity:g}"
