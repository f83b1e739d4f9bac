"""AdamW and the schedule against the formulas and against PyTorch."""

import math

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Parameter, Tensor

from mindspore_rt.cells.backend import Backend
from mindspore_rt.training.optimizer import (
    Clear,
    KernelAdamW,
    PrimitiveAdamW,
    adamw,
    clip_factor,
    linear_schedule,
    no_decay,
)
from tests.helpers import forms, restatement


@pytest.fixture(params=[Backend.KERNELS, Backend.PRIMITIVES, Backend.GPU], ids=lambda form: form.value)
def implementation(request, monkeypatch):
    """Build AdamW of kernels, or of primitives in the form of CPUs or of devices."""
    forms.use(request.param, monkeypatch)
    return KernelAdamW if request.param is Backend.KERNELS else PrimitiveAdamW


def reference(p, gradients, rates, weight_decay):
    """The parameter in float64 after these updates."""
    p, moments = torch.tensor(p), (0.0, 0.0)
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        p, moments = restatement.adamw(p, torch.tensor(g), moments, t, lr, weight_decay)
    return p.numpy()


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-10])
def test_ten_updates_agree_with_the_reference_form(implementation, scale):
    """At 1e-10, the size of the L0 gradient of BERT-base, eps decides: the update must still be right."""
    random = np.random.default_rng(0)
    start = random.normal(size=(5, 7))
    gradients = random.normal(size=(10, 5, 7)) * scale
    rates = [0.1 * linear_schedule(i, 10, 0.2) for i in range(10)]
    parameters = [Parameter(Tensor(start.astype(np.float32)), name=n) for n in ("a", "b")]
    optimizer = adamw(parameters, 0.01, [True, False])
    assert type(optimizer) is implementation

    @ms.jit
    def update(gradients, rates):
        return optimizer(gradients, rates)

    for i, g in enumerate(gradients):
        update((Tensor(g.astype(np.float32)),) * 2, optimizer.rates(rates[i], i + 1))
    for parameter, decay in zip(parameters, (0.01, 0.0), strict=True):
        expected = reference(start, gradients, rates, decay)
        update = np.linalg.norm(expected - start)
        assert np.linalg.norm(parameter.asnumpy() - expected) < 2e-4 * update + 1e-6


def test_schedule_is_that_of_transformers():
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = get_linear_schedule_with_warmup(optimizer, 7, 40)
    for step in range(40):
        assert linear_schedule(step, 40, 7 / 40) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("size", [0.01, 10.0])
def test_clip_is_that_of_torch(size):
    arrays = [np.random.default_rng(i).normal(0, size, (4, 3)).astype(np.float32) for i in range(3)]
    parameters = [torch.zeros(4, 3, requires_grad=True) for _ in arrays]
    for p, a in zip(parameters, arrays, strict=True):
        p.grad = torch.tensor(a)
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)

    optimizer = adamw([Parameter(Tensor(a), name=f"p{i}") for i, a in enumerate(arrays)], 0.0, [False] * 3)

    @ms.jit
    def scale(gradients):
        return clip_factor(optimizer.norm(gradients), 1.0)

    factor = scale(tuple(Tensor(a) for a in arrays)).asnumpy()
    for p, a in zip(parameters, arrays, strict=True):
        np.testing.assert_allclose(a * factor, p.grad, rtol=1e-5)


def test_biases_and_layer_norm_are_not_decayed():
    assert no_decay("bert.encoder.layer.0.output.dense.bias")
    assert no_decay("bert.embeddings.LayerNorm.weight")
    assert not no_decay("bert.pooler.dense.weight")


def test_clip_masks_and_penalty_enter_the_gradient(implementation):
    """As a search (factor, L0 term) and a retraining (factor, mask) use the optimiser, over many pieces."""
    random = np.random.default_rng(1)
    start, gradient = random.normal(size=(2, 130, 77)).astype(np.float32)
    keep = random.random(start.shape) > 0.4
    score, pruned, free, gradient_sum = (
        Parameter(Tensor(a), name=n) for a, n in ((start, "s"), (start, "k"), (start[0], "f"), (gradient, "g"))
    )
    search, retrain = adamw([score], 0.01, [True]), adamw([free, pruned], 0.01, [False, True], [None, keep])
    clear = Clear([gradient_sum])

    @ms.jit
    def update(search_rates, retrain_rates, factor, penalty):
        both = (gradient_sum[0], gradient_sum)
        norms = search.norm((gradient_sum,)), retrain.norm(both), search.norm((gradient_sum,), both)
        search((gradient_sum,), search_rates, factor, penalty)
        retrain(both, retrain_rates, factor)
        clear()
        return norms

    factor, penalty = 0.25, 0.5
    whole, part, more = update(
        search.rates(0.1, 1), retrain.rates(0.1, 1), Tensor(np.float32(factor)), Tensor(np.float32([penalty]))
    )
    assert float(whole.asnumpy()) == pytest.approx(np.linalg.norm(gradient), rel=1e-5)
    squares = [np.square(g).sum() for g in (gradient[0], gradient * keep, gradient)]
    assert float(part.asnumpy()) == pytest.approx(np.sqrt(squares[0] + squares[1]), rel=1e-5)
    assert float(more.asnumpy()) == pytest.approx(np.sqrt(squares[0] + 2 * squares[2]), rel=1e-5)
    p = 1 / (1 + np.exp(-(start.astype(np.float64) - 2 / 3 * np.log(0.1 / 1.1))))
    for parameter, g, decay in (
        (score, gradient * factor + penalty * p * (1 - p), 0.01),
        (pruned, gradient * factor * keep, 0.01),
        (free, gradient[0] * factor, 0.0),
    ):
        expected = reference(start[0] if parameter is free else start, [g], [0.1], decay)
        np.testing.assert_allclose(parameter.asnumpy(), expected, atol=1e-5)
    assert (gradient_sum.asnumpy() == 0).all()


def test_a_gradient_that_is_not_finite_shows_in_the_norm(implementation):
    bad = np.ones((3, 5), np.float32)
    bad[1, 2] = np.nan
    optimizer = adamw([Parameter(Tensor(bad), name="p")], 0.0, [True])
    assert np.isnan(optimizer.norm((Tensor(bad),)).asnumpy())


@pytest.fixture
def fifth_of_the_depth():
    """Let graphs nest 200 deep, not 1000: a fifth of the parameters shows what 201 would, in a tenth of the time."""
    ms.set_recursion_limit(200)
    yield
    ms.set_recursion_limit(1000)


@pytest.mark.parametrize("implementation", [Backend.KERNELS, Backend.GPU], indirect=True, ids=lambda form: form.value)
def test_as_many_parameters_as_bert_base_has_are_updated(implementation, fifth_of_the_depth):
    """201, or here 41: a graph that nests deeper with each of them is more than MindSpore compiles.

    On a CPU without kernels the graph has the same form as on a device.
    """
    count, start = 41, np.float32([1.0, -2.0])
    parameters = [Parameter(Tensor(start), name=f"p{i}") for i in range(count)]
    keep = [np.array([True, False]) if i % 2 else None for i in range(count)]
    optimizer = adamw(parameters, 0.01, [i % 3 > 0 for i in range(count)], keep)

    @ms.jit
    def update(gradients, rates):
        norm = optimizer.norm(gradients)
        optimizer(gradients, rates, 0.5)
        return norm

    norm = update((Tensor(np.ones(2, np.float32)),) * count, optimizer.rates(0.1, 1))
    assert float(norm.asnumpy()) == pytest.approx(math.sqrt(2 * count - count // 2))
    for i, parameter in enumerate(parameters):
        gradient = np.array([0.5, 0.0 if i % 2 else 0.5])
        expected = reference(start, [gradient], [0.1], 0.01 if i % 3 else 0.0)
        np.testing.assert_allclose(parameter.asnumpy(), expected, atol=1e-6)
