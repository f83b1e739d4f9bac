"""A method that is added as CONTRIBUTING.md says, in two files, is planned, trained, attacked and reported."""

import dataclasses
import shutil

import pytest

from configs.contract.basics.files import ROOT, read_json, read_lines
from configs.contract.experiment import methods, schema
from configs.contract.inputs.assets import CACHE
from tests.helpers.attacked_runs import attacks_here
from tests.helpers.commands import run_commands
from torch_eval.__main__ import main

ENTRY = """    "cautious": Method(
        "Cautious",
        "dense",
        "finetune",
        "fine-tuning at half the learning rate",
        ("blue", "-", "*"),
        {1: 8},
        objective="cautious.Cautious",
    ),
"""
OBJECTIVE = '''"""Fine-tuning at half the learning rate."""

import dataclasses

from mindspore_rt.training.objectives import FineTuning


class Cautious(FineTuning):
    """Fine-tuning at half the learning rate."""

    def __init__(self, model, settings, *arguments, **options):
        halved = dataclasses.replace(settings, learning_rate=settings.learning_rate / 2)
        super().__init__(model, halved, *arguments, **options)
'''
SETTINGS = ["tiny", "methods=[cautious]", "attack.recipes=[textbugger]", "attack.examples=2", "attack.workers=1"]


@pytest.fixture
def project(tmp_path):
    """A copy of the project with the method's entry, and the file that implements it."""
    for package in ("configs", "mindspore_rt", "torch_eval"):
        shutil.copytree(ROOT / package, tmp_path / package)
    methods = tmp_path / "configs" / "contract" / "experiment" / "methods.py"
    before, end, after = methods.read_text().partition("}\n\n\ndef needs_robust_ticket")
    methods.write_text(before + ENTRY + end + after)
    (tmp_path / "mindspore_rt" / "training" / "cautious.py").write_text(OBJECTIVE)
    return tmp_path


@pytest.fixture
def known(monkeypatch):
    """The entry in this process, which attacks: it has loaded TextAttack already."""
    monkeypatch.setitem(methods.METHODS, "cautious", eval(f"{{{ENTRY}}}", vars(methods))["cautious"])
    choices = next(f for f in dataclasses.fields(schema.Experiment) if f.name == "methods").metadata["choices"]
    choices.append("cautious")
    yield
    choices.remove("cautious")


def test_a_method_takes_two_files(project, tiny_bert, known, monkeypatch):
    settings = [*SETTINGS, f"model={tiny_bert}"]
    places = {"PYTHONPATH": str(project), "ROBUST_TICKETS_CACHE": str(CACHE)}
    stages = [
        ("configs.contract.run.plan", "show"),
        ("mindspore_rt.__main__", "prepare"),
        ("mindspore_rt.__main__", "finetune"),
    ]
    printed = run_commands([[*stage, *settings] for stage in stages], project, **places)
    with attacks_here(monkeypatch):
        assert main(["attack", *settings], project / "runs") == 0
    run_commands([["torch_eval.__main__", "report", *settings]], project, **places)
    assert "finetune  seed-1/cautious" in printed
    seed = project / "runs" / "tiny" / "seed-1"
    rates = [line["learning_rate"] for line in read_lines(seed / "cautious" / "metrics.jsonl") if "loss" in line]
    assert 0 < max(rates) <= 2e-4 / 2  # tiny.yaml fine-tunes at 2e-4
    assert read_json(seed / "attacks" / "cautious" / "textbugger" / "manifest.json")["results"]["examples"] == 2
    report = (project / "runs" / "tiny" / "report" / "report.md").read_text()
    rows = [line for line in report.splitlines() if line.startswith("| Cautious |")]
    assert rows and "fine-tuning at half the learning rate" in report
