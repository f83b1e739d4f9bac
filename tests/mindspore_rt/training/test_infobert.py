"""InfoBERT's regularisers, its choice of tokens and whole steps, restated in PyTorch."""

import dataclasses
import math

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor

from configs.contract.experiment import schema
from mindspore_rt.cells import backend
from mindspore_rt.cells.encoder import EncoderClassifier
from mindspore_rt.data.batches import Batch
from mindspore_rt.training import infobert
from mindspore_rt.training.infobert import Critic, InfoBert
from tests.helpers.objectives import restore, snapshot, watch
from tests.helpers.restatement import (
    CONFIG,
    adamw,
    ascend,
    batch,
    clipped,
    cross_entropy,
    decay_of,
    distance,
    forward,
    leaves_of,
    norm_of,
    small_bert,
    start,
    weights_of,
)

STEPS, SEED = 10, 7
# Weights far above the default's, so that each term shows in the gradient; a clip that cuts.
SETTINGS = schema.InfoBertTraining(
    ascent_steps=2,
    dropout=0.0,
    anchor_weight=2.0,
    bottleneck_weight=0.05,
    learning_rate=1e-2,
    warmup=0.0,
    weight_decay=0.1,
    clip_norm=0.5,
)


def upper_bound(embeddings, partners):
    return (0.5 * (embeddings - embeddings[partners]) ** 2).sum(-1).mean()


def lower_bound(critic, tokens, sentences):
    """InfoNCE over all pairs of a chunk, as a network of the concatenated embeddings."""
    n = len(tokens)
    own = critic(torch.cat([tokens, sentences], -1))
    pairs = torch.cat([tokens.repeat(n, 1, 1), sentences.unsqueeze(1).repeat(1, n, 1)], -1)
    return own.mean() - (critic(pairs).logsumexp(1).mean() - math.log(n))


def torch_critic(parameters):
    """The same critic out of PyTorch's modules, float64."""
    values = {p.name.removeprefix("critic."): torch.tensor(p.asnumpy()).double() for p in parameters}
    width, hidden = values["token.weight"].shape
    critic = torch.nn.Sequential(
        torch.nn.Linear(2 * hidden, width), torch.nn.ReLU(), torch.nn.Linear(width, 1), torch.nn.Softplus()
    ).double()
    critic.load_state_dict(
        {
            "0.weight": torch.cat([values["token.weight"], values["sentence.weight"]], 1),
            "0.bias": values["bias"],
            "2.weight": values["score.weight"],
            "2.bias": values["score.bias"],
        }
    )
    return critic


def split(critic, values):
    """The critic's four arrays under the names of our five."""
    first, bias, score, score_bias = values
    hidden = first.shape[1] // 2
    return {
        "critic.token.weight": first[:, :hidden],
        "critic.sentence.weight": first[:, hidden:],
        "critic.bias": bias,
        "critic.score.weight": score,
        "critic.score.bias": score_bias,
    }


def test_the_bottleneck_agrees_with_pytorch():
    """Padded tokens are between real ones, and in no pair."""
    random = np.random.default_rng(0)
    embeddings, lengths = random.normal(size=(24, 16)).astype(np.float32), np.array([5, 0, 8])
    partners, shares = infobert.bottleneck_pairs(lengths, 8, random)
    tokens = [row * 8 + i for row, n in enumerate(lengths) for i in range(n)]
    chosen = partners.asnumpy()[tokens]
    assert set(chosen) <= set(tokens) and len(set(chosen)) < len(tokens)  # drawn with replacement
    value, gradient = ms.value_and_grad(infobert.upper_bound)(Tensor(embeddings), partners, shares)
    leaf = torch.tensor(embeddings[tokens]).double().requires_grad_()
    expected = upper_bound(leaf, [tokens.index(i) for i in chosen])
    expected.backward()
    assert float(value) == pytest.approx(expected.item(), rel=1e-5)
    assert distance(gradient.asnumpy()[tokens], leaf.grad) < 1e-5
    assert (np.delete(gradient.asnumpy(), tokens, 0) == 0).all()


@pytest.mark.parametrize("count", [1, 6, 12, 17])
def test_the_anchor_regulariser_agrees_with_pytorch(count):
    """Three chunks of 6: a last one that is cut, exactly full ones, empty ones, and one of a single pair."""
    random = np.random.default_rng(count)
    critic, size = Critic(16, seed=1), 6
    tokens, sentences = 4 * random.normal(size=(2, 3, size, 16)).astype(np.float32)
    valid = (np.arange(3 * size) < count).astype(np.float32).reshape(3, size)

    def bound(tokens, sentences):
        return infobert.info_nce(critic(tokens, sentences), Tensor(valid))

    value, (inputs, weights) = ms.value_and_grad(bound, (0, 1), weights=list(critic.get_parameters()))(
        Tensor(tokens), Tensor(sentences)
    )
    reference = torch_critic(critic.get_parameters())
    a, b = (torch.tensor(x.reshape(-1, 16)).double().requires_grad_() for x in (tokens, sentences))
    chunks = [slice(i, min(i + size, count)) for i in range(0, count, size)]
    expected = torch.stack([lower_bound(reference, a[c], b[c]) for c in chunks]).mean()
    expected.backward()
    # MindSpore's exp and log are right to about 2e-6 of 1; the terms of the bound are near 1 and nearly cancel.
    assert float(value) == pytest.approx(expected.item(), rel=1e-5, abs=5e-6)
    if count == 1:  # one pair alone carries no information: both are exactly 0
        assert all(np.abs(g.asnumpy()).max() < 1e-7 for g in (*inputs, *weights))
        return
    for gradient, leaf in zip(inputs, (a, b), strict=True):
        assert distance(gradient.asnumpy().reshape(-1, 16), leaf.grad) < 1e-5
    expected = split(reference, [p.grad for p in reference.parameters()])
    for parameter, gradient in zip(critic.get_parameters(), weights, strict=True):
        error = np.abs(gradient.asnumpy() - expected[parameter.name].numpy()).max()
        assert distance(gradient.asnumpy(), expected[parameter.name]) < 1e-5 or error < 2e-6, parameter.name


def selected(slope, lengths, low, high):
    """Flat places of the tokens between the two ranks, by PyTorch."""
    places = []
    for row, n in enumerate(lengths):
        _, order = torch.sort(slope[row, :n].norm(dim=1), stable=True)
        places += [row * slope.shape[1] + i for i in order[math.ceil(n * low) : math.ceil(n * high)].tolist()]
    return places


@pytest.mark.parametrize("low, high", [(0.5, 0.9), (0.0, 1.0), (0.3, 0.31)])
def test_tokens_are_chosen_by_rank(low, high):
    """Of sentences of every length, 0 too; padding has the largest gradients; ties fall to the earlier token."""
    lengths = np.arange(13)
    slope = torch.tensor(np.random.default_rng(0).normal(size=(13, 12, 4)))
    slope[:, 1::3] = slope[:, :1]
    for row, n in enumerate(lengths):
        slope[row, n:] *= 100
    mask = (np.arange(12) < lengths[:, None]).astype(np.float32)
    order = backend.jit(infobert.by_norm)(Tensor(slope.norm(dim=2).numpy().astype(np.float32)), Tensor(mask)).asnumpy()
    assert sorted(order) == list(range(13 * 12))
    tokens = order[infobert.anchors(lengths, 12, low, high)]
    assert tokens.tolist() == selected(slope, lengths, low, high)
    assert len(tokens) == sum(math.ceil(n * high) - math.ceil(n * low) for n in lengths)


@pytest.fixture(scope="module")
def objective():
    model = EncoderClassifier(CONFIG, 2, dropout=0.0)
    model.load(weights_of(small_bert()))
    return InfoBert(model, SETTINGS, STEPS, SEED)


def torch_step(model, critic, b, partners, chunks):
    """One step of K passes on the rows of `b`, all real, with the given random choices: gradients, losses, tokens."""
    leaves, delta = leaves_of(dict(model.named_parameters())), start(b, SETTINGS, SEED, 0)[: len(b.indices)]
    lengths = b.attention_mask.sum(1).astype(int)
    tokens = [row * b.ids.shape[1] + i for row, n in enumerate(lengths) for i in range(n)]
    losses, choices = np.zeros(3), []
    for mates, places in zip(partners, chunks, strict=True):
        delta.requires_grad_()
        output = forward(model, leaves, b, delta)
        embeddings, last = output.hidden_states[0].flatten(0, 1), output.hidden_states[-1]
        terms = [
            cross_entropy(output.logits, b),
            SETTINGS.bottleneck_weight * upper_bound(embeddings[tokens], [tokens.index(i) for i in mates[tokens]]),
        ]
        terms = [term / SETTINGS.ascent_steps for term in terms]
        slope = torch.autograd.grad(sum(terms), delta, retain_graph=True)[0]
        choices.append(selected(slope, lengths, SETTINGS.anchor_low, SETTINGS.anchor_high))
        bounds = [lower_bound(critic, embeddings[c], last[[i // b.ids.shape[1] for i in c], 0]) for c in places]
        terms.append(-SETTINGS.anchor_weight * torch.stack(bounds).mean() / SETTINGS.ascent_steps)
        sum(terms).backward()
        losses += [term.item() for term in terms]
        delta = ascend(delta, slope, SETTINGS.ascent_rate)
    return {n: leaf.grad for n, leaf in leaves.items()}, [p.grad for p in critic.parameters()], losses, choices


@pytest.mark.parametrize("fillers", [0, 1])
def test_a_step_agrees_with_pytorch(objective, monkeypatch, fillers):
    """With a filler row the restatement sees the real rows alone."""
    model, before, real = small_bert(), snapshot(objective), 4 - fillers
    full = batch(0)
    full.targets = full.targets * np.float32(4 / real)
    rows = Batch(*(a[:real] for a in (full.ids, full.attention_mask, full.token_types, full.targets)), np.arange(real))
    full.targets[real:], full.attention_mask[real:, 1:] = 0, 0
    passes, anchors = (watch(monkeypatch, objective, name) for name in ("ascent", "anchor"))
    figures = objective.step(full, 0)
    after = snapshot(objective)
    restore(objective, before)

    partners = [arguments[6].asnumpy() for arguments, _ in passes]
    chunks = []
    for arguments, _ in anchors:
        order, places, valid = (a.asnumpy() for a in arguments[5:])
        chunks.append([order[p[v > 0]] for p, v in zip(places, valid, strict=True) if v.any()])
    critic = torch_critic(objective.critic.get_parameters())
    gradients, critic_gradients, losses, choices = torch_step(model, critic, rows, partners, chunks)
    for places, choice in zip(chunks, choices, strict=True):
        assert sorted(np.concatenate(places)) == sorted(choice)
        assert [len(c) for c in places[:-1]] == [4] * (len(places) - 1)  # all but the last are full
    terms = [figures[name] for name in ("adversarial_loss", "bottleneck", "anchor")]
    np.testing.assert_allclose(terms, losses, rtol=1e-4)
    assert figures["gradient_norm"] == pytest.approx(norm_of(gradients), rel=1e-4)
    assert norm_of(gradients) > 1.1 * SETTINGS.clip_norm

    weights = {n: p.detach() for n, p in model.named_parameters()}
    weights.update(split(critic, [p.detach() for p in critic.parameters()]))
    gradients = {**clipped(gradients, SETTINGS.clip_norm), **split(critic, critic_gradients)}
    for name, weight in weights.items():
        if "key.bias" in name:  # has no gradient but noise
            continue
        moment1 = 0.1 * gradients[name]
        assert distance(after[f"{name}.moment1"], moment1) < 1e-4 or moment1.norm() < 1e-8, name
        decay = SETTINGS.weight_decay if "critic" in name else decay_of(name, SETTINGS)
        zeros = torch.zeros_like(weight), torch.zeros_like(weight)
        expected, _ = adamw(weight, gradients[name], zeros, 1, SETTINGS.learning_rate, decay)
        if moment1.norm() > 1e-6:
            assert distance(after[name] - before[name], expected - weight) < 1e-2, name


def test_what_stands_in_a_filler_row_changes_nothing(objective):
    before, results = snapshot(objective), []
    for ids in (0, 9):
        b = batch(0)
        b.targets[3], b.attention_mask[3, 1:], b.ids[3] = 0, 0, ids
        objective.step(b, 0)
        results.append(snapshot(objective))
        restore(objective, before)
    assert all((results[0][name] == results[1][name]).all() for name in before)


def test_a_worker_without_a_sentence_adds_nothing(objective):
    """The last batch of an epoch may have fewer sentences than there are workers."""
    before, b = snapshot(objective), batch(0)
    b.targets[:], b.attention_mask[:, 1:] = 0, 0
    figures = objective.step(b, 0)
    assert [figures[name] for name in ("adversarial_loss", "bottleneck", "anchor", "gradient_norm")] == [0, 0, 0, 0]
    restore(objective, before)


def test_the_passes_share_one_dropout_mask(monkeypatch):
    """With no perturbation at all, only the dropout could tell the passes apart. On devices: test_device_noise.py."""
    settings = schema.InfoBertTraining(ascent_steps=3, ascent_rate=0.0, initial_norm=0.0)
    model = EncoderClassifier(dataclasses.replace(CONFIG, num_hidden_layers=1), 2, dropout=0.5, attention_dropout=0.5)
    model.load(weights_of(small_bert()))
    objective = InfoBert(model, settings, STEPS, SEED)
    passes = watch(monkeypatch, objective, "ascent")
    for index in range(2):
        objective.step(batch(0), index)
    losses = np.reshape([float(result[0].asnumpy()) for _, result in passes], (2, 3))
    # Products on CPU may round in another way at another address.
    np.testing.assert_allclose(losses, losses[:, :1].repeat(3, 1), rtol=1e-6)
    assert abs(losses[0, 0] - losses[1, 0]) > 1e-4


def test_a_resumed_run_takes_the_same_step(objective):
    before = snapshot(objective)
    objective.step(batch(0), 0)
    saved = snapshot(objective)
    objective.step(batch(1), 1)
    straight = snapshot(objective)
    restore(objective, before)

    model = EncoderClassifier(CONFIG, 2, dropout=0.0)
    resumed = InfoBert(model, SETTINGS, STEPS, SEED)
    restore(resumed, saved)
    resumed.step(batch(1), 1)
    assert {n: a.tobytes() for n, a in snapshot(resumed).items()} == {n: a.tobytes() for n, a in straight.items()}
    critic = {name for name in saved if name.startswith("critic.")}
    assert len(critic) == 15 and not critic & set(model.weights())
