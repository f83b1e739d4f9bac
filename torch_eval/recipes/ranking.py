"""TextAttack's greedy search, which learns the order of the words as far as it goes through them.

The stock search ranks all words of a text before it changes the first. In long texts many ranks nearly tie, and an
attack that succeeds soon never comes to most of them.

This module imports TextAttack: call `textattack_offline.prepare` first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from textattack.search_methods import GreedyWordSwapWIR
from textattack.shared import AttackedText

from torch_eval.recipes import ties
from torch_eval.recipes.goal_function import Answer, Classification, by_score


class WordSearch(GreedyWordSwapWIR):
    """Stock search that ranks words by leaving them out, with the same decisions."""

    goal_function: Classification  # the attack sets it

    def _get_index_order(self, initial_text: AttackedText, max_len: int = -1) -> tuple[WordOrder, bool]:
        _, indices = self.get_indices_to_order(initial_text)
        without = [
            initial_text.delete_word_at_index(i)
            if self.wir_method == "delete"
            else initial_text.replace_word_at_index(i, self.unk_token)
            for i in indices
        ]
        answers, over = self.goal_function.rank(without)
        return WordOrder(indices, answers, self.goal_function), over


class WordOrder:
    """Words in the order in which the stock search sorts them; each place is learnt when it is asked for.

    Args:
        indices: Of the words.
        answers: To the text without each of them, as many as the budget allowed.
        goal: Settles their scores.
    """

    def __init__(self, indices: Sequence[int], answers: Sequence[Answer], goal: Classification) -> None:
        self._indices, self._answers, self._goal = indices, answers, goal
        self._known: list[int] = []  # numbers of answers

    def __len__(self) -> int:
        return len(self._answers)

    def __getitem__(self, place: int) -> int:
        """Return the word at a place."""
        while len(self._known) <= place < len(self):
            self._learn()
        return self._indices[self._known[place]]

    def _learn(self) -> None:
        """Settle the next row of near ties, and take all words up to the row after it.

        Scores that are equal to the bit stand in an order that depends on all scores: with them, everything is settled.
        """
        rest = sorted(set(range(len(self))) - set(self._known))
        answers = [self._answers[i] for i in rest]

        def next_row(scores: ties.Intervals) -> set[int]:
            row = scores.rows(by_score(answers))[0]
            return set(row) if scores.is_unclear(row) else set()

        scores = self._goal.settle(answers, next_row)
        if scores is None:
            self._take_all()
            return
        for row in scores.rows(by_score(answers)):
            if scores.is_unclear(row):
                return
            if any(answers[i].result.score == answers[j].result.score for i, j in pairwise(row)):
                self._take_all()
                return
            self._known += [rest[i] for i in row]

    def _take_all(self) -> None:
        self._goal.settle(self._answers, lambda scores: scores.unclear_order(by_score(self._answers)))
        order = (-np.array([answer.result.score for answer in self._answers])).argsort().tolist()  # as stock sorts
        known = set(self._known)
        self._known += [i for i in order if i not in known]
