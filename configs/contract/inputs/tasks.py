"""The tasks: where their data come from, their text columns and labels, and which text attacks change."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from configs.contract.basics.errors import UserError
from configs.contract.inputs import classifiers

# A label that is a number: 1, 1.0, +1, or 1.000e+00 as `numpy.savetxt` writes it.
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d\d)?", re.ASCII)


def composed(names: Iterable[str]) -> list[str]:
    """Return names with each accent as part of its letter: files, and macOS in names of folders, may write it apart."""
    return [unicodedata.normalize("NFC", name) for name in names]


def columns_of(text: str) -> list[str]:
    """Return the columns that make up a text: `a+b` are two, `a++b` is one with a + in its name."""
    return [part.replace("++", "+") for part in re.split(r"(?<!\+)\+(?!\+)", text)]


@dataclass(frozen=True)
class Hub:
    """A data set on the Hugging Face hub.

    The labels of GLUE's test sets are secret, so the paper reports on the official dev sets. They are the test sets
    here, and dev is split off the training set.

    Attributes:
        id: Name of the data set.
        config: Name of its configuration, if it has several.
        revision: Commit that is downloaded.
        splits: The hub's names of train, dev and test; None for a dev set that is split off train.
    """

    id: str
    config: str | None
    revision: str
    splits: tuple[str, str | None, str]


@dataclass(frozen=True)
class FileLayout:
    """How a file writes the texts and labels of a task.

    Attributes:
        texts: Its text columns in the task's order, as `columns_of` reads them; two are joined by a space.
        label: Its label column.
        values: What the label column holds for each label, if it is not the label's name. Its number from 0 counts
            too, unless one of these is a number.
    """

    texts: tuple[str, ...]
    label: str = "label"
    values: tuple[str, ...] = ()

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns that a file of this layout has, the label last."""
        return (*(part for text in self.texts for part in columns_of(text)), self.label)


@dataclass(frozen=True)
class Task:
    """A classification task.

    Attributes:
        columns: Text columns in reading order.
        labels: Names of the labels, in the order of their numbers.
        attacked: Columns that attacks change.
        layouts: Layouts of files; the first one whose columns a file has is used.
        hub: Source of the data if the user gives no files.
        title: Name in the report; empty for the user's own data, which the experiment names.
    """

    columns: tuple[str, ...]
    labels: tuple[str, ...]
    attacked: tuple[str, ...]
    layouts: tuple[FileLayout, ...]
    hub: Hub | None = None
    title: str = ""

    def numbers(self, layout: FileLayout) -> dict[str, int]:
        """Return the number of the label for each entry that a label column may hold.

        A label that is named by a number does not count under it where files write other numbers: in `1=0, 2=1` the
        entry 0 is unknown.
        """
        values = {value: i for i, value in enumerate(layout.values)}
        others = any(map(NUMBER.fullmatch, values))
        names = {name: i for i, name in enumerate(self.labels) if not (others and NUMBER.fullmatch(name))}
        entries = {**names, **values}
        if any(map(NUMBER.fullmatch, entries)):
            return entries
        return {**entries, **{str(i): i for i in range(len(self.labels))}}


def _task(
    title: str, columns: tuple[str, ...], labels: tuple[str, ...], *others: FileLayout, hub: Hub | None = None
) -> Task:
    """Create a task. Of a pair, attacks change the second text, as in the paper: QNLI's sentence, MNLI's hypothesis."""
    return Task(columns, labels, columns[-1:], (FileLayout(columns), *others), hub, title)


GLUE = ("nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c")


def _glue(name: str, test: str = "validation") -> Hub:
    return Hub(GLUE[0], name, GLUE[1], ("train", None, test))


COUNTED = ("1", "2", "3", "4")
TASKS = {
    # 10,605 Rotten Tomatoes snippets with mean human ratings, packaged with vaderSentiment 3.3.2.
    "snippets": _task("Rotten Tomatoes snippets", ("sentence",), ("negative", "positive")),
    "sst2": _task("SST-2", ("sentence",), ("negative", "positive"), hub=_glue("sst2")),
    "imdb": _task(
        "IMDB",
        ("text",),
        ("neg", "pos"),
        FileLayout(("sentence",)),
        FileLayout(("review",), "sentiment", ("negative", "positive")),
        hub=Hub("stanfordnlp/imdb", None, "e6281661ce1c48d982bc483cf8a173c1bbeb5d31", ("train", None, "test")),
    ),
    "agnews": _task(
        "AGNEWS",
        ("text",),
        ("World", "Sports", "Business", "Sci/Tech"),
        FileLayout(("title+description",), values=COUNTED),
        FileLayout(("Title+Description",), "Class Index", COUNTED),
        hub=Hub("fancyzhx/ag_news", None, "eb185aade064a813bc0b7f42de02595523103ca4", ("train", None, "test")),
    ),
    "qnli": _task("QNLI", ("question", "sentence"), ("entailment", "not_entailment"), hub=_glue("qnli")),
    "mnli": _task(
        "MNLI",
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        FileLayout(("sentence1", "sentence2"), "gold_label"),
        hub=_glue("mnli", "validation_matched"),
    ),
    "qqp": _task(
        "QQP",
        ("question1", "question2"),
        ("not_duplicate", "duplicate"),
        FileLayout(("question1", "question2"), "is_duplicate"),
        hub=_glue("qqp"),
    ),
    # The user's own data: columns and labels come from the section `data` of the configuration.
    "custom": Task((), (), (), ()),
}


def task_of(config: Any) -> Task:
    """Return the task of an experiment: an entry of `TASKS`, with the changes that its section `data` makes.

    Raises:
        UserError: A key of `data` does not fit the task.
    """
    data = config.data
    task = _custom(data) if config.task == "custom" else _respelled(config.task, data)
    if data.attacked is not None:
        attacked = tuple(composed([data.attacked]))
        if attacked[0] not in task.columns:
            raise UserError(f"data.attacked: {data.attacked!r} is not one of the texts {', '.join(task.columns)}")
        task = dataclasses.replace(task, attacked=attacked)
    return task


def _custom(data: Any) -> Task:
    for key in ("text_columns", "labels", "train"):
        if not getattr(data, key):
            raise UserError(f"data.{key}: unset, and task: custom needs it")
    columns, (names, values) = tuple(composed(data.text_columns)), _spelled(data.labels)
    if len(columns) > 2:
        raise UserError(f"data.text_columns: {len(columns)} given, BERT reads one text or two; a+b joins columns")
    if len(names) < 2:
        raise UserError(f"data.labels: only {names[0]} given, a classifier needs two or more, as a list: [neg, pos]")
    if "label" in columns:
        raise UserError("data.text_columns: prepared files keep the label under the name 'label'; rename that column")
    return Task(columns, names, columns[-1:], (_own_layout(columns, data.label_column, values),))


def _respelled(name: str, data: Any) -> Task:
    """Return an entry of `TASKS` for files that have other names for its columns or labels."""
    task = TASKS[name]
    if not (data.text_columns or data.label_column or data.labels):
        return task
    for key, own in (("text_columns", task.columns), ("labels", task.labels)):
        given = getattr(data, key)
        if given and len(given) != len(own):
            raise UserError(
                f"data.{key}: {len(given)} given, {name} has {len(own)} ({', '.join(own)}); for others: task=custom"
            )
    texts = tuple(composed(data.text_columns or task.columns))
    if len(texts) == 2 and (texts[0] == task.columns[1] or texts[1] == task.columns[0]):
        texts = texts[::-1]  # the task's own names say which is which
    values = _in_order(task.labels, *_spelled(data.labels)) if data.labels else ()
    return dataclasses.replace(task, layouts=(_own_layout(texts, data.label_column, values),))


def _in_order(labels: tuple[str, ...], names: tuple[str, ...], values: tuple[str, ...]) -> tuple[str, ...]:
    """Return what files write for each of a task's labels: the values of the names that mean these labels.

    Names that mean none of the labels are taken in the order of the labels.

    Raises:
        UserError: Some of the names mean labels, but not in the order of the labels.
    """
    entries = values or names
    places = [classifiers.find_label(label, names) for label in labels]
    if len({*places} - {None}) == len(labels):
        return tuple(entries[place] for place in places if place is not None)
    for number, place in enumerate(places):
        if place not in (None, number):
            raise UserError(
                f"data.labels: which of {', '.join(names)} is {labels[number]} can be told, but not which are the "
                f"others; name all of {', '.join(labels)}"
            )
    return entries


def _own_layout(texts: tuple[str, ...], label: str | None, values: tuple[str, ...]) -> FileLayout:
    layout = FileLayout(texts, composed([label or "label"])[0], values)
    _refuse_repeats("data.text_columns", texts)
    if layout.label in layout.needed[:-1]:
        raise UserError(f"data.label_column: {layout.label!r} is one of data.text_columns")
    return layout


def label_entry(value: str, name: str | None = None) -> str:
    """Return the entry of `data.labels` for a label, and for its name if files write another value for it."""
    return "=".join(text.replace("=", "==") for text in (value, name) if text is not None)


def _read_entry(entry: str) -> tuple[str, str]:
    """Return a label's value and name as `label_entry` wrote them; a single = ends the value.

    Spaces around them do not count, as around what files write: in `1 = bad` they would make 1 another label.
    """
    value = re.match("(?:[^=]|==)*", entry, re.DOTALL)
    assert value, "may be empty"
    name = entry[value.end() + 1 :] if value.end() < len(entry) else value[0]
    return value[0].replace("==", "=").strip(), name.replace("==", "=").strip()


def _spelled(labels: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split `1=World` into the label's name, World, and what files write for it, 1.

    Returns:
        Names, and values; no values if files write each label as its name.
    """
    pairs = [_read_entry(label) for label in composed(labels)]
    values, names = tuple(value for value, _ in pairs), tuple(name for _, name in pairs)
    if not all(names + values):
        raise UserError(f"data.labels: an empty name in {labels}")
    _refuse_repeats("data.labels", names)
    _refuse_repeats("data.labels", values)
    return names, () if names == values else values


def _refuse_repeats(key: str, names: tuple[str, ...]) -> None:
    if len(set(names)) != len(names):
        raise UserError(f"{key}: a name appears twice in {', '.join(names)}")
