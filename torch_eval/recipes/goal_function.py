"""TextAttack's goal function and its similarity of sentences at less cost, with the same decisions.

This module imports TextAttack: call `textattack_offline.prepare` first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from textattack.constraints.semantics.sentence_encoders.sentence_encoder import SentenceEncoder
from textattack.goal_function_results import GoalFunctionResult, GoalFunctionResultStatus
from textattack.goal_functions import UntargetedClassification
from textattack.shared import AttackedText

from torch_eval.recipes import ties
from torch_eval.recipes.budget import OutOfBudget

BATCH = 512  # texts given to the victim at once; it sorts them by length
NEARLY = 5e-6  # twenty times what rounding was seen to do to the cosine of two vectors


class Classification(UntargetedClassification):
    """Stock goal function that keeps to its budget of queries, and decides near ties as the stock one does.

    The stock search ranks the words by one call, and then takes the best candidate of each call; among successful ones
    it takes the most similar. Scores and similarities have other rounding errors here. Those that decide and are nearly
    equal are computed again as stock does, before the search compares them.

    Args:
        victim: Model wrapper; ties are settled where it offers `ties.StockRounding`.
        similarity: Constraint that decides between successful texts; None if there is none.
        **parameters: Of the stock class.
    """

    num_queries: int  # of the current example; the stock class counts them

    def __init__(self, victim: Callable, similarity: SentenceSimilarity | None = None, **parameters: Any) -> None:
        super().__init__(victim, **parameters)
        self._similarity = similarity
        self._breaks_ties = getattr(victim, "stock", None) is not None
        self._queries: dict[AttackedText, ties.Query] = {}
        self._current: list[Answer] = []  # the result that the search continues from, as a list of one

    def clear_cache(self) -> None:
        """Forget all texts."""
        super().clear_cache()
        self._queries.clear()

    def get_results(
        self, attacked_text_list: list[AttackedText], check_skip: bool = False
    ) -> tuple[list[GoalFunctionResult], bool]:
        """Query the victim.

        Returns:
            One result for each text within the budget, and whether the budget is used up.

        Raises:
            OutOfBudget: No query is left, or the time is over. Unanswered queries are not counted.
        """
        answers, over = self._ask(attacked_text_list, check_skip, self._decide)
        return [answer.result for answer in answers], over

    def rank(self, texts: list[AttackedText]) -> tuple[list[Answer], bool]:
        """Query the victim by the call that ranks the words, and leave the order of its answers to the caller.

        Returns:
            As `get_results`, with the queries; `settle` gives them stock's own scores.

        Raises:
            OutOfBudget: As `get_results`.
        """
        self._has_ranked = True
        return self._ask(texts, False, lambda *_: None)

    def _ask(self, texts: list[AttackedText], is_first: bool, decide: Callable) -> tuple[list[Answer], bool]:
        queries = self.num_queries
        if queries >= self.query_budget:
            raise OutOfBudget
        try:
            results, over = super().get_results(texts, check_skip=is_first)
            answers = [Answer(result, self._queries[result.attacked_text]) for result in results]
            for answer in answers:
                if answer.query.exact:
                    self._replace(answer, is_first)
            decide(answers, is_first)
        except OutOfBudget:
            self.num_queries = queries
            raise
        return answers, over

    def _call_model_uncached(self, attacked_text_list: list[AttackedText]) -> Sequence[torch.Tensor]:
        if not attacked_text_list:
            return []
        inputs = [text.tokenizer_input for text in attacked_text_list]
        logits = torch.cat(
            [self.model(inputs[at : at + self.batch_size]) for at in range(0, len(inputs), self.batch_size)]
        )
        self._queries.update(zip(attacked_text_list, ties.queries_of(inputs, logits), strict=True))
        return self._process_model_outputs(attacked_text_list, logits)

    def _decide(self, answers: list[Answer], is_first: bool) -> None:
        """Settle what the search does with the answers of one call."""
        if is_first:
            self._current, self._has_ranked = answers, False
            self.settle(answers, lambda scores: scores.at_border, is_first)
        elif not self._has_ranked:
            self._has_ranked = True
            self.settle(answers, lambda scores: scores.unclear_order(by_score(answers)))
        elif answers:
            self._settle_best(answers)

    def _settle_best(self, answers: list[Answer]) -> None:
        """Settle which candidate is the best, whether it succeeds, and which successful one is the most similar."""
        everything = [*answers, *self._current]
        self.settle(
            everything,
            lambda scores: scores.at_border | scores.unclear_to(by_score(answers)[0], range(len(everything))),
        )
        order = by_score(answers)
        if answers[order[0]].result.score > self._current[0].result.score:
            self._current = [answers[order[0]]]
        leading = list(itertools.takewhile(lambda i: answers[i].succeeded, order))
        if self._similarity is None or not leading:
            return
        texts = [answers[i].result.attacked_text for i in leading]
        self._similarity.separate(texts)
        similarities = [text.attack_attrs.get("similarity_score", -torch.inf) for text in texts]
        alike = [i for i, similarity in zip(leading, similarities) if similarity == max(similarities)]
        others = order[len(leading) :]
        self.settle(
            answers,
            lambda scores: scores.unclear_order(alike).union(*(scores.unclear_to(i, others) for i in leading)),
        )

    def settle(
        self, answers: Sequence[Answer], doubtful: Callable[[ties.Intervals], set[int]], is_first: bool = False
    ) -> ties.Intervals | None:
        """Give answers stock's own scores until what they decide is certain.

        Args:
            answers: On texts of this example.
            doubtful: Returns the numbers of those that leave a decision open.
            is_first: Whether a text that is misclassified is skipped.

        Returns:
            What is known of the scores then; None if there are none, or ties are left as they are.
        """
        while self._breaks_ties and answers:
            scores = ties.Intervals([answer.query for answer in answers], self.ground_truth_output, self.model)
            inexact = [answers[i] for i in sorted(doubtful(scores)) if not answers[i].query.exact]
            if not inexact:
                return scores
            ties.settle([answer.query for answer in inexact], self.model)
            settled = {id(answer.query) for answer in inexact}
            for answer in answers:
                if id(answer.query) in settled:
                    self._replace(answer, is_first)
        return None

    def _replace(self, answer: Answer, is_first: bool) -> None:
        """Give a result the logits of its query."""
        result, text = answer.result, answer.result.attacked_text
        output = self._process_model_outputs([text], answer.query.logits[None])[0]
        result.raw_output, result.output = output.numpy(), self._get_displayed_output(output)
        result.score = self._get_score(output, text).item()
        result.goal_status = self._get_goal_status(output, text, check_skip=is_first)


class Answer(NamedTuple):
    """A result, and the query that it was made of."""

    result: GoalFunctionResult
    query: ties.Query

    @property
    def succeeded(self) -> bool:
        """Whether the text has another label."""
        return self.result.goal_status == GoalFunctionResultStatus.SUCCEEDED


def by_score(answers: Sequence[Answer]) -> list[int]:
    """Return the numbers of answers in the order in which the search considers them."""
    return sorted(range(len(answers)), key=lambda i: -answers[i].result.score)


class SentenceSimilarity(SentenceEncoder):
    """Similarity of sentence vectors. The stock class encodes the reference text again for every candidate."""

    def __init__(self, encode: Callable, exact: Callable | None = None, **parameters: Any) -> None:
        """Create the constraint.

        Args:
            encode: Function of a list of texts that returns their vectors, (texts, dimensions) float32.
            exact: The same with the rounding of the stock class. It also gets the numbers of the texts whose vectors
                are asked for; the others may be anything. Without it, `encode` is taken.
            parameters: Of the stock class.
        """
        super().__init__(**parameters)
        self._encode, self._exact = encode, exact or (lambda texts, _: encode(texts))
        self._vectors: dict[str, torch.Tensor] = {}
        self._asked: tuple[int, ...] = ()  # numbers of the texts whose vectors are to be exact, if any
        self._batch: tuple = ()  # candidates and reference text of the last comparison

    def encode(self, sentences: Sequence[str]) -> torch.Tensor:
        """Return the vectors of sentences, (sentences, dimensions)."""
        if self._asked:
            return torch.as_tensor(self._exact(list(sentences), self._asked))
        new = [text for text in dict.fromkeys(sentences) if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, torch.as_tensor(self._encode(new))))
        return torch.stack([self._vectors[text] for text in sentences])

    def clear_cache(self) -> None:
        """Forget all vectors. TextAttack calls this after every example, so that examples do not affect each other."""
        self._vectors, self._batch = {}, ()

    def separate(self, candidates: Sequence[AttackedText]) -> None:
        """Give those of these candidates that nearly tie for the best stock's own scores.

        The last bits of a score depend on what else is in its batch. Where an attack swaps characters that give the
        encoder the same ids, these bits decide which text is the most similar.
        """
        bounds = [(text, *self._bounds(text)) for text in _with_score(candidates)]
        highest = max((low for _, low, _ in bounds), default=0)
        best = [(text, low < high) for text, low, high in bounds if high >= highest]
        unsure = {id(text) for text, is_unsure in best if is_unsure}
        if len(best) < 2 or not unsure:
            return
        texts, reference = self._batch
        numbers = [i for i, text in enumerate(texts) if id(text) in unsure]
        self._asked = (*numbers, *(len(texts) + i for i in numbers))  # of the reference's copies, and of the texts
        try:
            scores = self._score_list(reference, texts)
        finally:
            self._asked = ()
        for i in numbers:
            texts[i].attack_attrs["similarity_score"] = scores[i].item()

    def _bounds(self, text: AttackedText) -> tuple[float, float]:
        """Return what stock's own score of a text lies between."""
        score = text.attack_attrs["similarity_score"]
        if self.skip_text_shorter_than_window and len(text.words) < self.window_size:
            return score, score  # 1, whatever the vectors are
        if self.metric != "angular":
            return score - NEARLY, score + NEARLY
        cosine = math.cos(math.pi * (1 - score))
        low, high = (1 - math.acos(min(1.0, max(-1.0, cosine + off))) / math.pi for off in (-NEARLY, NEARLY))
        return low, high

    def _check_constraint_many(
        self, transformed_texts: Sequence[AttackedText], reference_text: AttackedText
    ) -> np.ndarray:
        self._batch = (transformed_texts, reference_text)
        return super()._check_constraint_many(transformed_texts, reference_text)


def _with_score(texts: Iterable[AttackedText]) -> Iterable[AttackedText]:
    """Texts up to the first without a similarity, where the stock search stops to compare."""
    return itertools.takewhile(lambda text: "similarity_score" in text.attack_attrs, texts)
