"""Recipes against TextAttack's own classes with the same resources and seed."""

from collections import OrderedDict

import pytest
import torch
from test_victim import stock_wrapper, tiny_bert

from torch_eval import packaged, recipes, resources
from torch_eval.victim import Victim

from textattack.shared import AttackedText
from textattack.shared.utils import set_seed
from textattack.transformations import WordSwapMaskedLM

LENGTH = 32
SENTENCES = [
    "a thoroughly enjoyable film with a superb cast and a moving story",
    "the plot is dull , predictable and overlong",
    "an uninspired rehashing of melodramatic whodunits",
]


def outcome(result):
    return type(result).__name__, result.num_queries, result.perturbed_result.attacked_text.text


@pytest.fixture(autouse=True)
def one_thread():
    """As in a worker; many threads on busy cores make these small models ten times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("victim"))


def stock_attack(recipe, folder, candidates, monkeypatch):
    """The same resources in stock classes where these exist, no caches of ours, stock wrapper."""
    from textattack.constraints.semantics.sentence_encoders.sentence_encoder import SentenceEncoder

    class PlainEncoder(SentenceEncoder):
        model = resources.sentence_model()

        def encode(self, sentences):
            return torch.from_numpy(self.model.encode(list(sentences)))

    monkeypatch.setattr(resources, "PackagedSentenceEncoder", PlainEncoder)
    monkeypatch.setattr(
        resources, "FastMaskedLM", lambda **kw: WordSwapMaskedLM(method="bert-attack", **kw)
    )
    monkeypatch.setattr(recipes, "BATCH", 32)
    return recipes.build(recipe, stock_wrapper(folder, LENGTH), ["sentence"], ["sentence"], candidates)


@pytest.mark.parametrize("recipe", list(recipes.PARAMETERS))
def test_same_outcomes_queries_and_texts_as_stock(recipe, model, monkeypatch):
    victim = Victim(model, LENGTH)
    fast = recipes.build(recipe, victim, ["sentence"], ["sentence"], candidates=4)
    stock = stock_attack(recipe, model, 4, monkeypatch)
    labels = victim(SENTENCES).argmax(1).tolist()
    queries = 0
    for i, (sentence, label) in enumerate(zip(SENTENCES, labels)):
        example, results = OrderedDict(sentence=sentence), []
        for attack in (fast, stock):
            set_seed(i)
            results.append(outcome(attack.attack(example, label)))
        assert results[0] == results[1]
        queries += results[0][1]
    assert queries > 20  # the attacks did something


@pytest.mark.parametrize("candidates", [3, 5])
def test_masked_words_are_the_stock_candidates(candidates):
    model, tokenizer = resources.masked_model()
    parameters = dict(masked_language_model=model, tokenizer=tokenizer, max_length=64, max_candidates=candidates)
    stock = WordSwapMaskedLM(method="bert-attack", **parameters)
    fast = resources.FastMaskedLM(**parameters)
    several_pieces = found = 0
    for sentence in SENTENCES:
        text = AttackedText(sentence)
        for i, word in enumerate(text.words):
            pieces = len(tokenizer.tokenize(word))
            if candidates**pieces > 200:
                continue
            several_pieces += pieces > 1
            expected = [t.text for t in stock._get_transformations(text, {i})]
            assert [t.text for t in fast._get_transformations(text, {i})] == expected
            found += len(expected)
    assert several_pieces >= 2 and found > 20


def test_words_cut_off_have_no_candidates():
    model, tokenizer = resources.masked_model()
    fast = resources.FastMaskedLM(
        masked_language_model=model, tokenizer=tokenizer, max_length=6, max_candidates=3
    )
    text = AttackedText(SENTENCES[0])
    assert fast._get_transformations(text, {1})
    assert fast._get_transformations(text, {9}) == []


@pytest.mark.parametrize("recipe", list(recipes.PARAMETERS))
@pytest.mark.parametrize("columns", [("premise", "hypothesis"), ("question", "sentence"), ("question1", "question2")])
def test_only_the_attacked_column_may_change(recipe, columns, model):
    attack = recipes.build(recipe, Victim(model, LENGTH), columns, columns[1:], candidates=3)
    text = AttackedText(OrderedDict(zip(columns, ("great strange film", "clever wonderful acting"))))
    allowed = set(range(6))
    for constraint in attack.pre_transformation_constraints:
        allowed &= constraint(text, attack.transformation)
    assert allowed == {3, 4, 5}


def test_parameters_are_textattacks_but_for_the_smallest_cosine(monkeypatch, model):
    """Against the stock recipes' own objects, built with our resources in place of downloads."""
    from textattack import attack_recipes
    from textattack.shared import WordEmbedding

    monkeypatch.setattr(WordEmbedding, "counterfitted_GLOVE_embedding", staticmethod(resources.synonyms))
    import textattack.transformations.word_swaps.word_swap_masked_lm as stock_masked

    mlm, tokenizer = resources.masked_model()
    monkeypatch.setattr(stock_masked.AutoModelForMaskedLM, "from_pretrained", lambda *a, **k: mlm)
    monkeypatch.setattr(stock_masked.AutoTokenizer, "from_pretrained", lambda *a, **k: tokenizer)
    monkeypatch.setattr(
        attack_recipes.textbugger_li_2018, "WordSwapHomoglyphSwap", resources.HomoglyphSwap
    )
    names = {
        "textfooler": attack_recipes.TextFoolerJin2019,
        "textbugger": attack_recipes.TextBuggerLi2018,
        "bertattack": attack_recipes.BERTAttackLi2020,
    }
    victim = Victim(model, LENGTH)
    for recipe, stock in names.items():
        ours, theirs = recipes.build(recipe, victim, ["text"], ["text"], candidates=8), stock.build(victim)
        assert values(ours.search_method) == values(theirs.search_method)
        assert values(ours.transformation) == values(theirs.transformation)
        for kind in ("SentenceEncoder", "PartOfSpeech", "MaxWordsPerturbed", "WordEmbeddingDistance"):
            found, expected = (
                [values(c) for c in attack.constraints if kind in [k.__name__ for k in type(c).__mro__]]
                for attack in (ours, theirs)
            )
            if kind == "WordEmbeddingDistance" and found:
                assert (found[0].pop("min_cos_sim"), expected[0].pop("min_cos_sim")) == (0.4, 0.5)
            assert found == expected, kind


def values(part):
    """Plain settings of a part, and of the parts that it is made of."""
    if hasattr(part, "transformations"):
        return [values(one) for one in part.transformations]
    hidden = ("tagger_type", "_tfhub_url")
    return {
        key: value for key, value in vars(part).items()
        if isinstance(value, (int, float, str, bool, type(None))) and key not in hidden and key != "model"
    }


def test_a_poor_masked_model_is_not_called_bertattack(monkeypatch):
    facts = {**packaged.mlm_facts(), "top1": 0.249}
    monkeypatch.setattr(packaged, "mlm_facts", lambda: facts)
    with pytest.raises(recipes.TooPoor, match="24.9%"):
        recipes.describe("bertattack", ["text"], ["text"], 8)
    recipes.describe("textfooler", ["text"], ["text"], 8)


def test_description_is_json_and_names_resources():
    import json

    told = recipes.describe("bertattack", ("a", "b"), ("b",), 48)
    assert json.loads(json.dumps(told)) == told
    assert told["parameters"]["masked words"]["max_candidates"] == 48
    assert set(told["resources"]) == {"masked language model", "stop words", "sentence encoder"}
