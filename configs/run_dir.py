"""The run directory: who leaves what where, atomic writes, and stage manifests.

    runs/<experiment>/
      config.yaml                      the experiment as it ran
      choice.json                      which ticket is reported, and what it was chosen from
      data/                            train.jsonl dev.jsonl test.jsonl summary.json
      seed-1/finetune/                 model/ metrics.jsonl; freelb/ infobert/ finetune_long/ likewise
      seed-1/search/                   log_alpha/epoch-01.safetensors ... metrics.jsonl
      seed-1/lth/                      rounds of magnitude pruning
      seed-1/tickets/<model>/          ticket.safetensors report.json
      seed-1/<model>/                  model/ metrics.jsonl; <model> is robust-0.30, lth-0.30 ...
      seed-1/choice/<model>/           attacks on dev that the choice rests on
      seed-1/attacks/<model>/clean/    manifest.json (accuracy on the whole test set)
      seed-1/attacks/<model>/<recipe>/ results.jsonl, or missing.json with the reason
      report/                          report.md report.html results.json results.csv figures/

Every stage directory has a `manifest.json`, written last: its presence means the stage is whole. A `begun.json`,
written first, holds the hashes of what the stage was begun with, and of this project's code. Lock files name the
process that works in the run.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import math
import os
import platform
import shutil
import time
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import yaml

from configs import schema
from configs.errors import UserError
from configs.methods import METHODS

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs"


class RunDir:
    """Names of everything an experiment leaves behind."""

    def __init__(self, config: schema.Experiment, runs: Path = RUNS):
        self.root = Path(runs) / config.name
        self.config = config

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def report(self) -> Path:
        return self.root / "report"

    def split(self, name: str) -> Path:
        """`name` is train, dev or test."""
        return self.data / f"{name}.jsonl"

    def summary(self, *needed: str) -> dict:
        """What `prepare` states about the data. Raises `UserError` if it is not what is `needed`: some of `columns`,
        `attacked`, `labels` (lists of names) and `splits`."""
        path = self.data / "summary.json"
        summary = read_json(path)
        for key in needed:
            value, kind = summary.get(key), dict if key == "splits" else list
            if not isinstance(value, kind) or not value or not all(isinstance(item, str) for item in value):
                raise UserError(f"{path}: states no {key}; delete {self.data} and run prepare again")
            if len(set(value)) < len(value):
                raise UserError(f"{path}: states one of its {key} twice; delete {self.data} and run prepare again")
        return summary

    def whole_split(self, name: str) -> Path:
        """`split(name)`. Raises `UserError` if it is not the file that `prepare` left."""
        path, stated = self.split(name), self.summary("splits")["splits"].get(name)
        if not path.is_file() or not isinstance(stated, dict) or file_hash(path) != stated.get("sha256"):
            raise UserError(f"{path} was changed after prepare; delete {self.data} and run prepare again")
        return path

    def seed(self, seed: int) -> Path:
        return self.root / f"seed-{seed}"

    def stage(self, seed: int, name: str) -> Path:
        """Directory of one training stage: `finetune`, `search`, `lth`, `robust-0.30` ..."""
        return self.seed(seed) / name

    def model(self, seed: int, name: str) -> Path:
        """Hugging Face directory of a trained model."""
        return self.stage(seed, name) / "model"

    def log_alpha(self, seed: int, epoch: int, search: str = "search") -> Path:
        return self.stage(seed, search) / "log_alpha" / f"epoch-{epoch:02d}.safetensors"

    def ticket(self, seed: int, model: str) -> Path:
        """The ticket of the model of that name."""
        return self.seed(seed) / "tickets" / model / "ticket.safetensors"

    def pruned(self, seed: int, source: str, sparsity: float) -> Path:
        """The ticket that magnitude pruning leaves for one asked sparsity: `lth/ticket-0.30.safetensors`."""
        return self.stage(seed, source) / f"{model_name('ticket', sparsity)}.safetensors"

    @property
    def choice(self) -> Path:
        return self.root / "choice.json"

    def chosen(self) -> Candidate:
        """The candidate that `torch_eval choose` reports. Raises `UserError` if it has not run."""
        stated = read_json(self.choice).get("chosen")
        found = next((candidate for candidate in self.candidates() if candidate._asdict() == stated), None)
        if not found:
            raise UserError(f"{self.choice}: states none of this experiment's tickets; delete it and run choose again")
        return found

    def likely_choice(self) -> Candidate:
        """For a plan: the chosen candidate, or the first one as long as none of those asked for now is chosen."""
        stated = read_json(self.choice).get("chosen") if self.choice.is_file() else None
        return next((c for c in self.candidates() if c._asdict() == stated), self.candidates()[0])

    def candidates(self) -> list[Candidate]:
        """Robust tickets to choose from: the last search epochs at every asked sparsity."""
        return [
            Candidate(candidate_name(sparsity, back), sparsity, back)
            for sparsity in self.config.sparsities
            for back in range(self.config.choice.epochs)
        ]

    def models(self, chosen: Candidate | None = None) -> dict[str, str]:
        """Every model of one seed that is attacked, with its method, in the order of `methods`.

        Of robust candidates that differ by the search epoch only, the chosen one stands for its sparsity. Controls
        have the chosen sparsity; without a choice they stand at the first asked one.
        """
        chosen, models = chosen or self.candidates()[0], {}
        for method in self.config.methods:
            if METHODS[method].kind == "dense":
                models[method] = method
            elif METHODS[method].kind == "control":
                models[model_name(method, chosen.sparsity)] = method
            else:
                for sparsity in self.config.sparsities:
                    here = method == "robust" and sparsity == chosen.sparsity
                    models[chosen.model if here else model_name(method, sparsity)] = method
        return models

    def victims(self, seed: int) -> dict[str, Path]:
        """What is attacked: name to Hugging Face directory, in the order of `methods`, the user's own last."""
        chosen = self.chosen() if self.choice.is_file() else None
        victims = {name: self.model(seed, name) for name in self.models(chosen)}
        snapshots = {f"{name}@{path.name}": path for name in victims for path in self.snapshots(seed, name)}
        return {**victims, **snapshots, **(self.own_victims() if seed == self.config.seeds[0] else {})}

    def own_victims(self) -> dict[str, Path]:
        """`attack.victims`, name to Hugging Face directory. They know no seed: the first one's folder is theirs."""
        return schema.named_folders(self.config.attack.victims or [])

    def snapshots(self, seed: int, name: str) -> list[Path]:
        """Models kept on the way of a training, by step: `snapshots/000120` ..."""
        folder = self.stage(seed, name) / "snapshots"
        return sorted(path for path in folder.glob("[0-9]*") if (path / "config.json").is_file())

    def attack(self, seed: int, model: str) -> Path:
        """Directory of one victim's results: `clean/` and one folder for each recipe."""
        return self.seed(seed) / "attacks" / model

    def save_config(self) -> None:
        atomic_write(self.root / "config.yaml", yaml.safe_dump(schema.to_dict(self.config), sort_keys=False))


class Candidate(NamedTuple):
    """A robust ticket that may be reported: `epochs_back` counts search epochs from the last one, 0."""

    model: str
    sparsity: float
    epochs_back: int


def model_name(method: str, sparsity: float) -> str:
    """`robust-0.30`; `robust-0.875` where two decimals would be another sparsity."""
    share = f"{sparsity:.2f}"
    return f"{method}-{share if float(share) == sparsity else f'{sparsity:g}'}"


def candidate_name(sparsity: float, back: int) -> str:
    return model_name("robust", sparsity) + (f"-back-{back}" if back else "")


@contextlib.contextmanager
def naming(path: Path):
    """An `OSError` in the block tells which file it is about: that of a full disk does not by itself."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _opener(path: str, flags: int) -> int:
    """Opens what is written in a run's directory: never through a link, whose target would be overwritten."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UserError(f"{path} is a link, and the file that it names would be overwritten; delete the link") from None


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write to a temporary name, sync, replace: a reader sees the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path), open(temporary, "wb", opener=_opener) as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def write_json(path: Path, value) -> None:
    atomic_write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict:
    """Read a JSON object. Raises `UserError` naming the file, and the line where there is one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the stage that writes it first") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}); delete it and run again") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; delete it and run again") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete it and run again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object; delete it and run again")
    return value


def read_lines(path: Path) -> list[dict]:
    """Records of a JSON Lines file. A torn last line (a killed writer) is dropped; any other is an error."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the stage that writes it first") from None
    lines, records = raw.split(b"\n"), []
    for number, line in enumerate(lines[:-1], 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # not JSON, not UTF-8, a number of thousands of digits, or too deep
            raise UserError(f"{path}, line {number}: not valid JSON; delete the file and run again") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number}: expected a JSON object")
        records.append(record)
    return records


def append_line(path: Path, record: dict) -> None:
    """Add one record to a JSON Lines file, on the disk before this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), open(path, "a", encoding="utf-8", opener=_opener) as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def write_lines(path: Path, records) -> None:
    atomic_write(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or of all files of a directory with their names."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode() + b"\0")
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


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


@contextlib.contextmanager
def only_one(run: RunDir):
    """Hold the lock of a run's training, and clear away what killed processes left half written."""
    with locked(run.root / ".lock") as lock:
        _sweep(run.root)
        yield lock


@contextlib.contextmanager
def locked(path: Path):
    """Hold a lock in a run's directory. Raises `UserError` naming the owner if another process has it.

    The lock is the kernel's: it falls open when its owner ends, however that comes about, so a dead process never
    leaves a stale one. A process that the owner starts may enter too. Gives the open lock, for such a process to
    inherit: then the run counts as in use until that has ended as well.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8", opener=_opener) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"  # which has not written down who it is yet
            if not owner.startswith(f"process {os.environ.get(OWNER)} "):
                raise UserError(
                    f"{path.parent} is in use by {owner}; wait for it, or choose another name=..."
                ) from None
            yield file
            return
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        file.truncate(0)
        file.write(f"process {os.getpid()} of {platform.node()}, started {started}")
        file.flush()
        yield file


def _sweep(root: Path) -> None:
    """Remove the temporary files and directories of processes that were killed while they wrote."""
    for path in list(root.rglob(".*.tmp")):
        owner = path.name.split(".")[-2]
        if owner.isdigit() and not Path("/proc", owner).exists():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


OWNER = "ROBUST_TICKET_RUN"  # process that holds the lock, for the processes that it starts


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
