"""The report's pictures: the paper's Figures 1 to 5, and more about tickets, trade-offs and transfer.

Each function takes plain data and writes a PNG and a PDF on a white card, readable at phone width. Colours are Okabe
and Ito's, which colour-blind readers can tell apart; line styles or markers differ as well. Shares are from 0 to 1,
accuracies in per cent. A `Band` is (mean, low, high).
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

BLUE, VERMILION, GREEN, PURPLE, INK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#333333", "#E6E6E6"
SKY, ORANGE, SOFT = "#56B4E9", "#E69F00", "#666666"
CYCLE = [(BLUE, "-"), (VERMILION, "--"), (GREEN, "-."), (PURPLE, ":"), (SKY, "-"), (ORANGE, "--")]
# Colour, line and marker of a method, the same in every picture.
STYLES = {
    "finetune": (INK, "--", "s"),
    "finetune_long": (SOFT, ":", "D"),
    "freelb": (SKY, "-.", "^"),
    "infobert": (BLUE, ":", "v"),
    "lth": (ORANGE, "--", "P"),
    "random": ("#999999", ":", "X"),
    "robust": (VERMILION, "-", "o"),
    "robust_no_mask_learning": (PURPLE, "--", "<"),
    "robust_no_adversary": (PURPLE, ":", ">"),
    "robust_no_initialization": (GREEN, "--", "d"),
    "robust_no_structure": (GREEN, "-.", "p"),
    "robust_no_structure_long": (GREEN, ":", "h"),
}
MATRICES = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention\noutput",
    "intermediate.dense": "inter-\nmediate",
    "output.dense": "output",
}
PERCENT = FuncFormatter(lambda share, _: f"{round(100 * share, 2):g}%")
OF_HUNDRED = FuncFormatter(lambda value, _: f"{round(value, 2):g}%")
WIDTH = 5.4  # inches; narrow, so that the letters survive a phone's screen

Band = tuple[float, float, float]


# --- Figure 3: where a ticket prunes -------------------------------------------------------------------------


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


def square(grid: np.ndarray, names: list[str], path: Path, title: str, side: str = "", bottom: str = "") -> None:
    """Heat map of shares between named things, with the numbers in per cent: overlap of tickets, transfer of
    adversarial texts. NaN leaves a cell empty."""
    figure = Figure(figsize=(WIDTH, min(1.9 + 0.36 * len(names), 7)), layout="constrained")
    axes = figure.subplots()
    _heat(axes, grid, names, float(np.nanmax(grid, initial=0.0)), digits=0)
    axes.set_xticks(range(len(names)), names, fontsize=9, rotation=90)
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    axes.set_xlabel(bottom, fontsize=9)
    axes.set_ylabel(side, fontsize=9)
    _save(figure, path)


def _heat(axes, grid: np.ndarray, names: list[str], top: float, digits: int = 1):
    image = axes.imshow(grid, cmap="Blues", vmin=0.0, vmax=top or 1.0, aspect="auto")
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(0.5, grid.shape[1] - 1), minor=True)
    axes.set_yticks(np.arange(0.5, len(names) - 1), minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    for (row, column), share in np.ndenumerate(grid):
        if not np.isnan(share):
            dark = share > 0.6 * (top or 1.0)
            axes.text(
                column,
                row,
                f"{100 * share:.{digits}f}",
                ha="center",
                va="center",
                fontsize=9 if len(names) <= 8 else 7,
                color="white" if dark else INK,
            )
    return image


# --- Figures 1 and 5: learning the masks ---------------------------------------------------------------------


def mask_learning(searches: dict[str, list[dict]], path: Path) -> None:
    """L0 term, settled masks, sparsity and adversarial loss over the search; one curve for each name."""
    searches = {name: [r for r in records if "l0_weight" in r] for name, records in searches.items()}
    key = "epoch" if all("epoch" in r for records in searches.values() for r in records) else "step"
    figure = Figure(figsize=(WIDTH, 8.2), layout="constrained")
    axes = figure.subplots(4, 1, sharex=True)
    for number, (name, records) in enumerate(searches.items()):
        colour = CYCLE[number % len(CYCLE)][0]
        _series(axes[0], records, "l0_term", (colour, CYCLE[number % len(CYCLE)][1]), name, x=key)
        _series(axes[1], records, "settled_zero", (colour, "-"), "near 0: to be pruned" if not number else None, x=key)
        _series(axes[1], records, "settled_one", (colour, ":"), "near 1: to be kept" if not number else None, x=key)
        _series(axes[2], records, "sparsity_at_threshold", (colour, CYCLE[number % len(CYCLE)][1]), x=key)
        _smoothed(axes[3], records, "adversarial_loss", (colour, CYCLE[number % len(CYCLE)][1]), x=key)
    for panel, label in zip(axes, ("L0 term R(m)", "masks settled", "masks at exactly 0", "adversarial loss")):
        _tidy(panel)
        panel.set_ylabel(label, fontsize=9)
    for panel in axes[1:3]:
        panel.yaxis.set_major_formatter(PERCENT)
    for panel in axes[1:]:
        panel.set_ylim(bottom=0)
    axes[1].legend(fontsize=9, frameon=False, loc="best", labelcolor=INK)
    if len(searches) == 1:
        records = next(iter(searches.values()))
        for panel in axes:
            _schedule(panel, records, [r[key] for r in records])
        peak = max((r["l0_weight"] for r in records), default=0.0)
        axes[0].set_title(
            f"grey: schedule of the penalty's weight λ, up to {peak:g}", fontsize=9, loc="right", color=SOFT
        )
    else:
        axes[0].legend(fontsize=9, frameon=False, loc="best")
    axes[-1].set_xlabel(f"search {key}", fontsize=9)
    _save(figure, path)


def _schedule(axes, records: list[dict], places: list[float]) -> None:
    """The penalty's weight as a grey area behind the curves, on a scale of its own."""
    weights = [record.get("l0_weight", 0.0) for record in records]
    behind = axes.twinx()
    behind.fill_between(places, weights, color=GREY, linewidth=0, zorder=0)
    behind.set_ylim(0, 1.08 * max(weights, default=0.0) or 1.0)
    behind.axis("off")
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)


def log_alpha(histograms: dict[str, tuple[np.ndarray, np.ndarray, float | None]], path: Path) -> None:
    """Distribution of log alpha at the end of searches: name to (counts, edges, threshold of the drawn ticket)."""
    rows, columns = -(-len(histograms) // 2), min(len(histograms), 2)
    figure = Figure(figsize=(WIDTH, 3.2 if columns == 1 else 0.4 + 2.0 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    for axes, (name, (counts, edges, threshold)) in zip(panels, histograms.items()):
        share = counts / max(counts.sum(), 1)
        axes.stairs(share, edges, color=BLUE, linewidth=1.2)
        if threshold is not None:
            axes.stairs(np.where(edges[1:] <= threshold, share, 0.0), edges, color=BLUE, alpha=0.3, fill=True)
        _tidy(axes)
        axes.set_title(name, fontsize=9.5, loc="left", color=INK)
        axes.yaxis.set_major_formatter(PERCENT)
        axes.yaxis.set_major_locator(MaxNLocator(4))
    for axes in panels[len(histograms) :]:
        axes.set_visible(False)
    figure.supxlabel("log α (filled: pruned by the ticket)", fontsize=9)
    figure.supylabel("share of the masks", fontsize=9)
    _save(figure, path)


# --- Figures 2 and 4 and the trade-off: accuracies -----------------------------------------------------------


def accuracy_curves(
    panels: dict[str, dict[str, list[tuple[float, Band]]]],
    names: dict[str, str],
    path: Path,
    axis: str,
    level: dict[str, dict[str, Band]] | None = None,
) -> None:
    """Accuracies against `axis` (a share): Figure 2 (sparsity) and Figure 4 (training progress).

    `panels` maps a panel's title to method to points (x, band); `level` to methods that have no x and are drawn as a
    level line; `names` are the methods' titles.
    """
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(WIDTH, 0.5 + 2.5 * rows), layout="constrained")
    axes = figure.subplots(rows, 2, sharex=True, squeeze=False).ravel()
    for panel, (title, curves) in zip(axes, panels.items()):
        for method, points in curves.items():
            colour, line, marker = STYLES[method]
            places, bands = [x for x, _ in points], np.array([band for _, band in points])
            panel.plot(
                places,
                bands[:, 0],
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=4,
                linewidth=1.6,
                label=names[method],
            )
            panel.fill_between(places, bands[:, 1], bands[:, 2], color=colour, alpha=0.15, linewidth=0)
        for method, band in ((level or {}).get(title) or {}).items():
            panel.axhline(
                band[0], color=STYLES[method][0], linestyle=STYLES[method][1], linewidth=1, label=names[method]
            )
        _tidy(panel)
        panel.set_title(title, fontsize=9.5, loc="left", color=INK)
        panel.yaxis.set_major_formatter(OF_HUNDRED)
        panel.xaxis.set_major_formatter(PERCENT)
        panel.yaxis.set_major_locator(MaxNLocator(5))
        panel.xaxis.set_tick_params(labelbottom=True)
    for panel in axes[len(panels) :]:
        panel.set_visible(False)
    for panel in axes[max(0, len(panels) - 2) : len(panels)]:
        panel.set_xlabel(axis, fontsize=9)
    found = {label: handle for panel in axes for handle, label in zip(*panel.get_legend_handles_labels())}
    figure.legend(
        found.values(), found.keys(), loc="outside upper left", ncols=min(len(found), 3), fontsize=9, frameon=False
    )
    _save(figure, path)


def trade_off(points: dict[str, tuple[Band, Band]], names: dict[str, str], path: Path, title: str) -> None:
    """Clean accuracy (across) against accuracy under attack (up) of all methods, with their spans."""
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    axes = figure.subplots()
    for method, (clean, aua) in points.items():
        colour, _, marker = STYLES[method]
        axes.errorbar(
            clean[0],
            aua[0],
            xerr=_arms(clean),
            yerr=_arms(aua),
            color=colour,
            marker=marker,
            markersize=7,
            elinewidth=0.8,
            linestyle="none",
            markeredgecolor="white",
            markeredgewidth=0.6,
        )
    _tidy(axes)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.xaxis.set_major_formatter(OF_HUNDRED)
    axes.yaxis.set_major_formatter(OF_HUNDRED)
    axes.set_xlabel("Clean: accuracy on unchanged sentences", fontsize=9)
    axes.set_ylabel("Aua: accuracy under attack", fontsize=9)
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    axes.margins(x=0.2, y=0.1)
    bars = [((c[1], a[0]), (c[2], a[0])) for c, a in points.values()] + [
        ((c[0], a[1]), (c[0], a[2])) for c, a in points.values()
    ]
    _name_points(figure, axes, {method: (c[0], a[0]) for method, (c, a) in points.items()}, names, bars)
    _save(figure, path)


def _arms(band: Band) -> list[list[float]]:
    return [[max(0.0, band[0] - band[1])], [max(0.0, band[2] - band[0])]]


def _name_points(figure, axes, places: dict[str, tuple[float, float]], names: dict[str, str], bars: list) -> None:
    """A name beside each point, moved until it covers neither another name nor a point nor a bar.

    `bars` are lower left and upper right corners, in the data's units.
    """
    figure.draw_without_rendering()  # settles the axes' place, which the names are measured against
    pixels = {m: axes.transData.transform(place) for m, place in places.items()}
    box, unit = axes.get_window_extent(), figure.dpi / 72
    taken = [(x - 5 * unit, y - 5 * unit, x + 5 * unit, y + 5 * unit) for x, y in pixels.values()]
    taken += [tuple(axes.transData.transform(corners).ravel()) for corners in bars]
    for method in sorted(places, key=lambda m: -pixels[m][1]):
        text = axes.annotate(
            names[method],
            places[method],
            fontsize=8.5,
            color=INK,
            va="center",
            textcoords="offset points",
            xytext=(0, 0),
        )
        text.set_in_layout(False)  # the axes must stay where the places were measured
        width, height = text.get_window_extent().width / unit, text.get_window_extent().height / unit
        x, y = pixels[method] / unit
        spots = [
            (dx, dy)
            for reach in (0, 10, 20, 30, 40)
            for dy in sorted({reach, -reach}, reverse=True)
            for dx in (7, -7 - width, -width / 2, 20, -20 - width)
            if dx != -width / 2 or reach
        ]

        def cost(spot):
            left, low = x + spot[0], y + spot[1] - height / 2
            mine = tuple(unit * v for v in (left, low, left + width, low + height))
            outside = mine[0] < box.x0 or mine[2] > box.x1 or mine[1] < box.y0 or mine[3] > box.y1
            return (
                100 * outside
                + 10 * sum(_covers(mine, other) for other in taken)
                + (abs(spot[1]) + abs(spot[0]) / 9) / 100
            )

        best = min(spots, key=cost)
        text.set_position(best)
        left, low = x + best[0], y + best[1] - height / 2
        taken.append(tuple(unit * v for v in (left, low, left + width, low + height)))


def _covers(a: tuple, b: tuple) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


# --- training curves and what all share ----------------------------------------------------------------------


def training_curves(models: dict[str, list[dict]], path: Path) -> None:
    """Training loss and dev accuracy of what was trained, by the share of its steps."""
    figure = Figure(figsize=(WIDTH, 4.9), layout="constrained")
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
    handles, labels = loss.get_legend_handles_labels()
    if not handles:
        handles, labels = accuracy.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, fontsize=9, frameon=False)
    _save(figure, path)


def _series(axes, records, key, style, label=None, marker=None, x="step") -> None:
    points = [(record[x], record[key]) for record in records if record.get(key) is not None]
    if points:
        axes.plot(
            *zip(*points),
            color=style[0],
            linestyle=style[1],
            linewidth=1.6,
            label=label,
            marker=marker or ("o" if len(points) == 1 else None),
            markersize=4,
        )


def _smoothed(axes, records, key, style, label=None, x="step") -> None:
    """The values, faint, and their running mean over about a tenth of the run."""
    points = [(record[x], record[key]) for record in records if record.get(key) is not None]
    if len(points) < 10:
        return _series(axes, records, key, style, label, x=x)
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
    """A PNG for the page and a PDF for print. No software version and no time in them: the same run gives the same
    bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160, facecolor="white", metadata={"Software": None})
    timeless = {"Creator": None, "Producer": None, "CreationDate": None}
    with matplotlib.rc_context({"pdf.fonttype": 42}):  # letters as letters: readers can search, journals ask for it
        figure.savefig(path.with_suffix(".pdf"), facecolor="white", metadata=timeless)
