"""Normalised splits: written by the stage `prepare`, read by every training stage."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from pathlib import Path

import numpy as np

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import file_hash, read_lines, write_json, write_lines
from configs.contract.experiment import schema, sections
from configs.contract.inputs.read_files import absent_labels, odd_texts, read_file
from configs.contract.inputs.snippets import split_snippets
from configs.contract.inputs.tasks import TASKS, Task, task_of
from configs.contract.run.run_dir import RunDir
from configs.contract.run.stage import verified
from mindspore_rt.cells import noise
from mindspore_rt.data import containment

SPLITS = ("train", "dev", "test")
Splits = dict[str, list[dict]]  # records of each split: texts under the task's columns, and the label's number


def write(run: RunDir) -> dict:
    """Write train, dev and test as JSON Lines, and `summary.json` with counts, balance, lengths and hashes.

    With `choice.split: test_half`, half of the test set is written as the split `choice`.

    Returns:
        The summary. Its `warnings` are for the user.

    Raises:
        UserError: A file cannot be used, or a split cannot be made as asked.
    """
    config, task = run.config, task_of(run.config)
    splits, note, warnings = _load_splits(config, task)
    splits, moved, left_out = _cut(splits, config, task)
    if moved or left_out:
        warnings.append(
            f"so that no text of dev contains a training text or is part of one, a random split was changed: texts "
            f"moved between dev and train: {moved}; left out, as parts of texts of both: {left_out}"
        )
    if config.choice.split == "test_half":
        splits["test"], splits["choice"] = _halves(splits["test"], config.data.seed)
    duplicates = _duplicates(splits, task)
    warnings += [f"texts that stand in both {pair}: {count}" for pair, count in duplicates.items() if count]
    warnings += odd_texts(itertools.chain(*splits.values()), task)
    _refuse_one_label(splits["train"], task, config.data.train or "the data set")
    for name, records in splits.items():
        warnings += absent_labels(records, task, name)
    for name, records in splits.items():
        write_lines(run.split(name), records)
    summary = {
        "task": config.task,
        "columns": list(task.columns),
        "labels": list(task.labels),
        "attacked": list(task.attacked),
        "note": note,
        "splits": {name: _describe(records, task, run.split(name)) for name, records in splits.items()},
        "duplicates": duplicates,
        "overlap": {"moved": moved, "left_out": left_out},
        "warnings": warnings,
    }
    write_json(run.data / "summary.json", summary)
    return summary


def _load_splits(config: schema.Experiment, task: Task) -> tuple[Splits, str, list[str]]:
    """Return the splits that the source has, a note on the source, and warnings."""
    data = config.data
    if data.train:
        files = {split: Path(file) for split in SPLITS if (file := getattr(data, split))}
        splits, warnings = _read_files(files, task, data)
        return splits, "files: " + ", ".join(file.name for file in files.values()), warnings
    if data.dev or data.test:
        raise UserError("data.train: unset, but data.dev or data.test is given; give the training file too")
    source = task.hub
    if config.task == "snippets":
        return *split_snippets(), []
    if source is None:
        raise UserError(f"data.train: unset, and the task {config.task} has no data set on the hub; name its file")
    from mindspore_rt.formats import hub  # only here: its import takes time

    names = {split: name for split, name in zip(SPLITS, source.splits, strict=True) if name}
    folder = hub.dataset_dir(source.id, source.config, source.revision, list(names.values()))
    files = {split: folder / f"{name}.jsonl" for split, name in names.items()}
    # The hub names columns as the table of tasks does, whatever the configuration says about files.
    splits, warnings = _read_files(files, TASKS[config.task], dataclasses.replace(data, columns=None))
    return splits, " ".join(filter(None, (source.id, source.config, "at", source.revision[:8]))), warnings


def _read_files(files: dict[str, Path], task: Task, data: sections.Data) -> tuple[Splits, list[str]]:
    splits, warnings = {}, []
    for split, file in files.items():
        splits[split], skipped = read_file(file, task, data.columns, data.bad_rows)
        if skipped:
            warnings.append(f"broken rows skipped: {len(skipped)}, such as " + "; ".join(skipped[:3]))
    return splits, warnings


def _cut(splits: Splits, config: schema.Experiment, task: Task) -> tuple[Splits, int, int]:
    """Cut test and dev off train where they are missing; keep `test_size` of a test set, and `train_size` of the rest.

    All is drawn by `data.seed`.

    Dev shares no text with the rest (`containment.cut`), unless `compat: official` asks for a random cut.

    Returns:
        The splits; the number of texts that are not in the part in which a random cut would put them; and the number
        of texts that are in neither part.
    """
    data, moved, left_out = config.data, 0, 0
    order = noise.generator(data.seed, noise.SHUFFLE).permutation(len(splits["train"]))
    train, test = [splits["train"][i] for i in order], splits.get("test")
    sizes = {"test": data.test_size or data.dev_size, "dev": data.dev_size}
    if data.test_size and test is not None:
        if data.test_size > len(test):
            raise UserError(f"data.test_size: {data.test_size} requested, of {len(test)} test sentences; ask for fewer")
        # At random: the test set of IMDB is sorted by label.
        chosen = noise.generator(data.seed, noise.SHUFFLE, 1).permutation(len(test))[: data.test_size]
        splits["test"] = [test[i] for i in sorted(chosen)]
    for name, size in sizes.items():
        if name not in splits:
            if size >= len(train):
                source = data.train or "the data set"
                raise UserError(
                    f"data.{name}_size: {size} requested, only {len(train)} training sentences of {source} are left; "
                    f"ask for fewer, or give a file with data.{name}"
                )
            splits[name], rest = train[:size], train[size:]
            if name == "dev" and config.compat == "paper":
                splits[name], rest = containment.cut(train, task.columns, size)
                moved, left_out = _changes(train, size, splits[name], rest)
                if len(splits[name]) < size or not rest:
                    raise UserError(
                        f"data.dev_size: {size} requested, but too few texts of {data.train or 'the data set'} neither "
                        "contain another text nor stand in one; ask for fewer, or give a file with data.dev"
                    )
            train = rest
    return {"train": train[: data.train_size], "dev": splits["dev"], "test": splits["test"]}, moved, left_out


def _halves(records: list[dict], seed: int) -> tuple[list[dict], list[dict]]:
    """Cut records in two halves at random, each in the order of the records."""
    if len(records) < 2:
        raise UserError("choice.split: test_half needs a test set of two sentences or more")
    order = noise.generator(seed, noise.SHUFFLE, 2).permutation(len(records))
    middle = -(-len(records) // 2)
    return [records[i] for i in sorted(order[:middle])], [records[i] for i in sorted(order[middle:])]


def _changes(records: list[dict], size: int, dev: list[dict], train: list[dict]) -> tuple[int, int]:
    """Count the records that a cut put elsewhere than the first `size` in dev and the rest in train, and in neither."""
    random_dev = set(map(id, records[:size]))
    moved = sum(id(record) not in random_dev for record in dev) + sum(id(record) in random_dev for record in train)
    return moved, len(records) - len(dev) - len(train)


def _refuse_one_label(train: list[dict], task: Task, source: str) -> None:
    """Refuse training sentences that all have the same label."""
    present = {record["label"] for record in train}
    if len(present) < 2:
        raise UserError(
            f"{source}: all {len(train)} training sentences have the label {task.labels[present.pop()]!r}; give "
            "sentences of every label (is data.label_column the right one?)"
        )


def _describe(records: list[dict], task: Task, path: Path) -> dict:
    words = collections.Counter(10 * (sum(len(r[c].split()) for c in task.columns) // 10) for r in records)
    labels = collections.Counter(task.labels[r["label"]] for r in records)
    return {
        "count": len(records),
        "labels": {name: labels[name] for name in task.labels},
        "length": {f"{low}-{low + 9} words": words[low] for low in sorted(words)},
        "sha256": file_hash(path),
    }


def _duplicates(splits: Splits, task: Task) -> dict[str, int]:
    """Return, for each pair of splits, the number of texts that stand in both."""
    texts = {name: {tuple(r[c] for c in task.columns) for r in records} for name, records in splits.items()}
    return {f"{a} and {b}": len(texts[a] & texts[b]) for a, b in itertools.combinations(texts, 2)}


def read(run: RunDir, name: str) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """Read a prepared split.

    Returns:
        Texts (one tuple of columns a sentence), and labels (n,) int64.

    Raises:
        UserError: The split was changed after `prepare`, or does not fit its summary.
    """
    summary, path = run.summary(), verified(run.split(name))
    records: list[dict] = read_lines(path)
    try:
        texts = [tuple(r[c] for c in summary.columns) for r in records]
    except KeyError as error:
        raise UserError(f"{run.data / 'summary.json'}: {path.name} has no column {error}; delete {run.data}") from None
    labels = np.array([r["label"] for r in records])
    if labels.max() >= len(summary.labels):
        raise UserError(f"{run.data / 'summary.json'}: {path.name} has more labels than it names; delete {run.data}")
    return texts, labels
