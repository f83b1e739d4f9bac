"""The command `score`: the recipes against any classifiers on any data, with the machinery of the experiments.

runs/score/<models>-<data>/
  data/                          test.jsonl summary.json
  seed-1/attacks/<model>/<recipe>/   results.jsonl manifest.json, or missing.json with the reason
  results.json score.html        all figures with their intervals; the same as a page
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import file_hash, locked, sweep, write_json, write_lines
from configs.contract.basics.processes import usable_cores
from configs.contract.experiment import schema
from configs.contract.experiment.methods import METHODS
from configs.contract.inputs import classifiers
from configs.contract.inputs.read_files import absent_labels, odd_texts
from configs.contract.inputs.tasks import Task
from configs.contract.run.run_dir import RUNS, RunDir
from torch_eval.attack import scoring
from torch_eval.library import data as user_data
from torch_eval.library import hub, results

SECTIONS = ("attack", "data")  # whose keys may be written without the section
OTHERS = ("name", "task", "seeds", "on_change")  # further keys that score knows
# Keys of these sections that mean something in experiments only.
NOT_HERE = {
    *("attack.victims", "attack.shard", "attack.calibrate"),
    *(f"data.{key}" for key in ("train", "dev", "test", "train_size", "dev_size", "test_size")),
}
LONGEST_NAME = 240  # bytes of a folder's name; most file systems take 255
DEFAULTS = ("task=custom", "attack.examples=200", f"attack.workers={usable_cores()}")


class ScoreDir(RunDir):
    """The run directory of `score`, in which nothing is trained.

    Args:
        config: What is scored, as an experiment without training.
        root: The directory itself, whatever the experiment is called.
    """

    def __init__(self, config: schema.Experiment, root: Path) -> None:
        super().__init__(config, root.parent)
        self.root = root

    def victims(self, seed: int, planned: bool = False) -> dict[str, Path]:
        """What is attacked: name to Hugging Face directory."""
        return self.own_victims()


def run(models: Sequence[str], data: str, overrides: Sequence[str], runs: Path = RUNS, out: Path | None = None) -> Path:
    """Score models on data; returns the folder with the results. Finished attacks are skipped.

    Args:
        models: Hugging Face directories or names on the hub.
        data: A file, a folder of texts, or a task's name.
        overrides: `key=value`; keys of the sections `attack` and `data` may stand without the section.
        runs: Where the folder is made.
        out: The folder itself, if it is named.

    Raises:
        UserError: Something cannot be scored.
    """
    overrides = list(map(whole_key, overrides))
    config = schema.load("base", [*DEFAULTS, *overrides], complete=False)
    keys = [override.partition("=")[0] for override in overrides]
    refuse_keys_of_experiments(keys, config)
    folders = named({model: hub.model_dir(model) for model in models})
    config.attack.victims = [f"{name}={folder}" for name, folder in folders.items()]
    names, *others = map(classifiers.label_names, folders.values())
    if "data.max_length" not in keys:
        config.data.max_length = classifiers.longest_common_input(folders.values())
    task, examples, note = user_data.read(data, config, names, others)
    first = next(iter(folders.values()))
    print(f"{note}: {user_data.reading(task, config.data.label_column, names, first)}")
    if "attack.examples" in keys and config.attack.examples > len(examples):
        print(f"examples: {config.attack.examples} requested, all {len(examples)} texts are taken")
    for warning in (*odd_texts(examples, task), *absent_labels(examples, task, "the data")):
        print(f"warning: {warning}")
    name = config.name if config.name != "base" else folder_name([*folders, plain_name(Path(data).stem)])
    run_dir = ScoreDir(config, (out or runs / "score" / name).resolve())
    for folder in folders.values():
        if run_dir.root.is_relative_to(folder):
            raise UserError(f"--out: {run_dir.root} is in the folder of a model, whose files must stay as they are")
    with locked(run_dir.root / ".score.lock"):  # before the data: another run there may be attacking others
        sweep(run_dir.root)
        write_data(run_dir, task, examples, note)
        scoring.run(run_dir)
        results.write(run_dir, note)
    return run_dir.root


def refuse_keys_of_experiments(keys: Sequence[str], config: schema.Experiment) -> None:
    """Refuse keys that would change nothing here.

    Raises:
        UserError: With the key.
    """
    for key in keys:
        section = key.rpartition(".")[0]
        if key in NOT_HERE or section not in SECTIONS and key not in OTHERS:
            raise UserError(
                f"score: {key} is a key of experiments, and changes nothing here; examples=N limits the texts"
            )
    if len(config.seeds) > 1:
        raise UserError(
            f"score: seeds={config.seeds}: it attacks with one seed; give one, and each a name=... of its own"
        )


def whole_key(override: str) -> str:
    """Put the section before a key of `attack` or `data` that stands without it."""
    key, known = override.partition("=")[0], schema.keys()
    return next((f"{section}.{override}" for section in SECTIONS if f"{section}.{key}" in known), override)


def named(folders: dict[str, Path]) -> dict[str, Path]:
    """Give each model a name that is a folder's, by the end of its path or hub name."""
    models: dict[str, Path] = {}
    for given, folder in folders.items():
        first = plain_name(folder.parent.name if folder.name == "model" else Path(given.partition("@")[0]).name)
        candidates = chain([first], (f"{first}_{number}" for number in count(2)))
        models[next(name for name in candidates if name not in models and name not in METHODS)] = folder
    return models


def plain_name(text: str) -> str:
    """Return a name of letters, digits and underscores."""
    return re.sub(r"\W+", "_", text).strip("_") or "model"


def folder_name(parts: Sequence[str]) -> str:
    """Return the names of models and data as one; of many names the beginning, and a hash of all."""
    name = "-".join(parts)
    if len(name.encode()) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME // 5]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def write_data(run_dir: RunDir, task: Task, examples: list[dict], note: str) -> None:
    """Write the examples and their summary as `prepare` does."""
    test = run_dir.split("test")
    write_lines(test, examples)
    summary = {
        "columns": task.columns,
        "labels": task.labels,
        "attacked": task.attacked,
        "note": note,
        "splits": {"test": {"count": len(examples), "sha256": file_hash(test)}},
    }
    write_json(run_dir.data / "summary.json", summary)
