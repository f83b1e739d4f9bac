"""Published figures beside those of a run."""

from configs.contract.experiment import schema
from configs.contract.run import run_dir
from tests.helpers import made_up_run as made_up
from torch_eval.report import published, run_state, scores, text_sections


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
        "retrain.epochs 10 instead of 3",
        "retrain.learning_rate 1e-05 instead of 2e-05",
    ]


def test_every_option_that_decides_a_result_is_compared_with_the_papers(tmp_path):
    """Only those of sections that the run reads: a candidate alone needs no choice, and no search keeps its masks."""
    changed = {
        "finetune.epochs": "10",
        "search.epochs": "6",
        "search.granularity": "neuron",
        "retrain.dropout": "0.2",
        "choice.split": "test_half",
        "data.max_length": "64",
        "structured": "true",
    }
    unread = ["freelb.epochs=9", "infobert.dropout=0.3", "choice.examples=5", "search.keep_epochs=2"]
    run = run_of(tmp_path, "attack.resources=original", *unread, *(f"{key}={value}" for key, value in changed.items()))
    assert [text.partition(" instead of ")[0] for text in published.departures(run)] == [
        f"{key} {value}" for key, value in sorted(changed.items())
    ]
    assert published.departures(run_of(tmp_path, "attack.resources=original", *unread)) == []
    several = run_of(tmp_path, "attack.resources=original", "choice.epochs=2", "choice.examples=5")
    assert published.departures(several) == ["choice.epochs 2 instead of 1", "choice.examples 5 instead of 200"]


def test_a_run_without_tickets_does_not_differ_in_their_sparsity(tmp_path):
    """Its experiments' table states no sparsity either."""

    def said(*overrides):
        run = run_of(tmp_path, "attack.resources=original", "sparsities=[0.5]", *overrides)
        _, differing = published.reference_notes([run])
        *_, experiments = text_sections.answers([run], tmp_path)
        return differing.items, experiments.blocks[0].rows[0][4].text

    ticket, pruned = said()
    assert "robust ticket of 50% instead of 30%" in ticket[0] and pruned == "50%"
    assert said("methods=[finetune]") == (["none of these runs differs"], "nothing")


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


def test_the_configuration_of_each_task_has_the_papers_settings():
    setting, table5 = published.PUBLISHED["setting"], published.PUBLISHED["table5"]
    for task, row in published.PUBLISHED["table6"].items():
        config = schema.load(task)
        assert {key: getattr(config.search, key) for key in row} == row, task
        assert (config.model, config.layers, config.attack.examples) == (
            setting["model"],
            None,
            setting["examples"][task],
        )
        for key in ("learning_rate", "dropout", "weight_decay", "epochs"):
            assert getattr(config.finetune, key) == getattr(config.retrain, key) == table5[key], task


def test_settings_are_those_of_the_trainings_that_a_run_has(tmp_path):
    """A control alone has robust tickets retrained, and without tickets nothing is searched or retrained."""

    def names(*overrides):
        paths = made_up.whole(tmp_path, *overrides, "seeds=[1]", "attack.recipes=[textfooler]")
        blocks = published.hyperparameters([run_state.Run(paths.config, ["sst2"], tmp_path)])
        return [(row[0].text, row[0].small) for block in blocks[2::2] for row in block.rows]

    trained = [("paper", ""), ("SST-2 (dense), finetune", "")]
    assert names("name=dense", "methods=[finetune,freelb]") == trained
    assert names("name=control", "methods=[random]") == [
        ("paper", ""),
        ("SST-2 (control), finetune", ""),
        ("SST-2 (control), retrain", ""),
        ("SST-2 (control)", ""),
    ]
