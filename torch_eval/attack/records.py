"""The lines that an attack leaves in `results.jsonl`, read with every value checked.

A line is one example, as `workers.attack_example` returns it. Tables, pairings and pictures count on these values, so
one that an attack cannot have written is an error that names its line, never another result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from configs.contract.errors import UserError
from configs.contract.files import append_line, read_lines
from configs.contract.shapes import COUNT, SECONDS, SHARE
from torch_eval.attack.metrics import OUTCOMES


def texts(value) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(text, str) for text in value.values())


def outcome(value) -> bool:
    return isinstance(value, str) and value in OUTCOMES


FIELDS = {
    "index": COUNT,
    "label": COUNT,
    "outcome": (outcome, f"one of {', '.join(OUTCOMES)}"),
    "queries": COUNT,
    "original": (texts, "the text of each column"),
    "perturbed": (texts, "the text of each column"),
    "original_prediction": COUNT,
    "perturbed_prediction": COUNT,
    "original_score": SHARE,
    "perturbed_score": SHARE,
    "words_changed": COUNT,
    "words": COUNT,
    "seconds": SECONDS,
    "processor_seconds": SECONDS,
}
OPTIONAL = ("seconds", "processor_seconds")  # decide no figure
CHECK = "check"  # what tells a changed text from the one that was written; older files have none
# Whether the prediction is right before and after. A timeout may end before either is known.
RIGHT = {"success": (True, False), "failure": (True, True), "skipped": (False, None)}


def append(path: Path, record: dict) -> None:
    """Add one record and its check, on the disk before this returns."""
    append_line(path, {**record, CHECK: check(record)})


def check(record: dict) -> str:
    """The first 64 bits of a SHA-256 of all values but the times, in which a repeated run differs."""
    kept = {name: value for name, value in record.items() if name not in (*OPTIONAL, CHECK)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def read(path: Path, expected: Sequence[dict] | None = None) -> list[dict]:
    """Records of one attack; without the torn last line that a killed writer leaves.

    `expected` holds what is known beforehand (`index`, `label`, `original`) of each example, in order; the records
    must be a beginning of it. Without it every example may stand in the file once.

    Raises `UserError` naming the file, the line and what is wrong with it.
    """
    records, lines = read_lines(path), {}
    for number, record in enumerate(records, 1):
        wrong = fault(record)
        if not wrong and record["index"] in lines:
            wrong = f"example {record['index']} stands in line {lines[record['index']]} already"
        if not wrong and expected is not None:
            wrong = misplaced(record, expected[number - 1] if number <= len(expected) else None)
        if not wrong and CHECK in record and record[CHECK] != check(record):
            wrong = "is not what the attack wrote: its check does not fit"
        if wrong:
            raise UserError(f"{path}, line {number}: {wrong}; delete {path.parent} to redo the attack")
        lines[record["index"]] = number
    return records


def fault(record: dict) -> str | None:
    """What is wrong with a record by itself."""
    for name, (fits, what) in FIELDS.items():
        if name not in record:
            if name in OPTIONAL:
                continue
            return f"{name} is missing"
        if not fits(record[name]):
            return f"{name} must be {what}, not {short(record[name])}"
    if record["original"].keys() != record["perturbed"].keys():
        return "original and perturbed have other columns"
    found = [record[f"{when}_prediction"] == record["label"] for when in ("original", "perturbed")]
    for told, right in zip(RIGHT.get(record["outcome"], ()), found):
        if told not in (None, right):
            return f"a {record['outcome']} with label {record['label']} cannot have its predictions"
    return None


def misplaced(record: dict, expected: dict | None) -> str | None:
    """Why a record cannot stand where another example is expected, or none."""
    if expected is None:
        return f"holds example {record['index']}, one more than this run attacks: other examples than this run's"
    if record["index"] != expected["index"]:
        return f"holds example {record['index']}, not {expected['index']}: other examples than this run's"
    differs = [key for key in expected if record[key] != expected[key]]
    return f"{differs[0]} of example {record['index']} is another than in the data" if differs else None


def short(value) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"
