"""Metrics against the paper's definitions and closed forms."""

import itertools
import math
import random

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from torch_eval.attack import metrics


def record(outcome, queries=1):
    return {"outcome": outcome, "queries": queries}


def test_definitions_put_the_skipped_in_the_right_denominators():
    summary = metrics.summarise([record("success", 10)] * 3 + [record("failure", 40)] * 2 + [record("skipped", 1)] * 5)
    assert (summary.examples, summary.attacked) == (10, 5)
    assert summary.clean.value == 0.5
    assert summary.aua.value == 0.2
    assert summary.suc.value == 0.6
    assert summary.queries.value == (3 * 10 + 2 * 40) / 5


@pytest.mark.parametrize("successes, trials", [(0, 10), (10, 10), (7, 20), (499, 1000)])
def test_wilson_is_scipys(successes, trials):
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    interval = metrics.wilson(successes, trials)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert interval.low <= interval.value <= interval.high


def test_wilson_agrees_with_a_published_example():
    interval = metrics.wilson(81, 263)  # Newcombe 1998, table I, method 3: 0.2553 to 0.3662
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)


def test_bootstrap_draws_the_numbers_of_earlier_versions():
    values = [3, 7, 7, 20, 110, 5, 64]
    generator = random.Random(0)
    means = sorted(sum(generator.choices(values, k=7)) / 7 for _ in range(metrics.RESAMPLES))
    assert metrics.bootstrap_mean(values) == metrics.Estimate(sum(values) / 7, means[25], means[974])


def test_bootstrap_repeats_and_covers_the_normal_interval():
    values = [float(i % 17) for i in range(400)]
    estimate = metrics.bootstrap_mean(values)
    assert estimate == metrics.bootstrap_mean(values)
    mean = sum(values) / len(values)
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values) / len(values))
    assert estimate.value == mean
    assert estimate.low == pytest.approx(mean - 1.96 * error, abs=0.3 * error)
    assert estimate.high == pytest.approx(mean + 1.96 * error, abs=0.3 * error)


def test_timeouts_are_broken_in_the_value_and_either_in_the_interval():
    certain = [record("success")] * 30 + [record("failure")] * 50 + [record("skipped")] * 10
    summary = metrics.summarise(certain + [record("timeout")] * 10)
    broken = metrics.summarise(certain + [record("success")] * 10)
    survived = metrics.summarise(certain + [record("failure")] * 10)
    assert (summary.examples, summary.attacked, summary.timeouts, broken.timeouts) == (100, 90, 10, 0)
    assert summary.clean == broken.clean == survived.clean
    assert summary.aua.value == broken.aua.value == 0.5
    assert (summary.aua.low, summary.aua.high) == (broken.aua.low, survived.aua.high)
    assert summary.suc.value == broken.suc.value == 40 / 90
    assert (summary.suc.low, summary.suc.high) == (survived.suc.low, broken.suc.high)


@pytest.mark.parametrize("b, c", [(0, 0), (5, 0), (3, 9), (21, 9), (7, 7), (120, 160)])
def test_the_test_of_one_seed_is_the_exact_binomial_one(b, c):
    expected = binomtest(b, b + c).pvalue if b + c else 1.0
    p_values = metrics.sign_flip([1] * b + [-1] * c), metrics.sign_flip([-1] * b + [1] * c + [0] * 50)
    assert p_values == (pytest.approx(expected, rel=1e-9), pytest.approx(expected, rel=1e-9))


@pytest.mark.parametrize("differences", [[3, -1, 2, 0, 1], [2, 2, -1, -1, 3, 1], [3, 3, 3]])
def test_the_test_of_several_seeds_counts_all_signs(differences):
    all_signs = itertools.product((1, -1), repeat=len(differences))
    flips = [sum(s * d for s, d in zip(signs, differences)) for signs in all_signs]
    expected = np.mean([abs(flip) >= abs(sum(differences)) for flip in flips])
    assert metrics.sign_flip(differences) == pytest.approx(expected, rel=1e-12)


def test_paired_counts_the_examples_that_only_one_withstands():
    outcomes = {
        "failure failure": 5,
        "failure success": 4,
        "skipped failure": 1,
        "success success": 3,
        "timeout failure": 2,
        "failure timeout": 1,
    }
    pairs = [names.split() for names, count in outcomes.items() for _ in range(count)]
    first, second = ([{"index": i, "outcome": pair[side]} for i, pair in enumerate(pairs)] for side in (0, 1))
    p = metrics.sign_flip([1, 1, 1, 1, -1])
    assert metrics.paired([(first, second)]) == (13, 4, 1, p)
    # The same again under another seed: twice the counts, but no more sentences.
    assert metrics.paired([(first, second)] * 2) == (26, 8, 2, p)
    with pytest.raises(ValueError, match="shorter"):
        metrics.paired([(first, second[1:])])


def test_the_gain_is_the_difference_of_both_accuracies_and_its_interval_that_of_scipy():
    """Of 200 sentences the first model withstands 60 and the second 40; the seeds of one sentence are one value."""
    random = np.random.default_rng(1)
    stays = [[random.permutation([True] * count + [False] * (200 - count)) for count in (60, 40)] for _ in range(2)]
    seeds = [
        [[{"index": i, "outcome": "failure" if one else "success"} for i, one in enumerate(side)] for side in both]
        for both in stays
    ]
    gain = metrics.gain(seeds)
    assert gain.value == pytest.approx(0.1)
    values = (np.mean([both[0].astype(int) - both[1] for both in stays], axis=0),)
    interval = bootstrap(values, np.mean, method="percentile", rng=0).confidence_interval
    assert (gain.low, gain.high) == pytest.approx(tuple(interval), abs=0.015)
    seeds[0][0][0]["outcome"] = "timeout"
    assert metrics.gain(seeds[:1]).value == pytest.approx(np.mean(stays[0][0][1:].astype(int) - stays[0][1][1:]))
    assert metrics.gain([([], [])]).value is None


def test_seeds_on_the_same_sentences_do_not_make_a_difference_of_chance():
    """Two equal methods, each with sentences that it happens to be good at, under every seed: 5% of tests at most find
    a difference at the level of 5%; pooling seeds as if they were sentences found one in far more."""
    random, significant, naive = np.random.default_rng(0), 0, 0
    for _ in range(300):
        chance = random.beta(0.3, 2.0, size=(2, 100))  # of withstanding: by method and sentence
        right = random.random((3, 2, 100)) < chance
        seeds = [
            [
                [{"index": i, "outcome": "failure" if stays else "success"} for i, stays in enumerate(side)]
                for side in seed
            ]
            for seed in right
        ]
        result = metrics.paired(seeds)
        significant += result.p < 0.05
        naive += metrics.sign_flip([1] * result.only_first + [-1] * result.only_second) < 0.05
    assert significant / 300 < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300) < naive / 300


def test_holm_corrects_as_r_does():
    """p.adjust(c(0.01, 0.04, 0.03, 0.005, 0.6), "holm") of R."""
    assert metrics.holm([0.01, 0.04, 0.03, 0.005, 0.6]) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.6])


def test_nothing_attacked_gives_no_figure():
    summary = metrics.summarise([record("skipped")])
    assert summary.clean.value == summary.aua.value == 0.0
    assert summary.suc.value is summary.queries.value is None


def test_nothing_attacked_has_no_percentage():
    assert metrics.summarise([]).aua.percent() == "unknown"
    assert metrics.summarise([record("failure"), record("success"), record("skipped")]).aua.percent() == "33.3%"
