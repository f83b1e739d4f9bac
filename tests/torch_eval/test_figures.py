"""The pictures: what is put where, and that each is a PNG on white."""

import numpy as np
from matplotlib.image import imread

from torch_eval import figures

LAYERS = {
    "bert.encoder.layer.0.attention.self.query.weight": 0.1,
    "bert.encoder.layer.0.attention.output.dense.weight": 0.2,
    "bert.encoder.layer.1.output.dense.weight": 0.3,
    "bert.encoder.layer.1.intermediate.dense.weight": 0.4,
    "bert.pooler.dense.weight": 0.5,
}


def is_white_card(path):
    pixels = imread(path)
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
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_nothing_pruned_is_drawn(tmp_path):
    figures.sparsity_pattern(dict.fromkeys(LAYERS, 0.0), tmp_path / "a.png", "title", top=0.0)
    assert is_white_card(tmp_path / "a.png")


def test_curves_of_one_record_are_drawn(tmp_path):
    record = {"step": 1, "l0_term": 0.9, "l0_weight": 0.0, "adversarial_loss": 1}
    record |= {"settled_zero": 0.0, "settled_one": 0.1}
    figures.mask_learning([record], tmp_path / "mask.png")
    models = {"a": [{"step": 1, "loss": 0.7}], "b": [{"step": 1, "dev_accuracy": 0.5}]}
    figures.training_curves(models, tmp_path / "t.png")
    assert is_white_card(tmp_path / "mask.png") and is_white_card(tmp_path / "t.png")


def test_evaluations_between_the_training_records_leave_no_gap_in_the_schedule(tmp_path):
    settled = {"l0_term": 0.9, "settled_zero": 0.1, "settled_one": 0.2}
    steps = [{"step": s, "l0_weight": 0.5, "adversarial_loss": 0.4, **settled} for s in (1, 2, 4)]
    figures.mask_learning(steps, tmp_path / "a.png")
    figures.mask_learning([*steps[:2], {"step": 3, "dev_accuracy": 0.8, **settled}, steps[2]], tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
