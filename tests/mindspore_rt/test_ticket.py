"""Tickets: the draw against torch.nn.utils.prune, files, and what is refused."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch.nn.utils import prune

from configs.contract.basics.errors import UserError
from configs.contract.inputs.matrices import matrix_name, prunable_shapes
from mindspore_rt.ticket import Ticket, spread
from mindspore_rt.units import most_structured
from tests.helpers.models import normal_arrays


def scores(seed=0, spread=3.0):
    random = np.random.default_rng(seed)
    return {
        "a.weight": random.normal(0, spread, (40, 30)).astype(np.float32),
        "b.weight": random.normal(1, spread, (7, 90)).astype(np.float32),
    }


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.3, 0.333, 0.5, 0.9, 1.0])
def test_draw_equals_global_unstructured_on_float64_sigmoids(sparsity):
    ticket = Ticket.from_scores(scores(), sparsity)
    modules = []
    for values in scores().values():
        module = torch.nn.Linear(values.shape[1], values.shape[0], bias=False).double()
        module.weight.data = torch.sigmoid(torch.tensor(values, dtype=torch.float64))
        modules.append((module, "weight"))
    prune.global_unstructured(modules, prune.L1Unstructured, amount=sparsity)
    for (module, _), mask in zip(modules, ticket.masks.values(), strict=True):
        np.testing.assert_array_equal(mask, module.weight_mask.bool().numpy())


def test_large_scores_do_not_tie():
    """Float32 sigmoids of scores near 20 are all 1; the raw scores still have an order."""
    values = {"a": np.linspace(18, 22, 1000, dtype=np.float32)}
    mask = Ticket.from_scores(values, 0.3).masks["a"]
    assert not mask[:300].any() and mask[300:].all()


def test_negative_scores_are_pruned_before_positive_ones():
    mask = Ticket.from_scores({"a": np.float32([-9, 0.1, -0.1, 9])}, 0.5).masks["a"]
    np.testing.assert_array_equal(mask, [False, True, False, True])


@pytest.mark.parametrize("scores", [np.arange(9.0), np.zeros((0, 3)), np.ones((2, 2, 2))])
def test_a_ticket_that_could_not_be_loaded_is_not_saved(tmp_path, scores):
    """Such as a ticket of all weights of a model: biases are no matrices."""
    with pytest.raises(ValueError, match="bias is .* a ticket has boolean masks of matrices alone"):
        Ticket({"a.bias": scores > 3}).save(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="int64: a ticket has boolean masks"):
        Ticket({"a": np.array([[0, 2]])}).save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_ticket(tmp_path):
    with pytest.raises(UserError, match="not a complete safetensors file"):
        Ticket.load(tmp_path)


@pytest.mark.parametrize("raw", [None, b"", b"no ticket"])
def test_a_ticket_of_a_finished_stage_is_drawn_again_once_that_is_deleted(tmp_path, raw):
    """Until then the stage would be skipped. Without a stage, nothing need be deleted."""
    path = tmp_path / "ticket.safetensors"
    if raw is not None:
        path.write_bytes(raw)
    for manifest, remedy in ((False, "run the stage that writes it first|draw it again"), (True, f"delete {tmp_path}")):
        if manifest:
            (tmp_path / "manifest.json").touch()
        with pytest.raises(UserError, match=f"ticket.safetensors.*({remedy})"):
            Ticket.load(path)


def test_the_same_ticket_is_the_same_bytes(tmp_path):
    for name in "abcdef":
        Ticket.from_scores(scores(), 0.3, method="robust", seed="1", source_sha256="0").save(tmp_path / name)
    assert len({(tmp_path / name).read_bytes() for name in "abcdef"}) == 1


def test_one_bit_a_weight(tmp_path):
    Ticket({"x": np.ones((800, 1000), bool)}).save(tmp_path / "t.safetensors")
    assert (tmp_path / "t.safetensors").stat().st_size < 100_000 + 1000


def test_apply_makes_exact_zeros_and_leaves_the_rest():
    weights = {**scores(1), "c.bias": np.ones(3, np.float32)}
    ticket = Ticket.from_magnitudes({k: weights[k] for k in scores()}, 0.4)
    pruned = ticket.apply(weights)
    for name, mask in ticket.masks.items():
        np.testing.assert_array_equal(pruned[name] == 0, ~mask)
        np.testing.assert_array_equal(pruned[name][mask], weights[name][mask])
        assert pruned[name].dtype == np.float32
    assert pruned["c.bias"] is weights["c.bias"]


def test_overlap():
    a = Ticket({"x": np.array([0, 0, 1, 1, 1], bool)})
    b = Ticket({"x": np.array([1, 0, 0, 1, 1], bool)})
    assert a.overlap(b) == pytest.approx(1 / 3) and a.overlap(a) == 1


def test_two_random_tickets_overlap_by_chance():
    """100,000 weights, of which each ticket prunes every one with probability 0.3."""
    rng = np.random.default_rng(0)
    a, b = (Ticket({"x": rng.random(100_000) >= 0.3}) for _ in range(2))
    assert a.overlap(b) == pytest.approx(a.chance_overlap, abs=0.005)


def test_a_random_ticket_has_the_sparsity_of_every_matrix():
    ticket = Ticket.from_scores(scores(), 0.3)
    random = Ticket.from_random_like(ticket, np.random.default_rng(5), method="random")
    assert random.pruned_share() == ticket.pruned_share() and random.about == {"method": "random"}
    same = Ticket.from_random_like(ticket, 5)
    for name, mask in random.masks.items():
        np.testing.assert_array_equal(mask, same.masks[name])
    # Two random sets of shares p of 1,830 weights differ in 2 p (1 - p), give or take.
    expected = sum(2 * p * (1 - p) * ticket.masks[n].size for n, p in ticket.pruned_share().items()) / ticket.weights
    assert random.distance(ticket) == pytest.approx(expected, abs=0.05)
    assert random.distance(Ticket.from_random_like(ticket, 6)) > 0.2


def test_distance_is_that_of_hamming():
    a = Ticket({"x": np.array([0, 0, 1, 1, 1], bool)})
    b = Ticket({"x": np.array([1, 0, 0, 1, 1], bool)})
    assert a.distance(b) == b.distance(a) == pytest.approx(2 / 5) and a.distance(a) == 0


@pytest.mark.parametrize("compared", [Ticket.distance, Ticket.overlap])
@pytest.mark.parametrize("other", [{"x": 4}, {"y": 5}, {"x": 5, "y": 5}, {}])
def test_tickets_of_two_models_are_not_compared(compared, other):
    """A deeper model has all matrices of the other, and further ones."""
    ours, theirs = Ticket({"x": np.ones(5, bool)}), Ticket({n: np.ones(size, bool) for n, size in other.items()})
    for one, two in ((ours, theirs), (theirs, ours)):
        with pytest.raises(ValueError, match="two models"):
            compared(one, two)


def test_shared_values_are_spread_with_a_stride():
    shared = np.arange(6).reshape(2, 3)
    values = spread(shared, (4, 9))
    assert all(values[i, j] == shared[i % 2, j % 3] for i in range(4) for j in range(9))
    for wrong in ((5, 9), (4, 10)):
        with pytest.raises(ValueError, match="do not divide"):
            spread(shared, wrong)


def test_a_draw_from_shared_scores_prunes_whole_groups():
    ticket = Ticket.from_scores({"a": np.float32([[1, 5, 2]])}, 0.5).spread({"a": (4, 6)})
    np.testing.assert_array_equal(ticket.masks["a"], np.tile([False, True, False], (4, 2)))


# --- structured tickets ----------------------------------------------------------------------------------------

LAYERS, HIDDEN, INTERMEDIATE, HEADS = 3, 24, 40, 4


def model_scores(seed=0):
    return normal_arrays(prunable_shapes(LAYERS, HIDDEN, INTERMEDIATE), random=seed)


def units(masks, layer):
    """Which heads and neurons of a layer are kept, and that every one is kept or pruned whole."""
    size, remaining = HIDDEN // HEADS, []
    for head in range(HEADS):
        rows = slice(head * size, (head + 1) * size)
        parts = [masks[matrix_name(layer, k)][rows] for k in ("query", "key", "value")]
        parts.append(masks[matrix_name(layer, "attention output")][:, rows])
        values = np.concatenate([p.ravel() for p in parts])
        assert values.all() or not values.any()
        remaining.append(values.all())
    into, out = masks[matrix_name(layer, "intermediate")], masks[matrix_name(layer, "output")]
    both = np.concatenate([into, out.T], 1)
    assert (both.all(1) == both.any(1)).all()
    return np.array(remaining), both.all(1)


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.3, 0.5, 0.7])
def test_structured_tickets_prune_whole_units_of_lowest_mean(sparsity):
    values, size = model_scores(), HIDDEN // HEADS
    ticket = Ticket.structured(values, HEADS, sparsity)
    one_neuron_in_every_layer = LAYERS * 2 * HIDDEN
    assert abs(ticket.pruned - sparsity * ticket.weights) <= one_neuron_in_every_layer / 2
    means, remaining, counts = {}, {}, set()
    for layer in range(LAYERS):
        heads, neurons = units(ticket.masks, layer)
        assert heads.any()
        counts.add(int(neurons.sum()))
        for head in range(HEADS):
            rows = slice(head * size, (head + 1) * size)
            owned = [values[matrix_name(layer, k)][rows].ravel() for k in ("query", "key", "value")]
            owned.append(values[matrix_name(layer, "attention output")][:, rows].ravel())
            means[layer, head], remaining[layer, head] = np.concatenate(owned).mean(), heads[head]
        into, out = values[matrix_name(layer, "intermediate")], values[matrix_name(layer, "output")]
        neuron_means = np.concatenate([into, out.T], 1).mean(1)
        if not neurons.all():
            assert neuron_means[~neurons].max() < neuron_means[neurons].min()
    assert len(counts) == 1
    pruned = [k for k in means if not remaining[k]]
    # A head is pruned before every better one, but for the best of each layer.
    best = {max((k for k in means if k[0] == layer), key=means.get) for layer in range(LAYERS)}
    free = sorted((k for k in means if k not in best), key=means.get)
    assert sorted(pruned, key=means.get) == free[: len(pruned)]
    assert ticket.masks["bert.pooler.dense.weight"].all()
    share = len(pruned) / (LAYERS * HEADS)
    assert abs(share - (1 - counts.pop() / INTERMEDIATE)) < 0.1


def test_a_ticket_tells_whether_it_prunes_whole_units():
    structured = Ticket.structured(model_scores(), HEADS, 0.3)
    assert structured.is_structured(HEADS) and not Ticket.from_scores(model_scores(), 0.3).is_structured(HEADS)
    for name, place in (("query", (0, 0)), ("attention output", (0, 0)), ("output", (1, 2))):
        masks = {name: mask.copy() for name, mask in structured.masks.items()}
        masks[matrix_name(0, name)][place] ^= True
        assert not Ticket(masks).is_structured(HEADS)


def test_a_part_of_a_head_is_no_unit():
    """A random ticket with as many heads would keep the whole head, and be a control of another sparsity."""
    ticket = Ticket.structured(model_scores(), 2 * HEADS, 0.3)
    assert ticket.is_structured(2 * HEADS) and not ticket.is_structured(HEADS)
    assert Ticket.random_units_like(ticket, HEADS, 0).sparsity < ticket.sparsity


def test_every_layer_keeps_a_head():
    values = model_scores()
    for kind in ("query", "key", "value", "attention output"):
        values[matrix_name(0, kind)] -= 10
    ticket = Ticket.structured(values, HEADS, 0.6)
    assert units(ticket.masks, 0)[0].sum() == 1


def test_random_units_are_as_many_in_every_layer_and_others():
    values = model_scores()
    values[matrix_name(0, "query")] -= 3  # so that layers differ
    ticket = Ticket.structured(values, HEADS, 0.5)
    drawn = Ticket.random_units_like(ticket, HEADS, 1)
    for layer in range(LAYERS):
        for one, other in zip(units(ticket.masks, layer), units(drawn.masks, layer)):
            assert one.sum() == other.sum()
    assert drawn.pruned_share() == ticket.pruned_share() and drawn.distance(ticket) > 0.2
    assert Ticket.random_units_like(ticket, HEADS, 1).distance(drawn) == 0
    neurons = [units(Ticket.random_units_like(ticket, HEADS, seed).masks, 1)[1] for seed in range(200)]
    share = np.mean(neurons, 0)  # every neuron is as likely to be kept: 200 draws, four standard deviations
    assert np.abs(share - share.mean()).max() < 4 * np.sqrt(0.25 / 200)


@pytest.mark.parametrize("heads", [2, 4])
def test_the_most_that_structured_tickets_prune_can_be_drawn(heads):
    values = model_scores()
    most = most_structured({n: s.shape for n, s in values.items()}, heads)
    assert Ticket.structured(values, heads, most).sparsity == pytest.approx(most, abs=1e-9)
    with pytest.raises(ValueError, match="sparsity from 0"):
        Ticket.structured(values, heads, most + 0.01)


@pytest.mark.parametrize("sparsity", [-0.1, 0.95])
def test_a_structured_sparsity_out_of_reach(sparsity):
    with pytest.raises(ValueError, match="sparsity from 0 to 0.8"):
        Ticket.structured(model_scores(), HEADS, sparsity)


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        Ticket.from_scores({"a": np.float32([1, np.nan])}, 0.5)


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "flipped mask bit", "other file", "wrong shape"])
def test_a_damaged_file_is_one_clear_error(tmp_path, damage):
    path = tmp_path / "t.safetensors"
    Ticket.from_scores(scores(), 0.3).save(path)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[:-5])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "flipped mask bit":
        path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    elif damage == "other file":
        save_file(scores(), path)
    else:
        shapes = {"a.weight": [1, 2], "b.weight": [7, 90]}
        header = {"format": "ticket/1", "shapes": shapes, "sparsity": 0.3, "about": {}}
        save_file(load_file(path), path, metadata={"ticket": json.dumps(header)})
    with pytest.raises(UserError, match="t.safetensors"):
        Ticket.load(path)


def rewritten(path, **changes):
    """The ticket at `path` with another header."""
    header = {
        "format": "ticket/1",
        "shapes": {"a.weight": [40, 30], "b.weight": [7, 90]},
        "sparsity": 0.3,
        "about": {},
        **changes,
    }
    save_file(load_file(path), path, metadata={"ticket": json.dumps(header)})


@pytest.mark.parametrize(
    "changes",
    [
        {"shapes": {}},
        {"shapes": {"a.weight": [0, 4]}},
        {"shapes": {"a.weight": [1e400, 1]}},
        {"shapes": {"a.weight": []}},
        {"shapes": {"a.weight": [1200]}},
        {"shapes": {"a.weight": 7}},
        {"about": [1]},
    ],
)
def test_a_header_of_nonsense_is_refused(tmp_path, changes):
    Ticket.from_scores(scores(), 0.3).save(tmp_path / "t")
    rewritten(tmp_path / "t", **changes)
    with pytest.raises(UserError, match="damaged ticket"):
        Ticket.load(tmp_path / "t")


def test_a_header_without_end_is_refused(tmp_path):
    save_file(scores(), tmp_path / "t", metadata={"ticket": "[" * 100_000})
    with pytest.raises(UserError, match="damaged ticket"):
        Ticket.load(tmp_path / "t")


def test_flipped_bits_that_leave_the_sparsity_are_noticed(tmp_path):
    """A kept weight pruned, and a pruned one kept. A ticket of an older run states no hash and still loads."""
    ticket = Ticket.from_scores(scores(), 0.3)
    ticket.save(tmp_path / "t")
    content, mask = bytearray((tmp_path / "t").read_bytes()), ticket.masks["b.weight"].ravel()
    start = content.index(np.packbits(mask).tobytes())
    for place in (mask.argmin(), mask.argmax()):
        content[start + place // 8] ^= 128 >> place % 8
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(UserError, match="not those that it was saved with"):
        Ticket.load(tmp_path / "t")
    rewritten(tmp_path / "t")
    assert Ticket.load(tmp_path / "t").sparsity == ticket.sparsity


@pytest.mark.parametrize("shapes", [{"a.weight": (40, 30)}, {"a.weight": (30, 40), "b.weight": (7, 90)}])
def test_a_ticket_of_another_model_is_refused(tmp_path, shapes):
    Ticket.from_scores(scores(), 0.3).save(tmp_path / "t")
    with pytest.raises(UserError, match="a ticket of another model"):
        Ticket.load(tmp_path / "t", shapes)
