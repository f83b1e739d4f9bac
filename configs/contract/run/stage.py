"""Stages: each makes one thing in one directory, and is skipped if its manifest says that this was already made.

`manifest.json` is written last: a stage that has one is finished. `begun.json` is written first: it holds the settings
and hashes that the stage began with, and the hashes of the code that decides its results.
"""

from __future__ import annotations

import functools
import json
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from configs.contract import VERSION
from configs.contract.basics.errors import Missing, UserError, is_ours, listed
from configs.contract.basics.files import file_hash, files_below, read_json, write_json
from configs.contract.experiment import schema
from configs.contract.run.code import source_hashes
from configs.contract.run.run_files import Begun, Manifest, Results, Summary

W = TypeVar("W")
version = functools.cache(metadata.version)  # looking one up takes milliseconds, and every stage asks for several


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of some packages."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


class Changed(UserError):
    """A stage was made, or begun, with other settings, inputs, versions or code than now.

    Args:
        directory: Directory of the stage.
        what: How it was made, such as "begun with other code (...)".
        remedy: What else than deleting the stage would help.
    """

    def __init__(self, directory: Path, what: str, remedy: str) -> None:
        super().__init__(
            f"{directory} was {what}: {remedy}choose another name=..., delete that folder to redo the stage, or run "
            f"the experiment again with on_change=redo, which makes all that is affected again"
        )
        self.directory, self.what = directory, what

    def clear(self) -> None:
        """Delete the stage, but not stages inside it (rounds of pruning, shards of an attack), which check themselves.

        `begun.json` and `manifest.json` are removed last, so that an interrupted clearing is repeated.

        Raises:
            UserError: The directory is a link.
        """
        if self.directory.is_symlink():
            raise UserError(f"{self.directory} is a link, whose target stays; delete the link to redo the stage")
        last = ("begun.json", "manifest.json")
        for path in sorted(self.directory.iterdir(), key=lambda path: path.name in last):
            if not path.is_dir() or path.is_symlink():
                path.unlink()
            elif not any((path / name).is_file() for name in last):
                shutil.rmtree(path)


def redo_changed(
    config: schema.Experiment, work: Callable[[], W], leads: bool = True, wait: Callable[[], object] = lambda: None
) -> W:
    """Return the result of `work`. Under `on_change: redo`, clear each stage that it finds changed, and try again.

    Args:
        config: The experiment.
        work: Runs stages, and may raise `Changed`.
        leads: Whether this process clears stages; of several processes that work together, one does.
        wait: Waits until all these processes have reached the same point.

    Raises:
        Changed: A stage was made with other settings than now, and `on_change` is `refuse`.
    """
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
    """One stage of a run.

    Args:
        directory: Where it writes its results and its manifest.
        name: Name of the stage, by which `configs.contract.run.code` finds the code that decides its results.
        settings: What decides the outcome; see `configs.contract.run.settings`.
        inputs: Files and directories that it reads.
        packages: Packages whose versions the manifest states.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        settings: dict[str, Any],
        inputs: dict[str, Path],
        packages: Sequence[str] = (),
    ) -> None:
        self.directory, self.name, self.packages = directory, name, packages
        self.settings, self.inputs = settings, inputs
        self.manifest, self.begun = directory / "manifest.json", directory / "begun.json"
        self.checkpoint = directory / "checkpoint.safetensors"  # of a training; kept until the manifest is there
        self.redo = f"delete {directory} to redo the stage"  # the remedy if what an interrupted one left is damaged
        self.started = time.time()  # earlier by what interrupted processes have spent on it

    def fingerprint(self) -> dict:
        """Return the settings, the hashes of the inputs and the versions. Raises `UserError` if an input is missing."""
        missing = [path for path in self.inputs.values() if not path.exists()]
        if missing:
            raise Missing(missing[0])
        return {
            "settings": json.loads(json.dumps(self.settings)),
            "inputs": {name: file_hash(path) for name, path in self.inputs.items()},
            "versions": versions(*self.packages),
        }

    def is_done(self) -> bool:
        """Return whether the stage is finished. Raises `Changed` if it was made with other settings."""
        if not self.manifest.is_file():
            return False
        self._compare(read_manifest(self.directory), self.fingerprint(), "made")
        return True

    def begin(self, progress: Path | None = None) -> None:
        """Write `begun.json`, or check it before an interrupted stage resumes. Call this before reading the inputs.

        Args:
            progress: File that an interrupted run leaves.

        Raises:
            Changed: `progress` is there, and was begun with other settings or by other code: the results would be a
                mixture. A finished stage stays finished when the code changes.
        """
        code = source_hashes(self.name)
        if progress is not None and progress.is_file():
            if not self.begun.is_file():
                raise Changed(self.directory, "begun without a begun.json that says with what", "")
            before = read_json(self.begun, Begun, self.redo)
            self._compare(before, self.fingerprint(), "begun")
            self._compare_code(before.code or code, code)  # code of a version that did not record it may resume
        else:
            write_json(self.begun, {**self.fingerprint(), "code": code})

    def _compare_code(self, before: dict[str, str], now: dict[str, str]) -> None:
        changed = sorted(file for file in {*before, *now} if before.get(file) != now.get(file))
        if changed:
            what = f"begun with other code ({listed(changed, 3, 100)} changed since)"
            raise Changed(self.directory, what, "restore that to resume, ")

    def _compare(self, before: Manifest | Begun, now: dict, verb: str) -> None:
        changed = differences({key: getattr(before, key) for key in now}, now)
        if changed:
            raise Changed(self.directory, f"{verb} with other settings ({'; '.join(changed[:3])})", "")

    def finish(self, results: dict) -> None:
        """Write the manifest: from here on the stage is finished.

        Raises:
            UserError: Something is no longer what the stage was begun with, such as a model that was made again
                meanwhile. Then nobody knows which of the two the results belong to.
        """
        now = self.fingerprint()
        try:
            if self.begun.is_file():
                self._compare(read_json(self.begun, Begun, self.redo), now, "begun")
        except Changed as change:  # under a running stage: nothing to redo without being asked once more
            raise UserError(str(change)) from None
        write_json(
            self.manifest,
            {
                "stage": self.name,
                "project": VERSION,  # stated, not compared: what code decides a result has its own hashes
                **now,
                "results": results,
                "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "seconds": max(0.0, round(time.time() - self.started, 1)),  # a clock may have been set back
            },
        )
        self.checkpoint.unlink(missing_ok=True)

    def results(self, kind: Any = Results) -> Any:
        """Return what `finish` was given. Raises `UserError` if the manifest does not state all that `kind` names."""
        return read_manifest(self.directory, kind).results


def read_manifest(directory: Path, kind: Any = Results) -> Manifest[Any]:
    """Return the manifest of a finished stage. Raises `UserError` if it lacks results that `kind` names."""
    return read_json(directory / "manifest.json", Manifest[kind])


def verified(path: Path) -> Path:
    """Return the path of a split, model, scores or classifier after comparing it with the hash that its stage states.

    A folder of the user's own has no stated hash, nor has a model that a training saved before its end.

    Raises:
        UserError: The file is missing, or its bytes have another hash.
    """
    if not path.exists():
        raise UserError(f"{path} is missing; delete {_folder(path)} and run again")
    stated = stated_hash(path)
    is_split = path.suffix == ".jsonl"  # which prepare always states
    if (stated or is_split) and file_hash(path) != stated:
        raise UserError(f"{path} is damaged or was changed after it was made; delete {_folder(path)} and run again")
    return path


def stated_hash(path: Path) -> str | None:
    """Return the SHA-256 of a split, model, scores or classifier that its stage states; None if none does."""
    summary = path.with_name("summary.json")
    if path.suffix == ".jsonl" and is_ours(summary, "splits"):
        split = read_json(summary, Summary).splits.get(path.stem)
        return split.sha256 if split else None
    directory = _folder(path)
    if not is_ours(directory / "manifest.json", "stage"):
        return None
    results = read_manifest(directory).results
    stated = {"model": results.model_sha256, "classifier.safetensors": results.classifier_sha256}
    return {**results.scores_sha256, **stated}.get(path.name)


def _folder(path: Path) -> Path:
    """Return the folder of the stage that left a split, model, scores or classifier."""
    return path.parents[1] if path.parent.name == "log_alpha" else path.parent


def changed_inputs(before: dict[str, str], paths: dict[str, Path]) -> list[str]:
    """Return how the inputs of a finished stage differ from those that it would read now.

    Where a stage states the hash of its file, that hash is compared. A file that is not there now is not compared.

    Args:
        before: Hashes in the manifest.
        paths: What the stage would read now.
    """
    changes = [
        f"{name}: was made again since, {before[name][:8]} is {now[:8]} now"
        for name in before
        if name in paths and (now := current_hash(paths[name])) and now != before[name]
    ]
    return changes + [
        f"input {name}: {'no longer' if name in before else 'now'} read" for name in before.keys() ^ paths.keys()
    ]


def current_hash(path: Path) -> str | None:
    """Return the SHA-256 of a file or folder, as its stage states it or else as it is; None if it is not there."""
    if (stated := stated_hash(path)) or not path.exists():
        return stated
    inside = {place for file in files_below(path) for place in (file, file.parent)} if path.is_dir() else set()
    return _hash_as_of(path, max(place.stat().st_mtime_ns for place in (path, *inside)))


@functools.cache
def _hash_as_of(path: Path, _changed: int) -> str:
    """Hash a file or folder once, although many manifests name it. A later time of change means another content."""
    return file_hash(path)


def differences(before: dict, now: dict) -> list[str]:
    """Return `key: old, now new` for every value that differs, or that only one side has."""
    return [f"{key}: {short(old)}, now {short(new)}" for key, old, new in changes(before, now, "absent")]


def changes(before: dict, now: dict, absent: object, prefix: str = "") -> Iterator[tuple[str, object, object]]:
    """Yield dotted key, old value and new value of all that differs in two dictionaries, and in those inside them.

    Args:
        before: The old values.
        now: The new values.
        absent: Value of a key that only the other side has.
        prefix: What the keys begin with.
    """
    for key in {**before, **now}:
        old, new = before.get(key, absent), now.get(key, absent)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from changes(old, new, absent, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}", old, new


def short(value: object, ending: str = "") -> str:
    """Return a value in at most 40 characters; `ending` marks that it was cut."""
    if isinstance(value, list) and len(value) > 6:
        return f"{len(value)} values"
    text = str(value)
    return text if len(text) <= 40 else text[: 40 - len(ending)] + ending
