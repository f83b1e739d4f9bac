"""Which results count as made with other settings, models or sentences than now."""

import shutil

import numpy as np
import pytest

from configs.contract.basics.files import file_hash, read_json, write_json
from configs.contract.experiment import schema
from configs.contract.run.jobs import CLEAN
from mindspore_rt.ticket import Ticket
from tests.helpers import made_up_run as made_up
from tests.helpers.files import edit_json
from tests.helpers.made_up_run import OUTCOMES, SMALL, small
from tests.helpers.written_report import row, written
from torch_eval.attack import settings as attack_settings
from torch_eval.report import run_state, tables, transfer


def test_stale_results_are_marked(quick, tmp_path):
    paths = small(tmp_path)
    made_up.attack(paths, 1, "finetune", "textfooler", (6, 2, 2), max_length=99)
    file = paths.stage(1, "finetune") / "manifest.json"
    manifest = read_json(file)
    manifest["settings"]["finetune"]["epochs"] = 99
    write_json(file, manifest)
    _, text, markdown = written(tmp_path)
    assert row(markdown, "Fine-tune", 1)[6].endswith("(stale)")
    assert "finetune.epochs: 99, now 2" in text and "max_length: 99, now 48" in text


def test_a_run_is_reported_where_its_given_ticket_is_not(tmp_path):
    """As on another machine, or after the experiment that it is from was removed."""
    ticket = Ticket({name: np.ones(shape, bool) for name, shape in made_up.SHAPES.items()})
    ticket.save(tmp_path / "given")
    paths = made_up.whole(tmp_path, f"tickets_from={tmp_path / 'given'}", "attack.examples=100")
    (tmp_path / "given").unlink()
    assert not run_state.Run(paths.config, ["sst2"], tmp_path).stale()


def test_a_model_trained_again_makes_its_attacks_stale(tmp_path):
    paths = small(tmp_path)
    made_up.finish(paths.stage(1, "finetune"), {"model_sha256": "new"}, {})
    made_up.clean(paths, 1, "finetune", 0.8)
    made_up.attack(paths, 1, "finetune", "textbugger", (6, 2, 2))
    folder = paths.attack(1, "finetune") / "textfooler"
    edit_json(folder / "manifest.json", inputs={"model": "old", "test": "test" * 8})
    run = run_state.Run(paths.config, ["demo"], tmp_path)
    assert not tables.is_stale(run, "finetune", CLEAN, 0)
    made_up.finish(paths.attack(1, "finetune") / "clean", {"accuracy": 0.8, "n": 100}, {}, {"model": "old"})
    run_again = run_state.Run(paths.config, ["demo"], tmp_path)
    assert run_again.scores[1, "finetune", CLEAN].stale
    assert run.scores[1, "finetune", "textfooler"].stale == ("model: was made again since, old is new now",)
    assert run.scores[1, "finetune", "textbugger"].stale == ()


def test_attacks_on_a_model_that_no_manifest_knows_become_stale_too(tmp_path):
    """A snapshot of a training, and a classifier of the user's own: there the folder itself is hashed."""
    mine = tmp_path / "mine"
    write_json(mine / "config.json", {})
    paths = small(tmp_path, f"attack.victims=[mine={mine}]")
    made_up.train(paths, 1, "robust-0.30", "robust", snapshots=2)
    for name in ("mine", "robust-0.30@000100"):
        model = paths.victims(1)[name]
        for recipe in ("textfooler", "textbugger"):
            made_up.attack(paths, 1, name, recipe, (6, 2, 2))
            file = paths.attack(1, name) / recipe / "manifest.json"
            sha256 = file_hash(model) if recipe == "textfooler" else "old"
            edit_json(file, inputs={"model": sha256, "test": "test" * 8})
        scores = run_state.Run(paths.config, ["demo"], tmp_path).scores
        assert scores[1, name, "textfooler"].stale == ()
        assert "model: was made again since" in scores[1, name, "textbugger"].stale[0]


def test_an_attack_under_other_names_of_the_labels_is_stale(tmp_path):
    """The files hold numbers: `labels` of the data decides which label of the victim each of them is."""
    for name, first in (("turned", "positive"), ("same", "negative"), ("other", "third")):
        names = {"0": first, "1": "positive" if first == "negative" else "negative"}
        write_json(tmp_path / name / "config.json", {"id2label": names})
    own = ",".join(f"{name}={tmp_path / name}" for name in ("turned", "same", "other"))
    paths = small(tmp_path, f"attack.victims=[{own}]")
    for name in ("turned", "same", "other"):
        made_up.attack(paths, 1, name, "textfooler", (6, 2, 2))
        file, inputs = paths.attack(1, name) / "textfooler" / "manifest.json", {"model": file_hash(tmp_path / name)}
        edit_json(file, inputs={**inputs, "test": "test" * 8})
    scores = run_state.Run(paths.config, ["demo"], tmp_path).scores
    assert scores[1, "turned", "textfooler"].stale == ("label_order: absent, now [1, 0]",)
    assert scores[1, "same", "textfooler"].stale == scores[1, "other", "textfooler"].stale == ()
    assert scores[1, "turned", "textfooler"].signature == scores[1, "same", "textfooler"].signature


def chosen_among_two(tmp_path, seeds=(1,), **settings):
    """A finished choice on dev; the configuration to report it with may be given other `settings` afterwards."""
    paths = small(tmp_path, "sparsities=[0.3,0.5]", f"seeds={list(seeds)}", seeds=seeds)
    for seed in seeds:
        for model in ("robust-0.30", "robust-0.50"):
            labels = [0] * paths.summary().splits["dev"].count
            about = attack_settings.choice(paths.config, paths.summary(), seed, labels, 1.0, made_up.describe)
            folder = paths.seed(seed) / "choice" / model
            made_up.finish(folder, {"aua": 0.5}, about, {"model": "first", "dev": "dev" * 8})
            made_up.finish(paths.stage(seed, model), {"model_sha256": "first"}, {})
    return paths


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda paths: None, None),
        (lambda paths: paths.config.seeds.append(2), "candidates of all seeds: 2, now 4"),
        (lambda paths: paths.config.sparsities.append(0.7), "candidates of all seeds: 2, now 3"),
        (lambda paths: setattr(paths.config.choice, "recipe", "textbugger"), "recipe: textfooler, now textbugger"),
        (lambda paths: setattr(paths.config.choice, "examples", 150), "examples: 200, now 150"),
        (
            lambda paths: made_up.finish(paths.stage(1, "robust-0.50"), {"model_sha256": "second"}),
            "was made again since",
        ),
    ],
)
def test_a_choice_that_rests_on_something_else_is_stale(tmp_path, change, reason):
    paths = chosen_among_two(tmp_path)
    change(paths)
    [step] = [step for step in run_state.Run(paths.config, ["demo"], tmp_path).steps if step.stage == "choose"]
    assert reason in " ".join(step.stale) if reason else not step.stale


def test_transfer_to_a_model_trained_again_is_left_out(tmp_path):
    paths = small(tmp_path)
    row = {"recipe": "textfooler", "seed": 1, "share": 0.5, "fooled": []}
    pairs = [("finetune", "random-0.30"), ("random-0.30", "finetune"), ("random-0.30", "random-0.30")]
    made_up.finish(paths.stage(1, "finetune"), {"model_sha256": "new"}, {})
    for then, left in (("new", 3), ("old", 1)):
        write_json(
            paths.root / "transfer.json",
            {
                "rows": [{**row, "source": a, "target": b} for a, b in pairs],
                "models": [{"seed": 1, "model": "finetune", "sha256": then}],
            },
        )
        rows, changed = transfer.transfer_rows(run_state.Run(paths.config, ["demo"], tmp_path))
        assert (len(rows), changed) == (left, {(1, "finetune")} if left == 1 else set())
    assert "trained or attacked again since: finetune (seed 1)" in written(tmp_path)[2]


def test_transfer_of_texts_attacked_again_is_left_out(tmp_path):
    """Only of that attack, and where its model is the source."""
    paths = small(tmp_path)
    files = {r: paths.attack(1, "finetune") / r / "results.jsonl" for r in ("textfooler", "textbugger")}
    write_json(
        paths.root / "transfer.json",
        {
            "rows": [
                {"recipe": recipe, "seed": 1, "share": 0.5, "fooled": [], "source": source, "target": target}
                for recipe in files
                for source, target in (("finetune", "finetune"), ("random-0.30", "finetune"))
            ],
            "models": [],
            "attacks": [
                {"seed": 1, "model": "finetune", "recipe": r, "sha256": file_hash(f)} for r, f in files.items()
            ],
        },
    )
    assert len(transfer.transfer_rows(run_state.Run(paths.config, ["demo"], tmp_path))[0]) == 4
    files["textfooler"].write_text(files["textfooler"].read_text() + " ")
    rows, changed = transfer.transfer_rows(run_state.Run(paths.config, ["demo"], tmp_path))
    assert [(row.recipe, row.source) for row in rows] == [
        ("textfooler", "random-0.30"),
        ("textbugger", "finetune"),
        ("textbugger", "random-0.30"),
    ]
    assert changed == {(1, "finetune")}


def test_a_fitted_temperature_is_each_models_own(tmp_path):
    paths = small(tmp_path, "attack.calibrate=true")
    for model, temperature in (("finetune", 1.5), ("robust-0.30", 2.5)):
        made_up.finish(paths.attack(1, model) / "calibration", {"temperature": temperature})
        for recipe in paths.config.attack.recipes:
            made_up.attack(paths, 1, model, recipe, OUTCOMES[model], temperature=temperature)
    run = run_state.Run(paths.config, ["demo"], tmp_path)
    assert run.groups() == 1 and not run.stale()


def test_another_k_or_calibration_is_stale(tmp_path):
    paths = small(tmp_path)
    made_up.attack(paths, 1, "finetune", "pwws", OUTCOMES["finetune"], parameters="TextAttack's PWWSRen2019")

    def stale(*overrides):
        config = schema.load("demo", [*SMALL, *overrides])
        scores = run_state.Run(config, ["demo"], tmp_path).scores.items()
        return {key[1:]: score.stale for key, score in scores if score.stale}

    assert stale("attack.recipes=[bertattack,pwws]") == {}
    difference = ("parameters.masked words.max_candidates: 48, now 8",)
    assert stale("attack.candidates=8") == {(model, "bertattack"): difference for model in OUTCOMES}
    shutil.copytree(paths.attacks(1), paths.attacks(1, calibrated=True))
    made_up.finish(paths.attacks(1, calibrated=True) / "finetune/calibration", {"temperature": 1.5})
    reasons = stale("attack.recipes=[textfooler]", "attack.calibrate=true")
    assert reasons["finetune", "textfooler"] == ("temperature: 1.0, now 1.5",)
    assert reasons["robust-0.30", "textfooler"] == ("temperature: 1.0, now fitted on dev",)
