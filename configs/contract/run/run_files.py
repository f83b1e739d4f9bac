"""What the JSON files of a run hold. `configs.contract.basics.files` reads them as these types, or says what is wrong.

Keys that a type does not name may stand in a file and hold anything. The files of attacks have their types in
`torch_eval.attack`.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

R = TypeVar("R")
LARGEST_COUNT = 2**53  # float64 holds every whole number below it exactly
Count = Annotated[int, Meta(ge=0, lt=LARGEST_COUNT)]
Positive = Annotated[int, Meta(ge=1, lt=LARGEST_COUNT)]
Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, lt=LARGEST_COUNT)]
Names = Annotated[list[str], Meta(min_length=1)]
LengthRange = Annotated[str, Meta(pattern=r"^\d{1,9}-")]  # a range of lengths, such as `10-19 words`


class Split(msgspec.Struct):
    """One prepared split: its sentences, how many of them are how long, and the SHA-256 of its file."""

    count: Positive
    sha256: str
    length: dict[LengthRange, Count] = {}


class Summary(msgspec.Struct):
    """`data/summary.json`, which `prepare` writes. `attacked` are those of the text `columns` that attacks change."""

    columns: Names
    labels: Names
    attacked: Names
    splits: dict[str, Split]
    note: str = ""

    def __post_init__(self) -> None:
        for key in ("columns", "labels", "attacked"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise ValueError(f"one of its {key} appears twice")
        if not set(self.attacked) <= set(self.columns):
            raise ValueError("attacked names what is no column")
        if "test" not in self.splits:  # the only split of `torch_eval score`, which trains nothing
            raise ValueError("splits: test is missing")


class Results(msgspec.Struct):
    """What later stages and the report take from the results of a training stage."""

    model_sha256: str | None = None
    classifier_sha256: str | None = None
    scores_sha256: dict[str, str] = {}
    steps: Count | None = None


class Searched(msgspec.Struct):
    """Results of a search for masks."""

    epochs: Positive


class Finished(msgspec.Struct, Generic[R]):
    """`manifest.json` of a finished stage without its settings, and with what is taken from its results."""

    inputs: dict[str, str]
    versions: dict[str, str]
    results: R
    finished: str
    seconds: Seconds


class Manifest(Finished[R], Generic[R], kw_only=True):
    """`manifest.json` with settings of any kind."""

    settings: dict[str, Any]


class Sections(msgspec.Struct):
    """Sections of the configuration that the report shows, in the settings of a training."""

    finetune: dict[str, Any] | None = None
    retrain: dict[str, Any] | None = None
    search: dict[str, Any] | None = None


class TrainingManifest(Finished[Results], kw_only=True):
    """Manifest of a stage of the training half."""

    settings: Sections


class Begun(msgspec.Struct):
    """`begun.json` of a stage: what it was begun with, and short hashes of the code that decides its results."""

    settings: dict[str, Any]
    inputs: dict[str, str]
    versions: dict[str, str]
    code: dict[str, str] | None = None


class Chosen(msgspec.Struct):
    """The robust ticket that is reported."""

    model: str


class CandidateRow(msgspec.Struct):
    """A candidate's accuracy on dev under attack (`aua`) and without, of one seed."""

    model: str
    seed: Count
    aua: Share
    accuracy: Share


class StatedChoice(msgspec.Struct):
    """`choice.json`, as the stages that follow it read it."""

    chosen: Chosen


class ChoiceOnDev(StatedChoice):
    """`choice.json`, with the rule and what every candidate reached."""

    rule: str
    candidates: list[CandidateRow]


class TicketReport(msgspec.Struct):
    """`tickets/<model>/report.json`: where a ticket prunes, and its overlap with the magnitude ticket."""

    pruned: Count
    weights: Positive
    layers: dict[str, Share]
    magnitude_overlap: Share | None = None
    chance_overlap: Share | None = None


class TrainingLine(msgspec.Struct):
    """A line of `metrics.jsonl`: figures of a step, or of an evaluation."""

    step: Count
    epoch: float
    seconds: Seconds | None = None
    loss: float | None = None
    adversarial_loss: float | None = None
    l0_term: float | None = None
    l0_weight: float | None = None
    settled_zero: float | None = None
    settled_one: float | None = None
    sparsity_at_threshold: float | None = None
    ticket_distance: Share | None = None
    sentences_per_second: float | None = None
    dev_accuracy: float | None = None
