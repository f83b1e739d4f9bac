"""Whole training steps against a PyTorch restatement on the same weights, data and noise."""

import numpy as np
import pytest
import torch

from configs.contract.experiment import schema
from mindspore_rt.cells import backend, noise
from mindspore_rt.cells.encoder import EncoderClassifier
from mindspore_rt.data.batches import Batch
from mindspore_rt.training.objectives import FineTuning, FreeLB, RobustSearch
from mindspore_rt.training.optimizer import linear_schedule
from tests.helpers.objectives import watch
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

STEPS = 10


@pytest.fixture
def torch_model():
    return small_bert()


def masked_bert(torch_model):
    model = EncoderClassifier(CONFIG, 2, dropout=0.0, masked=True)
    model.load(weights_of(torch_model))
    return model


# --- the search ----------------------------------------------------------------------------------------------


def sampled(weight, score, u):
    """A weight under its mask, Eq. 1-3."""
    u = torch.tensor(u).double().clamp(1e-4, 1 - 1e-4)
    s = torch.sigmoid((u.log() - (1 - u).log() + score) / (2 / 3))
    return weight * (s * 1.2 - 0.1).clamp(0, 1)


def torch_search(model, settings, seed, steps, departures=()):
    """FreeLB's K accumulated passes over masked weights, plus the L0 term; straight from Eq. 1-8.

    `departures` are those of the official code: `segments` are dropped; the L0 term is a `mean of means`; lambda's
    schedule is `threefold`; and `stale` gradients of the weights count in the clip, which scales them, for ever.
    """
    shapes = EncoderClassifier(CONFIG, 2, dropout=0.0, masked=True).noise_shapes(4, 8)
    weights, names = {n: p.detach() for n, p in model.named_parameters()}, list(CONFIG.prunable())
    scores = {n: torch.full(weights[n].shape, np.log(5), dtype=torch.float64) for n in names}
    moments = {n: (torch.zeros_like(s), torch.zeros_like(s)) for n, s in scores.items()}
    stale = {f"stale {n}": torch.zeros_like(w) for n, w in weights.items()}
    masks, losses, norms = sum(s.numel() for s in scores.values()), [], []
    for step in range(steps):
        b = batch(step)
        if "segments" in departures:
            b.token_types[:] = 0
        delta = start(b, settings, seed, step)
        total = {n: torch.zeros_like(s) for n, s in scores.items()}
        losses.append(0.0)
        for ascent in range(settings.ascent_steps):
            numbers = noise.source(seed).numbers(shapes, step, ascent)[-len(names) :]
            delta.requires_grad_()
            leaves, leaves_w = leaves_of(scores), leaves_of(weights)
            changed = {**leaves_w, **{n: sampled(leaves_w[n], leaves[n], u) for n, u in zip(names, numbers)}}
            loss = cross_entropy(forward(model, changed, b, delta).logits, b) / settings.ascent_steps
            losses[-1] += loss.item()
            loss.backward()
            total = {n: g + leaves[n].grad for n, g in total.items()}
            stale = {f"stale {n}": stale[f"stale {n}"] + leaf.grad for n, leaf in leaves_w.items()}
            delta = ascend(delta.detach(), delta.grad, settings.ascent_rate)
        everything = {**total, **stale} if "stale" in departures else total
        norms.append(norm_of(everything))
        everything = clipped(everything, settings.clip_norm)
        stale = {n: everything.get(n, g) for n, g in stale.items()}
        elapsed = 3 * (step + 1) if "threefold" in departures else step
        share = min(1.0, max(0.0, (elapsed - settings.l0_start * STEPS) / (settings.l0_ramp * STEPS)))
        for name, s in scores.items():
            p = torch.sigmoid(s - (2 / 3) * np.log(0.1 / 1.1))
            count = len(names) * s.numel() if "mean of means" in departures else masks
            gradient = everything[name] + settings.l0_weight * share * p * (1 - p) / count
            lr = settings.learning_rate * linear_schedule(step, STEPS, settings.warmup)
            scores[name], moments[name] = adamw(s, gradient, moments[name], step + 1, lr, settings.weight_decay)
    return losses, norms, scores, {n: m for n, (m, _) in moments.items()}


def search(torch_model, settings, steps, compat="paper"):
    """The same of the objective itself."""
    objective = RobustSearch(masked_bert(torch_model), settings, STEPS, seed=7, compat=compat)
    figures = [objective.step(batch(i), i) for i in range(steps)]
    assert all((total.asnumpy() == 0).all() for total in objective.gradient_sums[: len(objective.scores)])
    losses, norms = ([f[name] for f in figures] for name in ("adversarial_loss", "gradient_norm"))
    state = {name: p.asnumpy() for name, p in objective.state().items()}
    scores, moments = ({n: state[f"{n}.log_alpha{end}"] for n in CONFIG.prunable()} for end in ("", ".moment1"))
    return losses, norms, scores, moments


def same(ours, expected):
    """Tell whether two searches made the same updates."""
    figures = all(np.allclose(a, b, rtol=1e-4) for a, b in zip(ours[:2], expected[:2], strict=True))
    return figures and all(distance(ours[3][n], m) < 1e-3 for n, m in expected[3].items())


def test_search_steps_agree_with_the_restatement(torch_model):
    settings = schema.MaskSearch(ascent_steps=3, learning_rate=0.1, l0_weight=0.5, dropout=0.0)
    ours = search(torch_model, settings, 5)
    expected = torch_search(torch_model, settings, 7, 5)
    assert same(ours, expected)
    for name, reference in expected[2].items():
        # The update is compared, not the scores: their constant start would hide everything. Adam divides a gradient
        # by its own size: where that is near eps, float32 noise shows.
        assert distance(ours[2][name] - np.log(5), reference - np.log(5)) < 1e-2, name


# A lambda that outweighs the loss, and a clip that always cuts: every departure shows.
LOUD = schema.MaskSearch(ascent_steps=2, learning_rate=0.01, l0_weight=20.0, l0_start=0.1, clip_norm=0.05, dropout=0.0)
DEPARTURES = ("segments", "mean of means", "threefold", "stale")


@pytest.fixture(scope="module")
def searches():
    return {compat: search(small_bert(), LOUD, 3, compat) for compat in ("paper", "official")}


def test_both_searches_agree_with_the_restatement(searches, torch_model):
    assert same(searches["paper"], torch_search(torch_model, LOUD, 7, 3))
    assert same(searches["official"], torch_search(torch_model, LOUD, 7, 3, DEPARTURES))


@pytest.mark.parametrize("departure", DEPARTURES)
def test_no_departure_is_taken_by_the_paper_or_missed_by_the_official_search(searches, torch_model, departure):
    """One departure more than the paper, or one less than the official code, makes other updates."""
    assert not same(searches["paper"], torch_search(torch_model, LOUD, 7, 3, [departure]))
    others = [d for d in DEPARTURES if d != departure]
    assert not same(searches["official"], torch_search(torch_model, LOUD, 7, 3, others))


@pytest.mark.parametrize(
    "compat, at, expected",
    [
        ("paper", (0, 20, 50, 80, 199), (0, 0, 0.25, 0.5, 0.5)),
        ("official", (0, 5, 6, 16, 26, 199), (0, 0, 0.5 / 60, 31 / 120, 0.5, 0.5)),
    ],
)
def test_l0_weight_follows_its_schedule(compat, at, expected):
    """Of 200 steps, 20 pass before the penalty starts and 60 while it grows; officially a third of that."""
    model = EncoderClassifier(CONFIG, 2, dropout=0.0, masked=True)
    objective = RobustSearch(model, schema.MaskSearch(l0_weight=0.5), 200, 1, compat)
    assert [objective.l0_weight(i) for i in at] == pytest.approx(expected)


def test_a_penalty_without_a_ramp_starts_at_once():
    model = EncoderClassifier(CONFIG, 2, dropout=0.0, masked=True)
    objective = RobustSearch(model, schema.MaskSearch(l0_weight=0.5, l0_ramp=0.0), 200, 1)
    assert [objective.l0_weight(i) for i in (0, 19, 20, 199)] == [0, 0, 0.5, 0.5]


# --- FreeLB --------------------------------------------------------------------------------------------------


def keep_some(torch_model):
    """Masks of about 70% of each matrix; the pruned weights are set to 0."""
    random = np.random.default_rng(1)
    masks = {n: random.random(s) > 0.3 for n, s in CONFIG.prunable().items()}
    with torch.no_grad():
        for name, parameter in torch_model.named_parameters():
            if name in masks:
                parameter *= torch.tensor(masks[name])
    return masks


def torch_training(model, settings, steps, masks, seed=None):
    """Fine-tuning, or FreeLB if there is a seed for its perturbations: weights, gradient norms, losses."""
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    moments = {n: (torch.zeros_like(w), torch.zeros_like(w)) for n, w in weights.items()}
    norms, losses, passes = [], [], 1 if seed is None else settings.ascent_steps
    for step in range(steps):
        b, leaves = batch(step), leaves_of(weights)
        delta = torch.zeros(4, 8, 16).double() if seed is None else start(b, settings, seed, step)
        losses.append(0.0)
        for _ in range(passes):
            delta.requires_grad_()
            loss = cross_entropy(forward(model, leaves, b, delta).logits, b) / passes
            losses[-1] += loss.item()
            loss.backward()
            if seed is not None:
                delta = ascend(delta.detach(), delta.grad, settings.ascent_rate)
        gradients = {n: leaf.grad * torch.tensor(masks.get(n, True)) for n, leaf in leaves.items()}
        norms.append(norm_of(gradients))
        gradients = clipped(gradients, settings.clip_norm)
        lr = settings.learning_rate * linear_schedule(step, STEPS, settings.warmup)
        for name, w in weights.items():
            weights[name], moments[name] = adamw(
                w, gradients[name], moments[name], step + 1, lr, decay_of(name, settings)
            )
    return weights, norms, losses


def assert_same_updates(model, before, expected, masks):
    for name, parameter in model.weights().items():
        value = parameter.asnumpy()
        if name in masks:
            assert (value[~masks[name]] == 0).all()
        update, reference = value - before[name], expected[name].numpy() - before[name]
        if np.linalg.norm(reference) > 1e-4 and "key.bias" not in name:  # a key's bias has no gradient but noise
            assert distance(update, reference) < 1e-2, name


@pytest.mark.parametrize("pruned", [False, True])
def test_freelb_agrees_with_the_restatement(torch_model, pruned):
    """K passes, one clip over the gradient of all weights, one update; pruned weights stay exactly 0."""
    settings = schema.AdversarialTraining(
        ascent_steps=3,
        ascent_rate=0.3,
        initial_norm=0.5,
        learning_rate=1e-2,
        weight_decay=0.1,
        dropout=0.0,
        clip_norm=0.5,
        warmup=2.0,
    )
    masks = keep_some(torch_model) if pruned else {}
    before = weights_of(torch_model)
    model = EncoderClassifier(CONFIG, 2, dropout=0.0)
    model.load(before)
    objective = FreeLB(model, settings, STEPS, 7, masks)
    figures = [objective.step(batch(i), i) for i in range(3)]
    expected, norms, losses = torch_training(torch_model, settings, 3, masks, seed=7)
    np.testing.assert_allclose([f["adversarial_loss"] for f in figures], losses, rtol=1e-3)
    np.testing.assert_allclose([f["gradient_norm"] for f in figures], norms, rtol=1e-2)
    assert min(norms) > 1.1 * settings.clip_norm
    # Above 1, `warmup` counts steps.
    assert [f["learning_rate"] for f in figures] == pytest.approx([0, 5e-3, 1e-2])
    assert_same_updates(model, before, expected, masks)


@pytest.mark.parametrize("kind, keeps", [(FreeLB, True), (RobustSearch, False)])
def test_only_freelb_keeps_its_dropout_over_the_passes(torch_model, monkeypatch, kind, keeps):
    """On the graph that trains: without a perturbation, nothing but dropout tells the passes of one step apart.
    All masks of the search are settled at 1."""
    search = kind is RobustSearch
    settings = (schema.MaskSearch if search else schema.AdversarialTraining)(
        ascent_steps=3, ascent_rate=0.0, initial_norm=0.0
    )
    model = EncoderClassifier(CONFIG, 2, dropout=0.5, masked=search)
    model.load(weights_of(torch_model))
    for score in model.log_alpha():
        backend.put(score, score.asnumpy() + 100)
    objective = kind(model, settings, STEPS, seed=1)
    calls = watch(monkeypatch, objective, "ascent")
    for index in range(2):
        objective.step(batch(0), index)
    losses = [float(loss.asnumpy()) for _, (loss, _) in calls]
    for passes in (losses[:3], losses[3:]):
        if keeps:
            assert np.ptp(passes) < 1e-6  # products may round differently at another address
        else:
            assert np.diff(np.sort(passes)).min() > 1e-5
    assert abs(losses[0] - losses[3]) > 1e-5


# --- fine-tuning and retraining ------------------------------------------------------------------------------


@pytest.mark.parametrize("pruned", [False, True])
def test_finetuning_and_retraining_agree_with_the_restatement(torch_model, pruned):
    settings = schema.Training(learning_rate=1e-2, dropout=0.0)
    masks = keep_some(torch_model) if pruned else {}
    before = weights_of(torch_model)
    model = EncoderClassifier(CONFIG, 2, dropout=0.0)
    model.load(before)
    objective = FineTuning(model, settings, STEPS, 1, masks)
    for i in range(4):
        objective.step(batch(i), i)
    assert_same_updates(model, before, torch_training(torch_model, settings, 4, masks)[0], masks)


def test_filler_rows_change_nothing(torch_model):
    model = EncoderClassifier(CONFIG, 2, dropout=0.0)
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
