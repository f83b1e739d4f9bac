"""Which code decides a result: an interrupted stage resumes only while the hashes of these files are unchanged."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from configs.contract.basics.files import ROOT, file_hash

# Other modules of the contract decide names, plans and messages. Settings are compared by their values.
TRAINING = (
    "configs/contract/experiment/methods.py",
    "configs/contract/inputs/families.py",
    "configs/contract/inputs/matrices.py",
    "configs/contract/inputs/tokenizer.py",
    "configs/contract/run/jobs.py",
    "mindspore_rt/cells",
    "mindspore_rt/data",
    "mindspore_rt/device.py",
    "mindspore_rt/formats",
    "mindspore_rt/parallel.py",
    "mindspore_rt/stages",
    "mindspore_rt/ticket.py",
    "mindspore_rt/training",
    "mindspore_rt/units.py",
)
ATTACKING = (
    "configs/contract/inputs/classifiers.py",
    "configs/contract/inputs/families.py",
    "torch_eval/assets",
    "torch_eval/attack",
    "torch_eval/recipes",
    "torch_eval/victim",
)
# Stage to files and folders. Stages that never resume are not listed.
DECIDES = {
    **dict.fromkeys(("finetune", "search", "prune", "retrain", "control"), TRAINING),
    **dict.fromkeys(("attack", "calibration", "choice", "clean"), ATTACKING),
}
KINDS = (".py", ".cc", ".txt", ".npz")


@functools.cache
def source_hashes(stage: str) -> dict[str, str]:
    """Return short hashes of the source files and tables that decide what a stage computes."""
    files = {file for name in DECIDES.get(stage, ()) for file in _files(ROOT / name)}
    return {str(file.relative_to(ROOT)): file_hash(file)[:12] for file in sorted(files)}


def _files(path: Path) -> Iterator[Path]:
    """Return the file itself, or the source files of a folder."""
    return (file for file in (path.rglob("*") if path.is_dir() else [path]) if file.suffix in KINDS and file.is_file())
