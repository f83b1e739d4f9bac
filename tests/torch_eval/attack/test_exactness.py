"""A handful of examples, attacked as the run does it and by TextAttack as it comes: the same in all that counts."""

import pytest

from tests.helpers.attacked_runs import labels_by_victim, one_thread
from torch_eval.attack import workers
from torch_eval.attack.workers import Target
from torch_eval.bench.attacks import attack_stock
from torch_eval.bench.random_models import NAMED, random_classifier
from torch_eval.recipes.recipes import Spec

LENGTH = 48
SENTENCES = [
    "a gripping and thoughtful drama about the price of freedom , told with rare patience",
    "the jokes are stale and the pace is slow",
    "an honest portrait of grief that never once begs for tears",
    "loud , silly and far too long",
    "the cast is superb but the script , alas , is merely adequate",
    "dull",
]


@pytest.fixture(scope="module", params=NAMED)
def model(request, tmp_path_factory):
    """Random weights, the label decided by them; tie-breaking matters more here than with a trained model."""
    with one_thread():
        yield random_classifier(tmp_path_factory.mktemp(request.param), request.param, SENTENCES, seed=3)


@pytest.mark.parametrize("recipe", ["textfooler", "textbugger", "bertattack"])
def test_the_same_as_textattack(recipe, model):
    sentences = SENTENCES if model.name.startswith("bert") else SENTENCES[1:4]
    spec = Spec(recipe, ("sentence",), ("sentence",), candidates=5)
    labels = labels_by_victim(Target(model, LENGTH), [(sentence,) for sentence in sentences])
    records = {}
    for attack in (workers.attack_example, attack_stock):
        records[attack] = [
            attack(Target(model, LENGTH), spec, 1, i, {"sentence": sentence, "label": label})
            for i, (sentence, label) in enumerate(zip(sentences, labels))
        ]
    assert sum(record["queries"] for record in records[attack_stock]) > 5 * len(sentences)
    for ours, theirs in zip(*records.values()):
        for key in ("index", "outcome", "queries", "original", "perturbed_prediction", "words_changed"):
            assert ours[key] == theirs[key], key
        assert ours["perturbed"] == theirs["perturbed"]  # both on one thread, or ties may break: see bench_attacks.py
        assert ours["perturbed_score"] == pytest.approx(theirs["perturbed_score"], abs=2e-5)
