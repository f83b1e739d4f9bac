"""The test examples that are attacked: the same for every model and seed, so that results can be paired."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass


def sample(labels: list[int], size: int, seed: int, protocol: str = "paper", stratified: bool = False) -> list[int]:
    """Return sorted indices of at most `size` examples.

    Args:
        labels: Labels of all examples.
        size: Size of the sample.
        seed: Seed of the random draw.
        protocol: `paper` draws at random, `official` takes the first examples.
        stratified: Give every label its share of all examples, up to rounding.
    """
    size, generator = min(size, len(labels)), random.Random(seed)
    if protocol == "official":
        return list(range(size))
    if not stratified:
        return sorted(generator.sample(range(len(labels)), size))
    strata = defaultdict(list)
    for index, label in enumerate(labels):
        strata[label].append(index)
    exact = {label: size * len(strata[label]) / len(labels) for label in sorted(strata)}
    counts = {label: int(share) for label, share in exact.items()}
    by_remainder = sorted(exact, key=lambda label: (counts[label] - exact[label], label))
    for label in by_remainder[: size - sum(counts.values())]:
        counts[label] += 1
    return sorted(index for label in exact for index in generator.sample(strata[label], counts[label]))


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count` of the examples: every `count`-th one, so that the parts take about as long."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Shard:
        """Read `i/n`; None is the whole."""
        return cls(*map(int, (text or "1/1").split("/")))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def folder(self) -> str:
        """Name of the folder below the recipe's directory; empty if there is one part only."""
        return f"shard-{self.number}-of-{self.count}" if self.count > 1 else ""

    @property
    def suffix(self) -> str:
        """Part of the name of the lock file."""
        return f"-{self.folder}" if self.folder else ""

    def part(self, indices: list[int]) -> list[int]:
        """Return the indices that belong to this shard."""
        return indices[self.number - 1 :: self.count]


WHOLE = Shard()
