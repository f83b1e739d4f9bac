"""Whole training steps against a PyTorch restatement on the same weights, data and noise."""

import numpy as np
import pytest
import torch
from torch.func import functional_call
from transformers import BertConfig as TorchConfig
from transformers import BertForSequenceClassification

from configs import schema
from mindspore_rt import adversary, noise
from mindspore_rt.bert import BertClassifier, BertConfig
from mindspore_rt.data import Batch
from mindspore_rt.objectives import FineTuning, RobustSearch
from mindspore_rt.optimizer import linear_schedule

CONFIG = BertConfig(60, 16, 2, 2, 32, 16, 2)
STEPS = 10


@pytest.fixture
def torch_model():
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        TorchConfig(
            vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            initializer_range=0.3, attn_implementation="eager",
        )
    )
    return model.double()


def weights_of(model):
    return {n: p.detach().numpy().astype(np.float32) for n, p in model.named_parameters()}


def batch(step):
    random = np.random.default_rng(step)
    ids = random.integers(5, 60, (4, 8)).astype(np.int32)
    mask, types = np.ones((4, 8), np.float32), np.zeros((4, 8), np.int32)
    mask[1, 5:], types[2, 4:] = 0, 1
    targets = np.eye(2, dtype=np.float32)[random.integers(0, 2, 4)] / 4
    return Batch(ids, mask, types, targets, np.arange(4))


def adamw(p, g, moments, t, lr, decay):
    """The reference form, float64."""
    m, v = moments
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    p = p - lr * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t) * m / (v.sqrt() + 1e-8)
    return p - lr * decay * p, (m, v)


def clipped(gradients, norm):
    total = sum((g * g).sum() for g in gradients.values()).sqrt()
    return {n: g * min(1.0, norm / (total.item() + 1e-6)) for n, g in gradients.items()}


def torch_search(model, settings, seed, steps, shapes, names):
    """FreeLB's K accumulated passes over masked weights, plus the L0 term; straight from Eq. 1-8."""
    weights = {n: p.detach() for n, p in model.named_parameters()}
    scores = {n: torch.full(weights[n].shape, np.log(5), dtype=torch.float64) for n in names}
    moments = {n: (torch.zeros_like(s), torch.zeros_like(s)) for n, s in scores.items()}
    masks, first_gate = sum(s.numel() for s in scores.values()), len(shapes) - len(names)
    losses = []
    for step in range(steps):
        b = batch(step)
        embedding = weights["bert.embeddings.word_embeddings.weight"][torch.tensor(b.ids)]
        delta = torch.tensor(adversary.start((4, 8, 16), b.attention_mask, settings.initial_norm, seed, step)).double()
        total = {n: torch.zeros_like(s) for n, s in scores.items()}
        losses.append(0.0)
        for ascent in range(settings.ascent_steps):
            draws = noise.HostNoise(seed).draw(shapes, step, ascent)
            delta.requires_grad_()
            leaves = {n: s.clone().requires_grad_() for n, s in scores.items()}
            changed = dict(weights)
            for i, name in enumerate(names):
                u = torch.tensor(draws[first_gate + i].asnumpy()).double().clamp(1e-4, 1 - 1e-4)
                s = torch.sigmoid((u.log() - (1 - u).log() + leaves[name]) / (2 / 3))
                changed[name] = weights[name] * (s * 1.2 - 0.1).clamp(0, 1)
            arguments = {"inputs_embeds": embedding + delta, "attention_mask": torch.tensor(b.attention_mask),
                         "token_type_ids": torch.tensor(b.token_types)}
            logits = functional_call(model, changed, (), arguments).logits
            loss = -(torch.log_softmax(logits, -1) * torch.tensor(b.targets)).sum() / settings.ascent_steps
            losses[-1] += loss.item()
            slope, *gradients = torch.autograd.grad(loss, [delta, *leaves.values()])
            for name, g in zip(leaves, gradients, strict=True):
                total[name] += g
            length = slope.flatten(1).norm(dim=1).clamp(min=1e-8).reshape(-1, 1, 1)
            delta = (delta + settings.ascent_rate * slope / length).detach()
        total = clipped(total, settings.clip_norm)
        share = min(1.0, max(0.0, (step - 0.1 * STEPS) / (0.3 * STEPS)))
        for name, s in scores.items():
            p = torch.sigmoid(s - (2 / 3) * np.log(0.1 / 1.1))
            gradient = total[name] + settings.l0_weight * share * p * (1 - p) / masks
            lr = settings.learning_rate * linear_schedule(step, STEPS, settings.warmup)
            scores[name], moments[name] = adamw(s, gradient, moments[name], step + 1, lr, settings.weight_decay)
    return losses, scores


def test_search_steps_agree_with_the_restatement(torch_model):
    settings = schema.Search(ascent_steps=3, learning_rate=0.1, l0_weight=0.5, dropout=0.0)
    model = BertClassifier(CONFIG, 2, dropout=0.0, masked=True)
    model.load(weights_of(torch_model))
    objective = RobustSearch(model, settings, STEPS, seed=7)
    losses = [objective.step(batch(i), i)["adversarial_loss"] for i in range(5)]
    names = list(CONFIG.prunable())
    expected_losses, expected = torch_search(torch_model, settings, 7, 5, model.noise_shapes(4, 8), names)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    for name, parameter in zip(names, objective.scores, strict=True):
        # The update is compared, not the scores: their constant start would hide everything.
        update, reference = parameter.asnumpy() - np.log(5), expected[name].numpy() - np.log(5)
        # Adam divides a gradient by its own size: where that is near eps, float32 noise shows. Judge by the norm.
        assert np.linalg.norm(update - reference) < 1e-2 * np.linalg.norm(reference), name


def test_l0_weight_follows_its_schedule():
    model = BertClassifier(CONFIG, 2, dropout=0.0, masked=True)
    objective = RobustSearch(model, schema.Search(l0_weight=0.5), 200, seed=1)
    assert [objective.l0_weight(i) for i in (0, 20, 50, 80, 199)] == pytest.approx([0, 0, 0.25, 0.5, 0.5])


def test_the_passes_accumulate_and_start_afresh_at_every_step(torch_model):
    model = BertClassifier(CONFIG, 2, dropout=0.0, masked=True)
    model.load(weights_of(torch_model))
    objective = RobustSearch(model, schema.Search(ascent_steps=2), STEPS, seed=1)
    objective.step(batch(0), 0)
    assert all((total.asnumpy() == 0).all() for total in objective.total)


def torch_finetune(model, settings, steps, masks):
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    moments = {n: (torch.zeros_like(w), torch.zeros_like(w)) for n, w in weights.items()}
    for step in range(steps):
        b = batch(step)
        leaves = {n: w.clone().requires_grad_() for n, w in weights.items()}
        arguments = {"input_ids": torch.tensor(b.ids), "attention_mask": torch.tensor(b.attention_mask),
                     "token_type_ids": torch.tensor(b.token_types)}
        logits = functional_call(model, leaves, (), arguments).logits
        loss = -(torch.log_softmax(logits, -1) * torch.tensor(b.targets)).sum()
        gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        for name, mask in masks.items():
            gradients[name] = gradients[name] * torch.tensor(mask)
        gradients = clipped(gradients, settings.clip_norm)
        lr = settings.learning_rate * linear_schedule(step, STEPS, settings.warmup)
        for name in weights:
            decay = 0.0 if name.endswith("bias") or "LayerNorm" in name else settings.weight_decay
            weights[name], moments[name] = adamw(weights[name], gradients[name], moments[name], step + 1, lr, decay)
    return weights


@pytest.mark.parametrize("pruned", [False, True])
def test_finetuning_and_retraining_agree_with_the_restatement(torch_model, pruned):
    settings = schema.Training(learning_rate=1e-2, dropout=0.0)
    masks = {n: np.random.default_rng(1).random(s) > 0.3 for n, s in CONFIG.prunable().items()} if pruned else {}
    with torch.no_grad():
        for name, parameter in torch_model.named_parameters():
            if name in masks:
                parameter *= torch.tensor(masks[name])
    start = weights_of(torch_model)
    model = BertClassifier(CONFIG, 2, dropout=0.0)
    model.load(start)
    objective = FineTuning(model, settings, STEPS, 1, masks)
    for i in range(4):
        objective.step(batch(i), i)
    expected = torch_finetune(torch_model, settings, 4, masks)
    for name, parameter in model.weights().items():
        found = parameter.asnumpy()
        if name in masks:
            assert (found[~masks[name]] == 0).all()
        update, reference = found - start[name], expected[name].numpy() - start[name]
        if np.linalg.norm(reference) > 1e-4 and "key.bias" not in name:  # a key's bias has no gradient but noise
            assert np.linalg.norm(update - reference) < 1e-2 * np.linalg.norm(reference), name


def test_filler_rows_change_nothing(torch_model):
    model = BertClassifier(CONFIG, 2, dropout=0.0)
    model.load(weights_of(torch_model))
    full, part = batch(0), batch(0)
    part.targets = part.targets * np.float32([[2], [2], [0], [0]])
    part.attention_mask[2:, 1:] = 0
    inputs = (a[:2] for a in (full.ids, full.attention_mask, full.token_types))
    half = Batch(*inputs, full.targets[:2] * 2, np.arange(2))
    results = []
    for b in (part, half):
        model.load(weights_of(torch_model))
        objective = FineTuning(model, schema.Training(learning_rate=1e-2, dropout=0.0, warmup=0.0), STEPS, 1)
        objective.step(b, 0)
        results.append({n: p.asnumpy() for n, p in model.weights().items()})
    for name, value in results[0].items():
        if "key.bias" not in name:
            np.testing.assert_allclose(value, results[1][name], atol=2e-5, err_msg=name)
