"""The pictures: what is put where, that each is a PNG on white with a PDF beside it, and their colours on the page."""

import re
from xml.etree import ElementTree

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread

from configs.contract.methods import METHODS
from torch_eval.report import figures, ticket_sections
from torch_eval.report.render import STYLE

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


def luminance(colour):
    """Relative luminance as WCAG 2 defines it."""
    shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def test_the_dark_palette_can_be_seen_on_dark_paper():
    page = (figures.DARK[figures.PAPER], *re.findall(r"--paper: (#\w{6})", STYLE.read_text()))
    assert page[0] == page[1]  # the page's dark paper; its bright one is #fff
    graphics = {figures.RULE, *(colour for colour, _, _ in figures.STYLES.values()), *(c for c, _ in figures.CYCLE)}
    assert all(contrast(figures.DARK[colour], page[0]) >= 3 for colour in graphics)
    assert all(contrast(figures.DARK[colour], page[0]) >= 4.5 for colour in (figures.INK, figures.SOFT))


def test_a_picture_on_the_page_takes_all_its_colours_from_the_style_sheet(tmp_path):
    band = (60.0, 50.0, 70.0)
    search = [{"step": s, "l0_weight": 0.5, "adversarial_loss": 0.4, **SETTLED} for s in (1, 2)]
    names = {method: METHODS[method].title for method in METHODS}
    figures.sparsity_pattern(LAYERS, tmp_path / "pattern.png", "title", top=0.5)
    figures.square(np.eye(2), ["a", "b"], tmp_path / "square.png", "title", "side", "bottom")
    figures.mask_learning({"": search}, tmp_path / "one.png")
    figures.mask_learning({"a": search, "b": search}, tmp_path / "two.png")
    figures.log_alpha({"a": (np.ones(3), np.arange(4.0), 1.5)}, tmp_path / "log-alpha.png")
    points, level = {"robust": [(0.1, band), (0.3, band)]}, {"panel": {"finetune": band}}
    figures.accuracy_curves({"panel": points}, names, tmp_path / "curves.png", "axis", level)
    figures.trade_off({"robust": (band, band), "lth": (band, band)}, names, tmp_path / "trade-off.png", "title")
    training = [{"step": s, "loss": 0.7, "dev_accuracy": 0.5} for s in range(20)]
    figures.training_curves({method: (method, training) for method in METHODS}, tmp_path / "training.png")
    sheet, ids = figures.style_sheet(), []
    drawn = {path.stem: figures.on_page(path, "a < b") for path in sorted(tmp_path.glob("*.png"))}
    assert len(drawn) == 8
    for name, text in drawn.items():
        assert not re.findall(r"#[0-9a-fA-F]{3,8}\b(?=[;\"])", text), name
        assert '<g transform="translate' not in text, f"{name}: text without a colour is black"
        assert set(re.findall(r"var\((.+?)\)", text)) <= set(re.findall(r"(--\S+):", sheet))
        root = ElementTree.fromstring(text)
        assert root.get("aria-label") == "a < b"
        own = [node.get("id") for node in root.iter() if node.get("id")]
        links = [node.get("{http://www.w3.org/1999/xlink}href") for node in root.iter() if node.tag.endswith("}use")]
        assert {link[1:] for link in links} | set(re.findall(r"url\(#(.+?)\)", text)) <= set(own)
        ids += own
    assert len(ids) == len(set(ids))


def test_grid_puts_each_matrix_in_its_place():
    grid, pooler = figures.sparsity_grid(LAYERS)
    nan = np.nan
    np.testing.assert_array_equal(grid, [[0.1, nan, nan, 0.2, nan, nan], [nan, nan, nan, nan, 0.4, 0.3]])
    assert pooler == 0.5


def test_sparsity_pattern_is_drawn_and_the_same_twice(tmp_path):
    for name in ("a.png", "b.png"):
        figures.sparsity_pattern(LAYERS, tmp_path / name, "title", top=0.5)
    assert is_white_card(tmp_path / "a.png")
    for end in ("png", "pdf", "svg"):
        assert (tmp_path / f"a.{end}").read_bytes() == (tmp_path / f"b.{end}").read_bytes()


def test_nothing_pruned_is_drawn(tmp_path):
    figures.sparsity_pattern(dict.fromkeys(LAYERS, 0.0), tmp_path / "a.png", "title", top=0.0)
    assert is_white_card(tmp_path / "a.png")


def test_curves_of_one_record_are_drawn(tmp_path):
    record = {"step": 1, "l0_weight": 0.0, "adversarial_loss": 1, **SETTLED}
    figures.mask_learning({"": [record]}, tmp_path / "mask.png")
    models = {"a": ("robust", [{"step": 1, "loss": 0.7}]), "b": ("lth", [{"step": 1, "dev_accuracy": 0.5}])}
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
    places["random"] = places["robust"]
    axes.scatter(*zip(*places.values()))
    axes.margins(x=0.2)
    figures._name_points(figure, axes, places, {m: METHODS[m].title for m in places}, [])
    figure.draw_without_rendering()
    assert "Random\nRobust ticket" in {"\n".join(sorted(text.get_text().split("\n"))) for text in axes.texts}
    boxes = [text.get_window_extent() for text in axes.texts]
    points = [axes.transData.transform(place) for place in places.values()]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert not any(box.contains(*point) for box in boxes for point in points)


def test_log_alpha_threshold_cuts_the_asked_share(tmp_path):
    from safetensors.numpy import save_file

    scores = {"a": np.linspace(-3, 3, 600, dtype=np.float32).reshape(20, 30), "b": np.full((2, 2), 1.0, np.float32)}
    save_file(scores, tmp_path / "epoch-01.safetensors")
    counts, edges, threshold = ticket_sections._histogram(tmp_path / "epoch-01.safetensors", 0.25)
    assert counts.sum() == 604 and edges[0] == -3 and edges[-1] == 3
    below = np.mean(np.concatenate([s.ravel() for s in scores.values()]) < threshold)
    assert abs(below - 0.25) < 1 / 60  # one bin of 120 holds five scores
