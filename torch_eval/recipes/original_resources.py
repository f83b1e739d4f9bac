"""The original resources in the classes that attacks are built of; `torch_eval.assets.original` lists the files."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nltk
import numpy as np
from nltk.tag import PerceptronTagger
from textattack.shared import WordEmbedding

from configs.contract.basics.errors import UserError, first_reason
from torch_eval.assets import packaged
from torch_eval.assets.original import FILES, TAGGER
from torch_eval.recipes import packaged_resources
from torch_eval.recipes.fast_classes import MaskedWords, PartOfSpeech, Resources
from torch_eval.recipes.goal_function import SentenceSimilarity

TAGGED = 1 << 14  # lists of words whose tags are kept, as in stock


class Original(Resources):
    """The original resources of a folder.

    Args:
        folder: Holds the files of `torch_eval.assets.original.FILES`.
    """

    def __init__(self, folder: str) -> None:
        self.root = Path(folder)

    def synonyms(self) -> WordEmbedding:
        """Return TextAttack's embedding of the counter-fitted vectors.

        Raises:
            UserError: The files do not belong together, or a pickle holds other than plain data.
        """
        return _synonyms(self.root / "paragramcf")

    def stop_words(self, recipe: str) -> frozenset[str]:
        """Return the list of a recipe: TextFooler has its own; TextBugger and BERT-Attack take NLTK's."""
        path = packaged.STOP_WORDS if recipe == "textfooler" else self.root / FILES["stop words"][0]
        return frozenset(path.read_text(encoding="utf-8").split())

    def sentence_similarity(self, **parameters: Any) -> SentenceSimilarity:
        """Return the constraint with the Universal Sentence Encoder of TensorFlow Hub."""
        return SentenceSimilarity(_encoder(self.root / "universal-sentence-encoder"), **parameters)

    def part_of_speech(self, **parameters: Any) -> PartOfSpeech:
        """Return the constraint with NLTK's tagger."""
        return PartOfSpeech(tagger(self.root), **parameters)

    def masked_words(self, **parameters: Any) -> MaskedWords:
        """Return BERT-Attack's transformation with bert-base-uncased."""
        model, tokenizer = packaged_resources.masked_model(self.root / "bert-base-uncased")
        return MaskedWords(masked_language_model=model, tokenizer=tokenizer, **parameters)


@functools.cache
def _synonyms(folder: Path) -> WordEmbedding:
    try:
        with open(folder / "wordlist.pickle", "rb") as file:
            index = PlainPickle(file).load()
        vectors, neighbours = (np.load(folder / name) for name in ("paragram.npy", "nn.npy"))
    except Exception as error:  # a damaged pickle can raise any
        raise UserError(f"{folder}: not TextAttack's counter-fitted vectors ({first_reason(error)})") from None
    if not isinstance(index, dict):
        raise UserError(f"{folder / 'wordlist.pickle'}: holds a {type(index).__name__}, not the numbers of words")
    shapes = vectors.shape[:-1], neighbours.shape[:-1]
    if shapes != ((len(index),), (len(index),)) or neighbours.shape[1] < 51:
        raise UserError(
            f"{folder}: {len(index)} words, vectors {vectors.shape} and neighbours {neighbours.shape} do not fit "
            f"together (a row for each word, 51 neighbours or more)"
        )
    return WordEmbedding(vectors, index, {number: word for word, number in index.items()}, neighbours)


@functools.cache
def _encoder(folder: Path) -> Callable[[list[str]], np.ndarray]:
    import tensorflow_hub  # no requirement brings it: only users of the original resources have it

    model = tensorflow_hub.load(str(folder))

    def encode(texts: list[str]) -> np.ndarray:
        vectors = model(texts)
        return (vectors["outputs"] if isinstance(vectors, dict) else vectors).numpy()

    return encode


@functools.cache
def tagger(root: Path) -> Callable[[tuple[str, ...], int], str]:
    """Return a function that tags the word at a place as `nltk.pos_tag` does, with universal tags and given files."""
    folder = str(root / "nltk_data")
    if folder not in nltk.data.path:
        nltk.data.path.append(folder)  # NLTK reads no files elsewhere
    perceptron = PerceptronTagger(loc=str(root / TAGGER))
    lines = (root / FILES["tagger"][-1]).read_text(encoding="utf-8").splitlines()
    universal = dict(line.split("\t") for line in lines if line.strip())
    tag = functools.lru_cache(TAGGED)(perceptron.tag)
    return lambda words, place: universal.get(tag(words)[place][1], "X")


class PlainPickle(pickle.Unpickler):
    """Reads pickles of plain values only, so that a file from elsewhere cannot run code."""

    def find_class(self, module: str, name: str) -> None:
        """Refuse whatever is not plain.

        Raises:
            UnpicklingError: Always.
        """
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")
