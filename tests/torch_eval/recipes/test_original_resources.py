"""The original resources: small files in the real formats, against NLTK's and TextAttack's own readers."""

import json
import pickle
import sys
import types

import numpy as np
import pytest
import torch
from textattack.shared import AttackedText

from configs.contract.basics.errors import UserError
from tests.helpers.victims import write_bert
from torch_eval.assets import original, packaged
from torch_eval.recipes import recipes
from torch_eval.recipes.original_resources import Original, tagger

WORDS = [f"word{i}" for i in range(60)]


@pytest.fixture
def folder(tmp_path):
    """All files that `original.FILES` names."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((60, 8)).astype(np.float32)
    near = np.argsort(((vectors[:, None] - vectors[None]) ** 2).sum(-1), 1)
    (tmp_path / "paragramcf").mkdir()
    np.save(tmp_path / "paragramcf/paragram.npy", vectors)
    np.save(tmp_path / "paragramcf/nn.npy", near)
    (tmp_path / "paragramcf/wordlist.pickle").write_bytes(pickle.dumps({word: i for i, word in enumerate(WORDS)}))
    for name in original.FILES["sentence encoder"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    tags = tmp_path / original.TAGGER
    tags.mkdir(parents=True)
    stem = tags / "averaged_perceptron_tagger_eng"
    weights = {"bias": {"NN": 1.0, "JJ": 0.5}, "i suffix ful": {"JJ": 3.0}}
    stem.with_suffix(".weights.json").write_text(json.dumps(weights))
    stem.with_suffix(".tagdict.json").write_text(json.dumps({"the": "DT", "runs": "VBZ"}))
    stem.with_suffix(".classes.json").write_text(json.dumps(["DT", "JJ", "NN", "VBZ"]))
    (tmp_path / "nltk_data/taggers/universal_tagset").mkdir()
    (tmp_path / "nltk_data/taggers/universal_tagset/en-ptb.map").write_text("DT\tDET\nJJ\tADJ\nNN\tNOUN\n")
    (tmp_path / "nltk_data/corpora/stopwords").mkdir(parents=True)
    (tmp_path / "nltk_data/corpora/stopwords/english").write_text("i\nme\nthe\n")
    for path in [tags.parent.parent, tags.parent, tags]:
        path.chmod(0o755)
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    mlm = tmp_path / "bert-base-uncased"
    tokenizer = AutoTokenizer.from_pretrained(write_bert(tmp_path / "victim"))
    torch.manual_seed(0)
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertForMaskedLM(config).save_pretrained(mlm)
    tokenizer.save_pretrained(mlm)
    return tmp_path


@pytest.fixture
def tensorflow_hub(monkeypatch):
    """Stands in for the package, which is not in the requirements: a model gives `outputs` with a `numpy` method."""
    hub = types.ModuleType("tensorflow_hub")
    hub.__spec__ = types.SimpleNamespace()
    hub.loaded = []

    class Vectors(np.ndarray):
        def numpy(self):
            return np.asarray(self)

    def load(path):
        hub.loaded.append(path)
        return lambda texts: {"outputs": np.array([[len(t), 1, 2] for t in texts], np.float32).view(Vectors)}

    hub.load = load
    monkeypatch.setitem(sys.modules, "tensorflow_hub", hub)
    return hub


def spec(recipe, folder):
    return recipes.Spec(recipe, ("sentence",), ("sentence",), resources="original", resources_dir=folder, candidates=3)


def test_what_is_missing_is_named_file_by_file(folder, tensorflow_hub, tmp_path):
    with pytest.raises(UserError, match="attack.resources_dir=FOLDER"):
        recipes.describe(spec("textfooler", None))
    (folder / "paragramcf/nn.npy").unlink()
    (folder / "paragramcf/paragram.npy").unlink()
    with pytest.raises(UserError, match="put paragramcf/paragram.npy, paragramcf/nn.npy into") as error:
        recipes.describe(spec("textfooler", str(folder)))
    assert "wordlist" not in str(error.value) and "\n" not in str(error.value)


def test_the_missing_package_is_named(folder):
    with pytest.raises(UserError, match="pip install tensorflow tensorflow_hub"):
        recipes.describe(spec("textbugger", str(folder)))


def test_manifests_hold_the_hash_of_every_file_and_textattacks_parameters(folder, tensorflow_hub):
    described = recipes.describe(spec("textfooler", str(folder)))
    assert described["resources"]["from"] == "original"
    assert described["resources"]["synonyms"]["paragramcf/nn.npy"] == original.file_hash(folder / "paragramcf/nn.npy")
    assert described["parameters"]["word distance"] == {"min_cos_sim": 0.5}
    assert described["resources"]["stop words"] == packaged.describe("stop words")  # its own; the others take NLTK's
    bugger = recipes.describe(spec("textbugger", str(folder)))["resources"]["stop words"]
    assert list(bugger) == ["nltk_data/corpora/stopwords/english"]


def test_synonyms_are_textattacks_embedding(folder):
    embedding = Original(str(folder)).synonyms()
    vectors = np.load(folder / "paragramcf/paragram.npy")
    near = np.argsort(((vectors - vectors[7]) ** 2).sum(1))[1:6]
    assert list(embedding.nearest_neighbours(embedding.word2index("word7"), 5)) == near.tolist()
    expected = vectors[7] @ vectors[3] / np.linalg.norm(vectors[7]) / np.linalg.norm(vectors[3])
    assert embedding.get_cos_sim("word7", "word3") == pytest.approx(expected, abs=1e-6)


def test_vectors_that_do_not_fit_or_run_code_are_refused(folder):
    words = folder / "paragramcf/wordlist.pickle"
    words.write_bytes(pickle.dumps({"one": 0}))
    with pytest.raises(UserError, match="do not fit"):
        Original(str(folder)).synonyms()
    words.write_bytes(pickle.dumps(WORDS))
    with pytest.raises(UserError, match="wordlist.pickle: holds a list"):
        Original(str(folder)).synonyms()
    words.write_bytes(b"NN\x85R.")  # a call of None
    with pytest.raises(UserError, match="not TextAttack's counter-fitted vectors .TypeError: 'NoneType' object"):
        Original(str(folder)).synonyms()
    words.write_bytes(pickle.dumps(print))
    with pytest.raises(UserError, match="it asks for builtins.print"):
        Original(str(folder)).synonyms()


def test_vectors_of_another_shape_are_refused(folder):
    np.save(folder / "paragramcf" / "nn.npy", np.arange(len(np.load(folder / "paragramcf" / "nn.npy"))))
    with pytest.raises(UserError, match="do not fit"):
        Original(str(folder)).synonyms()


def test_tags_are_nltks(folder, monkeypatch):
    import nltk

    words = "the beautiful plot runs 1984".split()
    monkeypatch.setattr(nltk.data, "path", [str(folder / "nltk_data")])
    nltk.tag._get_tagger.cache_clear()
    expected = [tag for _, tag in nltk.pos_tag(words, tagset="universal")]
    nltk.tag._get_tagger.cache_clear()
    monkeypatch.setattr(nltk.data, "path", [])  # it finds its own way
    assert (
        [tagger(folder)(tuple(words), i) for i in range(len(words))] == expected == ["DET", "ADJ", "NOUN", "X", "NOUN"]
    )


def test_stop_words_are_the_recipes_own(folder):
    assert Original(str(folder)).stop_words("textbugger") == {"i", "me", "the"}
    assert len(Original(str(folder)).stop_words("textfooler")) > 200


@pytest.mark.parametrize("recipe", ["textfooler", "textbugger", "bertattack"])
def test_attacks_run_on_them(recipe, folder, tensorflow_hub):
    from torch_eval.victim.classifier import Victim

    victim = Victim(folder / "victim", 16)
    label = victim(["word1 word2 word3"]).argmax(1).item()
    attack = recipes.build(spec(recipe, str(folder)), victim)
    result = attack.attack(AttackedText("word1 word2 word3"), label)
    assert result.num_queries > 3 and tensorflow_hub.loaded == [str(folder / "universal-sentence-encoder")]
