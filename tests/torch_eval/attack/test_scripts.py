"""Attacks on texts of many scripts: they come back, change only their column, and find what TextAttack finds."""

import random
import time
from collections import OrderedDict

import pytest

from configs.contract.basics.errors import UserError
from tests.helpers.attacked_runs import labels_by_victim, one_thread
from tests.helpers.victims import write_bert
from torch_eval.attack import example, workers
from torch_eval.attack.workers import Target
from torch_eval.bench.attacks import attack_stock
from torch_eval.recipes import attacked_text, fast_classes, packaged_resources
from torch_eval.recipes.recipes import Spec

RECIPES = ["textfooler", "textbugger", "bertattack"]
PAIR = ("question", "sentence")
MANY_PIECES = [
    "the greek word ευχαριστώ means thanks",
    "the korean greeting 안녕하세요 was funny",
    "sightseeing is достопримечательность in that film",
]
MIXED_PAIRS = [
    ("What's the capital's well-known name?", "Beijing (北京) is China's capital."),
    ("Where's the old temple's gate?", "The gate of 東大寺 isn't far from the park's east side."),
    ("¿Qué's 北京 user's name?", "The film isn't dull, it's an honest portrait."),
]
WORDS = [
    *"film isn't honest portrait dull well-made slow story x Great FINE it's director's".split(),
    *["e\u0301te\u0301", "a\u0301\u0302\u0303", "naïve", "İstanbul", "ß", "ﬁne", "½", "don’t", "'quoted'", "--", "_x_"],
    *["*star*", "user@site", "<b>", "😀", "😀film", "👩‍👩‍👧", "🇩🇪", "שלום", "\u200fمرحبا\u200e", "हिन्दी", "ภาษาไทย"],
    *[
        "北京",
        "film北京",
        "東大寺",
        "한국",
        "zero\u200bwidth",
        "\ufeff",
        "\x07",
        "a\x00b",
        "\u2028",
        "\x85",
        "co\u00adop",
        "привет",
    ],
]


PLAIN = WORDS[:9] + ["naïve", "e\u0301te\u0301", "don’t", "'quoted'", "--", "\x85", "co\u00adop", "zero\u200bwidth"]


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """A random victim, on one thread, so that ties break as in the run."""
    with one_thread():
        yield Target(write_bert(tmp_path_factory.mktemp("victim"), seed=3), 48)


def single(recipe, candidates=3, **more):
    return Spec(recipe, ("sentence",), ("sentence",), candidates=candidates, **more)


def labelled(target, spec, text):
    """An example with the label that the victim gives it."""
    [label] = labels_by_victim(target, [text])
    return {**dict(zip(spec.columns, text)), "label": label}


def attack(target, spec, text, max_seconds=None, function=workers.attack_example):
    arguments = () if max_seconds is None else (max_seconds,)
    return function(target, spec, 1, 0, labelled(target, spec, text), *arguments)


@pytest.mark.parametrize("text", MANY_PIECES)
def test_a_budget_of_time_ends_the_search_for_combinations(target, text, monkeypatch):
    """Words of many pieces have 48**n combinations, of which none may be one word."""
    monkeypatch.setattr(fast_classes, "COMBINATIONS", 10**12)
    spec = single("bertattack", 48)
    workers.load_attack(
        workers.load_victim(target), spec
    )  # outside the measurement: its models are read once, for all texts
    started = time.process_time()  # other work on this machine does not count
    record = attack(target, spec, (text,), max_seconds=1)
    assert time.process_time() - started < 10
    assert record["outcome"] in ("timeout", "success")


def test_a_bound_of_combinations_is_written_down(target, monkeypatch):
    """Without a budget: within the bound the candidates are those that stock would find."""
    monkeypatch.setattr(fast_classes, "COMBINATIONS", 20_000)
    bounds = [attack(target, single("bertattack", 48), (text,)).get("bound") for text in MANY_PIECES]
    assert "candidates" in bounds
    assert "bound" not in attack(target, single("bertattack"), ("a fine film",))


def test_candidates_within_the_bound_are_the_first_of_all(monkeypatch):
    """The pieces are given: what the masked model predicts depends on the processor that trained it."""
    transformation = packaged_resources.Packaged().masked_words(max_length=64, max_candidates=4)
    pieces = transformation._lm_tokenizer.convert_tokens_to_ids(["slow", "##ly", "##er"])
    monkeypatch.setattr(transformation, "_predictions", lambda _: [pieces] * 64)
    text = attacked_text.AttackedText("an uninspired whodunits film")
    whole = [new.text for new in transformation._get_transformations(text, {2})]
    assert len(whole) > 1
    assert not transformation.bound_reached
    monkeypatch.setattr(fast_classes, "COMBINATIONS", 1)
    assert [new.text for new in transformation._get_transformations(text, {2})] == whole[:1]
    assert transformation.bound_reached


@pytest.mark.parametrize("recipe", RECIPES)
def test_thousands_of_letters_without_a_space_come_back(target, recipe):
    record = attack(target, single(recipe), (f"a fine {'ab' * 1500} film",))
    assert record["outcome"] in ("success", "failure")


LONG = {"Latin": "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=10_000))}
LONG["CJK"] = "".join(map(chr, random.Random(0).choices(range(0x4E00, 0x9FFF), k=10_000)))


@pytest.mark.parametrize("columns", [("sentence",), PAIR], ids=["single", "pair"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_budget_of_time_holds_for_ten_thousand_letters_without_a_space(target, recipe, columns):
    """Of the first Chinese text a dictionary is read, which takes longer than the budget."""
    spec = Spec(recipe, columns, columns[-1:], candidates=3)
    workers.load_attack(workers.load_victim(target), spec)
    for letters in LONG.values():
        text, started = ("a fine film?", letters)[-len(columns) :], time.process_time()
        record = attack(target, spec, text, max_seconds=0.3)
        assert time.process_time() - started < 5
        assert record["outcome"] in ("timeout", "success", "failure")
        assert [record["perturbed"][column] for column in columns[:-1]] == list(text[:-1])


def test_homoglyphs_of_very_long_words_are_bounded():
    swap, stock = fast_classes.HomoglyphSwap(), fast_classes.WordSwapHomoglyphSwap._get_replacement_words
    for word in ("film", "ab" * 500):
        assert swap._get_replacement_words(word) == stock(swap, word)
        assert not swap.bound_reached
    word = "ab" * 5000
    assert swap._get_replacement_words(word) == stock(swap, word)[:100]
    assert swap.bound_reached


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("text", MIXED_PAIRS)
def test_only_the_attacked_column_changes(target, recipe, text):
    """One Chinese character selects another splitter: of the whole text in TextAttack, of its own column here."""
    spec = Spec(recipe, PAIR, PAIR[1:], candidates=3)
    record = attack(target, spec, text)
    assert record["perturbed"]["question"] == text[0]
    texts = attacked_text.Text(dict_of(spec, text))
    assert texts.words == texts.words_per_input[0] + texts.words_per_input[1]
    first = Spec(recipe, PAIR, PAIR[:1], candidates=3)
    assert attack(target, first, text)["perturbed"]["sentence"] == text[1]


def dict_of(spec, text):
    return OrderedDict(zip(spec.columns, text))


def test_the_end_of_a_pair_is_attacked(target):
    """TextAttack counted the question's words twice over and never reached the last words of the sentence."""
    from torch_eval.recipes import recipes

    spec = Spec("textfooler", PAIR, PAIR[1:])
    built = recipes.build(spec, workers.load_victim(target))
    text = attacked_text.Text(dict_of(spec, MIXED_PAIRS[0]))
    allowed = set(range(len(text.words)))
    for constraint in built.pre_transformation_constraints:
        allowed &= constraint(text, built.transformation)
    assert {text.words[i] for i in allowed} == {"Beijing", "北京", "China", "capital"}


def random_text(generator):
    words = generator.choice([WORDS, PLAIN])
    return " ".join(generator.choices(words, k=generator.randint(1, 9)))


def compares(target, spec, text):
    """Whether TextAttack splits the text as we do, and comes back."""
    columns = dict_of(spec, text)
    words = attacked_text.Text(columns).words
    pieces = [tokenizer().tokenize(word) for word in words]
    return attacked_text.AttackedText(columns).words == words and all(
        spec.candidates ** len(some) <= 3000 for some in pieces
    )


def tokenizer():
    return packaged_resources.masked_model(packaged_resources.packaged_mlm())[1]


@pytest.mark.parametrize("columns", [("sentence",), PAIR], ids=["single", "pair"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_texts_of_many_scripts(target, recipe, columns):
    """Every attack ends, and where TextAttack reads the text alike, it ends as TextAttack's does."""
    spec, generator, comparisons = Spec(recipe, columns, columns[-1:], candidates=3), random.Random(recipe), 0
    for _ in range(14):
        text = tuple(random_text(generator) for _ in columns)
        ours = attack(target, spec, text)
        assert [ours["perturbed"][column] for column in columns[:-1]] == list(text[:-1])
        if compares(target, spec, text):
            stock = attack(target, spec, text, function=attack_stock)
            comparisons += 1
            for key in ("outcome", "queries", "perturbed"):
                assert ours[key] == stock[key], (key, text)
    assert comparisons >= 3


WRONG = {
    "its label is 1, 0 was attacked": {"label": 0},
    "its columns are not question, sentence": {"perturbed": {"sentence": "b"}},
    "another text was attacked": {"original": {"question": "a", "sentence": "c"}},
    "the protected column question was changed": {"perturbed": {"question": "a ", "sentence": "d"}},
    "its perturbed text does not have the score": {"perturbed_score": 0.7},
    "its original text does not have the score": {"original_prediction": 0},
}


@pytest.mark.parametrize("message", WRONG)
def test_a_record_that_is_not_of_its_example_is_an_error(message):
    spec, texts = Spec("textfooler", PAIR, PAIR[1:]), {"question": "a", "sentence": "b"}
    record = {
        "index": 6,
        "label": 1,
        "original": texts,
        "perturbed": {**texts, "sentence": "d"},
        "original_prediction": 1,
        "perturbed_prediction": 0,
        "original_score": 0.9,
        "perturbed_score": 0.2,
    }
    check = (spec, {**texts, "label": 1}, [[0.1, 0.9], [0.8, 0.2]], "float32")
    example.verify(record, *check)
    with pytest.raises(UserError, match=rf"textfooler, example of index 6 \(line 7\): {message}"):
        example.verify({**record, **WRONG[message]}, *check)
