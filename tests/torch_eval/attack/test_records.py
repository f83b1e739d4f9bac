"""Lines of results.jsonl: what an attack cannot have written is one error with file and line."""

import json
import typing

import pytest

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import write_lines
from torch_eval.attack import records


def line(index=0, outcome="success", **changes):
    before, after = {"success": (1, 0), "failure": (1, 1), "skipped": (0, 0), "timeout": (1, 1)}[outcome]
    return {
        "index": index,
        "label": 1,
        "outcome": outcome,
        "queries": 9,
        "original": {"sentence": f"fine {index}"},
        "perturbed": {"sentence": f"bonny {index}"},
        "original_prediction": before,
        "perturbed_prediction": after,
        "original_score": 0.9,
        "perturbed_score": 0.4,
        "words_changed": 1,
        "words": 2,
        "seconds": 0.1,
        "processor_seconds": 0.1,
        **changes,
    }


TYPES = typing.get_type_hints(records.Record)
NEEDED = sorted(set(TYPES) - {*records.TIMES, "bound"})


def known(*indices):
    return [{key: line(index)[key] for key in ("index", "label", "original")} for index in indices]


def test_whole_lines_come_back(tmp_path):
    path = tmp_path / "results.jsonl"
    lines = [line(3, "failure"), line(5, "skipped"), line(4, "timeout", original_prediction=0), line(9)]
    del lines[0]["processor_seconds"]
    write_lines(path, lines)
    assert records.read(path) == records.read(path, known(3, 5, 4, 9, 11)) == lines
    path.write_text(path.read_text() + json.dumps(line(11))[:-5])  # torn
    assert records.read(path) == lines


@pytest.mark.parametrize("name", NEEDED)
def test_a_value_that_changed_after_it_was_written_is_noticed(tmp_path, name):
    """Also one that an attack could have written: another adversarial text, another number of queries."""
    path, before = tmp_path / "results.jsonl", line(3, "timeout")
    records.append(path, before)
    records.append(path, line(4))
    assert [record["index"] for record in records.read(path)] == [3, 4]
    other = {"outcome": "failure", "original": {"sentence": "fine 4"}, "perturbed": {"sentence": "bonnie 3"}}
    other = other.get(name, before[name] / 2 if name.endswith("score") else 0)
    assert other != before[name]
    then, now = (json.dumps({name: value})[1:-1] for value in (before[name], other))
    path.write_text(path.read_text().replace(then, now, 1))
    with pytest.raises(UserError, match="results.jsonl, line 1: "):
        records.read(path)


def test_times_may_differ(tmp_path):
    """A run that is repeated writes the same checks."""
    path = tmp_path / "results.jsonl"
    for seconds in (0.1, 7.5):
        records.append(path, line(int(seconds), seconds=seconds))
    assert records.checksum(line(0, seconds=0.1)) == records.checksum(line(0, seconds=7.5, processor_seconds=1.0))
    assert len(records.read(path)) == 2


NUMBERS = {
    name: [None, "3", True, -1, [1], float("nan"), float("inf"), 10**30]
    for name in TYPES
    if name not in ("outcome", "original", "perturbed", "bound")
}
WHOLE = {name: [*NUMBERS[name], 1.5] for name, of in TYPES.items() if of is int}
NOT_TEXTS = [None, "fine", {}, {"sentence": None}, ["fine"], {"other": "fine"}]
WRONG = {
    **NUMBERS,
    **WHOLE,
    "outcome": ["crashed", "Success", None, 1, ["success"], {}],
    "original": NOT_TEXTS,
    "perturbed": NOT_TEXTS,
    "bound": [None, 3, ["candidates"]],
}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_named(tmp_path, name, value):
    write_lines(tmp_path / "results.jsonl", [line(0), {**line(1), name: value}])
    with pytest.raises(UserError) as error:
        records.read(tmp_path / "results.jsonl")
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'results.jsonl'}, line 2: ") and name in message and "\n" not in message
    assert message.endswith(f"; delete {tmp_path} to redo the attack") and len(message) < 300 + 2 * len(str(tmp_path))


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_value_is_named(tmp_path, name):
    broken = line(1)
    del broken[name]
    write_lines(tmp_path / "results.jsonl", [line(0), broken])
    with pytest.raises(UserError, match=f"results.jsonl, line 2: object missing required field {name}; delete"):
        records.read(tmp_path / "results.jsonl")


@pytest.mark.parametrize(
    "outcome, changes",
    [
        ("success", {"outcome": "failure"}),
        ("failure", {"outcome": "success"}),
        ("failure", {"outcome": "skipped"}),
        ("skipped", {"outcome": "failure"}),
        ("success", {"label": 0}),
        ("failure", {"perturbed_prediction": 2}),
    ],
)
def test_an_outcome_that_contradicts_the_predictions_is_refused(tmp_path, outcome, changes):
    write_lines(tmp_path / "results.jsonl", [line(0, outcome), {**line(1, outcome), **changes}])
    with pytest.raises(UserError, match="results.jsonl, line 2: a .* cannot have its predictions"):
        records.read(tmp_path / "results.jsonl")


@pytest.mark.parametrize(
    "lines, number, reason",
    [
        ([line(3), line(3), line(5)], 2, "example 3 is in line 1 already"),
        ([line(5), line(3)], 1, "holds example 5, not 3"),
        ([line(3), line(7)], 2, "holds example 7, not 5"),
        ([line(3), line(5), line(9)], 3, "one more than this run attacks"),
        ([line(3), line(5, original={"sentence": "fine 6"})], 2, "original of example 5 is another than in the data"),
        ([line(3), line(5, label=0, outcome="timeout")], 2, "label of example 5 is another than in the data"),
    ],
)
def test_lines_of_other_examples_are_refused(tmp_path, lines, number, reason):
    write_lines(tmp_path / "results.jsonl", lines)
    with pytest.raises(UserError, match=f"results.jsonl, line {number}: .*{reason}"):
        records.read(tmp_path / "results.jsonl", known(3, 5))


def test_an_example_may_stand_once_where_nothing_is_expected(tmp_path):
    write_lines(tmp_path / "results.jsonl", [line(3), line(4), line(3)])
    with pytest.raises(UserError, match="results.jsonl, line 3: example 3 is in line 1 already"):
        records.read(tmp_path / "results.jsonl")
