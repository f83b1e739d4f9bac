"""The perturbation: its start, one ascent step, the projection."""

import numpy as np
import pytest
from mindspore import Tensor

from mindspore_rt.cells import kernels, noise
from mindspore_rt.training import adversary


def test_start_is_uniform_scaled_by_the_size_of_the_sentence_and_zero_on_padding():
    mask = np.ones((3, 50), np.float32)
    mask[1, 10:] = 0
    delta = adversary.start((3, 50, 64), mask, 0.05, seed=1, step=4)
    assert (delta[1, 10:] == 0).all() and delta.dtype == np.float32
    for row, tokens in ((0, 50), (1, 10)):
        bound = 0.05 / np.sqrt(tokens * 64)
        values = delta[row, :tokens]
        assert np.abs(values).max() <= bound and np.abs(values).max() > 0.99 * bound
        np.testing.assert_allclose(np.linalg.norm(values), 0.05 / np.sqrt(3), rtol=0.05)
    assert not np.array_equal(delta[0], delta[2])


@pytest.mark.parametrize("source", [noise.IntegerNoise, noise.FloatNoise])
def test_a_device_draws_the_start_from_its_own_numbers(source):
    mask = np.ones((3, 40), np.float32)
    mask[1, 10:] = 0
    start = adversary.DeviceStart(0.05, source(7, 2))
    delta, other = (start((3, 40, 64), Tensor(mask), step).asnumpy() for step in (4, 5))
    numbers = (delta / (0.05 / np.sqrt(mask.sum(1) * 64))[:, None, None] + 1) / 2
    if source is noise.IntegerNoise:  # the numbers of the CPU's kernels, at the place of the perturbation
        expected = kernels.uniform(7, 2, 4, 0, noise.PERTURBATION, delta.shape)
        np.testing.assert_allclose(numbers[mask > 0], expected[mask > 0], atol=1e-6)
    assert (delta[1, 10:] == 0).all() and 0 <= numbers.min() < 0.01 and 0.99 < numbers.max() <= 1
    assert abs(numbers[mask > 0].mean() - 0.5) < 0.02 and not np.array_equal(delta, other)


def test_ascend_moves_each_sentence_by_the_rate_along_its_own_gradient():
    random = np.random.default_rng(0)
    delta, gradient = (random.normal(size=(4, 6, 8)).astype(np.float32) for _ in range(2))
    gradient[2] *= 1e-3
    gradient[3] = 0
    moved = adversary.ascend(Tensor(delta), Tensor(gradient), 0.03, 0.0).asnumpy()
    for i in range(3):
        np.testing.assert_allclose(moved[i] - delta[i], 0.03 * gradient[i] / np.linalg.norm(gradient[i]), atol=1e-6)
    np.testing.assert_array_equal(moved[3], delta[3])


def test_projection_bounds_the_norm_and_keeps_the_direction():
    delta = np.stack([np.full((2, 2), 5.0), np.full((2, 2), 0.01)]).astype(np.float32)
    bounded = adversary.ascend(Tensor(delta), Tensor(np.zeros_like(delta)), 0.03, 0.6).asnumpy()
    np.testing.assert_allclose(bounded[0], 0.3, rtol=1e-5)
    np.testing.assert_allclose(bounded[1], 0.01, rtol=1e-5)
