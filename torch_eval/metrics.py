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
from dataclasses import asdict, dataclass
from typing import Sequence

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
        bootstrap_mean(queries, seed),
    )


def aua(records: Sequence[dict]) -> float:
    """The value of `summarise(records).aua` without its interval, which takes its time; 0 for an empty shard."""
    return sum(record["outcome"] == "failure" for record in records) / max(len(records), 1)


def _reaching(value: Estimate, other: Estimate) -> Estimate:
    """`value` with an interval that covers both."""
    if value.value is None:
        return value
    return Estimate(value.value, min(value.low, other.low), max(value.high, other.high))


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided p of McNemar's test: `b` examples only the first of two models gets right, `c` only the second.

    How likely so uneven a split, or a more uneven one, is if both models are equally good.
    """
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    return min(1.0, 2 * tail)


def paired(records_a: Sequence[dict], records_b: Sequence[dict]) -> dict:
    """McNemar's test of two victims attacked on the same examples: {"b", "c", "p"}.

    `b` examples only the first withstands, `c` only the second. Those on which either attack timed out are left out:
    nobody knows how it would have ended. Raises `ValueError` if the examples differ.
    """
    first, second = ({record["index"]: record["outcome"] for record in records} for records in (records_a, records_b))
    if first.keys() != second.keys():
        raise ValueError("the two victims were attacked on different examples")
    ended = [(first[i] == "failure", second[i] == "failure") for i in first if "timeout" not in (first[i], second[i])]
    b, c = ended.count((True, False)), ended.count((False, True))
    return {"b": b, "c": c, "p": mcnemar(b, c)}


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
    return Estimate(
        sum(values) / len(values), means[int(0.025 * RESAMPLES)], means[math.ceil(0.975 * RESAMPLES) - 1]
    )
