"""The pictures: what is put where, that each is a PNG on white with a PDF beside it, and their colours on the page."""

import errno
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from configs.contract.basics import files
from configs.contract.experiment import schema
from configs.contract.experiment.methods import METHODS
from configs.contract.run.run_files import TrainingLine
from tests.helpers import made_up_run as made_up
from tests.helpers.commands import run_python
from torch_eval.attack.metrics import Estimate
from torch_eval.report import figure_sections, figure_style, figures, ticket_sections
from torch_eval.report.render import TEMPLATES
from torch_eval.report.run_state import Run
from torch_eval.report.scores import Value

LAYERS = {
    "bert.encoder.layer.0.attention.self.query.weight": 0.1,
    "bert.encoder.layer.0.attention.output.dense.weight": 0.2,
    "bert.encoder.layer.1.output.dense.weight": 0.3,
    "bert.encoder.layer.1.intermediate.dense.weight": 0.4,
    "bert.pooler.dense.weight": 0.5,
}
SETTLED = {"l0_term": 0.9, "settled_zero": 0.1, "settled_one": 0.2, "sparsity_at_threshold": 0.05}


def value(mean, low, high):
    """A value of one seed."""
    return Value([(1, Estimate(mean, low, high))])


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


def on_dark_screens(colour):
    """What the style sheet's filter makes of a colour: the filters invert and hue-rotate(180deg) of CSS, by formula."""
    css = (TEMPLATES / "report.css").read_text()
    amount = float(re.search(r"invert\((\.\d+)\) hue-rotate\(180deg\)", css)[1])
    inverted = np.array([channel * (1 - 2 * amount) + amount for channel in to_rgb(colour)])
    grey = np.tile([0.213, 0.715, 0.072], (3, 1))  # the luminance that the filter keeps
    return to_hex(np.clip((2 * grey - np.eye(3)) @ inverted, 0, 1))


@pytest.fixture(autouse=True)
def whole_texts(monkeypatch):
    """Refuse a figure of these tests that cuts off one of its texts."""
    save = figure_style.save

    def checked(figure, path):
        save(figure, path)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        width, height = figure.bbox.size
        ticks = {label for axes in figure.axes for label in (*axes.get_xticklabels(), *axes.get_yticklabels())}
        for text in set(figure.findobj(Text)) - ticks:  # some labels of ticks are placed outside and never drawn
            box = text.get_window_extent(canvas.get_renderer())
            inside = min(box.x0, box.y0) > -1 and box.x1 < width + 1 and box.y1 < height + 1
            assert inside or not text.get_text(), f"{path.name} cuts off {text.get_text()!r}"

    monkeypatch.setattr(figure_style, "save", checked)


def test_colours_can_be_seen_on_light_and_on_dark_paper():
    dark_paper = re.findall(r"--paper: (#\w{6})", (TEMPLATES / "report.css").read_text())[-1]
    assert contrast(figure_style.INK, "#ffffff") >= 4.5 and contrast(figure_style.SOFT, "#ffffff") >= 4.5
    assert contrast(on_dark_screens(figure_style.INK), dark_paper) >= 4.5
    assert contrast(on_dark_screens(figure_style.SOFT), dark_paper) >= 4.5
    for colour in {look[0] for look in (*map(figure_style.of, METHODS), *figure_style.CYCLE)}:
        assert contrast(colour, "#ffffff") >= 2 and contrast(on_dark_screens(colour), dark_paper) >= 3, colour


def test_the_overview_has_a_row_for_each_model(tmp_path):
    aua, clean = value(11.0, 9.0, 13.0), value(82.0, 79.9, 83.1)
    rows = [("Fine-tune", clean, {"TextFooler": aua, "TextBugger": aua}), ("Robust ticket 30%", Value([]), {})]
    figures.overview(rows, tmp_path / "overview.png", "title")
    assert is_white_card(tmp_path / "overview.png")


def test_figures_have_no_background_on_the_page(tmp_path):
    accuracy = value(60.0, 50.0, 70.0)
    points = {"Robust ticket 30%": ("robust", accuracy, accuracy), "LTH 30%": ("lth", accuracy, accuracy)}
    figures.trade_off(points, tmp_path / "trade-off.png", "title")
    root = ElementTree.parse(tmp_path / "trade-off.svg").getroot()
    [background] = [node for node in root.iter() if node.get("id") == "patch_1"]
    assert "fill: none" in background[0].get("style")


def test_grid_puts_each_matrix_in_its_place():
    grid, pooler = figures.sparsity_grid(LAYERS)
    nan = np.nan
    np.testing.assert_array_equal(grid, [[0.1, nan, nan, 0.2, nan, nan], [nan, nan, nan, nan, 0.4, 0.3]])
    assert pooler == 0.5


def test_accuracies_against_sparsity_are_those_of_one_length(tmp_path, monkeypatch):
    """A model of another length at the same sparsity would make a line go up and down there."""
    settings = ("sparsities=[0.1,0.3]", "lengths=[3,10]", "attack.recipes=[textfooler]")
    paths = made_up.whole(tmp_path, *settings, config="demo")
    drawn = []
    monkeypatch.setattr(figures, "accuracy_curves", lambda *arguments: drawn.append(arguments))
    (picture,) = figure_sections.sparsities(Run(paths.config, ["demo"], tmp_path), tmp_path)
    ((panels, *_),) = drawn
    assert [[place for place, _ in curve["robust"]] for curve in panels.values()] == [[0.1, 0.3]] * 2
    alone = schema.load("demo", [*settings, "methods=[robust]"])
    (without,) = figure_sections.sparsities(Run(alone, ["demo"], tmp_path), tmp_path)
    assert "level line" in picture.caption and "level line" not in without.caption


def test_sparsity_pattern_is_drawn_and_the_same_twice(tmp_path):
    for name in ("a.png", "b.png"):
        figures.sparsity_pattern(LAYERS, tmp_path / name, "title", darkest=0.5)
    assert is_white_card(tmp_path / "a.png")
    for end in ("png", "pdf", "svg"):
        assert (tmp_path / f"a.{end}").read_bytes() == (tmp_path / f"b.{end}").read_bytes()


def test_nothing_pruned_is_drawn(tmp_path):
    figures.sparsity_pattern(dict.fromkeys(LAYERS, 0.0), tmp_path / "a.png", "title", darkest=0.0)
    assert is_white_card(tmp_path / "a.png")


def test_error_bars_at_the_same_places_stand_side_by_side(tmp_path, monkeypatch):
    """Methods with places of their own, as with training losses, stand at them."""
    saved = []
    monkeypatch.setattr(figures.style, "save", lambda figure, path: saved.append(figure))
    bar = value(80.0, 78.0, 82.0)
    shared = {"finetune": [(3, bar), (10, bar)], "freelb": [(3, bar), (10, bar)], "robust": [(3, bar)]}
    own = {"finetune": [(0.1, bar), (0.2, bar)], "robust": [(0.3, bar), (0.4, bar)]}
    for curves in (shared, own):
        figures.accuracy_curves({"Clean": curves}, tmp_path / "a.png", "place", shares=False)
    first, second = ([list(bar.lines[0].get_xdata()) for bar in figure.axes[0].containers] for figure in saved)
    np.testing.assert_allclose(first[1], [3, 10])  # the middle one
    assert 2.8 < first[0][0] < first[1][0] < first[2][0] < 3.2
    np.testing.assert_allclose(second, [[0.1, 0.2], [0.3, 0.4]])


def test_curves_of_one_record_are_drawn(tmp_path):
    record = TrainingLine(1, 0.1, l0_weight=0.0, adversarial_loss=1, **SETTLED)
    figures.mask_learning({"": [record]}, tmp_path / "mask.png")
    models = {"a": ("robust", [TrainingLine(1, 0.1, loss=0.7)]), "b": ("lth", [TrainingLine(1, 0.1, dev_accuracy=0.5)])}
    figures.training_curves(models, tmp_path / "t.png")
    assert is_white_card(tmp_path / "mask.png") and is_white_card(tmp_path / "t.png")


def test_a_figure_without_room_is_named_and_the_old_one_stays(tmp_path, monkeypatch):
    """As every other file of a run: it is written under another name first."""
    path = tmp_path / "a.png"
    figure_style.save(Figure(), path)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device: '.*a.png'"):
        figure_style.save(Figure(), path)
    assert before == {file: file.read_bytes() for file in tmp_path.iterdir()} and len(before) == 3


def test_a_user_without_a_home_has_figures_too():
    """Such as a container's user that is only a number."""
    code = "import os, pwd\nos.environ.pop('HOME', None)\npwd.getpwuid = {}.__getitem__\n"
    run_python(f"{code}import torch_eval.__main__\nfrom torch_eval.report import figures")


def test_every_method_has_a_look_of_its_own():
    assert len({figure_style.of(method)[::2] for method in METHODS}) == len(METHODS)


def test_log_alpha_threshold_cuts_the_asked_share(tmp_path):
    from safetensors.numpy import save_file

    scores = {"a": np.linspace(-3, 3, 600, dtype=np.float32).reshape(20, 30), "b": np.full((2, 2), 1.0, np.float32)}
    save_file(scores, tmp_path / "epoch-01.safetensors")
    counts, edges, threshold = ticket_sections.histogram(tmp_path / "epoch-01.safetensors", 0.25)
    assert counts.sum() == 604 and edges[0] == -3 and edges[-1] == 3
    below = np.mean(np.concatenate([s.ravel() for s in scores.values()]) < threshold)
    assert abs(below - 0.25) < 1 / 60  # one bin of 120 holds five scores


def test_log_alpha_is_that_of_the_last_epoch_beyond_a_hundred_too(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(ticket_sections, "histogram", lambda path, sparsity: drawn.append(path.stem))
    monkeypatch.setattr(figures, "log_alpha", lambda histograms, path: None)
    paths = made_up.whole(tmp_path, config="demo")
    for epoch in (99, 100):
        files.atomic_write(paths.log_alpha(1, epoch), b"")
    ticket_sections.distributions([Run(paths.config, ["demo"], tmp_path)], tmp_path)
    assert drawn == ["epoch-100"]


def test_no_part_of_the_log_alpha_is_filled_for_structured_tickets(tmp_path, monkeypatch):
    """They prune whole heads and neurons by their mean: no score divides what is pruned from what is not."""
    drawn = []
    monkeypatch.setattr(figures, "log_alpha", lambda histograms, path: drawn.extend(histograms.values()))
    for structured in ("false", "true"):
        paths = made_up.whole(tmp_path / structured, f"structured={structured}", config="demo")
        assert ticket_sections.distributions([Run(paths.config, ["demo"], tmp_path / structured)], tmp_path)
    filled = [counts[edges[1:] <= threshold].sum() / counts.sum() for counts, edges, threshold in drawn]
    assert filled[0] > 0.2 and filled[1] == 0
