"""The temperature under which the labels are most likely, against a closed form."""

import math

import pytest

from torch_eval.victim import calibration


@pytest.mark.parametrize("gap, right", [(6.0, 3), (2.0, 3), (9.0, 9)])
def test_equal_margins_have_a_closed_form(gap, right):
    """With margin g everywhere and a share p right, the best temperature is g / log(p / (1 - p))."""
    logits, labels = [[gap, 0.0]] * (right + 1), [0] * right + [1]
    fitted = calibration.fit(logits, labels)
    assert fitted["temperature"] == pytest.approx(gap / math.log(right), rel=1e-3)
    share = right / (right + 1)
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert fitted["nll_calibrated"] == pytest.approx(entropy, abs=1e-6) and fitted["nll"] > fitted["nll_calibrated"]


@pytest.mark.parametrize("labels", [[0, 1] * 20, [1, 0] * 20])
def test_never_sharper_and_ends_at_a_bound(labels):
    """With all labels right the best temperature is the lower bound; with all wrong, the upper one."""
    fitted = calibration.fit([[3, 0], [0, 3]] * 20, labels)
    assert fitted["temperature"] == calibration.RANGE[labels[0]] and fitted["nll_calibrated"] <= fitted["nll"]
