"""Clean, Aua, Suc and #Query of one attack, with 95% intervals (definitions of the paper's section 4.3).

Of N attacked examples, some are classified wrongly from the start (skipped); the others are attacked,
and each attack succeeds or fails:

    Clean = (successes + failures) / N      Aua = failures / N      Suc = successes / (successes + failures)

#Query is the mean number of victim queries over the attacked, the first one and cache hits included.

With a budget of queries or seconds an attack may end as a timeout, which nobody can tell from a success that was
not found yet. The values count timeouts as broken, the least that is certain of Aua; the intervals of Aua and Suc
reach from all timeouts broken to all survived, each with its own sampling error.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

Z95 = 1.959963984540054  # 97.5% point of the normal distribution
RESAMPLES = 1000
OUTCOMES = ("success", "failure", "timeout", "skipped")


@dataclass(frozen=True)
class Estimate:
    """A value and its 95% interval; all None when there is nothing to estimate it from."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Metrics:
    """Shares are from 0 to 1; `examples` is N, `attacked` is N less the skipped, `timeouts` are some of these."""

    examples: int
    attacked: int
    timeouts: int
    clean: Estimate
    aua: Estimate
    suc: Estimate
    queries: Estimate

    def to_dict(self) -> dict:
        return asdict(self)


def summarise(records: Sequence[dict], seed: int = 0) -> Metrics:
    """Metrics of attack records (`outcome`, `queries`), as `records.read` gives them. `seed` is that of the bootstrap.

    Raises `ValueError` for an outcome that no attack has.
    """
    queries = [record["queries"] for record in records if record["outcome"] != "skipped"]
    return replace(counted(records), queries=bootstrap_mean(queries, seed))


def counted(records: Sequence[dict]) -> Metrics:
    """`summarise` without the interval of the queries, whose bootstrap takes its time."""
    counts = Counter(record["outcome"] for record in records)
    unknown = set(counts) - set(OUTCOMES)
    if unknown:
        raise ValueError(f"unknown outcome {sorted(unknown)[0]!r}")
    attacked, timeouts = len(records) - counts["skipped"], counts["timeout"]
    broken, survived = counts["success"] + timeouts, counts["failure"] + timeouts
    queries = [record["queries"] for record in records if record["outcome"] != "skipped"]
    return Metrics(
        len(records),
        attacked,
        timeouts,
        wilson(attacked, len(records)),
        _reaching(wilson(counts["failure"], len(records)), wilson(survived, len(records))),
        _reaching(wilson(broken, attacked), wilson(counts["success"], attacked)),
        Estimate(sum(queries) / len(queries) if queries else None, None, None),
    )


def aua(records: Sequence[dict]) -> float:
    """The value of `summarise(records).aua` without its interval, which takes its time; 0 for an empty shard."""
    return sum(record["outcome"] == "failure" for record in records) / max(len(records), 1)


def _reaching(value: Estimate, other: Estimate) -> Estimate:
    """`value` with an interval that covers both."""
    if value.value is None:
        return value
    return Estimate(value.value, min(value.low, other.low), max(value.high, other.high))


def sign_flip(differences: Sequence[int]) -> float:
    """Exact two-sided p of whole numbers whose signs would be fair coins: how likely is a sum so large, or larger?

    Of ones alone, five times +1 and twice -1, it is McNemar's exact test of a 5 to 2 split.
    """
    sizes = [abs(difference) for difference in differences if difference]
    reach = sum(sizes)
    likely = np.zeros(2 * reach + 1)  # of every sum from -reach to reach, as far as it is added up
    likely[reach] = 1.0
    for size in sizes:
        likely = (np.roll(likely, size) + np.roll(likely, -size)) / 2
    sums = np.arange(-reach, reach + 1)
    return min(1.0, float(likely[np.abs(sums) >= abs(sum(differences))].sum()))


def paired(pairs: Sequence[tuple[Sequence[dict], Sequence[dict]]]) -> dict:
    """McNemar's test of two methods attacked on the same examples: {"tested", "b", "c", "p"}.

    `pairs` are the records of both, one pair for each seed. `b` times only the first withstands, `c` times only the
    second, of `tested` times. Those in which either attack timed out are left out: nobody knows how it would have
    ended. A sentence that several seeds attack is one observation, not several: what the seeds say of it goes
    together under one sign (`sign_flip`). Raises `ValueError` if the examples of a pair differ.
    """
    tested, counts, differences = 0, Counter(), Counter()
    for both in pairs:
        first, second = ({record["index"]: record["outcome"] for record in records} for records in both)
        if first.keys() != second.keys():
            raise ValueError("the two victims were attacked on different examples")
        for index in first:
            if "timeout" not in (first[index], second[index]):
                tested += 1
                difference = (first[index] == "failure") - (second[index] == "failure")
                counts[difference] += 1
                differences[index] += difference
    return {"tested": tested, "b": counts[1], "c": counts[-1], "p": sign_flip(list(differences.values()))}


def wilson(successes: int, trials: int, z: float = Z95) -> Estimate:
    """Share and Wilson score interval: unlike the normal one it holds near 0, near 1 and for few trials."""
    if not trials:
        return Estimate(None, None, None)
    share = successes / trials
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / scale
    # The ends at shares of 0 and 1 are exact on paper only: rounding must not put them past the share.
    return Estimate(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)))


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> Estimate:
    """Mean and percentile bootstrap interval: query counts are far from normal."""
    if not values:
        return Estimate(None, None, None)
    generator = random.Random(seed)
    means = sorted(sum(generator.choices(values, k=len(values))) / len(values) for _ in range(RESAMPLES))
    return Estimate(sum(values) / len(values), means[int(0.025 * RESAMPLES)], means[math.ceil(0.975 * RESAMPLES) - 1])
