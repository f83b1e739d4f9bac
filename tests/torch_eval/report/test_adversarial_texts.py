"""The choice of adversarial sentences, and the words marked in them."""

from tests.helpers import made_up_run as made_up
from tests.helpers.made_up_run import OUTCOMES
from torch_eval.report import render
from torch_eval.report.adversarial_texts import pick


def test_examples_prefer_one_that_only_the_first_model_falls_for():
    by_model = {m: {r["index"]: r for r in made_up.attacked(*OUTCOMES[m])} for m in OUTCOMES}
    # Index 3 is the first that fools fine-tune (0 to 5) while the ticket (0 to 2) holds.
    assert pick(by_model) == [(3, "finetune"), (0, "robust-0.30")]
    assert pick({}) == []


def test_compare_marks_changed_words_only():
    before, after = render.compare("A fine film", "a bonny film")
    assert [text for text, changed in before if changed] == ["fine"]
    assert [text for text, changed in after if changed] == ["bonny"]
    assert "".join(text for text, _ in after) == "a bonny film"
