"""The report's figures: the paper's Figures 1 to 5, and an overview of all methods, trade-offs, overlap and transfer.

Each function takes plain data and writes a PNG, a PDF and an SVG (`figure_style.save`). Shares are from 0 to 1,
accuracies in per cent.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator

from configs.contract.experiment.methods import METHODS
from configs.contract.inputs.matrices import LAYER_MATRICES
from configs.contract.run.run_files import TrainingLine
from torch_eval.report import figure_style as style
from torch_eval.report.scores import Value

Panels = dict[str, dict[str, list[tuple[float, Value]]]]  # title of a panel to method to points (place, accuracy)


def _mark(axes: Axes, x: float, y: float, label: str, colour: str, marker: str, **look: Any) -> None:
    """Draw one marker with its error bars."""
    axes.errorbar(x, y, label=label, color=colour, marker=marker, linestyle="none", elinewidth=0.9, **look)


# --- accuracies: the overview, the trade-off, Figures 2 and 4 ------------------------------------------------


def overview(rows: list[tuple[str, Value, dict[str, Value]]], path: Path, title: str) -> None:
    """Draw Aua of all methods, one row for each, and Clean beside it.

    Each has a scale of its own: one scale for both would hide the differences between methods.

    Args:
        rows: Title of a model, its Clean accuracy, and its Aua by attack title.
        path: The PNG.
        title: Line above the figure.
    """
    attacks = list(dict.fromkeys(attack for _, _, auas in rows for attack in auas))
    height = 0.16 + 0.1 * len(attacks)
    figure = Figure(figsize=(style.WIDTH, 1.1 + height * len(rows)), layout="constrained")
    attacked, unchanged = figure.subplots(1, 2, sharey=True, width_ratios=[2, 1])
    offsets = np.linspace(-0.2, 0.2, len(attacks)) if len(attacks) > 1 else [0.0]
    for place, (_, clean, auas) in enumerate(rows):
        if clean:
            _mark(unchanged, clean.mean, place, "Clean", style.SOFT, "|", markersize=9, xerr=clean.arms)
        for attack, offset, (colour, _, marker) in zip(attacks, offsets, style.CYCLE * 3):
            if aua := auas.get(attack):
                _mark(attacked, aua.mean, place + offset, f"Aua, {attack}", colour, marker, xerr=aua.arms)
    attacked.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    attacked.set_ylim(len(rows) - 0.5, -0.5)
    attacked.set_xlim(left=0)
    for axes, name in ((attacked, "under attack (Aua)"), (unchanged, "Clean")):
        axes.xaxis.set_major_formatter(style.OF_HUNDRED)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_xlabel(name)
    _legend(figure, [attacked, unchanged], 2, title)
    style.save(figure, path)


def trade_off(points: dict[str, tuple[str, Value, Value]], path: Path, title: str) -> None:
    """Draw Clean accuracy (across) against accuracy under attack (up).

    Args:
        points: Title of a model to its method, Clean accuracy and Aua.
        path: The PNG.
        title: Line above the figure.
    """
    figure = Figure(figsize=(style.WIDTH, 4.6), layout="constrained")
    axes = figure.subplots()
    for name, (method, clean, aua) in points.items():
        colour, _, marker = style.of(method)
        _mark(axes, clean.mean, aua.mean, name, colour, marker, markersize=7, xerr=clean.arms, yerr=aua.arms)
    axes.grid(axis="x")
    axes.xaxis.set_major_formatter(style.OF_HUNDRED)
    axes.yaxis.set_major_formatter(style.OF_HUNDRED)
    axes.set_xlabel("Clean: accuracy on unchanged sentences")
    axes.set_ylabel("Aua: accuracy under attack")
    _legend(figure, [axes], 2, title)
    style.save(figure, path)


def accuracy_curves(
    panels: Panels,
    path: Path,
    label: str,
    level: Panels | None = None,
    shares: bool = True,
) -> None:
    """Draw accuracies against sparsity (Figure 2), training progress (Figure 4), or what a length changes.

    Args:
        panels: Title of a panel to method to points (place, accuracy).
        path: The PNG.
        label: Name of the x axis.
        level: The same for methods of one point, drawn as horizontal lines.
        shares: Whether the places are shares, drawn in per cent.
    """
    across = 3 if len(panels) == 3 else 2
    rows = -(-len(panels) // across)
    figure = Figure(figsize=(style.WIDTH, 0.6 + 2.0 * rows), layout="constrained")
    axes = figure.subplots(rows, across, sharex=True, squeeze=False).ravel()
    methods = list(dict.fromkeys(method for curves in panels.values() for method in curves))
    places = [[x for points in curves.values() for x, _ in points] for curves in panels.values()]  # of each panel
    ticks = sorted(set().union(*places))
    # Error bars of methods that share a place would hide each other: these stand side by side.
    shared = any(len(set(panel)) < len(panel) for panel in places)
    apart = 0.012 * (ticks[-1] - ticks[0]) if shared else 0.0
    for panel, (title, curves) in zip(axes, panels.items()):
        for method, points in curves.items():
            _curve(panel, method, points, apart * (methods.index(method) - (len(methods) - 1) / 2))
        for method, [(_, value)] in (level or {}).get(title, {}).items():
            colour, line, _ = style.of(method)
            panel.axhline(value.mean, color=colour, linestyle=line, linewidth=1, label=METHODS[method].title)
        panel.set_title(title)
        panel.yaxis.set_major_formatter(style.OF_HUNDRED)
        if shares:
            panel.xaxis.set_major_formatter(style.PERCENT)
        panel.yaxis.set_major_locator(MaxNLocator(5, steps=style.ROUND_STEPS))
        few = len(ticks) <= 4
        panel.xaxis.set_major_locator(FixedLocator(ticks) if few else MaxNLocator(4, steps=style.ROUND_STEPS))
        panel.xaxis.set_tick_params(labelbottom=True)
    for panel in axes[len(panels) :]:
        panel.set_visible(False)
    for panel in axes[max(0, len(panels) - across) : len(panels)]:
        panel.set_xlabel(label)
    _legend(figure, axes, 3)
    style.save(figure, path)


def _curve(axes: Axes, method: str, points: list[tuple[float, Value]], shift: float) -> None:
    """Draw the means of one method as a line with error bars, `shift` to the right of their places."""
    colour, line, marker = style.of(method)
    places, means = [x + shift for x, _ in points], [value.mean for _, value in points]
    arms = np.hstack([value.arms for _, value in points])
    look: dict[str, Any] = {"color": colour, "linestyle": line, "marker": marker, "elinewidth": 0.9}
    axes.errorbar(places, means, yerr=arms, label=METHODS[method].title, **look)


def _legend(figure: Figure, panels: Iterable[Axes], columns: int, title: str | None = None) -> None:
    """Draw one legend above all panels, with each name once, and the figure's title above it."""
    handles = {label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels())}
    look = {"loc": "outside upper left", "alignment": "left", "title_fontsize": 9.5}
    figure.legend(handles.values(), handles.keys(), ncols=min(len(handles), columns), title=title, **look)


# --- heat maps: Figure 3, overlap, transfer ------------------------------------------------------------------


def sparsity_grid(layers: dict[str, float]) -> tuple[np.ndarray, float | None]:
    """Arrange pruned shares by matrix.

    Args:
        layers: Name of a matrix, such as `bert.encoder.layer.0.attention.self.query.weight`, to its pruned share.

    Returns:
        Shares as [layer, matrix type], NaN where there is no such matrix; and the share of the pooler.
    """
    shares, pooler, columns = {}, None, list(LAYER_MATRICES.values())
    for name, share in layers.items():
        stem = name.removesuffix(".weight")
        if "encoder.layer." in stem:
            number, _, kind = stem.partition("encoder.layer.")[2].partition(".")
            if kind in columns:
                shares[int(number), columns.index(kind)] = share
        elif stem.endswith("pooler.dense"):
            pooler = share
    grid = np.full((max((layer for layer, _ in shares), default=-1) + 1, len(columns)), np.nan)
    for place, share in shares.items():
        grid[place] = share
    return grid, pooler


def sparsity_pattern(layers: dict[str, float], path: Path, title: str, darkest: float) -> None:
    """Draw where a ticket prunes (Figure 3).

    Args:
        layers: Name of a matrix to its pruned share.
        path: The PNG.
        title: Line above the figure.
        darkest: Share with the darkest colour; give all tickets the same.
    """
    grid, pooler = sparsity_grid(layers)
    rows = len(grid)
    figure = Figure(figsize=(style.WIDTH, 1.2 + 0.33 * (rows + 1)), layout="constrained")
    main, below = figure.subplots(2, 1, gridspec_kw={"height_ratios": [max(rows, 1), 1]})
    _cells(main, grid, [f"layer {number + 1}" for number in range(rows)], darkest)
    main.set_xticks(range(len(LAYER_MATRICES)), [name.replace(" ", "\n") for name in LAYER_MATRICES])
    main.tick_params(axis="x", labelsize=8)
    # The pooler is one matrix, not one for each layer: it has a row of its own, with a cell of the same width.
    last = np.full((1, len(LAYER_MATRICES)), np.nan)
    last[0, 0] = np.nan if pooler is None else pooler
    _cells(below, last, ["pooler"], darkest)
    below.set_xticks([])
    figure.suptitle(title, x=0.01, ha="left")
    style.save(figure, path)


def square(grid: np.ndarray, names: list[str], path: Path, title: str, side: str = "", bottom: str = "") -> None:
    """Draw shares between named things: overlap of tickets, transfer of adversarial texts.

    Args:
        grid: Shares (names, names), rows first; NaN is an empty cell.
        names: Of rows and columns.
        path: The PNG.
        title: Line above the figure.
        side: What the rows are.
        bottom: What the columns are.
    """
    figure = Figure(figsize=(style.WIDTH, min(1.9 + 0.36 * len(names), 6.4)), layout="constrained")
    axes = figure.subplots()
    _cells(axes, grid, names, float(np.nanmax(grid, initial=0.0)), digits=0)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_xlabel(bottom)
    axes.set_ylabel(side)
    figure.suptitle(title, x=0.01, ha="left")
    style.save(figure, path)


def _cells(axes: Axes, grid: np.ndarray, names: list[str], darkest: float, digits: int = 1) -> None:
    """Fill each cell with one colour, as opaque as its share is large: that reads on white and on black."""
    axes.set_xlim(-0.5, grid.shape[1] - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(False)
    for (row, column), share in np.ndenumerate(grid):
        if not np.isnan(share):
            opacity = 0.05 + 0.95 * share / (darkest or 1.0)  # a share of 0 is not an empty cell
            corner = (column - 0.48, row - 0.47)
            axes.add_patch(Rectangle(corner, 0.96, 0.94, facecolor=style.HEAT, alpha=opacity, linewidth=0))
            colour, size = style.PAPER if opacity > 0.6 else style.INK, 9 if len(names) <= 8 else 7
            text = f"{100 * share:.{digits}f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


# --- curves of searches (Figures 1 and 5) and trainings ------------------------------------------------------


def mask_learning(searches: dict[str, list[TrainingLine]], path: Path) -> None:
    """Draw L0 term, settled masks, masks below 1/2 and adversarial loss over the search; one curve for each name.

    Args:
        searches: Name to training records, without evaluations.
        path: The PNG.
    """
    figure = Figure(figsize=(style.WIDTH, 7.4), layout="constrained")
    axes = figure.subplots(4, 1, sharex=True)
    for number, (name, records) in enumerate(searches.items()):
        colour, line, _ = style.CYCLE[number % len(style.CYCLE)]
        look = {"color": colour, "linestyle": line}
        zero, one = ("near 0: to be pruned", "near 1: to be kept") if number == 0 else (None, None)
        _series(axes[0], records, "l0_term", "epoch", label=name, **look)
        _series(axes[1], records, "settled_zero", "epoch", label=zero, color=colour, linestyle="-")
        _series(axes[1], records, "settled_one", "epoch", label=one, color=colour, linestyle=":")
        _series(axes[2], records, "sparsity_at_threshold", "epoch", **look)
        _smoothed(axes[3], records, "adversarial_loss", "epoch", **look)
    for panel, label in zip(axes, ("L0 term R(m)", "masks settled", "masks below 1/2", "adversarial loss")):
        panel.set_ylabel(label)
    for panel in axes[1:3]:
        panel.yaxis.set_major_formatter(style.PERCENT)
    for panel in axes[1:]:
        panel.set_ylim(bottom=0)
    axes[1].legend(loc="best")
    if len(searches) == 1:
        records = next(iter(searches.values()))
        for panel in axes:
            _schedule(panel, records)
        peak = max(record.l0_weight or 0.0 for record in records)
        title = f"shaded: schedule of the penalty's weight λ, up to {peak:g}"
        axes[0].set_title(title, fontsize=9, color=style.SOFT)
    else:
        axes[0].legend(loc="best")
    axes[-1].set_xlabel("search epoch")
    style.save(figure, path)


def _schedule(axes: Axes, records: list[TrainingLine]) -> None:
    """Shade the penalty's weight behind the curves, on a scale of its own."""
    weights = [record.l0_weight or 0.0 for record in records]
    behind = axes.twinx()
    behind.fill_between([record.epoch for record in records], weights, color=style.SHADE, linewidth=0, zorder=0)
    behind.set_ylim(0, 1.08 * max(weights) or 1.0)
    behind.axis("off")
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)


def log_alpha(histograms: dict[str, tuple[np.ndarray, np.ndarray, float]], path: Path) -> None:
    """Draw the distribution of log alpha after searches: name to (counts, edges, threshold of the ticket)."""
    figure = Figure(figsize=(style.WIDTH, 0.6 + max(2.0, 1.5 * len(histograms))), layout="constrained")
    panels = figure.subplots(len(histograms), 1, sharex=True, squeeze=False).ravel()
    for axes, (name, (counts, edges, threshold)) in zip(panels, histograms.items()):
        share = counts / max(counts.sum(), 1)
        axes.stairs(share, edges, color=style.BLUE, linewidth=1.2)
        pruned = np.where(edges[1:] <= threshold, share, 0.0)
        axes.stairs(pruned, edges, color=style.BLUE, alpha=0.3, fill=True)
        axes.set_title(name)
        axes.yaxis.set_major_formatter(style.PERCENT)
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=style.ROUND_STEPS))
    figure.supxlabel("log α (filled: pruned by the ticket)", fontsize=9)
    figure.supylabel("share of the masks", fontsize=9)
    style.save(figure, path)


def training_curves(models: dict[str, tuple[str, list[TrainingLine]]], path: Path) -> None:
    """Draw training loss and dev accuracy by step: title of a model to (method, training records)."""
    figure = Figure(figsize=(style.WIDTH, 4.6), layout="constrained")
    loss, accuracy = figure.subplots(2, 1, sharex=True)
    for name, (method, records) in models.items():
        colour, line, marker = style.of(method)
        look = {"color": colour, "linestyle": line, "label": name}
        _smoothed(loss, records, "loss", "step", **look)
        _series(accuracy, records, "dev_accuracy", "step", marker=marker, **look)
    loss.set_ylabel("training loss")
    loss.set_ylim(bottom=0)
    accuracy.set_ylabel("dev accuracy")
    accuracy.yaxis.set_major_formatter(style.PERCENT)
    accuracy.set_xlabel("training step")
    _legend(figure, [loss, accuracy], 2)
    style.save(figure, path)


def _points(records: list[TrainingLine], key: str, x: str) -> list[tuple[float, float]]:
    pairs = [(getattr(record, x), getattr(record, key)) for record in records]
    return [pair for pair in pairs if pair[1] is not None]


def _series(axes: Axes, records: list[TrainingLine], key: str, x: str, **look: Any) -> None:
    points = _points(records, key, x)
    if points:
        alone = {"marker": "o"} if len(points) == 1 else {}
        axes.plot(*zip(*points), **{**alone, **look})


def _smoothed(axes: Axes, records: list[TrainingLine], key: str, x: str, **look: Any) -> None:
    """Draw the values, faint, and their running mean over about a tenth of the run."""
    points = _points(records, key, x)
    if len(points) < 10:
        return _series(axes, records, key, x, **look)
    places, values = np.array(points, dtype=float).T
    span = max(3, len(values) // 10)
    means = [values[max(0, end - span) : end].mean() for end in range(1, len(values) + 1)]
    axes.plot(places, values, color=look["color"], linewidth=0.8, alpha=0.3)
    axes.plot(places, means, **look)
