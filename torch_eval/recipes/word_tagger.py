"""The packaged tagger for one word among others: the library's tag, to the last bit of its scores, at less cost.

An attack asks for the tag of each candidate among the same words. The library tags all of them, left to right, and
adds up a dictionary of scores for each. Here later words are left out, an array is added for each feature, and
guesses are cached: most of those before the candidate are the same for all candidates.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

START, END = "<s>", "</s>"  # beside the first and the last word
KEPT = 1 << 16  # guesses, and features


class WordTagger:
    """Tags of single words.

    Args:
        library: The packaged tagger, whose weights are used.
        features: The library's function that names the features of a word.
    """

    def __init__(self, library: Any, features: Callable[..., list[str]]) -> None:
        self.library, self.features = library, features
        self.numbers = {label: number for number, label in enumerate(library.classes)}
        self._guess = functools.lru_cache(KEPT)(self._compute)
        self._weights = functools.lru_cache(KEPT)(self._read)

    def __call__(self, words: Sequence[str], place: int) -> str:
        """Return the tag of the word at a place, as the library's `tag(words)[place]`."""
        lower = [START, START, *(word.lower() for word in words), END, END]
        tag = before = START
        for i in range(place + 1):
            known = self.library.tagdict.get(lower[i + 2])
            tag, before = known or self._guess(words[i], tuple(lower[i : i + 5]), tag, before), tag
        return tag

    def _compute(self, word: str, around: tuple[str, ...], previous: str, before: str) -> str:
        """Return the tag of a word by what it is guessed from: the words around it and the two tags before."""
        scores = np.zeros(len(self.numbers))
        for feature in self.features(2, word, around, previous, before):
            scores += self._weights(feature)
        best = np.flatnonzero(scores == scores.max())[-1]  # the library takes the last of equal ones
        return self.library.classes[best]

    def _read(self, feature: str) -> np.ndarray:
        """Return the weights of a feature (labels,)."""
        weights = np.zeros(len(self.numbers))
        for label, weight in self.library.weights.get(feature, {}).items():
            weights[self.numbers[label]] = weight
        return weights
