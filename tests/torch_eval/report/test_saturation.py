"""Attacks with and without a fitted temperature stand side by side; a difference beyond chance is marked."""

from configs.contract.experiment import schema
from tests.helpers import made_up_run as made_up
from tests.helpers.made_up_run import OUTCOMES, SMALL, small
from torch_eval.attack.records import read
from torch_eval.report import run_state, saturation, tables


def lines(paths, *overrides):
    config = schema.load("demo", [*SMALL, "attack.recipes=[textfooler]", *overrides])
    return saturation.lines(run_state.Run(config, ["demo"], paths.root.parent))


def test_a_figure_that_is_owed_to_saturation_is_marked(tmp_path):
    """Of ten sentences the ticket withstands nine, and one with a fitted temperature: p = 2 / 2^8."""
    paths = small(tmp_path)
    made_up.attack(paths, 1, "robust-0.30", "textfooler", (0, 9, 1))
    made_up.attack_calibrated(paths, 1, "robust-0.30", "textfooler", (8, 1, 1))
    made_up.attack_calibrated(paths, 1, "finetune", "textfooler", OUTCOMES["finetune"])
    (line,) = lines(paths)
    assert "Robust ticket 30%, TextFooler: Aua 90.0% as shown, 10.0% with a fitted temperature (8 : 0" in line
    assert "p 0.0078" in line and "Fine-tune" not in line
    run = run_state.Run(paths.config, ["demo"], tmp_path)
    assert "† 10.0 with a fitted temperature" in tables.attack_cell(run, "robust-0.30", "textfooler", "aua", 0).small
    assert "†" not in tables.attack_cell(run, "finetune", "textfooler", "aua", 0).small
    (line,) = lines(paths, "attack.calibrate=true")
    assert "Aua 10.0% as shown, 90.0% without a fitted temperature (0 : 8" in line


def test_attacks_that_agree_are_said_to(tmp_path):
    paths = small(tmp_path)
    made_up.attack_calibrated(paths, 1, "robust-0.30", "textfooler", OUTCOMES["robust-0.30"])
    assert lines(paths) == [
        "demo: no figure of 1 attack depends on saturated scores: made again with a fitted temperature, none differs."
    ]


def test_an_attack_on_another_model_or_sample_is_not_compared(tmp_path):
    paths = small(tmp_path)
    made_up.attack(paths, 1, "robust-0.30", "textfooler", (0, 9, 1))
    made_up.attack(made_up.calibrated(paths), 1, "robust-0.30", "textfooler", (8, 1, 1), max_length=99)
    assert lines(paths) == []


def test_certain_models_that_were_not_attacked_again(tmp_path):
    paths = small(tmp_path)
    folder = paths.attack(1, "robust-0.30") / "textfooler"
    made_up.write_records(folder, [{**one, "original_score": 1.0} for one in read(folder / "results.jsonl")])
    (line,) = lines(paths)
    assert "withstood attacks the model is certain" in line
    assert "`python -m torch_eval attack demo attack.calibrate=true`" in line
    paths = made_up.calibrated(paths)
    made_up.finish(paths.attack(1, "robust-0.30") / "calibration", {"temperature": 1.0})
    folder.rename(paths.attack(1, "robust-0.30") / "textfooler")
    (line,) = lines(paths, "attack.calibrate=true")
    assert "the model is certain, although its temperature was fitted on dev" in line and "attack.calibrate" not in line
