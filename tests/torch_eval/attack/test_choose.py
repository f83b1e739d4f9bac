"""The choice on dev: the rule, resuming, and no attack where there is nothing to choose."""

import shutil

import pytest

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import file_hash, read_json, write_lines
from configs.contract.experiment import schema
from configs.contract.experiment.model_id import ModelId
from configs.contract.run.run_dir import RunDir
from tests.helpers.attacked_runs import SENTENCES
from tests.helpers.prepared import write_summary
from tests.helpers.victims import write_bert
from torch_eval.__main__ import main
from torch_eval.attack import choose


@pytest.fixture
def experiment(tmp_path, attacks_here):
    def make(*overrides):
        run_dir = RunDir(schema.load("tiny", ["choice.examples=4", "choice.recipe=textbugger", *overrides]), tmp_path)
        for split in ("dev", "test", *([run_dir.config.choice_split] if run_dir.config.choice_split != "dev" else [])):
            write_lines(run_dir.split(split), [{"sentence": s, "label": i % 2} for i, s in enumerate(SENTENCES)])
        write_summary(run_dir)
        for seed in run_dir.config.seeds:
            for number, candidate in enumerate(run_dir.candidates()):
                if not run_dir.model(seed, str(candidate)).is_dir():
                    write_bert(run_dir.model(seed, str(candidate)), seed=10 * number + seed)
        return run_dir

    return make


def test_the_most_robust_on_dev_is_chosen(experiment, capsys):
    run_dir = experiment("sparsities=[0.3,0.5]", "choice.epochs=2", "seeds=[1,2]")
    choose.run(run_dir)
    choice = read_json(run_dir.choice)
    assert len(choice["candidates"]) == 8 and "textbugger on 4 dev examples" in choice["rule"]
    assert set(choice["candidates"][0]) == {"model", "seed", "sparsity", "epochs_back", "aua", "accuracy"}

    def means(model):
        rows = [row for row in choice["candidates"] if row["model"] == model]
        aua, accuracy = (sum(row[key] for row in rows) / 2 for key in ("aua", "accuracy"))
        return accuracy > 0.5, aua, accuracy

    assert str(run_dir.chosen()) == choice["chosen"]["model"]
    assert means(choice["chosen"]["model"]) == max(means(str(candidate)) for candidate in run_dir.candidates())

    run_dir.choice.unlink()
    capsys.readouterr()
    choose.run(run_dir)
    assert capsys.readouterr().out.count("already done") == 8 and read_json(run_dir.choice) == choice


def test_a_choice_on_half_of_the_test_set(experiment):
    """The candidates are attacked on that half, also where training sees dev; dev is not read."""
    run_dir = experiment("choice.epochs=2", "choice.split=test_half", "compat=official")
    run_dir.split("dev").unlink()
    choose.run(run_dir)
    manifest = read_json(run_dir.seed(1) / "choice" / "robust-0.30" / "manifest.json")
    assert manifest["inputs"]["choice"] == file_hash(run_dir.split("choice"))
    assert "on 4 held-out test examples" in read_json(run_dir.choice)["rule"]


def test_a_missing_candidate_is_said_before_others_are_attacked(experiment, tmp_path, capsys):
    settings = ["choice.examples=4", "choice.recipe=textbugger", "choice.epochs=2"]
    run_dir = experiment(*settings)
    missing = run_dir.model(1, str(run_dir.candidates()[-1]))
    shutil.rmtree(missing)
    assert main(["choose", "tiny", *settings], tmp_path) == 2
    assert f"error: {missing / 'config.json'} is missing" in capsys.readouterr().err
    assert not (run_dir.seed(1) / "choice").exists()


def test_a_candidate_attacked_before_it_was_made_again_is_refused(experiment):
    run_dir = experiment("sparsities=[0.3,0.5]")
    choose.run(run_dir)
    write_bert(run_dir.model(1, "robust-0.50"), seed=99)
    with pytest.raises(UserError, match="choice/robust-0.50 was made with other settings .inputs.model: .*, now "):
        choose.run(run_dir)
    run_dir.config.on_change = "redo"
    choose.run(run_dir)
    manifest = read_json(run_dir.seed(1) / "choice" / "robust-0.50" / "manifest.json")
    assert manifest["inputs"]["model"] == file_hash(run_dir.model(1, "robust-0.50"))


def test_one_candidate_is_chosen_unseen(experiment, monkeypatch):
    run_dir = experiment("sparsities=[0.4]", "choice.epochs=1")
    monkeypatch.setattr(choose, "Workers", None)
    choose.run(run_dir)
    assert read_json(run_dir.choice) == {
        "rule": "the only candidate",
        "candidates": [],
        "chosen": {"model": "robust-0.40", "sparsity": 0.4, "epochs_back": 0},
    }
    assert run_dir.chosen() == run_dir.candidates()[0]


@pytest.mark.parametrize(
    "figures, chosen",
    [
        ({"a": (0.2, 0.9), "b": (0.3, 0.5)}, "b"),  # robustness first
        ({"a": (0.3, 0.9), "b": (0.3, 0.5)}, "a"),  # then accuracy
        ({"a": (0.3, 0.5), "b": (0.3, 0.5)}, "a"),  # then the order of candidates
    ],
)
def test_the_rule(figures, chosen):
    candidates = [ModelId(name) for name in figures]
    rows = [{"model": name, "aua": aua, "accuracy": accuracy} for name, (aua, accuracy) in figures.items()]
    assert choose.best(candidates, rows, majority=0.4).method == chosen


def test_nothing_is_chosen_on_a_dev_set_that_was_trained_on(experiment, monkeypatch):
    run_dir = experiment("sparsities=[0.3,0.5]", "compat=official")
    monkeypatch.setattr(choose, "Workers", None)
    choose.run(run_dir)
    assert "official trains on dev" in read_json(run_dir.choice)["rule"]
    assert run_dir.chosen() == run_dir.candidates()[0]


@pytest.mark.parametrize("change", ["attack.temperature=2.0", "attack.max_seconds=60"])
def test_a_choice_made_with_another_victim_or_budget_is_refused(experiment, change):
    choose.run(experiment("sparsities=[0.3,0.5]"))
    with pytest.raises(UserError, match=rf"was made with other settings .*{change.partition('=')[0][7:]}"):
        choose.run(experiment("sparsities=[0.3,0.5]", change))


@pytest.mark.parametrize("accuracies, chosen", [((0.5, 0.9), 1), ((0.5, 0.5), 0), ((0.6, 0.9), 0)])
def test_a_candidate_that_has_learned_nothing_is_no_choice(experiment, accuracies, chosen):
    """A model that always predicts the commonest label withstands every attack."""
    candidates = experiment("sparsities=[0.3,0.5]").candidates()
    rows = [
        {**candidate.record(), "seed": 1, "aua": aua, "accuracy": accuracy}
        for candidate, aua, accuracy in zip(candidates, (0.5, 0.2), accuracies)
    ]
    assert choose.best(candidates, rows, majority=0.5) == candidates[chosen]
