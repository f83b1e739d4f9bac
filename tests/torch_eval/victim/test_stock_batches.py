"""Logits to the bit, against TextAttack's wrapper."""

import pytest
import torch

from tests.helpers.victims import write_bert
from torch_eval.bench import stock_textattack
from torch_eval.bench.random_models import random_classifier
from torch_eval.victim.classifier import Victim
from torch_eval.victim.stock_batches import Looks

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTH = 24
TEXTS = ["a fine film", "dull", "loud , silly and far too long", "an honest portrait of grief"]
LONG = "an utterly charming , funny and warm piece of work " * 4


@pytest.fixture(scope="module", params=["bert", "electra", "distilbert", "mpnet"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return write_bert(folder) if request.param == "bert" else random_classifier(folder, request.param, TEXTS, seed=3)


@pytest.mark.parametrize(
    "batch",
    [TEXTS[:1], TEXTS[:2], [*TEXTS, LONG, *TEXTS[:2]], TEXTS * 5, [LONG], [LONG, f"dull {LONG}", LONG], [LONG] * 18],
    ids=lambda batch: f"{len(batch)} of {len(batch[-1])}",
)
def test_every_row_of_a_batch_has_the_bits_of_the_stock_wrapper(folder, batch):
    victim, expected = Victim(folder, LENGTH), stock_textattack.victim(folder, LENGTH)(batch)
    roundings = victim.roundings(batch)
    assert len({rounding.full for rounding in roundings}) == 1 and roundings[0].full == all(LONG in t for t in batch)
    for rounding in dict.fromkeys(roundings):
        places = [place for place, other in enumerate(roundings) if other == rounding]
        rounded = victim.rounded_logits([batch[place] for place in places], rounding)
        assert torch.equal(rounded, expected[places])


def test_a_small_batch_goes_through_the_body_if_it_rounds_alike_and_the_head_has_all_rows(tmp_path):
    victim, sizes, rows = Victim(write_bert(tmp_path), LENGTH), [], []
    head, forward = victim.model.bert.pooler.dense, victim.stock.forward
    victim.stock._look = lambda size, full: Looks(
        [b"like the others"] * size, [b"like the others" if size > 3 else b"in small ones"] * size, head
    )
    victim.stock.forward = lambda batch: sizes.append(len(batch)) or forward(batch)
    head.register_forward_hook(lambda _layer, _inputs, output: rows.append(len(output)))
    texts = [*TEXTS, TEXTS[0], "superb"]  # five different ones
    logits = victim.rounded_logits(texts, victim.roundings(TEXTS * 5)[0])
    assert (sizes, rows) == ([4, 4], [20, 20])
    torch.testing.assert_close(logits, victim(texts), atol=1e-5, rtol=0)


@pytest.mark.parametrize("alike", [True, False])
def test_one_row_stands_for_a_batch_whose_rows_are_alike_after_the_first_layer(folder, alike):
    victim, rows = Victim(folder, LENGTH), []
    victim.stock._first_layer = lambda size, full: [b"alike" if alike else bytes(size)] * size
    victim.stock._layers[1].register_forward_pre_hook(lambda _layer, inputs: rows.append(len(inputs[0])))
    victim.roundings(TEXTS * 5)
    assert rows == ([1, 1] if alike else [20])


def test_labels_and_temperature_are_those_of_the_victim(tmp_path):
    victim = Victim(write_bert(tmp_path, labels=3), LENGTH, temperature=2.0, label_order=(2, 0, 1))
    rounded = victim.rounded_logits(TEXTS, victim.roundings(TEXTS)[0])
    torch.testing.assert_close(rounded, victim(TEXTS), atol=1e-5, rtol=0)


def test_coarser_types_have_no_stock_batches(tmp_path):
    assert Victim(write_bert(tmp_path), LENGTH, dtype="bfloat16").stock is None
