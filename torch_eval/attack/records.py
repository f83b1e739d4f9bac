"""The files that attacks leave, as types: `results.jsonl`, its manifests, and what rests on them.

A line of `results.jsonl` is one example, as `workers.attack_example` returns it, with a checksum. Tables, tests
and figures rely on these values: one that an attack cannot have written is an error that names its line.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import append_line, as_struct, json_hash, read_lines
from configs.contract.run.run_files import Count, Positive, Seconds, Share

Texts = Annotated[dict[str, str], Meta(min_length=1)]  # of each column
TIMES = ("seconds", "processor_seconds")  # decide no figure
CHECK = "check"  # key of a line's checksum; lines of older versions have none
# Whether the prediction is right before and after. A timeout may end before either is known.
RIGHT = {"success": (True, False), "failure": (True, True), "skipped": (False, None), "timeout": (None, None)}


class Record(msgspec.Struct):
    """One attacked example."""

    index: Count
    label: Count
    outcome: Literal["success", "failure", "timeout", "skipped"]
    queries: Count
    original: Texts
    perturbed: Texts
    original_prediction: Count
    perturbed_prediction: Count
    original_score: Share
    perturbed_score: Share
    words_changed: Count
    words: Count
    seconds: Seconds = 0.0
    processor_seconds: Seconds = 0.0
    bound: str = ""  # what was cut short for a word of very many pieces or letters

    def __post_init__(self) -> None:
        if self.original.keys() != self.perturbed.keys():
            raise ValueError("original and perturbed have other columns")
        predictions = (self.original_prediction, self.perturbed_prediction)
        for right, prediction in zip(RIGHT[self.outcome], predictions, strict=True):
            if right not in (None, prediction == self.label):
                raise ValueError(f"a {self.outcome} with label {self.label} cannot have its predictions")


class CleanResults(msgspec.Struct):
    """Accuracy on the `n` sentences of the whole test set, and what the model predicts on them.

    `predicted_classes` counts the classes that it predicts, `majority_share` is the share of the most frequent one.
    `median_margin` is the median over the sentences of the right class's logit minus the largest other logit.
    """

    accuracy: Share
    n: Positive
    predicted_classes: Positive | None = None
    majority_share: Share | None = None
    median_margin: float | None = None

    @classmethod
    def count(cls, logits: Sequence[list[float]], labels: Sequence[int]) -> CleanResults:
        """Count what a model predicts on texts with these labels."""
        predictions = [row.index(max(row)) for row in logits]
        right = sum(a == b for a, b in zip(predictions, labels))
        majority = max(Counter(labels).values())
        margins = [row[label] - max(row[:label] + row[label + 1 :]) for row, label in zip(logits, labels)]
        return cls(
            right / len(labels), len(labels), len(set(predictions)), majority / len(labels), statistics.median(margins)
        )

    @property
    def unlearned(self) -> str:
        """Why the model has learned nothing, or an empty text.

        A model that always predicts one class withstands every attack. Results of earlier versions do not tell.
        """
        if self.predicted_classes == 1:
            return "predicts one class"
        if self.accuracy <= (self.majority_share or 0.0):
            return "no better than always predicting the most frequent class"
        return ""


class ChoiceResults(msgspec.Struct):
    """Accuracy of a candidate on dev."""

    accuracy: Share


class Calibration(msgspec.Struct):
    """Temperature of a model, fitted on dev."""

    temperature: Annotated[float, Meta(gt=0)]


class DtypeEffect(msgspec.Struct):
    """`dtype.json`: how many outcomes of so many another dtype than float32 changed."""

    outcomes_that_float32_changes: Count
    of: Count


class LeftOut(msgspec.Struct):
    """`missing.json`: why an attack cannot be run here."""

    reason: str | None = None


class TransferRow(msgspec.Struct):
    """Share of the adversarial texts made on `source` that fool `target`; None without such a text.

    `fooled` are the test sentences of those texts; earlier versions wrote only their number.
    """

    recipe: str
    seed: Count
    source: str
    target: str
    fooled: list[Count] | Count
    share: Share | None = None


class TransferInput(msgspec.Struct):
    """A model, or an attack on one, that `transfer.json` was made of, with its SHA-256 then."""

    seed: Count
    model: str
    sha256: str
    recipe: str | None = None


class Transfer(msgspec.Struct):
    """`transfer.json`."""

    rows: list[TransferRow]
    models: list[TransferInput]
    attacks: list[TransferInput] | None = None


def source_of(resources: dict) -> str:
    """Return where the resources in the settings of an attack come from."""
    return resources.get("from") or "TextAttack's own"


def append(path: Path, record: dict) -> None:
    """Add one record and its check, on the disk before this returns."""
    append_line(path, {**record, CHECK: checksum(record)})


def checksum(record: dict) -> str:
    """Return the first 64 bits of a SHA-256 of all values but the times, in which a repeated run differs."""
    decisive = {name: value for name, value in record.items() if name not in (*TIMES, CHECK)}
    return json_hash(decisive)[:16]


def read(path: Path, expected: Sequence[dict] | None = None) -> list[dict]:
    """Read the records of one attack, without the torn last line that a killed writer leaves.

    Args:
        path: The file.
        expected: What is known beforehand (`index`, `label`, `original`) of each example, in order; the records must be
            a beginning of it. Without it every example may occur in the file once.

    Raises:
        UserError: The message names the file, the line and what is wrong with it.
    """
    remedy = f"delete {path.parent} to redo the attack"
    records: list[dict] = read_lines(path, remedy=remedy)
    lines: dict[int, int] = {}  # by the index of the example
    for number, record in enumerate(records, 1):
        as_struct(record, Record, f"{path}, line {number}", remedy)
        wrong = None
        if record["index"] in lines:
            wrong = f"example {record['index']} is in line {lines[record['index']]} already"
        if not wrong and expected is not None:
            wrong = misplaced(record, expected[number - 1] if number <= len(expected) else None)
        if not wrong and CHECK in record and record[CHECK] != checksum(record):
            wrong = "is not what the attack wrote: its check does not fit"
        if wrong:
            raise UserError(f"{path}, line {number}: {wrong}; {remedy}")
        lines[record["index"]] = number
    return records


def misplaced(record: dict, expected: dict | None) -> str | None:
    """Return why a record is not the expected one; None if it is."""
    if expected is None:
        return f"holds example {record['index']}, one more than this run attacks: other examples than this run's"
    if record["index"] != expected["index"]:
        return f"holds example {record['index']}, not {expected['index']}: other examples than this run's"
    differs = [key for key in expected if record[key] != expected[key]]
    return f"{differs[0]} of example {record['index']} is another than in the data" if differs else None
