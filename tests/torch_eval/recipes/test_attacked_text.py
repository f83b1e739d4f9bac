"""Texts put together from what has changed, against TextAttack's own class."""

import random
from collections import OrderedDict

import pytest
import textattack.shared.utils
from textattack.shared import AttackedText

from torch_eval.recipes.attacked_text import Text

WORDS = [
    "film",
    "it's",
    "I",
    "T",
    "SPLIT",
    "well-made",
    "x",
    "--",
    "'quoted'",
    "😀film",
    "北京很好看的电影",
    "e\u0301te\u0301",
    "*",
    "*bold*",
    "a",
]
NEW = ["", "dull", "two words", "'", "and a film", "film", "北京很好", "-du ll-", "d)ull", "ⅼ𝟕ꞙ", "du-ll", "_"]


def random_text(generator, columns):
    spaces = [" ", "  ", ", ", "", "\t", " (", ") ", ". "]
    texts = [
        "".join(generator.choice(WORDS) + generator.choice(spaces) for _ in range(generator.randint(1, 8)))
        for _ in range(columns)
    ]
    return OrderedDict(zip(("question", "sentence"), texts))


def outcome(function, *arguments):
    """A text's content and attributes, or the kind of error."""
    try:
        new = function(*arguments)
    except (IndexError, ValueError) as error:
        return type(error)
    attributes = dict(new.attack_attrs)
    attributes["previous_attacked_text"] = attributes["previous_attacked_text"].text
    attributes["original_index_map"] = attributes["original_index_map"].tolist()
    return new._text_input, attributes, new


@pytest.mark.parametrize("columns", [1, 2])
def test_candidates_are_those_of_the_stock_class(columns):
    generator, comparisons = random.Random(columns), 0
    for _ in range(150):
        text = Text(random_text(generator, columns))
        for _ in range(3):  # changes of changed texts too
            words = list(text.words)
            if not words:
                break
            for i in generator.sample(range(len(words)), min(len(words), generator.choice([1, 1, 2, 3]))):
                words[i] = generator.choice(NEW)
            expected = outcome(AttackedText.generate_new_attacked_text, text, words)
            ours = outcome(text.generate_new_attacked_text, words)
            if isinstance(expected, type):
                assert ours == expected
                break
            assert ours[:2] == expected[:2], (text, words)
            split = [textattack.shared.utils.words_from_text(column) for column in ours[0].values()]
            assert ours[2].words_per_input == split, (text, words)
            comparisons += 1
            text = ours[2]
    assert comparisons > 200


def test_single_texts_are_those_of_the_stock_class():
    text, stock = (kind(OrderedDict(sentence="An honest, quiet film -- it's 北京's")) for kind in (Text, AttackedText))
    assert (text.words, text.num_words, text.text) == (stock.words, stock.num_words, stock.text)
    for change in (lambda t: t.delete_word_at_index(0), lambda t: t.replace_word_at_index(2, "two words")):
        new, expected = change(text), change(stock)
        assert new.words == AttackedText(new._text_input).words and new.num_words == len(new.words)
        maps = [t.attack_attrs["original_index_map"].tolist() for t in (new, expected)]
        assert maps[0] == maps[1]


def test_candidates_of_very_long_texts_cost_little(monkeypatch):
    """Stock would copy the rest of the text for each word: 10,000 times 10,000 characters for one candidate."""
    text = Text(OrderedDict(sentence="so good " * 5000))
    splits = []
    monkeypatch.setattr("textattack.shared.attacked_text.words_from_text", lambda word: splits.append(word) or [word])
    words = list(text.words)
    text.generate_new_attacked_text(words)
    splits.clear()
    words[7] = "dull"
    assert text.generate_new_attacked_text(words).text.count("dull") == 1
    assert splits == ["dull"]
