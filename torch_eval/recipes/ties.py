"""Which scores of texts nearly tie, and how such ties are decided as TextAttack decides them.

A fast forward pass gives logits that differ from TextAttack's in the last bits. That changes a result only where two
scores are nearly equal, or where a text is nearly at the border of two labels: there the victim is asked once more, for
logits with the rounding of TextAttack's own batches. Texts with the same token ids, such as two unknown words, tie most
often.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Protocol

import torch

STOCK_BATCH = 32  # texts that TextAttack gives to its wrapper at once
NOISE = 32  # of float32's epsilon: what the same logit may differ by in another batch, relative to the largest one

Input = str | tuple[str, ...]  # a text, or its columns


class StockRounding(Protocol):
    """What a victim offers; see `victim.stock_batches`."""

    def roundings(self, texts: Sequence[Input]) -> Sequence[Hashable]:
        """Return the rounding of each text of one of TextAttack's batches."""

    def rounded_logits(self, texts: Sequence[Input], rounding: Any) -> torch.Tensor:
        """Return logits (texts, labels) with a rounding."""


class Batch:
    """Texts that TextAttack gives to its wrapper together.

    Args:
        texts: Up to `STOCK_BATCH`.
    """

    __slots__ = ("roundings", "texts")

    def __init__(self, texts: list[Input]) -> None:
        self.texts = texts
        self.roundings: Sequence[Hashable] = ()  # of the texts, once somebody has asked


class Query:
    """A text that was classified.

    Attributes:
        batch: TextAttack's batch of it.
        place: Its row there.
        logits: (labels,).
        exact: Whether they have TextAttack's rounding.
    """

    __slots__ = ("batch", "exact", "logits", "place")

    def __init__(self, batch: Batch, place: int, logits: torch.Tensor) -> None:
        self.batch, self.place, self.logits, self.exact = batch, place, logits, False

    def rounding(self, victim: StockRounding) -> Hashable:
        """Return the rounding of the text in its batch."""
        if not self.batch.roundings:
            self.batch.roundings = victim.roundings(self.batch.texts)
        return self.batch.roundings[self.place]


def queries_of(texts: Sequence[Input], logits: torch.Tensor) -> Iterable[Query]:
    """Yield the queries of texts that the victim was asked for together, in their order."""
    for start in range(0, len(texts), STOCK_BATCH):
        batch = Batch(list(texts[start : start + STOCK_BATCH]))
        for place in range(len(batch.texts)):
            yield Query(batch, place, logits[start + place])


def settle(queries: Iterable[Query], victim: StockRounding) -> None:
    """Give queries the logits of TextAttack's batches."""
    groups: dict[Hashable, list[Query]] = {}
    for query in queries:
        groups.setdefault(query.rounding(victim), []).append(query)
    for rounding, some in groups.items():
        logits = victim.rounded_logits([query.batch.texts[query.place] for query in some], rounding)
        for query, row in zip(some, logits, strict=True):
            query.logits, query.exact = row, True


class Intervals:
    """Intervals that hold TextAttack's own scores of some texts.

    Args:
        queries: The texts.
        label: A score is 1 - the probability of this label.
        victim: Gives logits with the rounding of TextAttack's batches.
    """

    def __init__(self, queries: Sequence[Query], label: int, victim: StockRounding) -> None:
        self.queries, self._victim = queries, victim
        logits = torch.stack([query.logits for query in queries])
        free = torch.tensor([not query.exact for query in queries])
        noise = NOISE * torch.finfo(torch.float32).eps * logits.abs().amax(1).clamp(min=1) * free
        self.low, self.high = (_scores(logits, label, sign * 2 * noise).tolist() for sign in (1, -1))
        others = logits.clone()
        others[:, label] = -torch.inf
        margin = (logits[:, label] - others.amax(1)).abs()
        self.at_border = set((free & (margin <= 2 * noise)).nonzero().flatten().tolist())

    def unclear(self, i: int, j: int) -> bool:
        """Tell whether it is not known which of two scores is larger, or that they are equal."""
        if not self._overlap(i, j):
            return False
        one, other = self.queries[i], self.queries[j]
        if one is other or (one.exact and other.exact):
            return False
        if self.low[i] == self.high[i] == self.low[j] == self.high[j]:
            return False
        reads_alike = one.exact == other.exact and torch.equal(one.logits, other.logits)
        return not (reads_alike and one.rounding(self._victim) == other.rounding(self._victim))

    def _overlap(self, i: int, j: int) -> bool:
        return self.low[i] <= self.high[j] and self.low[j] <= self.high[i]

    def rows(self, order: Iterable[int]) -> list[list[int]]:
        """Split texts, sorted by their scores, into rows of overlapping neighbours."""
        rows: list[list[int]] = []
        for i in order:
            if rows and self._overlap(rows[-1][-1], i):
                rows[-1].append(i)
            else:
                rows.append([i])
        return rows

    def is_unclear(self, row: Sequence[int]) -> bool:
        """Tell whether the order of two neighbours of a row is not known."""
        return any(self.unclear(*pair) for pair in pairwise(row))

    def unclear_order(self, order: Iterable[int]) -> set[int]:
        """Return the texts of every row in which the order of two is not known."""
        return {i for row in self.rows(order) if self.is_unclear(row) for i in row}

    def unclear_to(self, one: int, others: Iterable[int]) -> set[int]:
        """Return the texts whose order with `one` is not known, and `one` if there are any."""
        return {i for other in others if self.unclear(one, other) for i in (one, other)}


def _scores(logits: torch.Tensor, label: int, shift: torch.Tensor) -> torch.Tensor:
    shifted = logits.clone()
    shifted[:, label] += shift
    return 1 - shifted.softmax(1)[:, label]
