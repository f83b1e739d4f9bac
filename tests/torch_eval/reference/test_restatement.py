"""Our restatement of the official code, against transformers, closed forms and finite differences.

The environment variable OFFICIAL_REPO may name a checkout of the official repository, to compare with as well.
"""

import itertools
import math
import os

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import prune
from transformers import BertConfig, BertForSequenceClassification

from torch_eval.reference import restatement
from torch_eval.reference.restatement import MaskedBert, RestatedRetraining, RestatedSearch, SearchNoise, SearchSettings

BATCH, LENGTH = 3, 7


def config(dropout=0.0, layers=2):
    return BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.3,
    )


def masked_bert(seed=0, dtype=torch.float64, layers=2, **options) -> MaskedBert:
    """Random weights, biases and scores, so that one left out shows."""
    torch.manual_seed(seed)
    model = MaskedBert(config(layers=layers), **options).to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("bias", "log_alpha")):
                parameter.add_(torch.randn_like(parameter) * (0.1 if name.endswith("bias") else 1.0))
    return model


def batch(seed=0):
    draw = np.random.default_rng(seed)
    mask = (np.arange(LENGTH) < np.array([[7], [4], [6]])).astype(int)
    inputs = {
        "input_ids": draw.integers(1, 50, (BATCH, LENGTH)),
        "token_type_ids": draw.integers(0, 2, (BATCH, LENGTH)),
        "attention_mask": mask,
    }
    return {name: torch.tensor(value) for name, value in inputs.items()}, torch.tensor([0, 1, 1])


def noise(model, passes, seed=1) -> SearchNoise:
    draw = torch.Generator().manual_seed(seed)
    scores = model.log_alpha()
    dtype = next(iter(scores.values())).dtype
    return SearchNoise(
        torch.rand((BATCH, LENGTH, 16), generator=draw, dtype=dtype) * 2 - 1,
        [{n: torch.rand(a.shape, generator=draw, dtype=dtype) for n, a in scores.items()} for _ in range(passes)],
    )


def masked_by_hand(model: MaskedBert, mask) -> BertForSequenceClassification:
    """Plain transformers with each weight multiplied by `mask(name, log_alpha)`."""
    plain = BertForSequenceClassification(config(layers=model.config.num_hidden_layers)).to(model.dtype)
    weights = {n: p.detach() for n, p in model.weights().items()}
    for name, log_alpha in model.log_alpha().items():
        weights[name] = weights[name] * mask(name, log_alpha.detach())
    plain.load_state_dict(weights)
    return plain.eval()


def test_every_linear_layer_of_encoder_and_pooler_is_masked():
    """73 matrices and 85,524,480 weights in BERT-base; the classifier is not among them."""
    with torch.device("meta"):
        model = MaskedBert(BertConfig())
    assert len(model.log_alpha()) == 73
    assert sum(a.numel() for a in model.log_alpha().values()) == 85_524_480
    plain = BertForSequenceClassification(config()).state_dict()
    assert {n: p.shape for n, p in masked_bert().weights().items()} == {n: p.shape for n, p in plain.items()}


def test_deterministic_pass_is_transformers_with_masked_weights():
    model, (inputs, _) = masked_bert().eval(), batch()

    def mask(_, log_alpha):
        return np.clip(1.2 / (1 + np.exp(-log_alpha.numpy())) - 0.1, 0, 1)

    with torch.no_grad():
        result, expected = model(**inputs).logits, masked_by_hand(model, mask)(**inputs).logits
    torch.testing.assert_close(result, expected, atol=1e-12, rtol=0)
    assert expected.std(0).min() > 0.01


def test_sampled_pass_is_transformers_with_masked_weights():
    """Given noise, by the odds form of Eq. 1-3: s = 1 / (1 + (u / (1 - u) e^a)^(-1/beta))."""
    model, (inputs, _) = masked_bert().train(), batch()
    gates = noise(model, 1).gates[0]
    gates["bert.pooler.dense.weight"][0, :2] = torch.tensor([0.0, 1.0])  # what the clamp is for
    model.use_gates(gates)

    def mask(name, log_alpha):
        u = np.clip(gates[name].numpy(), 1e-4, 1 - 1e-4)
        s = 1 / (1 + (u / (1 - u) * np.exp(log_alpha.numpy())) ** -1.5)
        return np.clip(1.2 * s - 0.1, 0, 1)

    with torch.no_grad():
        result, expected = model(**inputs).logits, masked_by_hand(model, mask)(**inputs).logits
    torch.testing.assert_close(result, expected, atol=1e-12, rtol=0)


def test_masks_drawn_by_torch_have_the_gate_distribution():
    """P(m > 0) is Eq. 4; a second pass draws anew, an evaluation does not."""
    layer = restatement.MaskedLinear(torch.nn.Linear(400, 500))
    masks = [layer.mask() for _ in range(2)]
    expected = 1 / (1 + math.exp(-(math.log(5) - 2 / 3 * math.log(1 / 11))))
    assert abs((masks[0] > 0).float().mean().item() - expected) < 4 * math.sqrt(expected * (1 - expected) / 200_000)
    assert not torch.equal(*masks)
    assert torch.allclose(layer.eval().mask(), torch.tensor(0.9))


def test_scores_are_shared_with_a_stride():
    """Weight (i, j) takes score (i mod rows, j mod columns), not the score of a contiguous block."""
    linear = torch.nn.Linear(6, 8, bias=False)
    layer = restatement.MaskedLinear(linear, block=(4, 3)).eval()
    assert layer.log_alpha.shape == (2, 2)
    layer.log_alpha.data = torch.tensor([[-0.5, 0.2], [0.9, -1.3]])
    m = restatement.deterministic_mask(layer.log_alpha.detach())
    weight = linear.weight.detach()
    effective = torch.tensor([[weight[i, j] * m[i % 2, j % 2] for j in range(6)] for i in range(8)])
    torch.testing.assert_close(layer(torch.eye(6)).T, effective)


def test_l0_term_is_a_mean_of_means():
    """Two matrices of unlike size: the mean of means weighs each score of the small one more."""
    scores = [torch.tensor([[0.3, -1.0]], requires_grad=True), torch.zeros((4, 2), requires_grad=True)]

    def p(a):
        return 1 / (1 + np.exp(-(a - 2 / 3 * math.log(1 / 11))))

    small, large = p(np.array([0.3, -1.0])).mean(), p(0.0)
    assert restatement.l0_term(scores).item() == pytest.approx((small + large) / 2)


def test_start_has_its_size_on_tokens_only():
    embeddings, mask = torch.zeros(2, 5, 4), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    result = restatement.start_perturbation(embeddings, mask, 0.05, torch.ones(2, 5, 4))
    assert result.flatten(1).norm(dim=1).tolist() == pytest.approx([0.05, 0.05])
    assert not result[1, 2:].any()
    delta = restatement.start_perturbation(embeddings, mask, 0.05, None)
    assert delta.abs().max() <= 0.05 / math.sqrt(8) and delta[0].unique().numel() > 10 and not delta[1, 2:].any()


def test_ascent_goes_its_rate():
    gradient = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    gradient[1] = 0
    moved = restatement.ascend(torch.zeros(2, 3, 4), gradient, 0.03)
    torch.testing.assert_close(moved[0], 0.03 * gradient[0] / gradient[0].pow(2).sum().sqrt())
    assert not moved[1].any()


def search_loss(model, inputs, labels, given) -> torch.Tensor:
    """The K-pass objective for float64 scores, written apart from the class: perturbations are constants, found by
    `torch.autograd.grad` on plain transformers with masked weights."""
    shape = given.start.shape
    embed = model.bert.embeddings.word_embeddings.weight.detach()[inputs["input_ids"]]
    tokens = inputs["attention_mask"].double()
    delta = given.start * (tokens * 0.05 / (tokens.sum(1, keepdim=True) * shape[2]).sqrt())[..., None]
    total = 0.0
    for gates in given.gates:
        plain = masked_by_hand(model, lambda name, a, gates=gates: restatement.sampled_mask(a, gates[name]))
        delta = delta.detach().requires_grad_()
        logits = plain(inputs_embeds=embed + delta, attention_mask=inputs["attention_mask"]).logits
        loss = cross_entropy(logits, labels) / len(given.gates)
        (slope,) = torch.autograd.grad(loss, delta)
        delta = delta + 0.03 * slope / slope.pow(2).sum((1, 2), keepdim=True).sqrt()
        total += loss.item()
    return total


def test_search_gradients_agree_with_finite_differences():
    """One pass, whose perturbation does not depend on the scores, so that the objective itself can be differenced."""
    model, (inputs, labels) = masked_bert(), batch()
    settings, given = SearchSettings(10, ascent_steps=1), noise(model, 1)
    losses = RestatedSearch(model, settings).accumulate(inputs, labels, given)
    assert sum(losses) == pytest.approx(search_loss(model, inputs, labels, given), abs=1e-12)
    checked = 0
    for name, scores in model.log_alpha().items():
        index = tuple(int(i) for i in np.unravel_index(scores.grad.abs().argmax(), scores.shape))
        values = []
        for step in (1e-5, -1e-5):
            scores.data[index] += step
            values.append(search_loss(model, inputs, labels, given))
            scores.data[index] -= step
        slope = (values[0] - values[1]) / 2e-5
        assert scores.grad[index].item() == pytest.approx(slope, rel=1e-4, abs=1e-9), name
        checked += abs(slope) > 1e-4
    assert checked > 8  # of 13


def test_losses_of_all_passes():
    """The perturbation climbs in between: three passes against the same written by hand."""
    model, (inputs, labels) = masked_bert(), batch()
    settings, given = SearchSettings(10, ascent_steps=3), noise(model, 3)
    losses = RestatedSearch(model, settings).accumulate(inputs, labels, given)
    assert len(losses) == 3
    assert sum(losses) == pytest.approx(search_loss(model, inputs, labels, given), abs=1e-12)


def test_frozen_and_official_search_differ_by_the_clip_alone():
    """Same gradients before the clip; the official clip counts the weights' gradients in, and those of the steps
    before, as nothing zeroes them."""
    (inputs, labels), gradients = batch(), {}
    for freeze in (False, True):
        model = masked_bert()
        search = RestatedSearch(model, SearchSettings(10, ascent_steps=2, clip_norm=1e9, freeze=freeze))
        search.accumulate(inputs, labels, noise(model, 2))
        gradients[freeze] = torch.cat([a.grad.flatten() for a in search.scores])
        if freeze:
            assert all(p.grad is None for p in model.weights().values())
        else:
            first = {n: p.grad.clone() for n, p in model.weights().items()}
            search.accumulate(inputs, labels, noise(model, 2))
            for name, value in first.items():  # the second time adds up for the weights, not for the scores
                torch.testing.assert_close(model.get_parameter(name).grad, 2 * value, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(gradients[False], gradients[True], atol=1e-14, rtol=1e-10)


def test_update_is_clip_then_l0_then_adam():
    """Two updates against NumPy, from gradients set by hand. The clip scales stale weight gradients in place."""
    model = masked_bert()
    settings = SearchSettings(20, l0_start=0.0, l0_ramp=0.5, warmup=0.1)
    search, rng = RestatedSearch(model, settings), np.random.default_rng(0)
    values = [a.detach().numpy().copy() for a in search.scores]
    m, v = [np.zeros_like(a) for a in values], [np.zeros_like(a) for a in values]
    stale = {n: torch.tensor(rng.normal(size=tuple(p.shape))) for n, p in model.weights().items()}
    for update in (1, 2):
        gradients = [rng.normal(size=a.shape) for a in values]
        for a, g in zip(search.scores, gradients):
            a.grad = torch.tensor(g)
        for name, p in model.weights().items():
            p.grad = stale[name].clone()
        result = search.update(update)
        square = sum((g**2).sum() for g in gradients) + sum(float((g**2).sum()) for g in stale.values())
        scale = 1 / (math.sqrt(square) + 1e-6)
        l0 = 0.5 * min(1.0, 3 * (update + 1) / 10)
        rate = 0.1 * (update / 2 if update < 2 else (20 - update) / 18)
        assert (result["l0_weight"], result["learning_rate"]) == pytest.approx((l0, rate))
        for i, g in enumerate(gradients):
            p = 1 / (1 + np.exp(-(values[i] - 2 / 3 * math.log(1 / 11))))
            total = g * scale + l0 * p * (1 - p) / values[i].size / len(values)
            m[i], v[i] = 0.9 * m[i] + 0.1 * total, 0.999 * v[i] + 0.001 * total**2
            size = rate * math.sqrt(1 - 0.999**update) / (1 - 0.9**update)
            values[i] -= size * m[i] / (np.sqrt(v[i]) + 1e-8)
            values[i] *= 1 - rate * 1e-6
            np.testing.assert_allclose(search.scores[i].detach().numpy(), values[i], rtol=1e-10, atol=1e-12)
        name = "classifier.weight"
        torch.testing.assert_close(model.get_parameter(name).grad, stale[name] * scale)


def test_lambda_runs_three_times_too_fast():
    """100 steps, start 0.1, ramp 0.3: the paper reaches lambda at step 40, the official code at 14."""
    settings = SearchSettings(100)
    assert [settings.l0_weight_at(i) for i in (0, 2, 7, 13, 99)] == pytest.approx([0, 0, 0.5 * 14 / 30, 0.5, 0.5])


def test_draw_is_a_global_prune_of_sigmoids():
    """Against `global_unstructured` on modules; scores far out tie in float32 and raw L1 would prune the middle."""
    model = masked_bert(dtype=torch.float32)
    for a in model.log_alpha().values():
        a.data *= 8
    modules = [torch.nn.ParameterList([torch.sigmoid(a.detach())]) for a in model.log_alpha().values()]
    pairs = [(m, "0") for m in modules]
    prune.global_unstructured(pairs, prune.L1Unstructured, amount=0.4)
    result = restatement.draw(model.log_alpha(), 0.4)
    for (name, mask), module in zip(result.items(), modules, strict=True):
        assert torch.equal(mask, getattr(module, "0_mask").bool()), name
    total = sum(m.numel() for m in result.values())
    assert sum(int((~m).sum()) for m in result.values()) == round(0.4 * total)


def test_retraining_is_fine_tuning_of_the_masked_weights():
    """Two steps against transformers with exact zeros, masked gradients and AdamW in float64 NumPy; noise plays no
    part."""
    model, (inputs, labels) = masked_bert(), batch()
    masks = restatement.draw(model.log_alpha(), 0.3)
    model.fix_ticket(masks)
    retraining = RestatedRetraining(model, total_steps=4, learning_rate=0.01, warmup=0.0)
    values = {n: p.detach().numpy().copy() for n, p in model.weights().items()}
    m, v = ({n: np.zeros_like(x) for n, x in values.items()} for _ in range(2))
    plain = BertForSequenceClassification(config()).double().train()
    for update in (1, 2):
        weights = {n: torch.tensor(x) * masks[n] if n in masks else torch.tensor(x) for n, x in values.items()}
        plain.load_state_dict(weights)
        plain.zero_grad()
        loss = cross_entropy(plain(**inputs).logits, labels)
        loss.backward()
        rate = 0.01 * (4 - (update - 1)) / 4
        assert retraining.step(inputs, labels, update - 1) == pytest.approx(
            {"loss": loss.item(), "learning_rate": rate}, abs=1e-9
        )
        for name, p in plain.named_parameters():
            g = (p.grad * masks[name] if name in masks else p.grad).numpy()
            m[name], v[name] = 0.9 * m[name] + 0.1 * g, 0.999 * v[name] + 0.001 * g**2
            size = rate * math.sqrt(1 - 0.999**update) / (1 - 0.9**update)
            values[name] -= size * m[name] / (np.sqrt(v[name]) + 1e-8)
            if not (name.endswith("bias") or "LayerNorm" in name):
                values[name] *= 1 - rate * 0.01
            result = model.get_parameter(name).detach().numpy()
            np.testing.assert_allclose(result, values[name], atol=1e-7, err_msg=name)
    assert all((a.detach().abs() == 20).all() for a in model.log_alpha().values())


# --- against a checkout -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkout():
    if "OFFICIAL_REPO" not in os.environ:
        pytest.skip("OFFICIAL_REPO names no checkout of the official repository")
    from torch_eval.reference.official_checkout import Checkout

    return Checkout(os.environ["OFFICIAL_REPO"])


def twin(checkout, model: MaskedBert, block=(1, 1)):
    """The checkout's model with the weights and scores of ours."""
    other = checkout.model(config(layers=model.config.num_hidden_layers), block=block).to(model.dtype)
    scores = checkout.log_alpha(other)
    assert list(scores) == list(model.log_alpha())
    other.load_state_dict(model.weights(), strict=False)
    for name, a in model.log_alpha().items():
        scores[name].data = a.detach().clone().view_as(scores[name])
    return other


def assert_same_scores(checkout, other, model):
    for name, a in model.log_alpha().items():
        torch.testing.assert_close(checkout.log_alpha(other)[name].view_as(a), a, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("block", [(1, 1), (16, 1), (16, 16)])
def test_same_search_as_the_checkout(checkout, block):
    """Four steps of its own loop and of ours from the same random state: gates, perturbations, the clip over stale
    gradients, the ramp, the optimizer. torch draws the same numbers, as both draw in one order."""
    model, steps = masked_bert(dtype=torch.float32, block=block), 4
    other = twin(checkout, model, block)
    torch.manual_seed(5)
    checkout.search(other, (batch(i) for i in range(steps)), total_steps=8, adv_steps=3, lambda_amp=0.5)
    before = {n: a.detach().clone() for n, a in model.log_alpha().items()}
    search = RestatedSearch(model, SearchSettings(8, ascent_steps=3))
    torch.manual_seed(5)
    for i in range(steps):
        search.step(*batch(i), i)
    assert_same_scores(checkout, other, model)
    moved = [(a - before[n]).abs().max().item() > 0.05 for n, a in model.log_alpha().items()]
    assert sum(moved) > len(moved) / 2


def test_same_retraining_as_the_checkout(checkout):
    model, steps = masked_bert(dtype=torch.float32), 3
    masks = restatement.draw(model.log_alpha(), 0.3)
    other = twin(checkout, model)
    checkout.retrain(other, masks, (batch(i) for i in range(steps)), total_steps=6, lr=0.01)
    model.fix_ticket(masks)
    retraining = RestatedRetraining(model, 6, learning_rate=0.01)
    for i in range(steps):
        retraining.step(*batch(i), i)
    assert_same_scores(checkout, other, model)
    for (name, ours), theirs in itertools.zip_longest(
        model.weights().items(), (p for n, p in other.named_parameters() if "mask_scores" not in n)
    ):
        torch.testing.assert_close(theirs, ours, atol=1e-6, rtol=1e-4, msg=name)


def test_same_draw_as_the_checkout(checkout):
    """Ties included: 12 layers, which its draw insists on, of scores so large that float32 sigmoids tie."""
    model = masked_bert(dtype=torch.float32, layers=12)
    for a in model.log_alpha().values():
        a.data = a.data * 6 + 5
    expected = checkout.draw(twin(checkout, model), 0.3)
    result = restatement.draw(model.log_alpha(), 0.3)
    assert set(result) == set(expected) and len(result) == 73
    for name, mask in expected.items():
        assert torch.equal(result[name], mask), name


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    from configs.contract.basics.errors import UserError
    from torch_eval.reference.official_checkout import Checkout

    with pytest.raises(UserError, match="masked_linear.py is missing"):
        Checkout(tmp_path)
