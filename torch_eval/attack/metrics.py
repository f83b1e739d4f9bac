"""Clean, Aua, Suc and #Query of one attack, with 95% intervals (definitions of the paper's section 4.3).

Of the N examples of a sample, the model classifies some wrongly from the start (skipped). The others are attacked, and
each attack succeeds or fails:

    Clean = (successes + failures) / N      Aua = failures / N      Suc = successes / (successes + failures)

#Query is the mean number of victim queries for each attacked example, the first query and cache hits included.

With a budget of queries or seconds an attack may end as a timeout: it is unknown whether it would have succeeded. The
values count timeouts as successes, so that Aua is a lower bound. The intervals of Aua and Suc reach from "all timeouts
succeed" to "all timeouts fail", with the sampling error of each.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from configs.contract.run.run_files import Count

Z95 = 1.959963984540054  # 97.5% point of the normal distribution
RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A value and its 95% interval; all None when there is nothing to estimate it from."""

    value: float | None
    low: float | None
    high: float | None

    def percent(self) -> str:
        """The value of a share as `12.3%`, for messages."""
        return "unknown" if self.value is None else f"{self.value:.1%}"

    def text(self, scale: float = 100.0, sign: str = "", nothing: str = "-") -> str:
        """The value and its interval as `43.0 [36.3, 49.9]`.

        Args:
            scale: Factor of all three; the default makes per cent of shares.
            sign: `+` for a value that shows its sign.
            nothing: The text if there is no value.
        """
        if self.value is None or self.low is None or self.high is None:
            return nothing
        return f"{scale * self.value:{sign}.1f} [{scale * self.low:.1f}, {scale * self.high:.1f}]"


@dataclass(frozen=True)
class Metrics:
    """Outcome of one attack on one model, as its manifest states it.

    Attributes:
        examples: Number N of examples in the sample.
        attacked: N less the skipped examples.
        timeouts: Attacked examples whose attack ran out of its budget.
        clean: Accuracy on the sample before the attack, from 0 to 1.
        aua: Accuracy under attack, from 0 to 1.
        suc: Share of the attacked examples that the attack broke, from 0 to 1.
        queries: Mean number of victim queries for each attacked example.
    """

    examples: Count
    attacked: Count
    timeouts: Count
    clean: Estimate
    aua: Estimate
    suc: Estimate
    queries: Estimate

    def to_dict(self) -> dict:
        """Return the metrics as nested dictionaries, for a manifest."""
        return asdict(self)


def summarise(records: Sequence[dict]) -> Metrics:
    """Compute the metrics of attack records (`outcome` and `queries` of each), as `records.read` returns them.

    Args:
        records: One record for each example of the sample.
    """
    counts = Counter(record["outcome"] for record in records)
    examples, timeouts = len(records), counts["timeout"]
    attacked = examples - counts["skipped"]
    broken, survived = counts["success"] + timeouts, counts["failure"] + timeouts
    queries = [record["queries"] for record in records if record["outcome"] != "skipped"]
    return Metrics(
        examples,
        attacked,
        timeouts,
        clean=wilson(attacked, examples),
        aua=_widened(wilson(counts["failure"], examples), wilson(survived, examples)),
        suc=_widened(wilson(broken, attacked), wilson(counts["success"], attacked)),
        queries=bootstrap_mean(queries),
    )


def _widened(estimate: Estimate, other: Estimate) -> Estimate:
    """Return `estimate` with an interval that covers both intervals."""
    if estimate.low is None or estimate.high is None or other.low is None or other.high is None:
        return estimate
    return Estimate(estimate.value, min(estimate.low, other.low), max(estimate.high, other.high))


def sign_flip(differences: Sequence[int]) -> float:
    """Compute the exact two-sided p-value of the sign-flip test.

    Under the null hypothesis the sign of each difference is a fair coin. p is the probability that the sum is at least
    as far from 0 as the observed one. If all differences are 1 or -1, this is McNemar's exact test.

    Args:
        differences: One whole number for each sentence.
    """
    sizes = [abs(difference) for difference in differences if difference]
    largest = sum(sizes)
    probability = np.zeros(2 * largest + 1)  # of every sum from -largest to largest, over the sizes added so far
    probability[largest] = 1.0
    for size in sizes:
        probability = (np.roll(probability, size) + np.roll(probability, -size)) / 2
    sums = np.arange(-largest, largest + 1)
    return min(1.0, float(probability[np.abs(sums) >= abs(sum(differences))].sum()))


class PairedTest(NamedTuple):
    """Result of the paired test of two models on the same sentences.

    Attributes:
        tested: Pairs of attacks, over all seeds.
        only_first: Pairs in which only the first model withstands the attack.
        only_second: Pairs in which only the second model withstands it.
        p: Two-sided p-value of "both withstand equally often".
    """

    tested: int
    only_first: int
    only_second: int
    p: float


def paired(pairs: Sequence[tuple[Sequence[dict], Sequence[dict]]]) -> PairedTest:
    """Compare two models that were attacked on the same examples: McNemar's exact test, extended to several seeds.

    Pairs in which either attack timed out are left out: their outcome is unknown. The attacks of several seeds on one
    sentence are one observation, not several: their differences are added, and the sum has one sign (`sign_flip`).

    Args:
        pairs: Attack records of the first and of the second model on the same examples, one pair for each seed.
    """
    by_sentence = _differences(pairs)
    counts = Counter(difference for differences in by_sentence.values() for difference in differences)
    p = sign_flip([sum(differences) for differences in by_sentence.values()])
    return PairedTest(counts.total(), counts[1], counts[-1], p)


def gain(pairs: Sequence[tuple[Sequence[dict], Sequence[dict]]]) -> Estimate:
    """Compute accuracy under attack of the first model minus that of the second, as a share.

    The interval comes from resampling sentences, with the results of all seeds on one sentence together. Pairs with a
    timeout are left out.

    Args:
        pairs: As for `paired`.
    """
    return bootstrap_mean([statistics.fmean(differences) for differences in _differences(pairs).values()])


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number, by the step-down method of Holm (1979).

    Args:
        p_values: p of each test of one family.

    Returns:
        The corrected p of each test, in the same order. Calling those below 0.05 differences keeps the chance of one
        false call in the family at 5% or less.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, test in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[test]))
        corrected[test] = largest
    return corrected


def _differences(pairs: Sequence[tuple[Sequence[dict], Sequence[dict]]]) -> dict[int, list[int]]:
    """Return 1, 0 or -1 for each seed in which neither attack timed out, by the index of the sentence.

    1 says that only the first model withstands the attack, -1 that only the second does.
    """
    by_sentence: dict[int, list[int]] = {}
    for first, second in pairs:
        for one, other in zip(first, second, strict=True):
            outcomes = one["outcome"], other["outcome"]
            if "timeout" not in outcomes:
                difference = (outcomes[0] == "failure") - (outcomes[1] == "failure")
                by_sentence.setdefault(one["index"], []).append(difference)
    return by_sentence


def wilson(successes: int, trials: int) -> Estimate:
    """Compute a share and its Wilson score interval, which unlike the normal one holds near 0 and 1 and for few trials.

    A closed form: importing scipy.stats for it would take a second at every start.
    """
    if not trials:
        return Estimate(None, None, None)
    share, z = successes / trials, Z95
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / scale
    # The bounds at shares of 0 and 1 are exact on paper only: rounding must not put them past the share.
    return Estimate(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)))


def bootstrap_mean(values: Sequence[float]) -> Estimate:
    """Compute the mean and its percentile bootstrap interval, which asks for no normal distribution."""
    if not values:
        return Estimate(None, None, None)
    data = np.asarray(values)
    # `RandomState` draws the numbers of `random.Random(0)`, with which earlier versions wrote their manifests.
    draws = np.random.RandomState([0]).random_sample((RESAMPLES, len(data)))
    means = np.sort(data[(draws * len(data)).astype(int)].mean(axis=1))
    low, high = means[int(0.025 * RESAMPLES)], means[math.ceil(0.975 * RESAMPLES) - 1]
    return Estimate(float(data.mean()), float(low), float(high))
