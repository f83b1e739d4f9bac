"""The table of tasks, and the task that a configuration describes."""

import pytest

from configs.contract.basics.errors import UserError
from configs.contract.experiment import schema
from configs.contract.inputs.tasks import TASKS, task_of

CUSTOM = ("task=custom", "data.train=x.csv", "data.text_columns=[a, b]", "data.labels=[never, maybe, always]")

MINE = """
extends: demo
name: mine
task: custom
data:
  train: reviews.csv
  text_columns: [title+body]
  label_column: stars
  labels: [1=bad, 2=fair, 3=good]
"""


def task(*overrides):
    return task_of(schema.load("base", overrides))


@pytest.mark.parametrize("name", ["sst2", "imdb", "agnews", "qnli", "mnli", "qqp"])
def test_the_six_tasks(name):
    """What the paper attacks: the only text, or the second of a pair; and as many labels as GLUE's cards say."""
    resolved = task_of(schema.load(name))
    assert resolved == TASKS[name]
    second = {"qnli": "sentence", "mnli": "hypothesis", "qqp": "question2"}
    assert resolved.attacked == (second.get(name, resolved.columns[0]),)
    assert len(resolved.labels) == {"mnli": 3, "agnews": 4}.get(name, 2)
    assert len(resolved.hub.revision) == 40 and resolved.hub.splits[1] is None


def test_own_data():
    resolved = task(*CUSTOM)
    assert resolved.columns == ("a", "b") and resolved.labels == ("never", "maybe", "always")
    assert resolved.attacked == ("b",) and task(*CUSTOM, "data.attacked=a").attacked == ("a",)
    assert resolved.layouts[0].needed == ("a", "b", "label") and resolved.hub is None


def test_a_file_of_ten_lines_is_enough(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    config = schema.load(str(path))
    resolved = task_of(config)
    assert config.name == "mine" and config.data.train == "reviews.csv"
    assert resolved.columns == ("title+body",) and resolved.labels == ("bad", "fair", "good")
    assert resolved.numbers(resolved.layouts[0]) == {"bad": 0, "fair": 1, "good": 2, "1": 0, "2": 1, "3": 2}
    assert len(MINE.splitlines()) <= 10


def test_the_attacked_text_of_a_task_of_the_table():
    assert task("task=qnli", "data.attacked=question").attacked == ("question",)


@pytest.mark.parametrize(
    "overrides, expected",
    [
        (("task=custom",), "data.text_columns: unset"),
        (CUSTOM[:3], "data.labels: unset"),
        ((CUSTOM[0], *CUSTOM[2:]), "data.train: unset"),
        ((*CUSTOM, "data.text_columns=[a, b, c]"), "data.text_columns: 3 given"),
        ((*CUSTOM, "data.text_columns=[a, a]"), "data.text_columns: a name appears twice"),
        ((*CUSTOM, "data.labels=[x]"), "data.labels: only x"),
        ((*CUSTOM, "data.labels=[x, y, x]"), "data.labels: a name appears twice"),
        ((*CUSTOM, "data.labels=[1=x, 1=y]"), "data.labels: a name appears twice"),
        ((*CUSTOM, "data.labels=[1=, 2=y]"), "data.labels: an empty name"),
        ((*CUSTOM, "data.labels=[' ', y, z]"), "data.labels: an empty name"),
        ((*CUSTOM, "data.label_column=b"), "data.label_column: 'b' is one of"),
        ((*CUSTOM, "data.text_columns=[label, b]", "data.label_column=y"), "data.text_columns: prepared files"),
        (("task=sst2", "data.text_columns=[label]"), "data.label_column: 'label' is one of"),
        ((*CUSTOM, "data.attacked=c"), "data.attacked: 'c' is not one of the texts a, b"),
        (("task=sst2", "data.labels=[a, b, c]"), "data.labels: 3 given, sst2 has 2 .*task=custom"),
        (("task=qqp", "data.text_columns=[a]"), "data.text_columns: 1 given, qqp has 2"),
    ],
)
def test_wrong_keys_are_named(overrides, expected):
    with pytest.raises(UserError, match=expected):
        task(*overrides)
