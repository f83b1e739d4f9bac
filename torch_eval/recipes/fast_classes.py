"""TextAttack's classes at less cost, with the same decisions in the same order.

What they work with (synonyms, encoder, tagger, masked language model) is given to them. This module imports
TextAttack: call `textattack_offline.prepare` first.
"""

from __future__ import annotations

import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import textattack.shared.attacked_text
import textattack.shared.utils.strings
import torch
from textattack.constraints import grammaticality
from textattack.constraints.semantics.sentence_encoders.sentence_encoder import SentenceEncoder
from textattack.goal_function_results import GoalFunctionResult, GoalFunctionResultStatus
from textattack.goal_functions import UntargetedClassification
from textattack.shared import AbstractWordEmbedding, AttackedText
from textattack.shared.utils import check_if_subword
from textattack.transformations import WordSwapHomoglyphSwap, WordSwapMaskedLM

from torch_eval.recipes.budget import OutOfBudget

BATCH = 512  # texts given to the victim at once; it sorts them by length
COMBINATIONS = 300_000  # of word pieces that BERT-Attack tries for one word; stock tries all K**n
LETTERS = 1_000_000  # in all homoglyph candidates of one word: stock makes one of full length for each letter
NEARLY = 1e-3  # larger than the rounding error of a similarity; an angle near 0 has sqrt(2 * 5e-6) / pi


class Columns(AttackedText):
    """A text of several columns, whose words are those of one column after another.

    The stock class splits the joined columns. One Chinese character in any of them selects another splitter for all,
    and the numbers of the words no longer fit `words_per_input`, by which columns are protected.
    """

    @property
    def words(self) -> list[str]:
        """Words of all columns."""
        if not self._words:
            self._words: list[str] = [word for words in self.words_per_input for word in words]
        return self._words

    def generate_new_attacked_text(self, new_words: Iterable[str]) -> Columns:
        """Return the text with other words."""
        new = super().generate_new_attacked_text(new_words)
        return Columns(new._text_input, attack_attrs=new.attack_attrs)


class Classification(UntargetedClassification):
    """Stock goal function that keeps to its budget of queries, and asks for exact similarities where they decide.

    Among successful candidates the stock search takes the most similar one. Similarities of `SentenceSimilarity` have
    other rounding errors than stock's; before the search compares them, nearly equal ones are computed as stock does.
    """

    num_queries: int  # of the current example; the stock class counts them

    def __init__(self, victim: Callable, similarity: SentenceSimilarity | None = None, **parameters: Any) -> None:
        super().__init__(victim, **parameters)
        self._similarity = similarity

    def get_results(
        self, attacked_text_list: list[AttackedText], check_skip: bool = False
    ) -> tuple[list[GoalFunctionResult], bool]:
        """Query the victim.

        Returns:
            One result for each text within the budget, and whether the budget is used up.

        Raises:
            OutOfBudget: no query is left, or the time is over. Unanswered queries are not counted.
        """
        queries = self.num_queries
        if queries >= self.query_budget:
            raise OutOfBudget
        try:
            results, over = super().get_results(attacked_text_list, check_skip=check_skip)
        except OutOfBudget:
            self.num_queries = queries
            raise
        if self._similarity is not None:
            ranked = sorted(results, key=lambda result: -result.score)  # as the search does
            leading = itertools.takewhile(lambda r: r.goal_status == GoalFunctionResultStatus.SUCCEEDED, ranked)
            self._similarity.separate([result.attacked_text for result in leading])
        return results, over


class SentenceSimilarity(SentenceEncoder):
    """Similarity of sentence vectors. The stock class encodes the reference text again for every candidate."""

    def __init__(self, encode: Callable, exact: Callable | None = None, **parameters: Any) -> None:
        """Create the constraint.

        Args:
            encode: function of a list of texts that returns their vectors, (texts, dimensions) float32.
            exact: the same with the rounding of the stock class; `encode` if not given.
            parameters: of the stock class.
        """
        super().__init__(**parameters)
        self._encode, self._exact = encode, exact or encode
        self._vectors: dict[str, torch.Tensor] | None = {}
        self._batch: tuple = ()  # candidates and reference text of the last comparison

    def encode(self, sentences: Sequence[str]) -> torch.Tensor:
        """Return the vectors of sentences, (sentences, dimensions)."""
        if self._vectors is None:
            return torch.as_tensor(self._exact(list(sentences)))
        new = [text for text in dict.fromkeys(sentences) if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, torch.as_tensor(self._encode(new))))
        return torch.stack([self._vectors[text] for text in sentences])

    def clear_cache(self) -> None:
        """Forget all vectors. TextAttack calls this after every example, so that examples do not affect each other."""
        self._vectors, self._batch = {}, ()

    def separate(self, candidates: Sequence[AttackedText]) -> None:
        """Give the last batch stock's own scores if the best of these candidates nearly tie.

        The last bits of a score depend on what else is in its batch. Where an attack swaps characters that the encoder
        reads alike, they decide which text is the most similar.
        """
        scores = [text.attack_attrs["similarity_score"] for text in _with_score(candidates)]
        if len(scores) < 2 or sum(score >= max(scores) - NEARLY for score in scores) < 2:
            return
        vectors, self._vectors = self._vectors, None
        try:
            super()._check_constraint_many(*self._batch)
        finally:
            self._vectors = vectors

    def _check_constraint_many(
        self, transformed_texts: Sequence[AttackedText], reference_text: AttackedText
    ) -> np.ndarray:
        self._batch = (transformed_texts, reference_text)
        return super()._check_constraint_many(transformed_texts, reference_text)


def _with_score(texts: Iterable[AttackedText]) -> Iterable[AttackedText]:
    """Texts up to the first without a similarity, where the stock search stops to compare."""
    return itertools.takewhile(lambda text: "similarity_score" in text.attack_attrs, texts)


class PartOfSpeech(grammaticality.PartOfSpeech):
    """Stock constraint with a given tagger: `tag` returns the universal tag of each word of a list."""

    def __init__(self, tag: Callable[[list[str]], list[str]], **parameters: Any) -> None:
        super().__init__(tagger_type="given", **parameters)
        self._tag = tag

    def _get_pos(self, before_ctx: list[str], word: str, after_ctx: list[str]) -> str:
        words = before_ctx + [word] + after_ctx
        key = " ".join(words)
        if key not in self._pos_tag_cache:
            self._pos_tag_cache[key] = (words, self._tag(words))
        return super()._get_pos(before_ctx, word, after_ctx)


class HomoglyphSwap(WordSwapHomoglyphSwap):
    """Stock word swap, for words of any length.

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
            self._predicted = (text, torch.topk(logits, self.max_candidates).indices.tolist())
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

    def goal(self, victim: Callable, similarity: SentenceSimilarity, query_budget: float) -> UntargetedClassification:
        """Return the goal function."""
        return Classification(victim, similarity, model_batch_size=BATCH, query_budget=query_budget)

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


def remember_word_splits(remember: bool = True) -> None:
    """Let TextAttack's word splitter keep its results. TextAttack runs it twice for every word of every candidate."""
    split = _words_from_text if remember else STOCK_SPLIT
    for module in (textattack.shared.utils, textattack.shared.utils.strings, textattack.shared.attacked_text):
        module.words_from_text = split
