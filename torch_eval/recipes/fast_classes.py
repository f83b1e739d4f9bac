"""TextAttack's classes at less cost, with the same decisions in the same order.

Their resources (synonyms, encoder, tagger, masked language model) are given to them. This module imports
TextAttack: call `textattack_offline.prepare` first.
"""

from __future__ import annotations

import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import textattack.shared.attacked_text
import textattack.shared.utils.strings
import torch
from textattack.constraints import grammaticality
from textattack.constraints.semantics.sentence_encoders.sentence_encoder import SentenceEncoder
from textattack.goal_functions import UntargetedClassification
from textattack.search_methods import GreedyWordSwapWIR
from textattack.shared import AbstractWordEmbedding, AttackedText
from textattack.shared.utils import check_if_subword
from textattack.transformations import WordSwapHomoglyphSwap, WordSwapMaskedLM

from torch_eval.recipes.goal_function import BATCH, Classification, SentenceSimilarity
from torch_eval.recipes.ranking import WordSearch

COMBINATIONS = 300_000  # of word pieces that BERT-Attack tries for one word; stock tries all K**n
LETTERS = 1_000_000  # in all homoglyph candidates of one word: stock makes one of full length for each letter


class PartOfSpeech(grammaticality.PartOfSpeech):
    """Stock constraint with a given tagger, asked for one word at a time.

    Args:
        tag: Returns the universal tag of the word at a place of a tuple.
        **parameters: Of the stock class.
    """

    def __init__(self, tag: Callable[[tuple[str, ...], int], str], **parameters: Any) -> None:
        super().__init__(tagger_type="given", **parameters)
        self._tag = tag

    def _get_pos(self, before_ctx: list[str], word: str, after_ctx: list[str]) -> str:
        words = (*before_ctx, word, *after_ctx)
        return self._tag(words, words.index(word))  # as in stock, the first one of this spelling


class HomoglyphSwap(WordSwapHomoglyphSwap):
    """TextAttack's homoglyph swap, for words of any length.

    The wheel of 0.3.11 lacks a file that the stock constructor reads last and that the swap never uses. Candidates
    are those of the first letters, `LETTERS` // length of the word: all of them in words of up to 1,000 letters.
    """

    def __init__(self, **parameters: Any) -> None:
        self.bound_reached = False
        try:
            super().__init__(**parameters)
        except FileNotFoundError:
            pass

    def _get_replacement_words(self, word: str) -> list[str]:
        letters = max(1, LETTERS // max(1, len(word)))
        self.bound_reached |= any(letter in self.homos for letter in word[letters:])
        beginnings = super()._get_replacement_words(word[:letters])
        return [beginning + word[letters:] for beginning in beginnings]


class MaskedWords(WordSwapMaskedLM):
    """BERT-Attack's replacements: the candidates of the stock class in the same order, at less cost.

    The stock class runs the masked model once for every word of a text, padded to 512 pieces. For a word of n pieces
    it builds all K**n combinations, sorts them without using the result, and keeps the first K that are one word. Here
    the model runs once for a text, without padding, and combinations are made as they are needed, up to `COMBINATIONS`.
    """

    def __init__(self, **parameters: Any) -> None:
        super().__init__(method="bert-attack", **parameters)
        self._predicted: tuple[str, list[list[int]]] = ("", [])
        self.bound_reached = False

    def _get_transformations(self, current_text: AttackedText, indices_to_modify: Iterable[int]) -> list[AttackedText]:
        predictions = self._predictions(current_text.text)
        texts = []
        for index in list(indices_to_modify):
            for word in self._replacements(current_text, index, predictions):
                if word != current_text.words[index]:
                    texts.append(current_text.replace_word_at_index(index, word))
        return texts

    @torch.inference_mode()
    def _predictions(self, text: str) -> list[list[int]]:
        """Return the K likeliest pieces at every position of a text. The last text's are kept."""
        if self._predicted[0] != text:
            encoded = self._lm_tokenizer(text, max_length=self.max_length, truncation=True, return_tensors="pt")
            logits = self._language_model(**encoded)[0][0]
            self._predicted = (text, torch.topk(logits, min(self.max_candidates, logits.shape[-1])).indices.tolist())
        return self._predicted[1]

    def _replacements(self, current_text: AttackedText, index: int, predictions: list[list[int]]) -> list[str]:
        tokenizer = self._lm_tokenizer
        masked = current_text.replace_word_at_index(index, tokenizer.mask_token).text
        ids = tokenizer(masked, max_length=self.max_length, truncation=True)["input_ids"]
        if tokenizer.mask_token_id not in ids:  # cut off
            return []
        first = ids.index(tokenizer.mask_token_id)
        count = len(tokenizer.encode(current_text.words[index], add_special_tokens=False))
        pieces = [tokenizer.convert_ids_to_tokens(row) for row in predictions[first : first + count]]
        if not pieces:
            return []
        if len(pieces) == 1:
            kind = self._language_model.config.model_type
            return [word for word in pieces[0] if _is_one_word(word) and not check_if_subword(word, kind, index == 0)]
        combinations = itertools.product(*pieces)
        tried = itertools.islice(combinations, COMBINATIONS)
        words = ("".join(combination).replace("##", "") for combination in tried)
        chosen = list(itertools.islice(filter(_is_one_word, words), self.max_candidates))
        self.bound_reached |= len(chosen) < self.max_candidates and next(combinations, None) is not None
        return chosen


class Resources(ABC):
    """Makes the parts of an attack. Keyword arguments are those of TextAttack's classes."""

    def goal(
        self, victim: Callable, similarity: SentenceSimilarity | None, query_budget: float
    ) -> UntargetedClassification:
        """Return the goal function."""
        return Classification(victim, similarity, model_batch_size=BATCH, query_budget=query_budget)

    def search(self, **parameters: Any) -> GreedyWordSwapWIR:
        """Return the search, which ranks words and changes one after another."""
        return WordSearch(**parameters)

    @abstractmethod
    def synonyms(self) -> AbstractWordEmbedding:
        """Return the neighbours of words."""

    @abstractmethod
    def stop_words(self, recipe: str) -> frozenset[str]:
        """Return the words that a recipe never changes."""

    @abstractmethod
    def sentence_similarity(self, **parameters: Any) -> SentenceEncoder:
        """Return the constraint on the similarity of sentences."""

    @abstractmethod
    def part_of_speech(self, **parameters: Any) -> grammaticality.PartOfSpeech:
        """Return the constraint on the tags of words."""

    @abstractmethod
    def masked_words(self, **parameters: Any) -> WordSwapMaskedLM:
        """Return the transformation of BERT-Attack."""


def _is_one_word(text: str) -> bool:
    return len(STOCK_SPLIT(text)) == 1


STOCK_SPLIT = textattack.shared.utils.words_from_text


@functools.lru_cache(1 << 16)
def _split(text: str) -> tuple[str, ...]:
    return tuple(STOCK_SPLIT(text))


def _words_from_text(s: str, words_to_ignore: Sequence[str] = ()) -> list[str]:
    return STOCK_SPLIT(s, list(words_to_ignore)) if words_to_ignore else list(_split(s))


def remember_word_splits() -> None:
    """Let TextAttack's word splitter keep its results. TextAttack runs it twice for every word of every candidate."""
    for module in (textattack.shared.utils, textattack.shared.utils.strings, textattack.shared.attacked_text):
        module.words_from_text = _words_from_text
