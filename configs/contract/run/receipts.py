"""Receipts: what lets a finished stage be skipped without starting its process, which takes seconds to load.

A stage that has ended well leaves a receipt in `runs/<experiment>/.receipts/`. It states all that the stage could have
looked at: the configuration, this project's code, the installed packages, the machine, and size and times of the files
of the run and of those that the configuration names. While nothing of it changes, the stage would find nothing to do.
As soon as anything differs, the stage runs, and decides by hashes what that means.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from configs.contract.basics.errors import STARTER
from configs.contract.basics.files import ROOT, files_below, json_hash, write_json
from configs.contract.inputs import assets
from configs.contract.run import jobs
from configs.contract.run.run_dir import RunDir

FOLDER = ".receipts"
COMPILERS = ("g++", "c++", "clang++")  # in order of preference; with one, kernels draw the noise of a training
VARIABLES = ("PATH", "CXX", "LD_LIBRARY_PATH", "LD_PRELOAD")
# As the process found them: a framework that is loaded later changes some. `STARTER` differs at every start.
ENVIRONMENT = {
    k: v for k, v in os.environ.items() if k in VARIABLES or k.startswith("ROBUST_TICKETS_") and k != STARTER
}
State = dict[str, list[int]]  # path of a file or folder, to its size and times


class Receipt:
    """The receipt of one stage, begun before the stage looks at anything.

    Args:
        run: Run that the stage belongs to.
        stage: Name of the stage.
    """

    def __init__(self, run: RunDir, stage: str) -> None:
        self.run, self.stage = run, stage
        self.started, self.surroundings = time.time_ns(), _surroundings(run)

    def write(self) -> None:
        """Write the receipt of a stage that has ended well, unless the stage must be started again anyway.

        That is so if something else changed meanwhile: the stage may have read what was there before. It is also so
        for a part of an attack (`attack.shard`), and where an attack was left out, which is tried again every time.
        """
        run, stages = self.run, jobs.stages(self.run)
        if self.stage not in stages:  # a command that the experiment does not need
            return
        later = [path for stage in stages[stages.index(self.stage) + 1 :] for path in _written_by(run, stage)]
        # Calibrations stand among the attacks, but the choice makes them too, and depends on them.
        files = {k: v for k, v in _files(run).items() if not _is_below(k, later) or "/calibration" in k}
        own = [*_written_by(run, self.stage), assets.CACHE / "hub"]
        others = (changed for path, (*_, changed) in files.items() if not _is_below(path, own))
        quiet = max(others, default=0) < self.started and self.surroundings == _surroundings(run)
        left_out = self.stage == "attack" and any(run.root.glob("seed-*/attacks*/*/*/missing.json"))
        if quiet and not left_out and not run.config.attack.shard:
            write_json(_path(run, self.stage), {"surroundings": self.surroundings, "files": files})


def _written_by(run: RunDir, stage: str) -> list[Path]:
    """Return the files and folders that a stage writes."""
    if stage == "report":
        return [run.report]
    attacks = [run.attacks(seed) for seed in run.config.seeds]
    if stage == "attack":
        return attacks
    if stage == "choose":
        return [run.choice, *(run.seed(seed) / "choice" for seed in run.config.seeds), *attacks]
    planned = [job for job in jobs.jobs(run) if job.stage == stage]
    # A control may draw a ticket of its own.
    tickets = [run.ticket(seed, job.model).parent for job in planned for seed in run.config.seeds]
    return [job.directory for job in planned] + (tickets if stage == "control" else [])


def pending(run: RunDir) -> list[str]:
    """Return the stages that may have something to do: from the first one without a valid receipt to the last."""
    stages, surroundings, files = jobs.stages(run), _surroundings(run), _files(run)
    for number, stage in enumerate(stages):
        try:
            receipt = json.loads(_path(run, stage).read_text(encoding="utf-8"))
            stated, before = receipt["surroundings"], dict(receipt["files"])
        except (OSError, ValueError, TypeError, KeyError):  # there is none, or it is damaged
            return stages[number:]
        # Later stages add files of their own; the report shows all that is there.
        now = files if stage == "report" else {path: files.get(path) for path in before}
        if (stated, before) != (surroundings, now):
            return stages[number:]
    return []


def _path(run: RunDir, stage: str) -> Path:
    return run.root / FOLDER / f"{stage}.json"


def _surroundings(run: RunDir) -> str:
    """Hash of all that decides about a run's stages and lies outside its directory."""
    config = run.config
    named = [
        config.data.train,
        config.data.dev,
        config.data.test,
        config.model,
        config.tickets_from,
        config.attack.resources_dir,
    ]
    tools = [shutil.which(name) for name in (os.environ.get("CXX"), *COMPILERS) if name]
    roots = [Path(name) for name in (*named, *tools) if name] + list(run.own_victims().values())
    roots += [run.root.parent / config.tickets_from] if config.tickets_from else []
    roots += [assets.CACHE / name for name in ("assets", "mlm")]
    roots += [ROOT / package for package in ("configs", "mindspore_rt", "torch_eval")]
    everything = {
        "configuration": asdict(config),
        "packages": _packages(),
        "machine": [platform.node(), platform.machine(), platform.python_version(), os.cpu_count()],
        "environment": ENVIRONMENT,
        "files": _state(roots, folders=False),
    }
    return json_hash(everything)


def _packages() -> list[str]:
    """Installed packages with their versions, by the names of their folders: reading what is inside takes a second."""
    return sorted({path.name for folder in sys.path for path in Path(folder).glob("*.*-info")})


def _files(run: RunDir) -> State:
    """State of a run's directory, without locks and the saved configuration, and of what the hub's cache holds."""
    tops = run.root.iterdir() if run.root.is_dir() else []
    visible = [path for path in tops if not path.name.startswith(".") and path.name != "config.yaml"]
    return _state([*visible, assets.CACHE / "hub"])


def _state(roots: Iterable[Path], folders: bool = True) -> State:
    """State of the files below some paths, and of their folders, whose times change when a file is added."""
    state = {}
    for root in roots:
        files = list(files_below(root)) if root.is_dir() else [root] if root.is_file() else []
        files = [path for path in files if "__pycache__" not in path.parts]
        for path in {*files, *(file.parent for file in files if folders and file != root)}:
            stat = path.stat()
            state[str(path)] = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]  # nobody can set the last one
    return state


def _is_below(path: str, folders: list[Path]) -> bool:
    return any(path == str(folder) or path.startswith(f"{folder}{os.sep}") for folder in folders)
