"""The order in which a search goes through the words, against TextAttack's own."""

from collections import OrderedDict

import pytest
import torch
from textattack.shared import AttackedText

from tests.helpers.victims import write_bert
from torch_eval.bench import stock_textattack
from torch_eval.recipes import recipes, ties
from torch_eval.recipes.attacked_text import Text
from torch_eval.victim.classifier import Victim

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTH = 32
WORDS = "gripping dull moving stale honest loud superb silly rare long warm bleak funny witty crude tender brisk sharp"
TEXTS = [WORDS, f"{WORDS} \u2603\u2603 \u2604\u2604 dull dull", f"{WORDS} {WORDS}"]


def order(attack, make, text):
    words = make(OrderedDict(sentence=text))
    attack.goal_function.init_attack_example(words, 0)
    return attack.search_method._get_index_order(words)[0]


@pytest.mark.parametrize("recipe", ["textfooler", "bertattack"])  # they delete words, or put the unknown one
@pytest.mark.parametrize("spread", [1.0, 3e-5, 0.0], ids=["clear", "nearly tied", "tied"])
def test_words_stand_in_the_stock_order_as_far_as_it_is_asked_for(spread, recipe, tmp_path, monkeypatch):
    victim = Victim(write_bert(tmp_path), LENGTH)
    with torch.no_grad():
        victim.model.bert.pooler.dense.weight.mul_(spread)
    victim.model.save_pretrained(tmp_path)
    spec, settled, settle = recipes.Spec(recipe, ("sentence",), ("sentence",), candidates=4), [], ties.settle
    monkeypatch.setattr(ties, "settle", lambda some, victim: settled.extend(some) or settle(some, victim))
    ours = recipes.build(spec, Victim(tmp_path, LENGTH))
    stock = stock_textattack.build(spec, stock_textattack.victim(tmp_path, LENGTH))
    for text in TEXTS:
        stock_order, our_order = order(stock, AttackedText, text).tolist(), order(ours, Text, text)
        settled.clear()
        assert our_order[0] == stock_order[0]
        at_first = len(settled)
        assert list(our_order) == stock_order and len(stock_order) > 10
        if (spread, text) == (3e-5, WORDS):
            assert at_first < len(settled)
