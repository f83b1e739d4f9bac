"""The loss scale of float16: skipped updates, halving and doubling, in every objective.

All but the last test keep the products in float32, where a power of two changes no digit.
"""

import dataclasses
import functools

import numpy as np
import pytest

from configs.contract.experiment import schema
from mindspore_rt.cells import backend
from mindspore_rt.cells.encoder import EncoderClassifier
from mindspore_rt.training.infobert import InfoBert
from mindspore_rt.training.loss_scale import FIRST, PATIENCE
from mindspore_rt.training.objectives import FineTuning, FreeLB, RobustSearch
from tests.helpers.models import normal_arrays
from tests.helpers.objectives import fetches, restore, snapshot
from tests.helpers.restatement import CONFIG, batch

ONE_LAYER = dataclasses.replace(CONFIG, num_hidden_layers=1)
SCALE = ("loss_scale", "loss_scale.streak", "loss_scale.skipped")
BUILD = {
    "fine-tuning": lambda model: FineTuning(model, schema.Training(warmup=0.0), 10, 1),
    "FreeLB on GPU": lambda model: FreeLB(model, schema.AdversarialTraining(ascent_steps=3, warmup=0.0), 10, 1),
    "InfoBERT": lambda model: InfoBert(model, schema.InfoBertTraining(ascent_steps=2, warmup=0.0), 10, 1),
    # Under `official` the sums of the weights' gradients stay from update to update, in the loss scale.
    "search": lambda model: RobustSearch(model, schema.MaskSearch(ascent_steps=2, warmup=0.0), 10, 1, "official"),
    "search on GPU": lambda model: RobustSearch(model, schema.MaskSearch(ascent_steps=2, warmup=0.0), 10, 1),
}
# Figures of an update: losses, the gradient's norm, the loss scale and the skipped updates.
FIGURES = {"fine-tuning": 4, "FreeLB on GPU": 6, "InfoBERT": 9, "search": 5, "search on GPU": 5}


@functools.cache
def build(name, amp, products):
    """Build an objective once; `fresh` puts it back to where it began."""
    model = EncoderClassifier(ONE_LAYER, 2, masked="search" in name, amp=products)
    model.load(normal_arrays(ONE_LAYER.parameters(2), 0.3, random=3))
    model.amp = amp  # after the products were built
    objective = BUILD[name](model)
    return objective, snapshot(objective)


def fresh(name, amp="float16", products=None):
    objective, before = build(name, amp, products)
    restore(objective, before)
    return objective


def too_large():
    b = batch(0)
    b.targets *= 1e38
    return b


@pytest.mark.parametrize("name", BUILD)
def test_an_overflow_skips_one_update_and_halves_the_scale(name, monkeypatch):
    """In every update the host fetches one tensor, and none between the passes."""
    if "GPU" in name:
        monkeypatch.setattr(backend, "current", lambda: backend.Backend.GPU)
    objective = fresh(name)
    before = snapshot(objective)
    figures = objective.step(too_large(), 0)
    assert (figures["loss_scale"], figures["skipped_updates"]) == (FIRST / 2, 1)
    assert "gradient_norm" not in figures and np.isfinite(list(figures.values())).all()
    after = snapshot(objective)
    assert {n for n in before if (before[n] != after[n]).any()} == {"loss_scale", "loss_scale.skipped"}

    with fetches() as copied:
        figures = objective.step(batch(0), 0)
    assert (figures["loss_scale"], figures["skipped_updates"]) == (FIRST / 2, 1)
    assert [tensor.size for tensor in copied] == [FIGURES[name]]
    scaled = snapshot(objective)
    restore(objective, {**before, "loss_scale": 1.0})
    assert objective.step(batch(0), 0)["gradient_norm"] == figures["gradient_norm"]
    for n, value in snapshot(objective).items():
        if n not in SCALE:
            factor = FIRST / 2 if n.endswith(".grad") else 1.0
            np.testing.assert_array_equal(value, scaled[n] / factor, err_msg=n)
    assert any((value != before[n]).any() for n, value in scaled.items() if n not in SCALE)

    # The smallest scale is tried too. Then the figures show what is not finite, and the trainer ends the run.
    restore(objective, {**before, "loss_scale": 2.0})
    figures = objective.step(batch_of_infinity(), 0)
    assert figures["loss_scale"] == 1 and "gradient_norm" not in figures
    assert not np.isfinite(objective.step(batch_of_infinity(), 0)["gradient_norm"])


def batch_of_infinity():
    b = batch(0)
    b.targets[:] = np.inf
    return b


def test_a_scaled_update_is_the_unscaled_one_and_float32_has_no_state():
    states = []
    for amp in (None, "float16"):
        objective = fresh("fine-tuning", amp)
        objective.step(batch(0), 0)
        states.append(snapshot(objective))
    assert set(states[1]) - set(states[0]) == set(SCALE)
    assert all((value == states[1][n]).all() for n, value in states[0].items())

    scale = {"loss_scale.streak": PATIENCE - 1, "loss_scale": 8.0}
    restore(objective, {**states[1], **scale})
    assert [objective.step(batch(i), i)["loss_scale"] for i in (1, 2)] == [16, 16]
    assert snapshot(objective)["loss_scale.streak"] == 1


def test_float16_trains_once_the_scale_has_fallen():
    """From 2^22 the gradients overflow float16; the updates that follow are those of float32, to its precision."""
    losses = []
    for products in ("float16", None):
        objective = fresh("fine-tuning", "float16", products)
        restore(objective, {**snapshot(objective), "loss_scale": 2.0**22 if products else 1.0})
        for _ in range(30):  # the scale halves each time
            figures = objective.step(batch(0), 0)
            if figures.get("gradient_norm") is not None:
                break
        assert (figures["skipped_updates"] > 0) == (products == "float16")
        losses.append([figures["loss"], figures["gradient_norm"], objective.step(batch(0), 1)["loss"]])
    np.testing.assert_allclose(*losses, rtol=1e-2)
