"""Reads what is scored on (a file, a folder or a task's name) into examples with the numbers of a model's labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from configs.contract.basics.errors import UserError, listed
from configs.contract.basics.files import with_home
from configs.contract.inputs import classifiers, snippets
from configs.contract.inputs.read_files import SECRET, folders_of_texts, read_file, read_table
from configs.contract.inputs.tables import BrokenRow
from configs.contract.inputs.tasks import NUMBER, TASKS, Task, columns_of, composed, label_entry, task_of
from torch_eval.library import hub

if TYPE_CHECKING:
    from configs.contract.experiment.schema import Experiment

LABEL_COLUMNS = tuple(
    dict.fromkeys(
        [layout.label for task in TASKS.values() for layout in task.layouts] + ["labels", "class", "category", "target"]
    )
)
TEXT_COLUMNS = (
    *("text", "sentence", "review", "content", "comment", "tweet"),
    *("title+description", "title++description", "title"),
)
PAIRS = (("text", "text_pair"), ("text1", "text2"), ("question", "context"), ("query", "passage"))
MOST_LABELS = 200  # a column of more different values holds no labels


def read(
    data: str, config: Experiment, names: Sequence[str], others: Sequence[Sequence[str]] = ()
) -> tuple[Task, list[dict], str]:
    """Read the examples to score on.

    Args:
        data: A CSV, TSV or JSON Lines file, a folder of .txt files for each label, or the name of a task.
        config: Its section `data` may name columns and labels; its task is `custom`, or says how the file is laid out.
        names: Labels of the model, in the order of their numbers.
        others: Labels of further models.

    Returns:
        The task, its examples, and a note on where they come from.

    Raises:
        UserError: There is no such file or task, or it cannot be told which columns or labels are meant.
    """
    path = with_home(data)
    if not path.exists() and data in TASKS:
        return _of_task(data, config)
    if (path / "config.json").is_file():
        raise UserError(f"{data}: the folder of a model; give the data after the models")
    if path.is_dir() and config.task == "custom":
        if not config.data.labels:
            folders = folders_of_texts(path)
            silent = folders and classifiers.says_nothing(names)
            config.data.labels = list(map(label_entry, folders)) if silent else in_order(path, folders, names)
        config.data.text_columns = config.data.text_columns or ["text"]
    elif path.is_file() and config.task == "custom":
        _guess(path, config, names, others)
    elif not path.is_dir() and not path.is_file():
        if path.exists():
            raise UserError(f"{data}: neither a file nor a folder; write the data into a file, and give that")
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
    source = TASKS[name].hub
    if source is None and name != "snippets":
        raise UserError(f"{name}: this task has no data of its own; give a file")
    config.task = name
    task = task_of(config)
    if source is None:
        splits, note = snippets.split_snippets()
        return task, splits["test"], note
    file = hub.split_file(source, source.splits[2])
    return task, read_file(file, TASKS[name])[0], f"{source.id}, {source.splits[2]}"


def reading(task: Task, label_column: str | None, names: Sequence[str], model: Path) -> str:
    """Say which columns hold the texts and labels, and which label of the model each label of the data is."""
    order = classifiers.match_labels(names, task.labels, model) or range(len(names))
    written = task.layouts[0].values or task.labels
    pairs = listed(f"{label} is {names[number]}" for label, number in zip(written, order, strict=True))
    place = f", labels in {label_column}" if label_column else ""
    return f"texts in {' and '.join(task.columns)}{place}; {pairs}"


def _guess(path: Path, config: Experiment, names: Sequence[str], others: Sequence[Sequence[str]]) -> None:
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
            f"{path}: no column {' or '.join(known[:2])}, only {listed(columns)}; name it: label_column=, or name "
            f"all columns if the file has no header: columns=[...]"
        )
    rows = [row for _, row in table.rows if isinstance(row, dict)]
    if known is LABEL_COLUMNS and not data.labels:
        data.label_column = _names_of(data.label_column, columns, rows, names)
    if not data.text_columns:
        data.text_columns = text_columns(path, [name for name in columns if name != data.label_column])
    if not data.labels:
        values = {spelled(row.get(data.label_column)) for row in rows} - {""}
        published = _published(values, [*columns, data.label_column], names)
        data.labels = published or labels_of(path, data.label_column, values, names, others, _published_orders(columns))


def _alike(names: Sequence[str], columns: Sequence[str]) -> str | None:
    """Return the first of these names that a file has, as its columns write it; upper and lower case may differ."""
    for fold in (str, str.casefold):
        written = {fold(column): column for column in reversed(columns)}
        for name in composed(names):
            if fold(name) in written:
                return written[fold(name)]
    return None


def _text_alike(text: str, columns: Sequence[str]) -> str | None:
    """Return the entry of `data.text_columns` for a text, if a file has all columns that make it up."""
    parts = [_alike([part], columns) for part in columns_of(text)]
    return _text_entry(parts) if all(parts) else None


def _text_entry(columns: Iterable[str | None]) -> str:
    """Return the entry of `data.text_columns` that `columns_of` reads as these columns."""
    return "+".join(str(column).replace("+", "++") for column in columns)


def _names_of(column: str, columns: Sequence[str], rows: Sequence[dict], names: Sequence[str]) -> str:
    """Return the column that names the labels of a numbered one, as in SetFit's files, if it names labels of the model.

    A file and a model may number the same labels differently. Without such names the numbered column is returned.
    """
    for ending in ("_text", "_name"):
        if other := _alike([f"{column}{ending}"], columns):
            values = {spelled(row.get(other)) for row in rows} - {""}
            if values and not any(classifiers.find_label(value, names) is None for value in values):
                return other
    return column


def _published(values: set[str], columns: Sequence[str], names: Sequence[str]) -> list[str] | None:
    """Return `data.labels` for a file in a layout that a task was published in; None for any other file."""
    for task in TASKS.values():
        indices = [classifiers.find_label(label, names) for label in task.labels]
        if len(names) == len(indices) and (classifiers.says_nothing(names) or None not in indices):
            for layout in task.layouts:
                if values and values <= set(layout.values) and all(_alike([name], columns) for name in layout.needed):
                    return list(map(label_entry, layout.values, task.labels))
    return None


def _published_orders(columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return, by title, the labels of the tasks whose published files have such columns.

    They count from 0 on, also where such a file was published with other values: people number it again.
    """
    return {
        task.title: task.labels
        for task in TASKS.values()
        for layout in task.layouts
        if all(_alike([name], columns) for name in layout.needed)
    }


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
    for texts in (*(layout.texts for task in TASKS.values() for layout in task.layouts), *PAIRS):
        pair = [_text_alike(text, columns) for text in texts]
        if len(pair) > 1 and all(pair):
            return list(map(str, pair))
    for chosen in (_text_alike(text, columns) for text in TEXT_COLUMNS):
        if chosen:
            return [chosen]
    if len(columns) == 1:
        return [_text_entry(columns)]
    raise UserError(f"{path}: which of {listed(columns)} is the text? name it: text_columns=[NAME]")


def labels_of(
    path: Path,
    column: str,
    values: set[str],
    names: Sequence[str],
    others: Sequence[Sequence[str]],
    published: Mapping[str, Sequence[str]],
) -> list[str]:
    """Return `data.labels` for the values of a label column, in the order of the model's labels.

    Args:
        path: For messages.
        column: Name of the column.
        values: What it holds.
        names: Labels of the model.
        others: Labels of further models.
        published: Labels of the tasks whose files have such columns, by the task's title.

    Raises:
        UserError: The values of the file do not say which of the model's labels they mean.
    """
    if values <= set(names):
        return list(map(label_entry, names))
    counted = {match[0]: name for name in names if (match := re.match(r"\d+", name))}  # 1 is "1 star"
    if values <= counted.keys() and len(counted) == len(names):
        _refuse_fewer(path, values, counted, {})
        return list(map(label_entry, counted, counted.values()))
    numbers = [str(number) for number in range(len(names))]
    if values <= set(numbers):
        _refuse_other_order(path, values, [names, *others], published)
        _refuse_fewer(path, values, dict(zip(numbers, names)), published)
        return numbers if classifiers.says_nothing(names) else list(map(label_entry, numbers, names))
    if len(values) > MOST_LABELS:
        raise UserError(f"{path}: column {column!r} holds {len(values)} different values; name another: label_column=")
    if classifiers.says_nothing(names) or any(classifiers.says_nothing([value]) for value in values):
        raise UserError(_unmatched(path, sorted(values), names))
    return in_order(path, sorted(values), names)


def _refuse_other_order(
    path: Path, values: set[str], models: Sequence[Sequence[str]], published: Mapping[str, Sequence[str]]
) -> None:
    """Refuse labels that are numbers where models, or the task's files, number theirs differently.

    Each text would be scored on another label than its own, without a word.
    """
    first, *others = [names for names in models if not classifiers.says_nothing(names)] or [()]
    differently = [("the models number theirs differently", other) for other in others]
    differently += [(f"{title} numbers them differently from the model", labels) for title, labels in published.items()]
    for reason, other in differently:
        numbers = range(len(other))
        order = [classifiers.find_label(name, first) for name in other]
        if values <= set(map(str, numbers)) and len({*order} - {None}) == len(other) and order != list(numbers):
            raise UserError(
                f"{path}: its labels are numbers, and {reason}: {listed(first)}, and {listed(other)}; "
                f"{_say_what_they_mean({str(number): name for number, name in enumerate(first)})}"
            )


def _refuse_fewer(
    path: Path, values: set[str], meant: Mapping[str, str], published: Mapping[str, Sequence[str]]
) -> None:
    """Refuse labels that are all numbers from 0 or 1 on where the model has more, and no task's files tell them.

    The data may have fewer labels: 0 and 1 are negative and positive, and not 1 star and 2 stars. A single number is no
    numbering, and a gap says that others are left out.

    Args:
        path: For messages.
        values: What the label column holds.
        meant: The label of the model that each number would be, in the order of its labels.
        published: As for `labels_of`.
    """
    names, found = list(meant.values()), sorted(map(int, values))
    for labels in published.values():
        if len(found) <= len(labels) and all(classifiers.find_label(name, names) == i for i, name in enumerate(labels)):
            return
    if 1 < len(found) < len(names) and found[0] < 2 and found == list(range(found[0], found[0] + len(found))):
        raise UserError(
            f"{path}: its labels are {listed(found)}, the model has {len(names)}: {listed(names)}; are those of the "
            f"data the same? {_say_what_they_mean(meant)}"
        )


def _say_what_they_mean(meant: Mapping[str, str]) -> str:
    """Return the remedy for numbers whose meaning is doubtful."""
    pairs = ", ".join(label_entry(number, name) for number, name in meant.items())
    return f"say what the numbers of the data mean, such as 'labels=[{pairs}]'"


def _unmatched(path: Path, values: Sequence[str], names: Sequence[str]) -> str:
    """Say that the labels of the data do not tell which of the model's they mean, and how the user says it."""
    pairs = listed(label_entry("...", name) for name in names)
    return (
        f"{path}: its labels are {listed(values)}, the model's are {listed(names)}: which is which cannot be "
        f"told; write in place of the dots what the data call each of them: 'labels=[{pairs}]'; rows with other "
        f"labels are broken ones, which bad_rows=N skips{SECRET if '-1' in values else ''}"
    )


def in_order(path: Path, values: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return `data.labels` in the order of the model's labels, each as the data spells it if the data has it.

    Raises:
        UserError: A label of the data is none of the model's.
    """
    labels = list(names)
    for value in values:
        number = classifiers.find_label(value, names)
        if number is None:
            raise UserError(_unmatched(path, values, names))
        labels[number] = value
    return list(map(label_entry, labels))
