"""AdamW and the schedule against the formulas and against PyTorch."""

import math

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Parameter, Tensor

from mindspore_rt.optimizer import AdamW, clip_scale, linear_schedule, no_decay


def reference(p, gradients, rates, weight_decay):
    """The reference form in float64: bias-corrected, eps on the uncorrected root, decoupled decay after the step."""
    m = v = np.zeros_like(p)
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p = p - lr * math.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-8)
        p = p - lr * weight_decay * p
    return p


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-10])
def test_ten_updates_agree_with_the_reference_form(scale):
    """At 1e-10, the size of the L0 gradient of BERT-base, eps decides: the update must still be right."""
    random = np.random.default_rng(0)
    start = random.normal(size=(5, 7))
    gradients = random.normal(size=(10, 5, 7)) * scale
    rates = [0.1 * linear_schedule(i, 10, 0.2) for i in range(10)]
    parameters = [Parameter(Tensor(start.astype(np.float32)), name=n) for n in ("a", "b")]
    optimizer = AdamW(parameters, 0.01, [True, False])
    for i, g in enumerate(gradients):
        optimizer((Tensor(g.astype(np.float32)),) * 2, optimizer.rates(rates[i], i + 1))
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

    @ms.jit
    def scale(gradients):
        return clip_scale(gradients, 1.0)

    factor = scale(tuple(Tensor(a) for a in arrays)).asnumpy()
    for p, a in zip(parameters, arrays, strict=True):
        np.testing.assert_allclose(a * factor, p.grad, rtol=1e-5)


def test_biases_and_layer_norm_are_not_decayed():
    assert no_decay("bert.encoder.layer.0.output.dense.bias")
    assert no_decay("bert.embeddings.LayerNorm.weight")
    assert not no_decay("bert.pooler.dense.weight")
