"""Reads what is scored on (a file, a folder or a task's name) into examples with the numbers of a model's labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from configs.contract import classifiers, snippets
from configs.contract.errors import UserError
from configs.contract.read_files import read_file, read_table
from configs.contract.tables import BrokenRow
from configs.contract.tasks import NUMBER, TASKS, Task, task_of
from torch_eval.library import hub

if TYPE_CHECKING:
    from configs.contract.schema import Experiment

LABEL_COLUMNS = tuple(
    dict.fromkeys(
        [layout.label for task in TASKS.values() for layout in task.layouts] + ["labels", "class", "category", "target"]
    )
)
TEXT_COLUMNS = ("text", "sentence", "review", "content", "comment", "tweet", "title")
MOST_LABELS = 200  # a column of more different values holds no labels


def read(data: str, config: Experiment, names: Sequence[str]) -> tuple[Task, list[dict], str]:
    """Read the examples to score on.

    Args:
        data: A CSV, TSV or JSON Lines file, a folder of .txt files for each label, or the name of a task.
        config: Its section `data` may name columns and labels; its task is `custom`, or says how the file is laid out.
        names: Labels of the model, in the order of their numbers.

    Returns:
        The task, its examples, and a note on where they come from.

    Raises:
        UserError: There is no such file or task, or it cannot be told which columns or labels are meant.
    """
    path = Path(data).expanduser()
    if not path.exists() and data in TASKS:
        return _of_task(data, config)
    if path.is_dir() and config.task == "custom" and not config.data.labels:
        folders = sorted(folder.name for folder in path.iterdir() if folder.is_dir() and any(folder.glob("*.txt")))
        config.data.labels = folders if classifiers.says_nothing(names) else in_order(path, folders, names)
        config.data.text_columns = config.data.text_columns or ["text"]
    elif path.is_file() and config.task == "custom":
        _guess(path, config, names)
    elif not path.is_dir() and not path.is_file():
        if "://" in data:
            raise UserError(f"{data}: an address; download the file, and give the path to it")
        known = ", ".join(name for name in TASKS if name != "custom")
        raise UserError(
            f"{data}: no such file or folder, and no task; the tasks are {known}; write another data set of the hub "
            f"into a file with datasets.load_dataset(NAME, split='test').to_json('test.jsonl')"
        )
    config.data.train = str(path)  # what a task of the user's own is read from
    task = task_of(config)
    records, skipped = read_file(path, task, config.data.columns, config.data.bad_rows)
    note = f"{path.name}" + (f", without {len(skipped)} broken rows" if skipped else "")
    return task, records, note


def _of_task(name: str, config: Experiment) -> tuple[Task, list[dict], str]:
    """Return the test set of a task."""
    config.task = name
    task = task_of(config)
    if name == "snippets":
        splits, note = snippets.split_snippets(*snippets.read_snippets())
        return task, splits["test"], note
    if not task.hub:
        raise UserError(f"{name}: this task has no data of its own; give a file")
    file = hub.split_file(task.hub, task.hub.splits[2])
    return task, read_file(file, TASKS[name])[0], f"{task.hub.id}, {task.hub.splits[2]}"


def _guess(path: Path, config: Experiment, names: Sequence[str]) -> None:
    """Set the columns and labels of a file where the user has not named them."""
    data = config.data
    known = [data.label_column] if data.label_column else LABEL_COLUMNS
    table = read_table(path, data.columns, lambda header: _alike(known, header) is not None)
    columns = [name for name in table.names if name]
    broken = next((f"{place}: {row}" for place, row in table.rows if isinstance(row, BrokenRow)), None)
    if broken and not columns:
        raise UserError(f"{path}, {broken}")
    data.label_column = _alike(known, columns)
    if data.label_column is None:
        raise UserError(
            f"{path}: no column {' or '.join(known[:2])}, only {', '.join(columns)}; name it: label_column=, or name "
            f"all columns if the file has no header: columns=[...]"
        )
    rows = [row for _, row in table.rows if isinstance(row, dict)]
    if not data.text_columns:
        data.text_columns = text_columns(path, [name for name in columns if name != data.label_column])
    if not data.labels:
        values = {spelled(row.get(data.label_column)) for row in rows} - {""}
        data.labels = labels_of(path, data.label_column, values, names)


def _alike(names: Sequence[str], columns: Sequence[str]) -> str | None:
    """Return the column that the first of these names means, as it is written or in another case."""
    folded = {column.casefold(): column for column in reversed(columns)}
    exact = next((name for name in names if name in columns), None)
    return exact or next((folded[name] for name in map(str.casefold, names) if name in folded), None)


def spelled(value: object) -> str:
    """Return a label as a file spells it, whole numbers and truth values as digits; empty if there is none."""
    text = "" if not isinstance(value, str | float | int) or value != value else str(value).strip()
    if NUMBER.fullmatch(text) and Decimal(text) == int(Decimal(text)):
        return str(int(Decimal(text)))
    return {"true": "1", "false": "0"}.get(text.lower(), text)


def text_columns(path: Path, columns: list[str]) -> list[str]:
    """Choose the columns of the text or pair.

    Raises:
        UserError: The columns do not tell which of them is the text.
    """
    for task in TASKS.values():
        for layout in task.layouts:
            if len(layout.texts) > 1 and set(layout.needed[:-1]) <= set(columns):
                return list(layout.texts)
    chosen = _alike(TEXT_COLUMNS, columns) or (columns[0] if len(columns) == 1 else None)
    if chosen:
        return [chosen]
    raise UserError(f"{path}: which of {', '.join(columns)} is the text? name it: text_columns=[NAME]")


def labels_of(path: Path, column: str, values: set[str], names: Sequence[str]) -> list[str]:
    """Choose what `data.labels` would have to say, in the order of the model's labels.

    Raises:
        UserError: The values of the file do not say which of the model's labels they mean.
    """
    counted = {match[0]: name for name in names if (match := re.match(r"\d+", name))}  # 1 is "1 star"
    if values <= counted.keys() and len(counted) == len(names):
        return list(map("=".join, counted.items()))
    numbers = [str(number) for number in range(len(names))]
    if values <= set(numbers):
        return numbers if classifiers.says_nothing(names) else list(names)
    if len(values) > MOST_LABELS:
        raise UserError(f"{path}: column {column!r} holds {len(values)} different values; name another: label_column=")
    if classifiers.says_nothing(names) or any(classifiers.says_nothing([value]) for value in values):
        raise UserError(_unmatched(path, sorted(values), names))
    return in_order(path, sorted(values), names)


def _unmatched(path: Path, values: Sequence[str], names: Sequence[str]) -> str:
    """Say that the labels of the data do not tell which of the model's they mean, and how the user says it."""
    pairs = ", ".join(f"...={name}" for name in names)
    return (
        f"{path}: its labels are {', '.join(values)}, the model's are {', '.join(names)}: which is which cannot be "
        f"told; write in place of the dots what the data call each of them: 'labels=[{pairs}]'; rows with other "
        f"labels are broken ones, which bad_rows=N skips"
    )


def in_order(path: Path, values: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return labels as the data spells them, in the order of the model's; its own name where the data has none.

    Raises:
        UserError: A label of the data is none of the model's.
    """
    labels = list(names)
    for value in values:
        number = classifiers.find_label(value, names)
        if number is None:
            raise UserError(_unmatched(path, values, names))
        labels[number] = value
    return labels
