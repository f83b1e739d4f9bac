"""The pictures: what is put where, and that each is a PNG on white with a PDF beside it."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread

from configs.methods import METHODS
from torch_eval import figures, tickets

LAYERS = {
    "bert.encoder.layer.0.attention.self.query.weight": 0.1,
    "bert.encoder.layer.0.attention.output.dense.weight": 0.2,
    "bert.encoder.layer.1.output.dense.weight": 0.3,
    "bert.encoder.layer.1.intermediate.dense.weight": 0.4,
    "bert.pooler.dense.weight": 0.5,
}
SETTLED = {"l0_term": 0.9, "settled_zero": 0.1, "settled_one": 0.2, "sparsity_at_threshold": 0.05}


def is_white_card(path):
    pixels = imread(path)
    assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    return pixels.shape[0] > 300 and (pixels[0, :, :3] == 1).all() and (pixels[..., 3:] == 1).all() and pixels.min() < 1


def test_grid_puts_each_matrix_in_its_place():
    grid, pooler = figures.sparsity_grid(LAYERS)
    nan = np.nan
    np.testing.assert_array_equal(grid, [[0.1, nan, nan, 0.2, nan, nan], [nan, nan, nan, nan, 0.4, 0.3]])
    assert pooler == 0.5


def test_sparsity_pattern_is_drawn_and_the_same_twice(tmp_path):
    for name in ("a.png", "b.png"):
        figures.sparsity_pattern(LAYERS, tmp_path / name, "title", top=0.5)
    assert is_white_card(tmp_path / "a.png")
    for end in ("png", "pdf"):
        assert (tmp_path / f"a.{end}").read_bytes() == (tmp_path / f"b.{end}").read_bytes()


def test_nothing_pruned_is_drawn(tmp_path):
    figures.sparsity_pattern(dict.fromkeys(LAYERS, 0.0), tmp_path / "a.png", "title", top=0.0)
    assert is_white_card(tmp_path / "a.png")


def test_curves_of_one_record_are_drawn(tmp_path):
    record = {"step": 1, "l0_weight": 0.0, "adversarial_loss": 1, **SETTLED}
    figures.mask_learning({"": [record]}, tmp_path / "mask.png")
    models = {"a": [{"step": 1, "loss": 0.7}], "b": [{"step": 1, "dev_accuracy": 0.5}]}
    figures.training_curves(models, tmp_path / "t.png")
    assert is_white_card(tmp_path / "mask.png") and is_white_card(tmp_path / "t.png")


def test_evaluations_between_the_training_records_leave_no_gap_in_the_schedule(tmp_path):
    steps = [{"step": s, "l0_weight": 0.5, "adversarial_loss": 0.4, **SETTLED} for s in (1, 2, 4)]
    figures.mask_learning({"": steps}, tmp_path / "a.png")
    evaluation = {"step": 3, "dev_accuracy": 0.8, **SETTLED}
    figures.mask_learning({"": [*steps[:2], evaluation, steps[2]]}, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_every_method_has_a_look_of_its_own():
    assert set(figures.STYLES) == set(METHODS)
    assert len({(colour, marker) for colour, _, marker in figures.STYLES.values()}) == len(METHODS)


def test_names_of_points_cover_neither_each_other_nor_a_point(tmp_path):
    figure = Figure(figsize=(6.4, 4.4), dpi=100)
    axes = figure.subplots()
    places = {"finetune": (50.0, 10.0), "freelb": (50.2, 10.5), "infobert": (50.4, 9.8), "robust": (52.0, 40.0)}
    axes.scatter(*zip(*places.values()))
    axes.margins(x=0.2)
    figures._name_points(figure, axes, places, {m: METHODS[m].title for m in places}, [])
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    points = [axes.transData.transform(place) for place in places.values()]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert not any(box.contains(*point) for box in boxes for point in points)


def test_log_alpha_threshold_cuts_the_asked_share(tmp_path):
    from safetensors.numpy import save_file

    scores = {"a": np.linspace(-3, 3, 600, dtype=np.float32).reshape(20, 30), "b": np.full((2, 2), 1.0, np.float32)}
    save_file(scores, tmp_path / "epoch-01.safetensors")
    counts, edges, threshold = tickets._histogram(tmp_path / "epoch-01.safetensors", 0.25)
    assert counts.sum() == 604 and edges[0] == -3 and edges[-1] == 3
    below = np.mean(np.concatenate([s.ravel() for s in scores.values()]) < threshold)
    assert abs(below - 0.25) < 1 / 60  # one bin of 120 holds five scores
