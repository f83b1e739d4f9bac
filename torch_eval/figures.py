"""The report's pictures: the paper's Figure 1 (mask learning) and Figure 3 (sparsity pattern), training curves.

Each function takes plain data and writes one PNG on a white card, readable at phone width. Colours are
Okabe and Ito's, which colour-blind readers can tell apart; line styles differ as well.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

BLUE, VERMILION, GREEN, PURPLE, INK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#333333", "#E6E6E6"
CYCLE = [(BLUE, "-"), (VERMILION, "--"), (GREEN, "-."), (PURPLE, ":"), ("#56B4E9", "-"), ("#E69F00", "--")]
MATRICES = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention\noutput",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
}
PERCENT = FuncFormatter(lambda share, _: f"{round(100 * share, 2):g}%")
WIDTH = 6.4  # inches; narrow, so that the letters survive a phone's screen


def sparsity_grid(layers: dict[str, float]) -> tuple[np.ndarray, float | None]:
    """Pruned shares as [layer, matrix type] (NaN where there is no such matrix), and the pooler's.

    `layers` maps `bert.encoder.layer.0.attention.self.query.weight` and the like to a share.
    """
    found, pooler = {}, None
    for name, share in layers.items():
        stem = name.removesuffix(".weight")
        if "encoder.layer." in stem:
            number, _, kind = stem.partition("encoder.layer.")[2].partition(".")
            if kind in MATRICES:
                found[int(number), list(MATRICES).index(kind)] = share
        elif stem.endswith("pooler.dense"):
            pooler = share
    grid = np.full((max((layer for layer, _ in found), default=-1) + 1, len(MATRICES)), np.nan)
    for place, share in found.items():
        grid[place] = share
    return grid, pooler


def sparsity_pattern(layers: dict[str, float], path: Path, title: str, top: float) -> None:
    """Heat map of pruned shares (Figure 3). `top` ends the colour scale: give all tickets the same."""
    grid, pooler = sparsity_grid(layers)
    rows = len(grid)
    figure = Figure(figsize=(WIDTH, 1.5 + 0.36 * (rows + 1)), layout="constrained")
    main, below = figure.subplots(2, 1, gridspec_kw={"height_ratios": [max(rows, 1), 1]})
    image = _heat(main, grid, [f"layer {number + 1}" for number in range(rows)], top)
    main.set_title(title, fontsize=10, loc="left", color=INK)
    main.set_xticks(range(len(MATRICES)), MATRICES.values(), fontsize=9)
    # The pooler is one matrix, not one of each layer: it stands apart, in a cell of the same width.
    apart = np.full((1, len(MATRICES)), np.nan)
    apart[0, 0] = np.nan if pooler is None else pooler
    _heat(below, apart, ["pooler"], top)
    below.set_xticks([])
    bar = figure.colorbar(image, ax=[main, below], fraction=0.045, pad=0.02, format=PERCENT)
    bar.set_label("share of weights pruned", fontsize=9)
    bar.ax.tick_params(labelsize=9)
    bar.outline.set_visible(False)
    _save(figure, path)


def _heat(axes, grid: np.ndarray, names: list[str], top: float):
    image = axes.imshow(grid, cmap="Blues", vmin=0.0, vmax=top or 1.0, aspect="auto")
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(0.5, len(MATRICES) - 1), minor=True)
    axes.set_yticks(np.arange(0.5, len(names) - 1), minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    for (row, column), share in np.ndenumerate(grid):
        if not np.isnan(share):
            dark = share > 0.6 * (top or 1.0)
            axes.text(column, row, f"{100 * share:.1f}", ha="center", va="center", fontsize=9,
                      color="white" if dark else INK)
    return image


def mask_learning(records: list[dict], path: Path) -> None:
    """Figure 1: L0 term, share of settled masks and adversarial loss over the search."""
    records = [record for record in records if "l0_weight" in record]  # evaluations state no lambda
    figure = Figure(figsize=(WIDTH, 6.6), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    steps = [record["step"] for record in records]
    for panel in axes:
        _schedule(panel, records, steps)
        _tidy(panel)
    _series(axes[0], records, "l0_term", CYCLE[0])
    axes[0].set_ylabel("L0 term R(m)", fontsize=9)
    _series(axes[1], records, "settled_zero", CYCLE[1], "near 0 (to be pruned)")
    _series(axes[1], records, "settled_one", CYCLE[0], "near 1 (to be kept)")
    axes[1].set_ylabel("share of masks settled", fontsize=9)
    axes[1].yaxis.set_major_formatter(PERCENT)
    axes[1].set_ylim(bottom=0)
    axes[1].legend(fontsize=9, frameon=False, loc="upper left")
    _smoothed(axes[2], records, "adversarial_loss", CYCLE[2])
    axes[2].set_ylabel("adversarial loss", fontsize=9)
    axes[2].set_ylim(bottom=0)
    axes[2].set_xlabel("search step", fontsize=9)
    peak = max((record.get("l0_weight", 0.0) for record in records), default=0.0)
    title = f"grey: schedule of the penalty's weight λ, up to {peak:g}"
    axes[0].set_title(title, fontsize=9, loc="right", color="#666666")
    _save(figure, path)


def _schedule(axes, records: list[dict], steps: list[int]) -> None:
    """The penalty's weight as a grey area behind the curves, on a scale of its own."""
    weights = [record.get("l0_weight", 0.0) for record in records]
    behind = axes.twinx()
    behind.fill_between(steps, weights, color=GREY, linewidth=0, zorder=0)
    behind.set_ylim(0, 1.08 * max(weights, default=0.0) or 1.0)
    behind.axis("off")
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)


def training_curves(models: dict[str, list[dict]], path: Path) -> None:
    """Training loss and dev accuracy of fine-tuning and of retraining the tickets, by step."""
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    loss, accuracy = figure.subplots(2, 1, sharex=True)
    for number, (name, records) in enumerate(models.items()):
        style = CYCLE[number % len(CYCLE)]
        _smoothed(loss, records, "loss", style, name)
        _series(accuracy, records, "dev_accuracy", style, name, marker="o")
    for panel, label in ((loss, "training loss"), (accuracy, "dev accuracy")):
        _tidy(panel)
        panel.set_ylabel(label, fontsize=9)
    loss.set_ylim(bottom=0)
    accuracy.yaxis.set_major_formatter(PERCENT)
    accuracy.set_xlabel("training step", fontsize=9)
    loss.legend(fontsize=9, frameon=False, loc="upper right")
    _save(figure, path)


def _series(axes, records, key, style, label=None, marker=None) -> None:
    points = [(record["step"], record[key]) for record in records if record.get(key) is not None]
    if points:
        axes.plot(*zip(*points), color=style[0], linestyle=style[1], linewidth=1.6, label=label,
                  marker=marker or ("o" if len(points) == 1 else None), markersize=4)


def _smoothed(axes, records, key, style, label=None) -> None:
    """The values, faint, and their running mean over about a tenth of the run."""
    points = [(record["step"], record[key]) for record in records if record.get(key) is not None]
    if len(points) < 10:
        return _series(axes, records, key, style, label)
    steps, values = np.array(points, dtype=float).T
    span = max(3, len(values) // 10)
    means = [values[max(0, i + 1 - span) : i + 1].mean() for i in range(len(values))]
    axes.plot(steps, values, color=style[0], linewidth=0.8, alpha=0.3)
    axes.plot(steps, means, color=style[0], linestyle=style[1], linewidth=1.6, label=label)


def _tidy(axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(labelsize=9, color="#999999")
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # No software version in the file: the same run gives the same bytes.
    figure.savefig(path, dpi=160, facecolor="white", metadata={"Software": None})
