"""TextAttack's goal function and its similarity of sentences at less cost, with the same decisions.

This module imports TextAttack: call `textattack_offline.prepare` first.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from textattack.constraints.semantics.sentence_encoders.sentence_encoder import SentenceEncoder
from textattack.goal_function_results import GoalFunctionResult, GoalFunctionResultStatus
from textattack.goal_functions import UntargetedClassification
from textattack.shared import AttackedText

from torch_eval.recipes.budget import OutOfBudget

BATCH = 512  # texts given to the victim at once; it sorts them by length
NEARLY = 1e-3  # larger than the rounding error of a similarity; an angle near 0 has sqrt(2 * 5e-6) / pi


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
