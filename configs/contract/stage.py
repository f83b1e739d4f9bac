"""Stages: one thing to do in one directory, skipped when its manifest says that the same was already done.

Every stage directory has a `manifest.json`, written last: its presence means the stage is whole. A `begun.json`,
written first, holds the hashes of what the stage was begun with, and of this project's code.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import platform
import shutil
import time
from importlib import metadata
from pathlib import Path

from configs.contract import schema
from configs.contract.errors import UserError
from configs.contract.files import ROOT, file_hash, read_json, write_json


def config_hash(config) -> str:
    """SHA-256 of a configuration value (a dictionary or a dataclass)."""
    value = config if isinstance(config, dict) else schema.to_dict(config)
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def versions(*packages: str) -> dict[str, str]:
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}


@functools.cache
def source_hashes(half: str) -> dict[str, str]:
    """Short hashes of this project's files that decide what a stage of one half computes: its code and tables."""
    paths = [path for folder in (half, "configs") for path in (ROOT / folder).rglob("*")]
    kinds = (".py", ".cc", ".txt", ".npz")
    return {str(p.relative_to(ROOT)): file_hash(p)[:12] for p in sorted(paths) if p.suffix in kinds and p.is_file()}


class Changed(UserError):
    """A stage was made, or begun, with something else than now."""

    def __init__(self, directory: Path, what: str, remedy: str):
        super().__init__(
            f"{directory} was {what}: {remedy}choose another name=..., delete that folder to redo the stage, or run "
            f"the experiment again with on_change=redo, which makes all that is affected again"
        )
        self.directory, self.what = directory, what

    def clear(self) -> None:
        """Delete the stage, but for stages inside it (rounds of pruning, shards of an attack): they answer for
        themselves. What tells that it is another goes last: killed before, this is done again."""
        if self.directory.is_symlink():
            raise UserError(f"{self.directory} is a link, whose target stays; delete the link to redo the stage")
        tell = ("begun.json", "manifest.json")
        for path in sorted(self.directory.iterdir(), key=lambda path: path.name in tell):
            if not path.is_dir() or path.is_symlink():
                path.unlink()
            elif not any((path / name).is_file() for name in tell):
                shutil.rmtree(path)


def redo_changed(config: schema.Experiment, work, leads: bool = True, wait=lambda: None):
    """`work()`, which may find stages of its own made with something else than now: refused, or cleared and made again,
    as `on_change` says. Of several processes the one that `leads` clears, while the others `wait()`."""
    while True:
        try:
            return work()
        except Changed as change:
            if config.on_change == "refuse":
                raise
            wait()  # until every process has seen it
            if leads:
                print(f"{change.directory} was {change.what}: made again", flush=True)
                change.clear()
            wait()


class Stage:
    """One stage of a run: skipped when its manifest says that the same thing was already done.

    `settings` is what decides the outcome (config sections, seed); `inputs` are the files and
    directories it reads. Both are hashed into the manifest.
    """

    def __init__(self, directory: Path, name: str, settings: dict, inputs: dict[str, Path], packages=()):
        self.directory, self.name, self.packages = directory, name, packages
        self.settings, self.inputs = settings, inputs
        self.manifest, self.begun = directory / "manifest.json", directory / "begun.json"
        self.checkpoint = directory / "checkpoint.safetensors"  # of a training; kept until the manifest is there
        self.started = time.time()  # earlier by what interrupted processes have spent on it

    def fingerprint(self) -> dict:
        """Raises `UserError` if an input is missing."""
        missing = [path for path in self.inputs.values() if not path.exists()]
        if missing:
            raise UserError(f"{missing[0]} is missing: run the stage that writes it first")
        return {
            "settings": json.loads(json.dumps(self.settings)),
            "inputs": {name: file_hash(path) for name, path in self.inputs.items()},
            "versions": versions(*self.packages),
        }

    def is_done(self) -> bool:
        """True if the stage is whole. Raises `Changed` if it was made with something else."""
        if not self.manifest.is_file():
            return False
        self._compare(read_json(self.manifest), self.fingerprint(), "made")
        return True

    def begin(self, progress: Path | None = None) -> None:
        """Call before reading the inputs, and before going on from `progress`, a file that an interrupted run leaves.

        Raises `Changed` if that is there and was begun with something else, or by other code: half of the results
        would be of the one, half of the other. A stage that is whole stays so when the code changes.
        """
        code = source_hashes("torch_eval" if "torch" in self.packages else "mindspore_rt")
        if progress is not None and progress.is_file():
            before = read_json(self.begun) if self.begun.is_file() else {}
            self._compare(before, self.fingerprint(), "begun")
            self._compare_code(before.get("code", code), code)  # a version that did not write it down may go on
        else:
            write_json(self.begun, {**self.fingerprint(), "code": code})

    def _compare_code(self, before: dict, now: dict) -> None:
        before = before if isinstance(before, dict) else {}
        changed = sorted(file for file in {*before, *now} if before.get(file) != now.get(file))
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            what = f"begun with other code ({', '.join(changed[:3])}{more} changed since)"
            raise Changed(self.directory, what, "put that back to go on, ")

    def _compare(self, before: dict, now: dict, verb: str) -> None:
        changed = _differences(before, now)
        if changed:
            raise Changed(self.directory, f"{verb} with other settings ({'; '.join(changed[:3])})", "")

    def finish(self, results: dict) -> None:
        """Write the manifest: from here on the stage counts as whole.

        Raises `UserError` if something is no longer what the stage was begun with, such as a model that was made
        again meanwhile: then nobody knows which of the two the results are of.
        """
        now = self.fingerprint()
        try:
            if self.begun.is_file():
                self._compare(read_json(self.begun), now, "begun")
        except Changed as change:  # under a running stage: nothing to redo without being asked once more
            raise UserError(str(change)) from None
        write_json(
            self.manifest,
            {
                "stage": self.name,
                **now,
                "results": results,
                "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "seconds": round(time.time() - self.started, 1),
            },
        )
        self.checkpoint.unlink(missing_ok=True)

    def results(self) -> dict:
        """What `finish` was given. Raises `UserError` for a manifest without it."""
        return stated_results(self.directory)

    def spent(self) -> float:
        """Seconds that all processes together have worked on a finished stage; 0 if its manifest states none."""
        seconds = read_json(self.manifest).get("seconds")
        return seconds if type(seconds) in (int, float) and math.isfinite(seconds) else 0.0

    def number(self, name: str) -> float:
        """One number of `results`. Raises `UserError` for a manifest without it."""
        value = self.results().get(name)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise UserError(f"{self.manifest}: states no number {name}; delete {self.directory} to redo the stage")
        return value


def stated_results(directory: Path) -> dict:
    """What the finished stage of a directory has found. Raises `UserError` for one without a manifest that says so."""
    results = read_json(directory / "manifest.json").get("results")
    if not isinstance(results, dict):
        raise UserError(f"{directory / 'manifest.json'}: states no results; delete {directory} to redo the stage")
    return results


def _differences(before: dict, now: dict, prefix: str = "") -> list[str]:
    """`key: old, now new` for every value of `now` that `before` holds otherwise."""
    found = []
    for key, value in now.items():
        old = before.get(key) if isinstance(before, dict) else None
        if isinstance(value, dict):
            found += _differences(old or {}, value, f"{prefix}{key}.")
        elif old != value:
            short = [str(v)[:40] for v in (old, value)]
            found.append(f"{prefix}{key}: {short[0]}, now {short[1]}")
    return found
