"""The report on small made-up run directories; expected figures are worked out by hand here."""

import csv
import dataclasses
import json
import math
import re
import statistics
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from configs.contract import run_dir, schema
from configs.contract.errors import UserError
from configs.contract.files import atomic_write, file_hash, read_json, read_lines, write_json, write_lines
from configs.contract.jobs import jobs
from configs.contract.methods import METHODS
from tests.helpers import made_up_run as made_up
from torch_eval.__main__ import main
from torch_eval.attack import metrics
from torch_eval.attack import settings as attack_settings
from torch_eval.report import (
    build,
    captions,
    comparisons,
    figure_sections,
    figure_style,
    published,
    render,
    run_state,
    scores,
    tables,
)
from torch_eval.report.adversarial_texts import pick

ROOT = Path(__file__).resolve().parents[3]
# successes, failures, skipped of 10 attacked sentences
OUTCOMES = {"finetune": (6, 2, 2), "robust-0.30": (3, 6, 1)}
SMALL = ("attack.examples=10",)


@pytest.fixture
def quick(monkeypatch):
    """Pictures are laid out but not painted, which takes most of a report's time."""
    monkeypatch.setattr(figure_style, "save", lambda _, path: atomic_write(path.with_suffix(".svg"), b"<svg />"))


def small(tmp_path, *overrides, seeds=(1,)):
    """The demo's two models on ten sentences; only `seeds` are finished."""
    paths = run_dir.RunDir(schema.load("demo", [*SMALL, *overrides]), tmp_path)
    made_up.prepare(paths)
    made_up.choose(paths, 0.3)
    for seed in seeds:
        scores = made_up.search(paths, seed)
        for job in [job for job in jobs(paths) if job.seed == seed]:
            if job.stage == "draw":
                made_up.draw(paths, seed, job, scores)
            elif job.stage in ("finetune", "retrain"):
                made_up.train(paths, seed, job.model, job.method)
        for model, counts in OUTCOMES.items():
            made_up.clean(paths, seed, model, 0.8)
            for recipe in paths.config.attack.recipes:
                made_up.attack(paths, seed, model, recipe, counts)
    return paths


def written(tmp_path, *overrides):
    build.report(["demo"], [*SMALL, *overrides], runs=tmp_path)
    folder = tmp_path / schema.load("demo", overrides).name / "report"
    return folder, (folder / "report.html").read_text(), (folder / "report.md").read_text()


def row(markdown, name, number=0):
    lines = [line for line in markdown.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in lines[number].strip("|").split("|")]


def wilson(successes, trials):
    """The score interval as the two roots of (p - share)^2 = z^2 p (1 - p) / n."""
    z2, share = 1.959964**2, successes / trials
    a, b, c = 1 + z2 / trials, -(2 * share + z2 / trials), share * share
    root = math.sqrt(b * b - 4 * a * c)
    return f"{100 * (-b - root) / (2 * a):.1f}–{100 * (-b + root) / (2 * a):.1f}"


# --- the tables ----------------------------------------------------------------------------------------------


def test_main_table_by_hand(quick, tmp_path):
    small(tmp_path)
    _, _, markdown = written(tmp_path)
    # Fine-tune: 8 of 10 right at first, 2 right after, 6 of 8 fooled. Ticket: 9 at first, 6 after, 3 of 9 fooled.
    assert row(markdown, "Fine-tune")[1:6] == ["80.0", "80.0", "20.0", "75.0", "45.0"]
    assert row(markdown, "Robust ticket 30%")[1:6] == ["80.0", "**90.0**", "**60.0**", "**33.3**", "**50.0**"]
    # The second time a method's name begins a line it is in the table of intervals.
    assert row(markdown, "Fine-tune", 1)[1:5] == [wilson(80, 100), wilson(8, 10), wilson(2, 10), wilson(6, 8)]


def answer(paths, *overrides):
    config = schema.load("demo", [*SMALL, *overrides])
    return comparisons.answer(run_state.Run(config, ["demo"], paths.root.parent)).replace("\xa0", " ")


def test_the_answer_is_never_stronger_than_the_paired_test(tmp_path):
    paths = small(tmp_path)
    # Of ten sentences the ticket withstands 3 to 8 and the fine-tuned model 6 and 7: four to none, p = 2 / 2^4.
    assert answer(paths, "attack.recipes=[textfooler]") == (
        "**Rotten Tomatoes snippets** (demo), 1 seed: the robust ticket (30% pruned) shows no clear difference from "
        "the fine-tuned model under **TextFooler** (60.0% of the sentences against 20.0%, p = 0.125); it classifies "
        "as many unchanged sentences correctly (**80.0%**)."
    )
    # Eight to none, p = 2 / 2^8; and none to eight under another attack.
    for recipe, ours, theirs in (("textfooler", (0, 9, 1), (8, 1, 1)), ("textbugger", (8, 1, 1), (0, 9, 1))):
        made_up.attack(paths, 1, "robust-0.30", recipe, ours)
        made_up.attack(paths, 1, "finetune", recipe, theirs)
    made_up.clean(paths, 1, "robust-0.30", 0.7)
    assert answer(paths, "attack.recipes=[textfooler,textbugger]").partition("(30% pruned) ")[2] == (
        "withstands more attacks than the fine-tuned model under **TextFooler** (90.0% of the sentences against "
        "10.0%, p = 0.008), withstands fewer attacks than the fine-tuned model under **TextBugger** (10.0% of the "
        "sentences against 90.0%, p = 0.008); it classifies **70.0%** of the unchanged sentences correctly instead of "
        "80.0%, 10.0 points fewer."
    )


def test_without_both_results_there_is_no_answer(tmp_path):
    paths = small(tmp_path)
    assert "does not compare a robust ticket with fine-tuning" in answer(paths, "methods=[finetune]")
    for recipe in paths.config.attack.recipes:
        (paths.attack(1, "finetune") / recipe / "manifest.json").unlink()
    assert "no answer yet; `python -m torch_eval attack demo`" in answer(paths)


def test_an_answer_of_stale_results_says_so(tmp_path):
    assert answer(small(tmp_path), "attack.candidates=8", "attack.recipes=[bertattack]").endswith(
        "**Stale:** made with other settings, models or sentences."
    )


def test_timeouts_make_the_answer_a_bound(tmp_path):
    paths = small(tmp_path)
    folder = paths.attack(1, "robust-0.30") / "textfooler"
    manifest = read_json(folder / "manifest.json")
    records = made_up.attacked(3, 5, 1) + [made_up.record(9, "timeout")]
    records = [{**one, "index": i} for one, i in zip(records, manifest["settings"]["indices"], strict=True)]
    write_lines(folder / "results.jsonl", records)
    write_json(folder / "manifest.json", {**manifest, "results": metrics.summarise(records).to_dict()})
    assert "(at least 50.0% of the sentences against 20.0%" in answer(paths, "attack.recipes=[textfooler]")


def test_several_seeds_give_mean_and_deviation(quick, tmp_path):
    paths = small(tmp_path, "seeds=[1,2,3]", seeds=(1, 2))
    made_up.attack(paths, 2, "finetune", "textfooler", (4, 4, 2))
    _, text, markdown = written(tmp_path, "seeds=[1,2,3]")
    # Aua 20 and 40: mean 30, sample deviation sqrt(200) = 14.1; TextFooler is the second attack.
    assert row(markdown, "Fine-tune")[6] == "30.0 (± 14.1; 2 of 3 seeds)"
    assert row(markdown, "Fine-tune", 1)[6] == f"seed 1: {wilson(2, 10)}; seed 2: {wilson(4, 10)}"
    assert "python -m mindspore_rt search demo attack.examples=10 &#x27;seeds=[1,2,3]&#x27;" in text


def test_results_made_with_other_settings_stand_apart(quick, tmp_path):
    paths = small(tmp_path, "seeds=[1,2]", seeds=(1, 2))
    made_up.attack(paths, 2, "finetune", "textbugger", (1, 7, 2), protocol="official")
    _, text, markdown = written(tmp_path, "seeds=[1,2]")
    # Seed 1 alone in the first rows, seed 2 alone in those that stand apart: never (20 + 70) / 2.
    assert row(markdown, "Fine-tune")[9] == "20.0 (1 of 2 seeds)"
    assert row(markdown, "Fine-tune", 1)[9] == "70.0 (1 of 2 seeds; stale)"
    assert row(markdown, "Robust ticket 30%")[9] == "**60.0** (± 0.0)"
    assert "made with other settings" in text and "TextBugger: protocol official, elsewhere paper" in text
    run = run_state.Run(paths.config, ["demo"], tmp_path)
    [compared] = comparisons.comparisons(run, "robust-0.30", "finetune", "textbugger")
    assert list(compared.pairs) == [1]


def test_clean_accuracies_made_with_other_settings_stand_apart(quick, tmp_path):
    paths = small(tmp_path, "seeds=[1,2]", seeds=(1, 2))
    made_up.clean(paths, 2, "finetune", 0.6, max_length=512)
    folder, _, markdown = written(tmp_path, "seeds=[1,2]")
    # Seed 1's 80.0 and seed 2's 60.0, never their mean; what was made in one way only has no line in the other.
    assert row(markdown, "Fine-tune")[1] == "80.0 (1 of 2 seeds)"
    assert row(markdown, "Fine-tune", 1)[1:4] == ["60.0 (1 of 2 seeds; stale)", "–", "–"]
    assert row(markdown, "Robust ticket 30%")[1] == "80.0 (± 0.0)"
    assert f"Clean: max_length 512, elsewhere {paths.config.data.max_length}" in markdown
    cleans = [line for line in csv.DictReader((folder / "results.csv").open()) if line["attack"] == "none"]
    assert [(c["seed"], c["value"], c["comparison_group"]) for c in cleans if c["model"] == "finetune"] == [
        ("1", "0.8", "0"),
        ("2", "0.6", "1"),
    ]


def test_the_sample_of_all_methods_is_the_same_one(quick, tmp_path):
    paths = small(tmp_path, "attack.recipes=[textfooler,textbugger]")
    for model in OUTCOMES:  # made earlier, on other sentences
        made_up.attack(paths, 1, model, "textbugger", (2, 2, 0))
    (paths.attack(1, "robust-0.30") / "textfooler" / "manifest.json").unlink()
    _, _, markdown = written(tmp_path, "attack.recipes=[textfooler,textbugger]")
    cells = [row(markdown, name)[2] for name in ("Fine-tune", "Robust ticket 30%")]
    assert cells == ["80.0", "*missing*"]


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


def test_a_model_trained_again_makes_its_attacks_stale(tmp_path):
    paths = small(tmp_path)
    made_up.finish(paths.stage(1, "finetune"), {"model_sha256": "new"}, {})
    made_up.clean(paths, 1, "finetune", 0.8)
    made_up.attack(paths, 1, "finetune", "textbugger", (6, 2, 2))
    folder = paths.attack(1, "finetune") / "textfooler"
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", {**manifest, "inputs": {"model": "old", "test": "test" * 8}})
    run = run_state.Run(paths.config, ["demo"], tmp_path)
    assert not tables.is_stale(run, "finetune", scores.CLEAN, 0)
    made_up.finish(paths.attack(1, "finetune") / "clean", {"accuracy": 0.8, "n": 100}, {}, {"model": "old"})
    run_again = run_state.Run(paths.config, ["demo"], tmp_path)
    assert run_again.scores[1, "finetune", scores.CLEAN].stale
    assert run.scores[1, "finetune", "textfooler"].stale == ("model: was made again since, old is new now",)
    assert run.scores[1, "finetune", "textbugger"].stale == ()


def test_attacks_on_a_model_that_no_manifest_knows_become_stale_too(tmp_path):
    """One kept on the way of a training, and one of the user's own: there the folder itself is looked at."""
    mine = tmp_path / "mine"
    write_json(mine / "config.json", {})
    paths = small(tmp_path, f"attack.victims=[mine={mine}]")
    made_up.train(paths, 1, "robust-0.30", "robust", snapshots=2)
    for name in ("mine", "robust-0.30@000100"):
        model = paths.victims(1)[name]
        for recipe in ("textfooler", "textbugger"):
            made_up.attack(paths, 1, name, recipe, (6, 2, 2))
            file = paths.attack(1, name) / recipe / "manifest.json"
            made = file_hash(model) if recipe == "textfooler" else "old"
            write_json(file, {**read_json(file), "inputs": {"model": made, "test": "test" * 8}})
        scores = run_state.Run(paths.config, ["demo"], tmp_path).scores
        assert scores[1, name, "textfooler"].stale == ()
        assert "model: was made again since" in scores[1, name, "textbugger"].stale[0]


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
    "change, told",
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
def test_a_choice_that_rests_on_something_else_is_stale(tmp_path, change, told):
    paths = chosen_among_two(tmp_path)
    change(paths)
    [step] = [step for step in run_state.Run(paths.config, ["demo"], tmp_path).steps if step.stage == "choose"]
    assert told in " ".join(step.stale) if told else not step.stale


def test_transfer_to_a_model_trained_again_is_left_out(tmp_path):
    paths = small(tmp_path)
    row = {"recipe": "textfooler", "seed": 1, "share": 0.5}
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
        rows, changed = figure_sections.transferred(run_state.Run(paths.config, ["demo"], tmp_path))
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
                {"recipe": recipe, "seed": 1, "share": 0.5, "source": source, "target": target}
                for recipe in files
                for source, target in (("finetune", "finetune"), ("random-0.30", "finetune"))
            ],
            "models": [],
            "attacks": [
                {"seed": 1, "model": "finetune", "recipe": r, "sha256": file_hash(f)} for r, f in files.items()
            ],
        },
    )
    assert len(figure_sections.transferred(run_state.Run(paths.config, ["demo"], tmp_path))[0]) == 4
    files["textfooler"].write_text(files["textfooler"].read_text() + " ")
    rows, changed = figure_sections.transferred(run_state.Run(paths.config, ["demo"], tmp_path))
    assert [(row["recipe"], row["source"]) for row in rows] == [
        ("textfooler", "random-0.30"),
        ("textbugger", "finetune"),
        ("textbugger", "random-0.30"),
    ]
    assert changed == {(1, "finetune")}


def test_a_damaged_line_of_an_attack_is_named(tmp_path):
    """Lines are counted by outcome: one that no attack has must not end in a traceback, nor count as something."""
    paths = small(tmp_path)
    file = paths.attack(1, "finetune") / "textfooler" / "results.jsonl"
    records = read_lines(file)
    write_lines(file, [*records[:2], {**records[2], "outcome": "won"}, *records[3:]])
    with pytest.raises(UserError, match=r"results.jsonl, line 3: outcome: invalid enum value 'won'"):
        _ = run_state.Run(paths.config, ["demo"], tmp_path).scores[1, "finetune", "textfooler"].records


def test_a_classifier_from_elsewhere_has_a_row(quick, tmp_path):
    paths = small(tmp_path)
    made_up.clean(paths, 1, "mine", 0.7)
    for recipe in paths.config.attack.recipes:
        made_up.attack(paths, 1, "mine", recipe, (1, 6, 3))
    _, _, markdown = written(tmp_path, "attack.victims=[mine=elsewhere]", "seeds=[1,2]")
    assert {"70.0", "60.0"} <= set(re.findall(r"\d+\.\d", " ".join(row(markdown, "mine"))))
    assert "seeds" not in " ".join(row(markdown, "mine"))  # it knows none, and is attacked once


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
    told = ("parameters.masked words.max_candidates: 48, now 8",)
    assert stale("attack.candidates=8") == {(model, "bertattack"): told for model in OUTCOMES}
    made_up.finish(paths.attack(1, "finetune") / "calibration", {"temperature": 1.5})
    found = stale("attack.recipes=[textfooler]", "attack.calibrate=true")
    assert found["finetune", "textfooler"] == ("temperature: 1.0, now 1.5",)
    assert found["robust-0.30", "textfooler"] == ("temperature: 1.0, now fitted on dev",)


def test_timeouts_are_told(quick, tmp_path):
    paths = small(tmp_path)
    folder = paths.attack(1, "finetune") / "textfooler"
    manifest = read_json(folder / "manifest.json")
    records = made_up.attacked(3, 4, 1) + [made_up.record(i, "timeout") for i in (8, 9)]
    records = [{**one, "index": i} for one, i in zip(records, manifest["settings"]["indices"], strict=True)]
    write_lines(folder / "results.jsonl", records)
    write_json(folder / "manifest.json", {**manifest, "results": metrics.summarise(records).to_dict()})
    _, _, markdown = written(tmp_path)
    # 4 of 10 hold for certain and at most 6; of 9 attacked 3 to 5 break. The ticket has 60.0 and 33.3.
    assert row(markdown, "Fine-tune")[6:8] == ["40.0–60.0 (2 of 10 timed out)", "33.3–55.6 (2 of 9 timed out)"]
    assert row(markdown, "Robust ticket 30%")[6:8] == ["**60.0**", "**33.3**"]
    assert row(markdown, "Fine-tune", 1)[6] == f"{wilson(4, 10).split('–')[0]}–{wilson(6, 10).split('–')[1]}"


def test_the_ends_of_several_seeds_are_means():
    made = [
        metrics.summarise(made_up.attacked(2, 6, 2)),
        metrics.summarise([made_up.record(i, "timeout") for i in (0, 1)]),
    ]
    # Aua from 60% and 0% to 60% and 100%.
    assert tables.with_timeouts(render.Cell("30.0"), "aua", 30.0, made).text == "30.0–80.0"


def test_a_value_that_may_be_beaten_is_not_the_best():
    column = [render.Cell("50.0"), render.Cell("40.0–60.0"), render.Cell("–")]
    tables.mark_best(column)
    assert not any(cell.best for cell in column)


# --- models that have learned nothing -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "results, reason",
    [
        ({"predicted_classes": 1, "majority_share": 0.5}, "predicts one class"),
        ({"predicted_classes": 2, "majority_share": 0.8}, "no better than always predicting the most frequent class"),
        ({"predicted_classes": 2, "majority_share": 0.7}, ""),
        ({}, ""),
    ],
)
def test_a_model_that_has_learned_nothing_is_marked_and_never_best(quick, tmp_path, results, reason):
    paths = small(tmp_path, "attack.recipes=[textfooler]")
    file = paths.attack(1, "robust-0.30") / "clean" / "manifest.json"
    manifest = read_json(file)
    write_json(file, {**manifest, "results": {"accuracy": 0.8, "n": 100, **results}})
    _, _, markdown = written(tmp_path, "attack.recipes=[textfooler]")
    assert f"| Robust ticket 30%{f' ({reason})' * bool(reason)} | 80.0" in markdown
    assert ("**60.0**" in markdown) == (not reason)
    assert ("no answer, because a model has learned nothing: Robust ticket 30%" in markdown) == bool(reason)


def test_the_seeds_of_a_model_that_has_learned_nothing_are_named(tmp_path):
    paths = small(tmp_path, "seeds=[1,2]", seeds=(1, 2))
    made_up.finish(paths.attack(2, "finetune") / "clean", {"accuracy": 0.5, "n": 100, "predicted_classes": 1})
    assert run_state.Run(paths.config, ["demo"], tmp_path).degenerate("finetune") == "predicts one class (seed 2)"


# --- published figures ---------------------------------------------------------------------------------------


def run_of(tmp_path, *overrides, config="sst2"):
    paths = run_dir.RunDir(schema.load(config, overrides), tmp_path)
    made_up.prepare(paths, test=1000)
    return run_state.Run(paths.config, [config], tmp_path)


def test_published_figures_belong_to_their_data_set_and_setting(tmp_path):
    same = run_of(tmp_path, "attack.resources=original")
    assert published.departures(same) == []
    assert published.published(same, "robust-0.30", "textfooler", "aua") == "paper 26.7\nre-run 28.9"
    assert published.published(same, "finetune", None, "clean") == "paper 92.0\nre-run 92.3"
    other = run_of(tmp_path, "sparsities=[0.5]", "search.ascent_steps=2")
    assert published.published(other, "robust-0.50", "bertattack", "aua") == "paper 17.9†"
    assert {"packaged instead of original attack resources", "search.ascent_steps 2 instead of 5"} <= set(
        published.departures(other)
    )
    assert published.published(run_of(tmp_path, config="demo"), "finetune", None, "clean") == ""


def test_the_papers_figures_fit_together():
    """Suc = (Clean - Aua) / Clean in every row of Table 1, but for the four that the paper itself has otherwise."""
    found = [
        (r, row[r], row["clean"])
        for row in published.PUBLISHED["results"]
        for r in scores.RECIPES
        if row["table"] == 1 and row["source"] == "paper" and r in row
    ]
    assert len(found) == 54
    off = [abs(100 * (clean - values["aua"]) / clean - values["suc"]) > 0.25 for _, values, clean in found]
    assert sum(off) <= 4
    assert {row["task"] for row in published.PUBLISHED["results"]} == set(published.PUBLISHED["table6"])


# --- a whole tree --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two finished experiments with every method, and their one report."""
    root = tmp_path_factory.mktemp("runs")
    first = made_up.whole(
        root,
        "seeds=[1,2]",
        "methods=all",
        "sparsities=[0.1,0.3]",
        "snapshots=2",
        "attack.examples=100",
        "attack.recipes=[textfooler,textbugger]",
        chosen=0.3,
    )
    second = made_up.whole(
        root, "name=other", "search.l0_weight=0.1", "attack.examples=100", "attack.recipes=[textfooler]"
    )
    made_up.transfer(first)
    names = []
    for paths in (first, second):
        paths.save_config()
        names.append(str(paths.root / "config.yaml"))
    build.report(names, [], runs=root)
    return root / "report", first, second


def test_everything_is_drawn_and_nothing_is_missing(whole):
    folder, _, _ = whole
    names = {path.stem for path in (folder / "figures").glob("*.png")}
    for start in (
        "trade-off-sst2-textfooler",
        "sparsity-sst2",
        "progress-sst2",
        "mask-learning-sst2",
        "sparsity-pattern-sst2",
        "sparsity-pattern-other",
        "overlap",
        "log-alpha",
        "training-sst2-2",
        "transfer-sst2-textbugger",
    ):
        assert start in names
    assert names == {path.stem for path in (folder / "figures").glob("*.pdf")}
    markdown = (folder / "report.md").read_text()
    assert "Missing and stale" not in markdown and "*missing*" not in markdown
    for title in (
        "Table 1",
        "Table 3",
        "Table 4",
        "Figure 2",
        "Figure 3",
        "Figure 4",
        "Figures 1 and 5",
        "Table 5",
        "Table 6",
        "Paired tests",
        "was chosen",
        "w/o Structure + Longer 30%",
        "λ = 0.1",
    ):
        assert title in markdown, title
    assert set(re.findall(r"\| \*\*SST-2\*\* \((\w+)\)", markdown)) == {"sst2", "other"}


def test_paired_test_by_hand(whole):
    _, first, _ = whole
    run = run_state.Run(first.config, ["x"], first.root.parent)
    table = comparisons.paired_table(run)
    assert len([r for r in table.rows if isinstance(r, str)]) == 1 + len(METHODS) - 1  # against each other
    ours, theirs = run.scores[1, "robust-0.30", "textfooler"].records, run.scores[1, "finetune", "textfooler"].records
    only = sum(a["outcome"] == "failure" and b["outcome"] != "failure" for a, b in zip(ours, theirs))
    seed_two = [run.scores[2, model, "textfooler"].records for model in ("robust-0.30", "finetune")]
    only += sum(a["outcome"] == "failure" and b["outcome"] != "failure" for a, b in zip(*seed_two))
    assert [cell.text for cell in table.rows[2]][:3] == ["TextFooler", "200", str(only)]
    assert table.rows[2][4].small.count("seed") == 2


def test_pairs_of_two_comparison_groups_are_two_tests(tmp_path):
    """Both models were attacked alike at each seed, but not at both: their pairs are never put together."""
    paths = small(tmp_path, "seeds=[1,2]", seeds=(1, 2))
    for model in OUTCOMES:
        made_up.attack(paths, 2, model, "textfooler", OUTCOMES[model], protocol="official")
    run = run_state.Run(paths.config, ["demo"], tmp_path)
    rows = comparisons.paired_table(run).rows[2:]
    found = [(row[0].text, row[0].small, row[1].text) for row in rows]
    assert sorted(found) == [
        ("BERT-Attack", "", "20"),
        ("TextBugger", "", "20"),
        ("TextFooler", "", "10"),
        ("TextFooler", "stale", "10"),
    ]


def test_without_a_robust_ticket_the_first_method_is_compared(whole):
    _, first, _ = whole
    config = dataclasses.replace(first.config, methods=["freelb", "lth"])
    table = comparisons.paired_table(run_state.Run(config, ["x"], first.root.parent))
    assert [row for row in table.rows[1:] if isinstance(row, str)] == ["**FreeLB** against **LTH 30%**"]


def test_control_rows_of_table_4(whole):
    _, first, _ = whole
    table = tables.ablation_table([run_state.Run(first.config, ["x"], first.root.parent)], 4)
    assert [r[0].text for r in table.rows[1:]] == [
        "Robust ticket 30%",
        "w/o Initialization 30%",
        "w/o Structure 30%",
        "w/o Structure + Longer 30%",
    ]
    # Aua of the made-up seeds is 44 + seed for the ticket: mean 45.5.
    assert table.rows[1][2].text == "45.5" and table.rows[1][2].published == "paper 26.7†"


def test_json_and_csv_hold_all_runs(whole):
    folder, first, second = whole
    found = json.loads((folder / "results.json").read_text())["experiments"]
    assert [run["experiment"] for run in found] == ["sst2", "other"] and not any(run["missing"] for run in found)
    lines = list(csv.DictReader((folder / "results.csv").open()))
    aua = [
        float(line["value"])
        for line in lines
        if (line["experiment"], line["model"], line["attack"], line["measure"])
        == ("sst2", "robust-0.30", "textfooler", "aua")
    ]
    assert statistics.mean(aua) == pytest.approx(0.455)
    assert {line["method"] for line in lines if "@" in line["model"]} >= {"finetune", "robust"}


class Loads(HTMLParser):
    """Everything that a browser would fetch, links to the page's own sections aside, and every tag."""

    def __init__(self):
        super().__init__()
        self.tags, self.loads, self.links, self.names = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        found = dict(attributes)
        self.names.append(found.get("id"))
        (self.links if tag == "a" else self.loads).extend(
            value for key, value in attributes if key in ("src", "href", "xlink:href", "srcset", "data", "poster")
        )


def test_page_is_self_contained_and_escaped(whole):
    folder, _, _ = whole
    text, markdown = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    parser = Loads()
    parser.feed(text)
    assert parser.loads and all(load.startswith("data:image/svg+xml;base64,") for load in parser.loads)
    assert text.count("<figure>") == text.count("<img ") == len(list((folder / "figures").glob("*.svg")))
    assert parser.links and all(link.startswith("#") and link[1:] in parser.names for link in parser.links)
    names = [name for name in parser.names if name]
    assert len(names) == len(set(names))
    assert "url(" not in text and "@import" not in text
    assert not {"script", "link", "iframe", "object"} & set(parser.tags)
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in text and "<mark>bonny</mark>" in text
    assert "<script" not in markdown and "**bonny**" in markdown
    assert "prefers-color-scheme: dark" in text and "Not comparable with the paper" in text
    for picture in re.findall(r"\]\((figures/[^)]+)\)", markdown):
        assert (folder / picture).is_file()


# --- unfinished runs and mistakes ----------------------------------------------------------------------------


def test_unfinished_run_shows_commands_and_no_zero(quick, tmp_path, capsys):
    paths = small(tmp_path, "name=half run", seeds=())
    paths.choice.unlink()
    write_lines(paths.attack(1, "finetune") / "textfooler" / "results.jsonl", made_up.attacked(1, 1, 0))
    folder, _, markdown = written(tmp_path, "name=half run")
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {folder / 'report.html'}"
    assert row(markdown, "Fine-tune")[6] == "*missing* (2 of 10 done)"
    assert set(row(markdown, "Robust ticket 30%")[1:]) == {"*missing*"}
    for stage in (
        "mindspore_rt finetune",
        "mindspore_rt search",
        "mindspore_rt draw",
        "mindspore_rt retrain",
        "torch_eval choose",
        "torch_eval attack",
    ):
        assert f"`python -m {stage} demo attack.examples=10 'name=half run'`" in markdown
    assert "mindspore_rt prepare" not in markdown
    found = json.loads((folder / "results.json").read_text())["experiments"][0]
    assert found["models"][0]["attacks"]["textfooler"] is None


def test_every_table_says_how_its_attacks_were_made(quick, tmp_path):
    """As the results have it: the configuration of the report may be another one."""
    paths = small(tmp_path, "sparsities=[0.3,0.5]", "methods=[finetune,robust,robust_no_adversary]")
    folder = paths.seed(1) / "choice" / "robust-0.30"
    choice = {"indices": list(range(7)), "resources": {"from": "packaged"}, "protocol": "paper", "recipe": "textfooler"}
    made_up.finish(folder, {"aua": 0.5}, choice)
    made_up.attack(paths, 1, "robust_no_adversary-0.30", "textfooler", (5, 4, 1))
    settings = ("sparsities=[0.3,0.5]", "methods=[finetune,robust,robust_no_adversary]")
    _, _, markdown = written(tmp_path, *settings, "attack.resources=original", "attack.candidates=8")
    made = "(demo) · packaged resources, paper protocol, 10 attacked, K=48, seed 1 | "
    # The main table, every sparsity, Table 3, each again for its intervals, and the paired tests.
    assert markdown.count(made) == 7
    assert markdown.count("packaged resources, paper protocol, 7 attacked, seed 1") == 1  # the choice
    assert "original resources" not in markdown and "Not comparable with the paper" in markdown


def test_a_choice_with_timeouts_shows_both_ends(quick, tmp_path):
    """Two of ten timed out: broken or not, nobody knows."""
    settings = ("sparsities=[0.3,0.5]", "methods=[finetune,robust]")
    paths = small(tmp_path, *settings)
    rows = read_json(paths.choice)["candidates"]
    write_json(paths.choice, {**read_json(paths.choice), "candidates": [{**r, "aua": 0.4} for r in rows]})
    for candidate, timeouts in (("robust-0.30", 2), ("robust-0.50", 0)):
        made_up.attack(paths, 1, candidate, "textfooler", (6, 4, 0), max_seconds=9.0)
        folder = paths.seed(1) / "choice" / candidate
        folder.parent.mkdir(exist_ok=True)
        (paths.attack(1, candidate) / "textfooler").rename(folder)
        lines = read_lines(folder / "results.jsonl")
        ended = [{**line, "outcome": "timeout"} if number < timeouts else line for number, line in enumerate(lines)]
        write_lines(folder / "results.jsonl", ended)
    _, _, markdown = written(tmp_path, *settings)
    table = markdown.partition("Candidate (the chosen one")[2]
    assert "40.0–60.0" in table and "2 of 10 timed out" in table and "| 40.0" in table


def test_the_official_protocol_is_named(quick, tmp_path):
    paths = small(tmp_path)
    for model in OUTCOMES:
        official = {"protocol": "official", "resources": {"from": "original"}, "attacked": ["question", "sentence"]}
        made_up.attack(paths, 1, model, "bertattack", OUTCOMES[model], parameters={}, **official)
    _, _, markdown = written(tmp_path)
    assert "original and packaged resources, official and paper protocol, 10 attacked" in markdown
    assert "| BERT-Attack (official code's) Aua% |" in markdown and "TextFooler (official" not in markdown
    # A row of the paired tests; what was asked for is the paper's.
    assert "| BERT-Attack (official code's) (stale) | 10 |" in markdown
    assert "under the official protocol BERT-Attack (official code's) may change both texts" in markdown


def test_half_precision_and_temperatures_are_told(tmp_path):
    paths = small(tmp_path)
    for model, temperature in (("finetune", 1.5), ("robust-0.30", 2.5)):
        folder = paths.attack(1, model)
        made_up.finish(folder / "calibration", {"temperature": temperature})
        for recipe in paths.config.attack.recipes:
            made_up.attack(paths, 1, model, recipe, OUTCOMES[model], temperature=temperature, dtype="float16")
            effect = {"dtype": "float16", "outcomes_that_float32_changes": 1, "of": 10}
            write_json(folder / recipe / "dtype.json", effect)
    band = captions.heading(run_state.Run(paths.config, ["demo"], tmp_path))
    assert "temperature 1.5 to 2.5, victims in float16, float32 changes 6 of 60 outcomes" in band


def test_no_more_sentences_are_asked_for_than_the_test_set_has(quick, tmp_path):
    paths = small(tmp_path, seeds=())
    write_lines(paths.attack(1, "finetune") / "textfooler" / "results.jsonl", made_up.attacked(1, 1, 0))
    _, _, markdown = written(tmp_path, "attack.examples=5000")
    assert row(markdown, "Fine-tune")[6] == "*missing* (2 of 100 done)" and "5000 sentences" not in markdown


def test_attack_left_out_says_why(quick, tmp_path):
    paths = small(tmp_path)
    for model in OUTCOMES:
        folder = paths.attack(1, model) / "bertattack"
        (folder / "manifest.json").unlink()
        (folder / "results.jsonl").unlink()
        write_json(folder / "missing.json", {"reason": "its language model is too poor"})
    _, text, markdown = written(tmp_path)
    assert "BERT-Attack was left out: its language model is too poor" in text
    assert row(markdown, "Fine-tune")[3] == "*missing*"
    assert "is not finished" not in text  # no command makes it


def test_finished_parts_of_an_attack_are_to_be_merged(quick, tmp_path):
    """The attack stage would begin anew."""
    paths = small(tmp_path)
    folder = paths.attack(1, "finetune") / "textfooler"
    (folder / "manifest.json").unlink()
    for number in (1, 2):
        made_up.finish(folder / f"shard-{number}-of-2", {})
    _, _, markdown = written(tmp_path)
    assert "`python -m torch_eval merge demo attack.examples=10`: finetune textfooler" in markdown
    assert "torch_eval attack" not in markdown


def test_examples_prefer_one_that_only_the_first_model_falls_for():
    by_model = {m: {r["index"]: r for r in made_up.attacked(*OUTCOMES[m])} for m in OUTCOMES}
    # Index 3 is the first that fools fine-tune (0 to 5) while the ticket (0 to 2) holds.
    assert pick(by_model) == [(3, "finetune"), (0, "robust-0.30")]
    assert pick({}) == []


def test_compare_marks_changed_words_only():
    before, after = render.compare("A fine film", "a bonny film")
    assert [text for text, changed in before if changed] == ["fine"]
    assert [text for text, changed in after if changed] == ["bonny"]
    assert "".join(text for text, _ in after) == "a bonny film"


def test_mistakes_are_one_line(quick, tmp_path, capsys):
    assert main(["report", "demo"], tmp_path) == 2
    assert "is missing: `python -m mindspore_rt prepare demo` starts it" in capsys.readouterr().err
    small(tmp_path)
    assert main(["report", "demo", "demo"], tmp_path) == 2
    assert "same run" in capsys.readouterr().err


def test_loads_neither_torch_nor_textattack():
    heavy = {"torch", "textattack", "mindspore", "mindnlp"}
    modules = "torch_eval.report.build, torch_eval.report.watch, mindspore_rt.ticket"
    code = f"import sys, {modules}; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
