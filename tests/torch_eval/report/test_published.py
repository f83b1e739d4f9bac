"""Published figures beside those of a run."""

from configs.contract import run_dir, schema
from tests.helpers import made_up_run as made_up
from torch_eval.report import published, run_state, scores


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
    assert published.published(other, "robust-0.50", "bertattack", "aua") == "paper 17.9‡"
    assert {"packaged instead of original attack resources", "search.ascent_steps 2 instead of 5"} <= set(
        published.departures(other)
    )
    assert published.published(run_of(tmp_path, config="demo"), "finetune", None, "clean") == ""


def test_each_length_has_the_published_figures_of_its_own(tmp_path):
    """Also the first one, which the configuration then has as the epochs of retraining."""
    model, settings = "robust_no_structure-0.30", ("methods=all", "attack.resources=original")
    for lengths, name, figure in (([10, 3], model, "27.5"), ([3, 10], f"{model}-epochs-10", "27.5")):
        run = run_of(tmp_path, *settings, f"lengths={lengths}")
        assert published.published(run, name, "textfooler", "aua", (4,)) == f"paper {figure}"
    alone = run_of(tmp_path, *settings, "retrain.epochs=10", "retrain.learning_rate=1e-5")
    assert published.departures(alone) == [
        "retraining epochs 10 instead of 3",
        "retraining learning rate 1e-05 instead of 2e-05",
    ]


def test_the_papers_figures_fit_together():
    """Suc = (Clean - Aua) / Clean in every row of Table 1, but for the four that the paper itself has otherwise."""
    figures = [
        (r, row[r], row["clean"])
        for row in published.PUBLISHED["results"]
        for r in scores.RECIPES
        if row["table"] == 1 and row["source"] == "paper" and r in row
    ]
    assert len(figures) == 54
    off = [abs(100 * (clean - values["aua"]) / clean - values["suc"]) > 0.25 for _, values, clean in figures]
    assert sum(off) <= 4
    assert {row["task"] for row in published.PUBLISHED["results"]} == set(published.PUBLISHED["table6"])
