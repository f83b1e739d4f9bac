"""A few examples, attacked as in a run and by unmodified TextAttack: outcome, queries and text are the same."""

import pytest

from configs.contract.inputs.families import FAMILIES as UNPADDED
from tests.helpers.attacked_runs import labels_by_victim, one_thread
from torch_eval.attack import workers
from torch_eval.attack.workers import Target
from torch_eval.bench.attacks import attack_stock
from torch_eval.bench.random_models import ARCHITECTURES, PROMISED, random_classifier
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


# A recipe never sees the family of its victim, but the texts that it writes meet two things that differ: the kind of
# vocabulary, and the batches of the victim. So all recipes attack one family of each kind. The others differ inside the
# model alone; they are attacked with TextBugger, whose strange letters are read in the most ways.
KINDS = {(name in UNPADDED, ARCHITECTURES[name][2]): name for name in reversed(PROMISED)}
PAIRS = [(name, recipe) for name in KINDS.values() for recipe in ("textfooler", "bertattack")]
PAIRS += [(name, "textbugger") for name in PROMISED]


@pytest.fixture(scope="module")
def model(request, tmp_path_factory):
    """Random weights, the label decided by them; tie-breaking matters more here than with a trained model."""
    with one_thread():
        yield random_classifier(tmp_path_factory.mktemp(request.param), request.param, SENTENCES, seed=3)


@pytest.mark.parametrize("model, recipe", PAIRS, indirect=["model"])
def test_the_same_as_textattack(model, recipe):
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
        assert ours["perturbed"] == theirs["perturbed"]  # both on one thread, or ties may break: see bench/attacks.py
        assert ours["perturbed_score"] == pytest.approx(theirs["perturbed_score"], abs=2e-5)
