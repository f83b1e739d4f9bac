"""Reading the files of a run, and the types of those that only the report reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypedDict, TypeVar

import msgspec
from msgspec import Meta

from configs.contract.basics.files import read_json, read_lines
from configs.contract.run.run_files import Count, Finished, Positive, R, Seconds, TrainingLine
from torch_eval.attack.records import source_of

T = TypeVar("T")
StatedResources = TypedDict("StatedResources", {"from": str | None}, total=False)  # what else it holds is only shown


class AttackSettings(msgspec.Struct):
    """How a model was attacked, or its accuracy measured: the settings that the report shows."""

    indices: list[Count] = []
    resources: StatedResources | None = None
    protocol: str | None = None
    recipe: str | None = None
    attacked: list[str] | None = None
    temperature: Annotated[float, Meta(gt=0)] = 1.0
    dtype: str = "float32"
    max_queries: Positive | None = None
    max_seconds: Seconds | None = None
    parameters: dict[str, Any] | str | None = None  # text of recipes that TextAttack brings itself

    @property
    def source(self) -> str:
        """Where the resources come from: packaged, original, or those that a recipe of TextAttack brings itself."""
        return source_of(dict(self.resources or {}))

    @property
    def examples(self) -> int:
        """Number of sentences in the attacked sample."""
        return len(self.indices)

    @property
    def has_budget(self) -> bool:
        """True if attacks may have ended as timeouts."""
        return self.max_queries is not None or self.max_seconds is not None

    @property
    def candidates(self) -> int | None:
        """K of BERT-Attack; None for other attacks."""
        if self.recipe != "bertattack" or not isinstance(self.parameters, dict):
            return None
        return self.parameters.get("masked words", {}).get("max_candidates")


class Scored(Finished[R], kw_only=True):
    """`manifest.json` of an attack, or of the accuracy on the test set."""

    settings: AttackSettings


def read_optional(path: Path, kind: type[T]) -> T | None:
    """Read a JSON file of a run; None if it does not exist."""
    return read_json(path, kind) if path.is_file() else None


def training_records(path: Path) -> list[TrainingLine]:
    """Read the metrics of a training; none if they do not exist."""
    return read_lines(path, TrainingLine) if path.is_file() else []
