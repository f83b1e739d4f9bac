"""The tables of the report; expected figures are worked out by hand here."""

import csv
import re

import pytest

from configs.contract.basics.files import read_json, write_json
from tests.helpers import made_up_run as made_up
from tests.helpers.files import edit_json
from tests.helpers.made_up_run import OUTCOMES, small
from tests.helpers.written_report import row, wilson, written
from torch_eval.attack import metrics
from torch_eval.report import captions, comparisons, render, run_state, tables, ticket_sections


def test_main_table_by_hand(quick, tmp_path):
    small(tmp_path)
    _, _, markdown = written(tmp_path)
    # Fine-tune: 8 of 10 right at first, 2 right after, 6 of 8 fooled. Ticket: 9 at first, 6 after, 3 of 9 fooled.
    assert row(markdown, "Fine-tune")[1:6] == ["80.0", "80.0", "20.0", "75.0", "45.0"]
    assert row(markdown, "Robust ticket 30%")[1:6] == ["80.0", "**90.0**", "**60.0**", "**33.3**", "**50.0**"]
    # The second time a method's name begins a line it is in the table of intervals.
    assert row(markdown, "Fine-tune", 1)[1:5] == [wilson(80, 100), wilson(8, 10), wilson(2, 10), wilson(6, 8)]


def test_several_seeds_give_mean_and_deviation(quick, tmp_path):
    paths = small(tmp_path, "seeds=[1,2,3]", seeds=(1, 2))
    made_up.attack(paths, 2, "finetune", "textfooler", (4, 4, 2))
    _, text, markdown = written(tmp_path, "seeds=[1,2,3]")
    # Aua 20 and 40: mean 30, sample deviation sqrt(200) = 14.1; TextFooler is the second attack.
    assert row(markdown, "Fine-tune")[6] == "30.0 (± 14.1; 2 of 3 seeds)"
    assert row(markdown, "Fine-tune", 1)[6] == f"seed 1: {wilson(2, 10)}; seed 2: {wilson(4, 10)}"
    assert (
        "python -m mindspore_rt search demo attack.examples=10 attack.candidates=48 &#x27;seeds=[1,2,3]&#x27;" in text
    )


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


def test_a_classifier_from_elsewhere_has_a_row(quick, tmp_path):
    paths = small(tmp_path)
    made_up.clean(paths, 1, "mine", 0.7)
    for recipe in paths.config.attack.recipes:
        made_up.attack(paths, 1, "mine", recipe, (1, 6, 3))
    _, _, markdown = written(tmp_path, "attack.victims=[mine=elsewhere]", "seeds=[1,2]")
    assert {"70.0", "60.0"} <= set(re.findall(r"\d+\.\d", " ".join(row(markdown, "mine"))))
    assert "seeds" not in " ".join(row(markdown, "mine"))  # it knows none, and is attacked once


def test_timeouts_are_told(quick, tmp_path):
    paths = small(tmp_path)
    made_up.attack(paths, 1, "finetune", "textfooler", (3, 4, 1, 2))
    _, _, markdown = written(tmp_path)
    # 4 of 10 hold for certain and at most 6; of 9 attacked 3 to 5 break. The ticket has 60.0 and 33.3.
    assert row(markdown, "Fine-tune")[6:8] == ["40.0–60.0 (2 of 10 timed out)", "33.3–55.6 (2 of 9 timed out)"]
    assert row(markdown, "Robust ticket 30%")[6:8] == ["**60.0**", "**33.3**"]
    assert row(markdown, "Fine-tune", 1)[6] == f"{wilson(4, 10).split('–')[0]}–{wilson(6, 10).split('–')[1]}"


def test_the_ends_of_several_seeds_are_means():
    summaries = [
        metrics.summarise(made_up.attacked(2, 6, 2)),
        metrics.summarise([made_up.record(i, "timeout") for i in (0, 1)]),
    ]
    # Aua from 60% and 0% to 60% and 100%.
    cell = tables.with_timeouts(render.Cell("30.0"), "aua", 30.0, summaries)
    assert cell.text == "30.0–80.0" and cell.ends == (30.0, 80.0)


def test_a_value_that_may_be_beaten_is_not_the_best():
    column = [render.Cell("", ends=(50.0, 50.0)), render.Cell("", ends=(40.0, 60.0)), render.Cell("–")]
    tables.mark_best(column)
    assert not any(cell.best for cell in column)


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
    edit_json(file, results={"accuracy": 0.8, "n": 100, **results})
    _, _, markdown = written(tmp_path, "attack.recipes=[textfooler]")
    assert f"| Robust ticket 30%{f' ({reason})' * bool(reason)} | 80.0" in markdown
    assert ("**60.0**" in markdown) == (not reason)
    assert ("no answer, because a model has learned nothing: Robust ticket 30%" in markdown) == bool(reason)


def test_the_seeds_of_a_model_that_has_learned_nothing_are_named(tmp_path):
    paths = small(tmp_path, "seeds=[1,2]", seeds=(1, 2))
    made_up.finish(paths.attack(2, "finetune") / "clean", {"accuracy": 0.5, "n": 100, "predicted_classes": 1})
    assert run_state.Run(paths.config, ["demo"], tmp_path).unlearned("finetune") == "predicts one class (seed 2)"


def test_every_table_says_how_its_attacks_were_made(quick, tmp_path):
    """As the results have it: the configuration of the report may be another one."""
    paths = small(tmp_path, "sparsities=[0.3,0.5]", "methods=[finetune,robust,robust_no_adversary]")
    folder = paths.seed(1) / "choice" / "robust-0.30"
    choice = {"indices": list(range(7)), "resources": {"from": "packaged"}, "protocol": "paper", "recipe": "textfooler"}
    made_up.finish(folder, {"aua": 0.5}, choice)
    made_up.attack(paths, 1, "robust_no_adversary-0.30", "textfooler", (5, 4, 1))
    settings = ("sparsities=[0.3,0.5]", "methods=[finetune,robust,robust_no_adversary]")
    _, _, markdown = written(tmp_path, *settings, "attack.resources=original", "attack.candidates=8")
    heading = "(demo) · packaged resources, paper protocol, 10 attacked, K=48, seed 1 | "
    # The main table, every sparsity, Table 3, each again for its intervals, the paired tests, and the changes.
    assert markdown.count(heading) == 8
    assert markdown.count("packaged resources, paper protocol, 7 attacked, seed 1") == 1  # the choice
    assert "original resources" not in markdown and "Not comparable with the paper" in markdown


def test_the_choice_says_what_part_the_test_set_plays(tmp_path):
    def said(split):
        paths = small(tmp_path, f"name={split}", f"choice.split={split}")
        blocks = ticket_sections.choices([run_state.Run(paths.config, ["demo"], tmp_path)])
        return " ".join(block.text for block in blocks if isinstance(block, render.Paragraph))

    assert "Test sentences play no part in the choice." in said("dev")
    halved = said("test_half")
    assert "all results are of the other half" in halved and "no part" not in halved and "dev" not in halved


def test_a_choice_with_timeouts_shows_both_ends(quick, tmp_path):
    """Two of ten timed out: whether the attacks would have succeeded is unknown."""
    settings = ("sparsities=[0.3,0.5]", "methods=[finetune,robust]")
    paths = small(tmp_path, *settings)
    rows = read_json(paths.choice)["candidates"]
    edit_json(paths.choice, candidates=[{**r, "aua": 0.4} for r in rows])
    for candidate, timeouts in (("robust-0.30", 2), ("robust-0.50", 0)):
        made_up.attack(paths, 1, candidate, "textfooler", (6 - timeouts, 4, 0, timeouts), max_seconds=9.0)
        folder = paths.seed(1) / "choice" / candidate
        folder.parent.mkdir(exist_ok=True)
        (paths.attack(1, candidate) / "textfooler").rename(folder)
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
    made_up.write_records(paths.attack(1, "finetune") / "textfooler", made_up.attacked(1, 1, 0))
    for shard in (1, 2):  # of an attack that is made in parts
        folder = paths.attack(1, "finetune") / "textbugger" / f"shard-{shard}-of-2"
        made_up.write_records(folder, made_up.attacked(2, 1, 0))
    _, _, markdown = written(tmp_path, "attack.examples=5000")
    assert row(markdown, "Fine-tune")[6] == "*missing* (2 of 100 done)" and "5000 sentences" not in markdown
    assert row(markdown, "Fine-tune")[9] == "*missing* (6 of 100 done)"
