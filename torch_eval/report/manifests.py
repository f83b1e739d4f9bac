"""Reading the files of a run: all that they state, once what the report relies on has been checked."""

from __future__ import annotations

from pathlib import Path

from configs.contract.files import read_json, read_lines
from configs.contract.run_files import TrainingLine


def read(path: Path, kind: type) -> dict | None:
    """Read a JSON file of a run; None if it does not exist.

    Args:
        path: The file.
        kind: What the report relies on; see `configs.contract.run_files` and `torch_eval.attack.records`.
    """
    if not path.is_file():
        return None
    read_json(path, kind)
    return read_json(path)


def training_records(path: Path) -> list[dict]:
    """Read the metrics of a training; none if they do not exist."""
    if not path.is_file():
        return []
    read_lines(path, TrainingLine)
    return read_lines(path)
