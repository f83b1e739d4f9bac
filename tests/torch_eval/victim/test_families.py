"""Every family against transformers' own model, padded to the full length by TextAttack's wrapper."""

import pytest
import torch

from configs.contract.inputs.families import FAMILIES
from torch_eval.bench import stock_textattack
from torch_eval.bench.random_models import PROMISED, random_classifier
from torch_eval.victim.classifier import Victim

LENGTH = 40
TEXTS = [
    "a fine film .",
    "dull",
    "",
    "an utterly charming , funny and warm piece of work " * 4,
    "the café's naïve façade is 😀 , <pad> isn't it ? <s>",
    "loud , silly and far too long",
] * 5


@pytest.fixture(scope="module", params=PROMISED)
def family(request, tmp_path_factory):
    name = request.param
    return name, random_classifier(tmp_path_factory.mktemp(name), name, TEXTS, labels=3)


def test_same_logits_as_the_stock_wrapper(family):
    name, folder = family
    victim, stock = Victim(folder, LENGTH), stock_textattack.victim(folder, LENGTH)
    assert victim.batching == ("unpadded" if name in FAMILIES else "sorted")
    for texts in (TEXTS, [("who came ?", text) for text in TEXTS[:12]]):
        expected = stock(texts)
        assert expected.std(0).min() > 0.05  # rows differ, so a wrong order shows
        for batching in victim.batchings():
            victim.use(batching)
            torch.testing.assert_close(victim(texts), expected, atol=2e-5, rtol=0)


def test_the_fastest_batching_that_computes_the_same_is_used(family):
    name, folder = family
    victim = Victim(folder, LENGTH)
    assert victim.use_fastest(TEXTS) < 1
    assert victim.batching == victim.batchings()[0]


def test_a_model_that_padding_changes_is_padded(tmp_path):
    """ConvBERT's convolutions see the padding beside a text."""
    folder = random_classifier(tmp_path, "convbert", TEXTS)
    victim, expected = Victim(folder, LENGTH), stock_textattack.victim(folder, LENGTH)(TEXTS)
    assert victim.batching == "padded"
    victim.use("sorted")
    victim.positions = 1
    assert (victim(TEXTS) - expected).abs().max() > 1e-2
    assert victim.use_fastest(TEXTS) > 1 and victim.batching == "padded"
    torch.testing.assert_close(victim(TEXTS), expected, atol=2e-5, rtol=0)
