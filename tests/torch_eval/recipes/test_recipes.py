"""Recipes against TextAttack's own classes with the same resources and seed."""

import os
from collections import OrderedDict
from dataclasses import replace
from types import SimpleNamespace

import pytest
from textattack.goal_functions import UntargetedClassification
from textattack.shared import AttackedText
from textattack.shared.utils import set_seed
from textattack.transformations import WordSwapMaskedLM

from tests.helpers.victims import write_bert
from torch_eval.attack.example import attack_text
from torch_eval.bench import stock_textattack
from torch_eval.recipes import fast_classes, packaged_resources, recipes, textattack_offline
from torch_eval.recipes.recipes import Spec
from torch_eval.victim.classifier import Victim

LENGTH = 32
SENTENCES = [
    "a thoroughly enjoyable film with a superb cast and a moving story",
    "the plot is dull , predictable and overlong",
    "an uninspired rehashing of melodramatic whodunits",
]
PAIRS = [("premise", "hypothesis"), ("question", "sentence"), ("question1", "question2")]
pytestmark = pytest.mark.usefixtures("one_thread")
RECIPES = ["textfooler", "textbugger", "bertattack"]


def single(recipe, **more):
    return Spec(recipe, ("sentence",), ("sentence",), candidates=4, **more)


def outcome(result):
    return type(result).__name__, result.num_queries, result.perturbed_result.attacked_text.text


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("victim"))


# The three recipes on single texts: test_exactness.py.
SPECS = [single("bertattack", protocol="official")]
# TextFooler alone tells pairs apart by the names of their columns.
SPECS += [Spec("textfooler", columns, columns[1:], candidates=4) for columns in PAIRS]
SPECS += [Spec(recipe, PAIRS[0], PAIRS[0][1:], candidates=4) for recipe in RECIPES[1:]]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.protocol}-{spec.recipe}-{spec.columns[0]}")
def test_same_outcomes_queries_and_texts_as_stock(spec, model):
    victim, wrapper = Victim(model, LENGTH), stock_textattack.victim(model, LENGTH)
    texts = [(SENTENCES[i - 1], SENTENCES[i])[-len(spec.columns) :] for i in range(len(SENTENCES))]
    labels = victim(texts).argmax(1).tolist()
    results, queries = [], 0
    for build in (lambda: recipes.build(spec, victim), lambda: stock_textattack.build(spec, wrapper)):
        attack, outcomes = build(), []
        for i, (text, label) in enumerate(zip(texts, labels)):
            set_seed(i)
            result = attack.attack(OrderedDict(zip(spec.columns, text)), label)
            outcomes.append(outcome(result))
            queries += result.num_queries
            if len(spec.columns) == 2:
                assert result.perturbed_result.attacked_text.tokenizer_input[0] == text[0]
        results.append(outcomes)
    assert results[0] == results[1]
    assert queries > 40  # the attacks did something


@pytest.mark.parametrize("candidates", [3, 5])
def test_masked_words_are_the_stock_candidates(candidates):
    model, tokenizer = packaged_resources.masked_model(packaged_resources.packaged_mlm())
    sizes = {"max_length": 64, "max_candidates": candidates}
    parameters = {"masked_language_model": model, "tokenizer": tokenizer, **sizes}
    theirs = WordSwapMaskedLM(method="bert-attack", **parameters)
    ours = fast_classes.MaskedWords(**parameters)
    several_pieces = count = 0
    for sentence in SENTENCES:
        text = AttackedText(sentence)
        for i, word in enumerate(text.words):
            pieces = len(tokenizer.tokenize(word))
            if candidates**pieces > 200:
                continue
            several_pieces += pieces > 1
            expected = [t.text for t in theirs._get_transformations(text, {i})]
            assert [t.text for t in ours._get_transformations(text, {i})] == expected
            count += len(expected)
    assert several_pieces >= 2 and count > 20


def test_more_candidates_than_pieces_are_all_pieces():
    """Stock fails on the first word, which a run would meet after all of its training."""
    ours = packaged_resources.Packaged().masked_words(max_length=64, max_candidates=10**6)
    (rows,) = {len(row) for row in ours._predictions(SENTENCES[0])}
    assert rows == ours._language_model.config.vocab_size


def test_words_cut_off_have_no_candidates():
    ours = packaged_resources.Packaged().masked_words(max_length=6, max_candidates=3)
    text = AttackedText(SENTENCES[0])
    assert ours._get_transformations(text, {1})
    assert ours._get_transformations(text, {9}) == []


def allowed_words(attack, columns):
    text = AttackedText(OrderedDict(zip(columns, ("great strange film", "clever wonderful acting"))))
    allowed = set(range(6))
    for constraint in attack.pre_transformation_constraints:
        allowed &= constraint(text, attack.transformation)
    return allowed


@pytest.mark.parametrize("recipe", [*RECIPES, "deepwordbug"])
@pytest.mark.parametrize("columns", PAIRS)
@pytest.mark.parametrize("protocol", ["paper", "official"])
def test_the_columns_that_may_change(recipe, columns, protocol, model):
    spec = Spec(recipe, columns, columns[1:], protocol=protocol, candidates=3)
    protected = protocol == "paper" or (recipe, columns[0]) == ("textfooler", "premise")
    assert allowed_words(recipes.build(spec, Victim(model, LENGTH)), columns) == set(range(3 if protected else 0, 6))
    assert recipes.describe(spec)["attacked"] == list(columns[1:] if protected else columns)


def stock_recipe(name, victim, monkeypatch):
    """One of TextAttack's recipes as it builds it, with our resources in place of downloads."""
    import textattack.transformations.word_swaps.word_swap_masked_lm as stock_masked
    from textattack import attack_recipes
    from textattack.shared import WordEmbedding

    mlm, tokenizer = packaged_resources.masked_model(packaged_resources.packaged_mlm())
    monkeypatch.setattr(WordEmbedding, "counterfitted_GLOVE_embedding", staticmethod(packaged_resources.synonyms))
    monkeypatch.setattr(stock_masked.AutoModelForMaskedLM, "from_pretrained", lambda *a, **k: mlm)
    monkeypatch.setattr(stock_masked.AutoTokenizer, "from_pretrained", lambda *a, **k: tokenizer)
    monkeypatch.setattr(attack_recipes.textbugger_li_2018, "WordSwapHomoglyphSwap", fast_classes.HomoglyphSwap)
    return getattr(attack_recipes, name).build(victim)


KINDS = ("SentenceEncoder", "PartOfSpeech", "MaxWordsPerturbed", "WordEmbeddingDistance")


def of_kind(attack, kind):
    return [values(c) for c in attack.constraints if kind in [k.__name__ for k in type(c).__mro__]]


@pytest.mark.parametrize(
    "recipe, name",
    [("textfooler", "TextFoolerJin2019"), ("textbugger", "TextBuggerLi2018"), ("bertattack", "BERTAttackLi2020")],
)
def test_parameters_are_textattacks_but_for_the_smallest_cosine(recipe, name, monkeypatch, model):
    victim = Victim(model, LENGTH)
    ours = recipes.build(replace(single(recipe), candidates=8), victim)
    theirs = stock_recipe(name, victim, monkeypatch)
    assert values(ours.search_method) == values(theirs.search_method)
    assert values(ours.transformation) == values(theirs.transformation)
    for kind in KINDS:
        settings, expected = of_kind(ours, kind), of_kind(theirs, kind)
        if kind == "WordEmbeddingDistance" and settings:
            assert (settings[0].pop("min_cos_sim"), expected[0].pop("min_cos_sim")) == (0.4, 0.5)
        assert settings == expected, kind


def test_the_official_bertattack_is_bae_with_synonyms_and_a_looser_encoder(monkeypatch, model):
    """BAE's own objects, changed as the official code changes them."""
    victim = Victim(model, LENGTH)
    ours = recipes.build(single("bertattack", protocol="official"), victim)
    theirs = stock_recipe("BAEGarg2019", victim, monkeypatch)
    assert values(ours.search_method) == values(theirs.search_method)
    assert type(ours.transformation).__name__ == "WordSwapEmbedding" and ours.transformation.max_candidates == 50
    assert of_kind(ours, "PartOfSpeech") == of_kind(theirs, "PartOfSpeech") != []
    changed = {"threshold": 0.2, "metric": "cosine", "window_size": 15, "skip_text_shorter_than_window": False}
    encoder = {**of_kind(theirs, "SentenceEncoder")[0], **changed}
    assert of_kind(ours, "SentenceEncoder") == [encoder]
    assert of_kind(ours, "MaxWordsPerturbed") == of_kind(ours, "WordEmbeddingDistance") == []


def values(part):
    """Plain settings of a part, and of the parts that it is made of."""
    if hasattr(part, "transformations"):
        return [values(one) for one in part.transformations]
    hidden = ("tagger_type", "_tfhub_url", "bound_reached")
    return {
        key: value
        for key, value in vars(part).items()
        if isinstance(value, (int, float, str, bool, type(None))) and key not in hidden and key != "model"
    }


def test_a_budget_of_queries_ends_an_attack(model):
    victim = Victim(model, LENGTH)
    label = victim(SENTENCES[:1]).argmax(1).item()
    attack = recipes.build(single("bertattack", max_queries=5), victim)
    assert attack.attack(OrderedDict(sentence=SENTENCES[0]), label).num_queries == 5


def test_other_recipes_by_name_run_or_say_what_they_miss(model):
    from configs.contract.experiment.sections import RECIPES as known

    assert {*known, "official bertattack"} == {*recipes.OWN, *recipes.OTHERS}
    victim = Victim(model, LENGTH)
    label = victim(SENTENCES[:1]).argmax(1).item()
    attack = recipes.build(single("deepwordbug"), victim)
    assert attack.attack(OrderedDict(sentence=SENTENCES[0]), label).num_queries > 1
    assert recipes.describe(single("deepwordbug"))["parameters"] == "TextAttack's DeepWordBugGao2018"
    assert recipes.NEEDS.keys() == recipes.OTHERS.keys() - {"deepwordbug", "pruthi"}
    with pytest.raises(recipes.CannotRun, match="attack.recipes: clare needs distilroberta-base, .*; missing here: "):
        recipes.build(single("clare"), victim)


def test_another_recipe_is_made_an_own_one_by_its_entry(model, monkeypatch):
    """As CONTRIBUTING.md says. DeepWordBug has no sentence encoder; stop words are those of the packaged resources."""
    from textattack.constraints.overlap import LevenshteinEditDistance
    from textattack.transformations import WordSwapRandomCharacterDeletion as Deletion

    def parts(parameters, source):
        return Deletion(**parameters["deletion"]), [LevenshteinEditDistance(**parameters["distance"])]

    parameters = {"search": {"wir_method": "unk"}, "deletion": {}, "distance": {"max_edit_distance": 30}}
    monkeypatch.setitem(recipes.OWN, "deepwordbug", recipes.OwnRecipe(parts, ("stop words",), parameters))
    spec, victim = single("deepwordbug"), Victim(model, LENGTH)
    told = recipes.describe(spec)
    assert told["parameters"] == parameters and told["resources"]["from"] == "packaged"
    ours, stock = recipes.build(spec, victim), stock_textattack.build(spec, stock_textattack.victim(model, LENGTH))
    assert type(ours.transformation) is Deletion and [type(one) for one in ours.constraints] == [
        LevenshteinEditDistance
    ]
    for text, label in zip(SENTENCES, victim(SENTENCES).argmax(1).tolist()):
        set_seed(1)
        expected = outcome(stock.attack(OrderedDict(sentence=text), label))
        set_seed(1)
        assert outcome(ours.attack(OrderedDict(sentence=text), label)) == expected


def test_the_goal_of_other_recipes_too_is_another_label(model, monkeypatch):
    """Kuleshov's in TextAttack is a low probability: it would skip texts that are classified correctly."""
    textattack_offline.prepare()
    from textattack import attack_recipes

    def kuleshov(victim):
        attack = attack_recipes.DeepWordBugGao2018.build(victim)
        attack.goal_function = UntargetedClassification(victim, target_max_score=0.7)
        return attack

    monkeypatch.setattr(attack_recipes, "Kuleshov2017", SimpleNamespace(build=kuleshov))
    victim = Victim(model, LENGTH, temperature=8.0)  # no probability is as high as 0.7
    attack = recipes.build(single("kuleshov"), victim)
    for index, sentence in enumerate(SENTENCES):
        label = victim([sentence]).argmax(1).item()
        record = attack_text(attack, single("kuleshov"), 1, index, {"sentence": sentence, "label": label})
        assert record["outcome"] != "skipped" and record["original_score"] < 0.7
        assert (record["outcome"] == "success") == (record["perturbed_prediction"] != label)


def test_recipes_that_would_download_never_reach_the_network(model, monkeypatch):
    look_ups = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: look_ups.append(1))
    for recipe, file in [("iga", "word_embeddings/paragramcf"), ("pso", "hownet/word_candidates_sense.pkl")]:
        with pytest.raises(recipes.CannotRun, match=f"put https://textattack.s3.amazonaws.com/.*{file}, unpacked"):
            recipes.build(single(recipe), Victim(model, LENGTH))
        assert "from" not in recipes.describe(single(recipe))["resources"]
    with pytest.raises(recipes.CannotRun, match="wordnet"):
        recipes.build(single("pwws"), Victim(model, LENGTH))
    assert not look_ups


def test_the_users_own_folders_stand_in_front(monkeypatch, tmp_path):
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "mine"))
    monkeypatch.setenv("TA_CACHE_DIR", str(tmp_path / "cache"))
    for _ in range(2):  # in a worker again, which inherits what was set
        textattack_offline.set_environment()
    first, *rest = os.environ["NLTK_DATA"].split(os.pathsep)
    assert first == str(tmp_path / "mine") and len(rest) == 1
    (tmp_path / "cache" / "file").touch()
    assert textattack_offline.local_file("file") == str(tmp_path / "cache" / "file")
