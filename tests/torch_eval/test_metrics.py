"""Metrics against the paper's definitions and closed forms."""

import math

import pytest

from torch_eval import metrics


def record(outcome, queries=1):
    return {"outcome": outcome, "queries": queries}


def test_definitions_put_the_skipped_in_the_right_denominators():
    found = metrics.summarise(
        [record("success", 10)] * 3 + [record("failure", 40)] * 2 + [record("skipped", 1)] * 5
    )
    assert (found.examples, found.attacked) == (10, 5)
    assert found.clean.value == 0.5
    assert found.aua.value == 0.2
    assert found.suc.value == 0.6
    assert found.queries.value == (3 * 10 + 2 * 40) / 5


@pytest.mark.parametrize("successes, trials", [(0, 10), (10, 10), (7, 20), (499, 1000)])
def test_wilson_bounds_solve_the_score_equation(successes, trials):
    """By definition each bound p satisfies (share - p)^2 = z^2 p (1 - p) / n."""
    found = metrics.wilson(successes, trials)
    for bound in (found.low, found.high):
        assert (found.value - bound) ** 2 == pytest.approx(metrics.Z95**2 * bound * (1 - bound) / trials, abs=1e-12)
    assert found.low <= found.value <= found.high


def test_wilson_agrees_with_a_published_example():
    found = metrics.wilson(81, 263)  # Newcombe 1998, table I, method 3: 0.2553 to 0.3662
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


def test_bootstrap_repeats_and_covers_the_normal_interval():
    values = [float(i % 17) for i in range(400)]
    found = metrics.bootstrap_mean(values, seed=3)
    assert found == metrics.bootstrap_mean(values, seed=3) != metrics.bootstrap_mean(values, seed=4)
    mean = sum(values) / len(values)
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values) / len(values))
    assert found.value == mean
    assert found.low == pytest.approx(mean - 1.96 * error, abs=0.3 * error)
    assert found.high == pytest.approx(mean + 1.96 * error, abs=0.3 * error)


def test_nothing_attacked_gives_no_figure():
    found = metrics.summarise([record("skipped")])
    assert found.clean.value == found.aua.value == 0.0
    assert found.suc.value is found.queries.value is None


def test_unknown_outcome_is_refused():
    with pytest.raises(ValueError, match="crashed"):
        metrics.summarise([record("crashed")])
