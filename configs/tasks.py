"""The tasks: where their sentences live, their columns and labels, and what an attack may change."""

from __future__ import annotations

from dataclasses import dataclass


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
class Task:
    """`columns` are the text columns in reading order; an attack changes `attacked` only."""

    columns: tuple[str, ...]
    labels: tuple[str, ...]
    attacked: tuple[str, ...]
    hub: Hub | None = None
    label_column: str = "label"


GLUE = ("nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c")


def _glue(name: str, test: str = "validation") -> Hub:
    return Hub(GLUE[0], name, GLUE[1], ("train", None, test))


TASKS = {
    # 10,605 Rotten Tomatoes snippets with mean human ratings, packaged with vaderSentiment 3.3.2.
    "snippets": Task(("sentence",), ("negative", "positive"), ("sentence",)),
    "sst2": Task(("sentence",), ("negative", "positive"), ("sentence",), _glue("sst2")),
    "imdb": Task(
        ("text",),
        ("neg", "pos"),
        ("text",),
        Hub("stanfordnlp/imdb", None, "e6281661ce1c48d982bc483cf8a173c1bbeb5d31", ("train", None, "test")),
    ),
    "agnews": Task(
        ("text",),
        ("World", "Sports", "Business", "Sci/Tech"),
        ("text",),
        Hub("fancyzhx/ag_news", None, "eb185aade064a813bc0b7f42de02595523103ca4", ("train", None, "test")),
    ),
    "qnli": Task(("question", "sentence"), ("entailment", "not_entailment"), ("sentence",), _glue("qnli")),
    "mnli": Task(
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        ("hypothesis",),
        _glue("mnli", "validation_matched"),
    ),
    "qqp": Task(("question1", "question2"), ("not_duplicate", "duplicate"), ("question2",), _glue("qqp")),
}
