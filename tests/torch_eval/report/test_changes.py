"""Kinds of changes, against texts that are changed by hand in the ways of TextBugger's five transformations."""

import pytest

from configs.contract.basics.files import read_lines
from configs.contract.experiment import schema
from tests.helpers import made_up_run as made_up
from torch_eval.report import changes
from torch_eval.report.run_state import Run


@pytest.mark.parametrize(
    "after, kind",
    [
        ("a good film about love", None),
        ("a go od film about love", "characters"),  # a space
        ("a good flm about love", "characters"),  # a letter less
        ("a good film abuot love", "characters"),  # two letters swapped
        ("a good film about l\u043eve", "characters"),  # Cyrillic o
        ("a good movie about love", "words"),
        ("a good films about love", "words"),
        ("a god film about passion", "both"),
        ("a go od movie about love", "both"),
    ],
)
def test_the_kind_of_a_change(after, kind):
    assert changes.kind({"text": "a good film about love"}, {"text": after}) == kind


def test_what_broke_each_model_and_what_the_other_withstands(tmp_path):
    """Under TextFooler Fine-tune loses sentences 0 to 5, of which the ticket loses 0 to 2: it withstands half."""
    paths = made_up.small(tmp_path)
    file = paths.attack(1, "finetune") / "textfooler" / "results.jsonl"
    lines = read_lines(file)
    for line in lines[3:6]:
        line["perturbed"] = {"sentence": line["original"]["sentence"].replace("fine", "f ine")}
    made_up.write_records(file.parent, [{k: v for k, v in line.items() if k != "check"} for line in lines])
    (details,) = changes.section([Run(paths.config, ["demo"], tmp_path)])
    rows = [[cell.text for cell in row] for row in details.blocks[1].rows[1:]]
    assert ["TextFooler", "characters", "3 (100% withstood)", "0"] in rows
    assert ["TextFooler", "words", "3 (0% withstood)", "3 (0% withstood)"] in rows


def test_stale_attacks_and_models_that_learned_nothing_are_marked(tmp_path):
    """The attacks are of the paper's protocol, the configuration asks for that of the official code."""
    paths = made_up.small(tmp_path)
    made_up.finish(paths.attack(1, "finetune") / "clean", {"accuracy": 0.5, "n": 100, "predicted_classes": 1})
    config = schema.load("demo", [*made_up.SMALL, "attack.protocol=official"])
    (details,) = changes.section([Run(config, ["demo"], tmp_path)])
    assert details.blocks[1].header[2:] == ["broke Fine-tune (predicts one class)", "broke Robust ticket 30%"]
    first = details.blocks[1].rows[1][0]
    assert (first.text, first.small) == ("BERT-Attack", "stale")
