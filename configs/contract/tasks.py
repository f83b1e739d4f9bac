"""The tasks: where their sentences live, their columns and labels, and what an attack may change."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from configs.contract.errors import UserError

NUMBER = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)  # a label that is a number, however it is written


@dataclass(frozen=True)
class Hub:
    """A data set on the Hugging Face hub. `splits` names the hub's splits for train, dev and test.

    A dev split of None is cut off the training set: the paper reports on GLUE's official dev set
    (its test labels are secret), which therefore serves as the test set here.
    """

    id: str
    config: str | None
    revision: str
    splits: tuple[str, str | None, str]


@dataclass(frozen=True)
class Layout:
    """How a file spells a task.

    `texts` are its columns in the task's order; `a+b` joins two by a space. `values` is what stands in the label
    column for each label, where that is neither the label's name nor its number from 0.
    """

    texts: tuple[str, ...]
    label: str = "label"
    values: tuple[str, ...] = ()

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns that a file of this layout has."""
        return (*(part for text in self.texts for part in text.split("+")), self.label)


@dataclass(frozen=True)
class Task:
    """`columns` are the text columns in reading order; an attack changes `attacked` only.

    A file is read by the first of `layouts` whose columns it has.
    """

    columns: tuple[str, ...]
    labels: tuple[str, ...]
    attacked: tuple[str, ...]
    layouts: tuple[Layout, ...]
    hub: Hub | None = None

    def numbers(self, layout: Layout) -> dict[str, int]:
        """The label that each allowed entry of a label column stands for."""
        names = {name: i for i, name in enumerate(self.labels)}
        values = layout.values
        if not values and not any(NUMBER.fullmatch(name) for name in names):
            values = map(str, range(len(names)))
        return {**names, **{value: i for i, value in enumerate(values)}}


def _task(columns: tuple[str, ...], labels: tuple[str, ...], *others: Layout, hub: Hub | None = None) -> Task:
    """The second text of a pair is the one attacked: QNLI's sentence, MNLI's hypothesis, QQP's second question."""
    return Task(columns, labels, columns[-1:], (Layout(columns), *others), hub)


GLUE = ("nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c")


def _glue(name: str, test: str = "validation") -> Hub:
    return Hub(GLUE[0], name, GLUE[1], ("train", None, test))


COUNTED = ("1", "2", "3", "4")
TASKS = {
    # 10,605 Rotten Tomatoes snippets with mean human ratings, packaged with vaderSentiment 3.3.2.
    "snippets": _task(("sentence",), ("negative", "positive")),
    "sst2": _task(("sentence",), ("negative", "positive"), hub=_glue("sst2")),
    "imdb": _task(
        ("text",),
        ("neg", "pos"),
        Layout(("sentence",)),
        Layout(("review",), "sentiment", ("negative", "positive")),
        hub=Hub("stanfordnlp/imdb", None, "e6281661ce1c48d982bc483cf8a173c1bbeb5d31", ("train", None, "test")),
    ),
    "agnews": _task(
        ("text",),
        ("World", "Sports", "Business", "Sci/Tech"),
        Layout(("title+description",), values=COUNTED),
        Layout(("Title+Description",), "Class Index", COUNTED),
        hub=Hub("fancyzhx/ag_news", None, "eb185aade064a813bc0b7f42de02595523103ca4", ("train", None, "test")),
    ),
    "qnli": _task(("question", "sentence"), ("entailment", "not_entailment"), hub=_glue("qnli")),
    "mnli": _task(
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        Layout(("sentence1", "sentence2"), "gold_label"),
        hub=_glue("mnli", "validation_matched"),
    ),
    "qqp": _task(
        ("question1", "question2"),
        ("not_duplicate", "duplicate"),
        Layout(("question1", "question2"), "is_duplicate"),
        hub=_glue("qqp"),
    ),
    # A user's own: everything comes from the section `data` of the configuration.
    "custom": Task((), (), (), ()),
}


def task_of(config) -> Task:
    """The task of a configuration: one of the table above, with what its section `data` says otherwise.

    Raises `UserError` naming the key.
    """
    if config.task not in TASKS:
        raise UserError(f"task: {config.task!r} is not one of {', '.join(TASKS)}")
    data = config.data
    task = _custom(data) if config.task == "custom" else _respelled(config.task, data)
    if data.attacked is not None:
        if data.attacked not in task.columns:
            raise UserError(f"data.attacked: {data.attacked!r} is not one of the texts {', '.join(task.columns)}")
        task = dataclasses.replace(task, attacked=(data.attacked,))
    return task


def _custom(data) -> Task:
    for key in ("text_columns", "labels", "train"):
        if not getattr(data, key):
            raise UserError(f"data.{key}: unset, and task: custom needs it")
    columns, (names, values) = tuple(data.text_columns), _spelled(data.labels)
    if len(columns) > 2:
        raise UserError(f"data.text_columns: {len(columns)} given, BERT reads one text or two; a+b joins columns")
    if len(names) < 2:
        raise UserError(f"data.labels: only {names[0]} given, a classifier needs two or more")
    if "label" in columns:
        raise UserError("data.text_columns: prepared files keep the label under the name 'label'; rename that column")
    return Task(columns, names, columns[-1:], (_own_layout(columns, data.label_column, values),))


def _respelled(name: str, data) -> Task:
    """A task of the table, for files that name its columns or labels in a way of their own."""
    task = TASKS[name]
    if not (data.text_columns or data.label_column or data.labels):
        return task
    for key, own in (("text_columns", task.columns), ("labels", task.labels)):
        given = getattr(data, key)
        if given and len(given) != len(own):
            raise UserError(
                f"data.{key}: {len(given)} given, {name} has {len(own)} ({', '.join(own)}); for others: task=custom"
            )
    names, values = _spelled(data.labels or [])
    texts = tuple(data.text_columns or task.columns)
    return dataclasses.replace(task, layouts=(_own_layout(texts, data.label_column, values or names),))


def _own_layout(texts: tuple[str, ...], label: str | None, values: tuple[str, ...]) -> Layout:
    layout = Layout(texts, label or "label", values)
    _refuse_repeats("data.text_columns", texts)
    if layout.label in layout.needed[:-1]:
        raise UserError(f"data.label_column: {layout.label!r} is one of data.text_columns")
    return layout


def _spelled(labels: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of labels, and what stands for them in files: `1=World` names the 1 of a file World."""
    pairs = [label.partition("=") for label in labels]
    names = tuple(name if separator else value for value, separator, name in pairs)
    values = tuple(value for value, _, _ in pairs)
    if "" in names + values:
        raise UserError(f"data.labels: an empty name in {labels}")
    _refuse_repeats("data.labels", names)
    _refuse_repeats("data.labels", values)
    return names, () if names == values else values


def _refuse_repeats(key: str, names: tuple[str, ...]) -> None:
    if len(set(names)) != len(names):
        raise UserError(f"{key}: a name stands twice in {', '.join(names)}")
