"""Functions whose float32 kernels on CPU are too rough: as exact as float32 allows, values and gradients."""

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor

from mindspore_rt.cells import float64_ops

ONE_HOT = np.eye(3, dtype=np.float32)[np.random.default_rng(1).integers(0, 3, 500)] / 500
TARGETS, TORCH_TARGETS = Tensor(ONE_HOT), torch.tensor(ONE_HOT)


def tanh(x):
    return float64_ops.tanh(x).sum()


def softplus(x):
    return float64_ops.softplus(x).sum()


def log_softmax(x):
    return -(float64_ops.log_softmax(x) * TARGETS).sum()


def cross_entropy(x):
    return float64_ops.cross_entropy(x, TARGETS)


def torch_cross_entropy(x):
    return -(torch.log_softmax(x, -1) * TORCH_TARGETS).sum()


CASES = {
    "tanh": (tanh, lambda x: torch.tanh(x).sum()),
    "softplus": (softplus, lambda x: torch.nn.functional.softplus(x).sum()),
    "log_softmax": (log_softmax, torch_cross_entropy),
    "cross_entropy": (cross_entropy, torch_cross_entropy),
}


def graph_of(function):
    """Value and gradient, compiled as in training."""
    both = ms.value_and_grad(function)

    @ms.jit
    def graph(x):
        return both(x)

    return graph


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_float64(name):
    """Gradients to 1e-7 of the largest; MindSpore's own float32 kernels miss that by a factor of ten and more."""
    ours, reference = CASES[name]
    x = np.random.default_rng(0).uniform(-3, 3, (500, 3)).astype(np.float32)
    exact = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    total = reference(exact)
    total.backward()
    value, gradient = graph_of(ours)(Tensor(x))
    assert value.dtype == ms.float32 and gradient.dtype == ms.float32
    assert float(value.asnumpy()) == pytest.approx(total.item(), rel=1e-5)
    scale = exact.grad.abs().max().item()
    np.testing.assert_allclose(gradient.asnumpy(), exact.grad.numpy(), rtol=0, atol=1.2e-7 * scale)


def test_filler_rows_weigh_nothing():
    """A row of zero targets has neither loss nor gradient, whatever its logits are."""
    targets = Tensor(np.float32([[0, 1], [0, 0]]))

    def loss(x):
        return float64_ops.cross_entropy(x, targets)

    value, gradient = graph_of(loss)(Tensor(np.float32([[1, 2], [500, -500]])))
    assert float(value.asnumpy()) == pytest.approx(np.log1p(np.exp(-1)), rel=1e-6)
    assert not gradient.asnumpy()[1].any()
