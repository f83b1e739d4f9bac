"""The hard-concrete gate against PyTorch autograd, finite differences and Monte Carlo."""

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor

from mindspore_rt.cells import gate


def torch_mask(log_alpha, u):
    """Eq. 1-3, written from the paper."""
    s = torch.sigmoid((torch.log(u) - torch.log(1 - u) + log_alpha) / (2 / 3))
    return torch.clamp(s * 1.2 - 0.1, 0, 1)


@pytest.fixture(params=["CPU", "GPU", "Ascend"])
def cell(request):
    """All forms of the sampled gate."""
    return gate.SampledGate() if request.param == "CPU" else gate.DeviceGate(request.param == "GPU")


def sampled(cell, log_alpha, u, weights=None):
    """Mask, and the gradient of sum(weights * mask)."""
    weights = np.ones_like(u) if weights is None else weights

    def loss(a, u, w):
        mask = cell(a, u)
        return (mask * w).sum(), mask

    function = ms.value_and_grad(loss, 0, has_aux=True)

    @ms.jit
    def graph(a, u, w):
        return function(a, u, w)

    (_, mask), gradient = graph(Tensor(log_alpha), Tensor(u), Tensor(weights))
    return mask.asnumpy(), gradient.asnumpy()


@pytest.fixture
def case():
    random = np.random.default_rng(0)
    return random.normal(0, 3, (64, 96)).astype(np.float32), random.random((64, 96), dtype=np.float32)


def test_mask_and_gradient_agree_with_autograd(cell, case):
    log_alpha, u = case
    weights = np.random.default_rng(1).normal(size=u.shape).astype(np.float32)
    mask, gradient = sampled(cell, log_alpha, u, weights)
    a = torch.tensor(log_alpha, dtype=torch.float64, requires_grad=True)
    reference = torch_mask(a, torch.tensor(u, dtype=torch.float64).clamp(1e-4, 1 - 1e-4))
    (reference * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(mask, reference.detach(), atol=2e-6)
    # Where the mask lies on an edge of the clamp, float32 and float64 may stand on different sides of it.
    inside = np.minimum(np.abs(reference.detach()), np.abs(1 - reference.detach())).numpy() > 1e-5
    settled = (reference.detach().numpy() == mask) & ((mask == 0) | (mask == 1))
    assert inside.mean() > 0.2 and settled.mean() > 0.2
    np.testing.assert_allclose(gradient[inside | settled], a.grad.numpy()[inside | settled], atol=5e-6)


def test_gradient_agrees_with_finite_differences(cell):
    log_alpha, u = np.linspace(-2, 2, 41, dtype=np.float64), np.full(41, 0.4)
    _, gradient = sampled(cell, log_alpha.astype(np.float32), u.astype(np.float32))
    step = 1e-6
    high, low = (torch_mask(torch.tensor(log_alpha + d), torch.tensor(u)).numpy() for d in (step, -step))
    np.testing.assert_allclose(gradient, (high - low) / (2 * step), atol=1e-5)


def test_extreme_noise_and_scores_stay_finite(cell):
    mask, gradient = sampled(cell, np.float32([-80, 80, 0, 0]), np.float32([0, 1 - 2**-24, 0, 0.5]))
    np.testing.assert_allclose(mask, [0, 1, 0, 0.5], atol=1e-6)
    assert np.isfinite(gradient).all()


def test_deterministic_mask_and_initial_value():
    log_alpha = gate.initial_log_alpha(0.9)
    assert log_alpha == pytest.approx(np.log(5))
    values = np.float32([log_alpha, -5, 5, 0])
    np.testing.assert_allclose(gate.deterministic_mask(Tensor(values)).asnumpy(), [0.9, 0, 1, 0.5], atol=1e-6)


def test_l0_term_is_the_probability_of_a_mask_that_is_not_zero():
    for log_alpha in (-3.0, -0.5, 1.609, 3.0):
        stated = gate.mask_statistics([np.full((2, 2), log_alpha, np.float32)])["l0_term"]
        u = torch.rand(400_000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        counted = (torch_mask(torch.tensor(log_alpha), u) > 0).double().mean().item()
        assert stated == pytest.approx(counted, abs=4 * 0.5 / 400_000**0.5)
    assert gate.mask_statistics([np.full((1, 1), np.log(5))])["l0_term"] == pytest.approx(0.961, abs=5e-4)


def test_l0_gradient_is_the_derivative_of_the_l0_term():
    log_alpha = np.linspace(-4, 4, 17)
    gradient = gate.l0_gradient(Tensor(log_alpha.astype(np.float32))).asnumpy()
    a = torch.tensor(log_alpha, requires_grad=True)
    torch.sigmoid(a - (2 / 3) * np.log(0.1 / 1.1)).sum().backward()
    np.testing.assert_allclose(gradient, a.grad, atol=1e-6)


def test_settled_masks_are_counted_where_the_deterministic_mask_is_exactly_0_or_1():
    log_alpha = np.random.default_rng(2).normal(0, 3, 10_000).astype(np.float32)
    s = 1 / (1 + np.exp(-log_alpha.astype(np.float64)))
    statistics = gate.mask_statistics([log_alpha])
    assert statistics["settled_zero"] == pytest.approx((s < 1 / 12).mean())
    assert statistics["settled_one"] == pytest.approx((s > 11 / 12).mean())
    sums = np.stack([gate.mask_sums(Tensor(part)).asnumpy() for part in log_alpha.reshape(2, 5000)])
    assert gate.statistics_of_sums(sums, 10_000) == pytest.approx(statistics, rel=1e-6)
