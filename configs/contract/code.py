"""Which code decides a result: an interrupted stage goes on only while the hashes of these files are unchanged."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from configs.contract.files import ROOT, file_hash

# The other modules of the contract decide names, plans and messages; the settings are compared by themselves.
TRAINING = (
    "configs/contract/jobs.py",
    "configs/contract/matrices.py",
    "configs/contract/methods.py",
    "configs/contract/tokenizer.py",
    "mindspore_rt/cells",
    "mindspore_rt/data",
    "mindspore_rt/device.py",
    "mindspore_rt/formats",
    "mindspore_rt/parallel.py",
    "mindspore_rt/stages",
    "mindspore_rt/ticket.py",
    "mindspore_rt/training",
)
ATTACKING = ("torch_eval/assets", "torch_eval/attack", "torch_eval/recipes", "torch_eval/victim")
# Stage to files and folders. Stages that never go on from where they were interrupted are not listed.
DECIDES = {
    **dict.fromkeys(("finetune", "search", "prune", "retrain", "control"), TRAINING),
    **dict.fromkeys(("attack", "calibration", "choice", "clean"), ATTACKING),
}
# Hashes of two forms of one file that compute the same bytes: a stage that was begun with the first goes on with the
# second. The next change of the file makes its pair void.
SAME_RESULTS = {
    tuple(pair.split(":"))
    for pair in """
    17b0819545fb:3aef2fc3734d 3034a921514b:fc432aa7254a 5bd32b5d03c9:ea2ea56d99e2 874a2971fd74:f5ac0b7c621c
    923ad7293919:639c06807b06 98212623820a:c5b88019d452 c3408ef603f4:0847cca435c3 c6b114c4b9cc:13091ae1e800
    e27a7f2455a1:d1795aa199c6 e4125527eaf5:ff6f254e2a1c e53812c3aae0:6b8518bde2a5 ee657ae89f41:e8c914d3ac81
    f84e1b27b460:b964140b20e0 06486504bdd6:6faeb713c6f7 0fef3975595f:78d5e2b79891 34233adeda89:c2f09b8b0e88
    9b5899071eb2:ab0a2d654a86 9bf6fbdd489c:78d5e2b79891 ab5b4ec754a1:beed398fcabf b0ae0adde547:dc1144f11d00
    be14b9aab803:c3a29109f034 cefd41b31177:6ac888bfaea9 d107d84de2c4:4bb4fe6e04f6 d2e5410e45d2:81f021bbe06f
    e9c6d552bbb8:3d9dea08f136
    """.split()
}
KINDS = (".py", ".cc", ".txt", ".npz")


@functools.cache
def source_hashes(stage: str) -> dict[str, str]:
    """Return short hashes of the source files and tables that decide what a stage computes."""
    files = {file for name in DECIDES.get(stage, ()) for file in _files(ROOT / name)}
    return {str(file.relative_to(ROOT)): file_hash(file)[:12] for file in sorted(files)}


def changed_code(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Return the files that decide other results now than when a stage was begun."""
    pairs = {file: (before.get(file), now.get(file)) for file in sorted({*before, *now})}
    return [file for file, (old, new) in pairs.items() if old != new and (old, new) not in SAME_RESULTS]


def _files(path: Path) -> Iterator[Path]:
    """Return the file itself, or the source files of a folder."""
    return (file for file in (path.rglob("*") if path.is_dir() else [path]) if file.suffix in KINDS and file.is_file())
