"""The answer and the paired tests; expected p-values are worked out by hand here."""

from types import SimpleNamespace

from configs.contract.experiment import schema
from tests.helpers import made_up_run as made_up
from tests.helpers.made_up_run import OUTCOMES, SMALL, small
from torch_eval.report import comparisons, run_state


def answer(paths, *overrides):
    config = schema.load("demo", [*SMALL, *overrides])
    return comparisons.answer(run_state.Run(config, ["demo"], paths.root.parent)).replace("\xa0", " ")


def test_the_answer_is_never_stronger_than_the_paired_test(tmp_path):
    paths = small(tmp_path)
    # Of ten sentences the ticket withstands 3 to 8 and the fine-tuned model 6 and 7: four to none, p = 2 / 2^4.
    assert answer(paths, "attack.recipes=[textfooler]") == (
        "**Rotten Tomatoes snippets** (demo), 1 seed: the robust ticket (30% pruned) shows no clear difference from "
        "the fine-tuned model under **TextFooler** (60.0% of the sentences against 20.0%, p = 0.125); it classifies "
        "as many unchanged sentences correctly (**80.0%**). `docs/results/README.md` has results of longer searches "
        "and more seeds; tickets to reuse are in `docs/zoo.md`."
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


def test_the_gain_stands_in_points_beside_its_test(tmp_path):
    """Six of ten sentences against two: 40 points, and no resample of ten sentences gains more than 100."""
    row = comparisons.paired_table(run_state.Run(small(tmp_path).config, ["demo"], tmp_path)).rows[2]
    gain, _, interval = row[-1].text.partition(" ")
    low, high = map(float, interval.strip("[]").split(", "))
    assert gain == "+40.0" and 0 <= low < 40 < high <= 100


def test_p_is_corrected_for_the_tests_of_a_model(tmp_path):
    """The ticket alone withstands 8, 7 and 6 attacks, Fine-tune alone none: p is 2 / 2^8, 2 / 2^7 and 2 / 2^6."""
    paths = small(tmp_path)
    for recipe, only in (("bertattack", 8), ("textfooler", 7), ("textbugger", 6)):
        made_up.attack(paths, 1, "robust-0.30", recipe, (0, only, 10 - only))
        made_up.attack(paths, 1, "finetune", recipe, (only, 0, 10 - only))
    rows = comparisons.paired_table(run_state.Run(paths.config, ["demo"], tmp_path)).rows[2:]
    assert [(row[0].text, row[4].text, row[5].text) for row in rows] == [
        ("BERT-Attack", "0.008", "0.023"),
        ("TextFooler", "0.016", "0.031"),
        ("TextBugger", "0.031", "0.031"),
    ]


def test_equal_epochs_are_a_family_of_tests(tmp_path, monkeypatch):
    """The ticket alone withstands 8 and 6 attacks at equal epochs, and 7 and 7 otherwise: two families of two tests."""
    paths = small(tmp_path, "lengths=[3,10]", "attack.recipes=[textfooler,textbugger]")
    for model, only in (("finetune", (8, 6)), ("finetune-epochs-10", (7, 7))):
        for recipe, count in zip(("textfooler", "textbugger"), only):
            made_up.attack(paths, 1, model, recipe, (count, 10 - count, 0))
            made_up.attack(paths, 1, "robust-0.30", recipe, (0, 10, 0))
            made_up.attack(paths, 1, "robust-0.30-epochs-10", recipe, (0, 10, 0))
    pairs = [
        ("robust-0.30", "finetune", " (as many epochs, as low a training loss)"),
        ("robust-0.30", "finetune-epochs-10", " (as much compute)"),
        ("robust-0.30-epochs-10", "finetune-epochs-10", " (as many epochs)"),
    ]
    monkeypatch.setattr(comparisons, "matches", lambda run, method, _: pairs if method == "robust" else [])
    table = comparisons.paired_table(run_state.Run(paths.config, ["demo"], tmp_path))
    rows = [(row[4].text, row[5].text) for row in table.rows if not isinstance(row, str)]
    assert rows == [
        *(("0.008", "0.016"), ("0.031", "0.031")),
        *(("0.016", "0.031"), ("0.016", "0.031")),
        *(("0.016", "0.031"), ("0.016", "0.031")),
    ]


def test_an_attack_that_lacks_seeds_states_its_own(tmp_path):
    paths = small(tmp_path, "seeds=[1,2]", "attack.recipes=[textfooler]", seeds=(1, 2))
    for model, counts in OUTCOMES.items():
        made_up.attack(paths, 2, model, "textbugger", counts)
    text = answer(paths, "seeds=[1,2]", "attack.recipes=[textfooler,textbugger]")
    assert "2 seeds: the robust ticket" in text and "p = 0.125, 1 of 2 seeds)" in text
    assert "p = 0.125)" in text and text.count("of 2 seeds") == 1


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
    made_up.attack(paths, 1, "robust-0.30", "textfooler", (3, 5, 1, 1))
    assert "(at least 50.0% of the sentences against 20.0%" in answer(paths, "attack.recipes=[textfooler]")


def test_pairs_of_two_comparison_groups_are_two_tests(tmp_path):
    """Both models were attacked alike at each seed, but not at both: their pairs are never put together."""
    paths = small(tmp_path, "seeds=[1,2]", seeds=(1, 2))
    for model in OUTCOMES:
        made_up.attack(paths, 2, model, "textfooler", OUTCOMES[model], protocol="official")
    run = run_state.Run(paths.config, ["demo"], tmp_path)
    rows = comparisons.paired_table(run).rows[2:]
    tests = [(row[0].text, row[0].small, row[1].text) for row in rows]
    assert sorted(tests) == [
        ("BERT-Attack", "", "20"),
        ("TextBugger", "", "20"),
        ("TextFooler", "", "10"),
        ("TextFooler", "stale", "10"),
    ]


def test_models_that_were_attacked_differently_are_not_compared(tmp_path):
    """At the second seed one of them was attacked under another protocol: the first seed's pairs are left."""
    paths = small(tmp_path, "seeds=[1,2]", "attack.recipes=[textfooler]", seeds=(1, 2))
    made_up.attack(paths, 2, "finetune", "textfooler", OUTCOMES["finetune"], protocol="official")
    run = run_state.Run(paths.config, ["demo"], tmp_path)
    (comparison,) = comparisons.comparisons(run, "robust-0.30", "finetune", "textfooler")
    assert list(comparison.pairs) == [1] and comparison.test.tested == 10


def test_lengths_are_compared_at_equal_epochs_compute_and_training_loss():
    """A ticket of 3 epochs took 18 passes with its search; each rival is the shortest that has reached its value."""
    models = {"robust": ["r-10", "r-3"], "freelb": ["f-10", "f-3"], "finetune": ["d-10", "d-3"]}
    passes = {"r-3": 18, "r-10": 25, "f-3": 6, "f-10": 20, "d-3": 3, "d-10": 10}
    loss = {"r-3": 0.0, "r-10": 0.0, "d-3": 0.2, "d-10": 0.0}
    run = SimpleNamespace(
        models_of=models.get,
        epochs=lambda model: int(model[2:]),
        passes=passes.get,
        training_loss=loss.get,  # FreeLB has none
    )
    assert comparisons.matches(run, "robust", "freelb") == [
        ("r-10", "f-10", " (as many epochs)"),
        ("r-3", "f-3", " (as many epochs)"),
        ("r-3", "f-10", " (as much compute)"),
    ]
    assert comparisons.matches(run, "finetune", "robust") == [
        ("d-10", "r-10", " (as many epochs)"),
        ("d-10", "r-3", " (as much compute, as low a training loss)"),
        ("d-3", "r-3", " (as many epochs, as much compute, as low a training loss)"),
    ]
    models |= {"robust": ["r-3"], "finetune": ["d-3"]}
    assert comparisons.matches(run, "robust", "finetune") == [("r-3", "d-3", "")]
