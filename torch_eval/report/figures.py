"""The report's pictures: the paper's Figures 1 to 5, and more about tickets, trade-offs and transfer.

Each function takes plain data and writes a PNG and a PDF on white, and an SVG that the page takes in (`on_page`), all
readable at phone width. Colours are Okabe and Ito's, which colour-blind readers can tell apart; line styles or markers
differ as well. Shares are from 0 to 1, accuracies in per cent. A `Band` is (mean, low, high).
"""

from __future__ import annotations

import html
import re
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"
INK, SOFT, RULE, GRID, SHADE, PAPER, HEAT = "#333333", "#666666", "#999999", "#dddddd", "#e6e6e6", "#ffffff", "#084594"
# Every colour of a picture, and what it becomes on a dark screen.
DARK = {
    BLUE: "#3f97dd",
    VERMILION: "#f47c3c",
    GREEN: "#2bbf95",
    PURPLE: "#e394c3",
    SKY: "#9bd8fb",
    ORANGE: "#f3b431",
    INK: "#e6e9ec",
    SOFT: "#a9b3bc",
    RULE: "#7f8891",
    GRID: "#2e353c",
    SHADE: "#2a3037",
    PAPER: "#15191d",
    HEAT: "#8fc1ee",
}
# What all pictures share. A colour that is not in `DARK`, such as matplotlib's own black, would stay as it is.
matplotlib.rcParams.update(
    {
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.color": RULE,
        "ytick.color": RULE,
        "axes.edgecolor": RULE,
        "axes.facecolor": "none",
        "axes.titlelocation": "left",
        "axes.titlesize": 9.5,
        "axes.labelsize": 9,
        "figure.titlesize": 9.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.6,
        "lines.markersize": 4,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "pdf.fonttype": 42,  # letters as letters: readers can search, journals ask for it
        "svg.hashsalt": "report",
    }
)
CYCLE = [(BLUE, "-"), (VERMILION, "--"), (GREEN, "-."), (PURPLE, ":"), (SKY, "-"), (ORANGE, "--")]
# Colour, line and marker of a method, the same in every picture.
STYLES = {
    "finetune": (INK, "--", "s"),
    "finetune_long": (SOFT, ":", "D"),
    "freelb": (SKY, "-.", "^"),
    "infobert": (BLUE, ":", "v"),
    "lth": (ORANGE, "--", "P"),
    "random": (RULE, ":", "X"),
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
ROUND = [1, 2, 5, 10]  # ticks at such numbers
WIDTH = 4.6  # inches; narrow, so that the letters survive a phone's screen

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
    """Heat map of pruned shares in per cent (Figure 3). `top` is the darkest: give all tickets the same."""
    grid, pooler = sparsity_grid(layers)
    rows = len(grid)
    figure = Figure(figsize=(WIDTH, 1.2 + 0.33 * (rows + 1)), layout="constrained")
    main, below = figure.subplots(2, 1, gridspec_kw={"height_ratios": [max(rows, 1), 1]})
    _heat(main, grid, [f"layer {number + 1}" for number in range(rows)], top)
    figure.suptitle(title, x=0.01, ha="left")
    main.set_xticks(range(len(MATRICES)), MATRICES.values())
    # The pooler is one matrix, not one of each layer: it stands apart, in a cell of the same width.
    apart = np.full((1, len(MATRICES)), np.nan)
    apart[0, 0] = np.nan if pooler is None else pooler
    _heat(below, apart, ["pooler"], top)
    below.set_xticks([])
    _save(figure, path)


def square(grid: np.ndarray, names: list[str], path: Path, title: str, side: str = "", bottom: str = "") -> None:
    """Heat map of shares between named things, with the numbers in per cent: overlap of tickets, transfer of
    adversarial texts. NaN leaves a cell empty."""
    figure = Figure(figsize=(WIDTH, min(1.9 + 0.36 * len(names), 6.4)), layout="constrained")
    axes = figure.subplots()
    _heat(axes, grid, names, float(np.nanmax(grid, initial=0.0)), digits=0)
    axes.set_xticks(range(len(names)), names, rotation=90)
    figure.suptitle(title, x=0.01, ha="left")
    axes.set_xlabel(bottom)
    axes.set_ylabel(side)
    _save(figure, path)


def _heat(axes, grid: np.ndarray, names: list[str], top: float, digits: int = 1) -> None:
    """Cells of one colour, which shows as far as their share goes: that reads on white as well as on black."""
    axes.set_xlim(-0.5, grid.shape[1] - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(False)
    for (row, column), share in np.ndenumerate(grid):
        if not np.isnan(share):
            strength = 0.05 + 0.95 * share / (top or 1.0)  # a share of 0 is not an empty cell
            corner = (column - 0.48, row - 0.47)
            axes.add_patch(Rectangle(corner, 0.96, 0.94, facecolor=HEAT, alpha=strength, linewidth=0))
            axes.text(
                column,
                row,
                f"{100 * share:.{digits}f}",
                ha="center",
                va="center",
                fontsize=9 if len(names) <= 8 else 7,
                color=PAPER if strength > 0.6 else INK,
            )


# --- Figures 1 and 5: learning the masks ---------------------------------------------------------------------


def mask_learning(searches: dict[str, list[dict]], path: Path) -> None:
    """L0 term, settled masks, sparsity and adversarial loss over the search; one curve for each name."""
    searches = {name: [r for r in records if r.get("l0_weight") is not None] for name, records in searches.items()}
    key = "epoch" if all(r.get("epoch") is not None for records in searches.values() for r in records) else "step"
    figure = Figure(figsize=(WIDTH, 7.4), layout="constrained")
    axes = figure.subplots(4, 1, sharex=True)
    for number, (name, records) in enumerate(searches.items()):
        colour = CYCLE[number % len(CYCLE)][0]
        _series(axes[0], records, "l0_term", (colour, CYCLE[number % len(CYCLE)][1]), name, x=key)
        _series(axes[1], records, "settled_zero", (colour, "-"), "near 0: to be pruned" if not number else None, x=key)
        _series(axes[1], records, "settled_one", (colour, ":"), "near 1: to be kept" if not number else None, x=key)
        _series(axes[2], records, "sparsity_at_threshold", (colour, CYCLE[number % len(CYCLE)][1]), x=key)
        _smoothed(axes[3], records, "adversarial_loss", (colour, CYCLE[number % len(CYCLE)][1]), x=key)
    for panel, label in zip(axes, ("L0 term R(m)", "masks settled", "masks at exactly 0", "adversarial loss")):
        panel.set_ylabel(label)
    for panel in axes[1:3]:
        panel.yaxis.set_major_formatter(PERCENT)
    for panel in axes[1:]:
        panel.set_ylim(bottom=0)
    axes[1].legend(loc="best")
    if len(searches) == 1:
        records = next(iter(searches.values()))
        for panel in axes:
            _schedule(panel, records, [r[key] for r in records])
        peak = max((r["l0_weight"] for r in records), default=0.0)
        axes[0].set_title(f"shaded: schedule of the penalty's weight λ, up to {peak:g}", fontsize=9, color=SOFT)
    else:
        axes[0].legend(loc="best")
    axes[-1].set_xlabel(f"search {key}")
    _save(figure, path)


def _schedule(axes, records: list[dict], places: list[float]) -> None:
    """The penalty's weight as a shaded area behind the curves, on a scale of its own."""
    weights = [record.get("l0_weight", 0.0) for record in records]
    behind = axes.twinx()
    behind.fill_between(places, weights, color=SHADE, linewidth=0, zorder=0)
    behind.set_ylim(0, 1.08 * max(weights, default=0.0) or 1.0)
    behind.axis("off")
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)


def log_alpha(histograms: dict[str, tuple[np.ndarray, np.ndarray, float | None]], path: Path) -> None:
    """Distribution of log alpha at the end of searches: name to (counts, edges, threshold of the drawn ticket)."""
    figure = Figure(figsize=(WIDTH, 0.6 + max(2.0, 1.5 * len(histograms))), layout="constrained")
    panels = figure.subplots(len(histograms), 1, sharex=True, squeeze=False).ravel()
    for axes, (name, (counts, edges, threshold)) in zip(panels, histograms.items()):
        share = counts / max(counts.sum(), 1)
        axes.stairs(share, edges, color=BLUE, linewidth=1.2)
        if threshold is not None:
            axes.stairs(np.where(edges[1:] <= threshold, share, 0.0), edges, color=BLUE, alpha=0.3, fill=True)
        axes.set_title(name)
        axes.yaxis.set_major_formatter(PERCENT)
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=ROUND))
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
    figure = Figure(figsize=(WIDTH, 0.6 + 2.0 * rows), layout="constrained")
    axes = figure.subplots(rows, 2, sharex=True, squeeze=False).ravel()
    asked = sorted({x for curves in panels.values() for points in curves.values() for x, _ in points})
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
                label=names[method],
            )
            panel.fill_between(places, bands[:, 1], bands[:, 2], color=colour, alpha=0.15, linewidth=0)
        for method, band in ((level or {}).get(title) or {}).items():
            panel.axhline(
                band[0], color=STYLES[method][0], linestyle=STYLES[method][1], linewidth=1, label=names[method]
            )
        panel.set_title(title)
        panel.yaxis.set_major_formatter(OF_HUNDRED)
        panel.xaxis.set_major_formatter(PERCENT)
        panel.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
        panel.xaxis.set_major_locator(FixedLocator(asked) if len(asked) <= 4 else MaxNLocator(4, steps=ROUND))
        panel.xaxis.set_tick_params(labelbottom=True)
    for panel in axes[len(panels) :]:
        panel.set_visible(False)
    for panel in axes[max(0, len(panels) - 2) : len(panels)]:
        panel.set_xlabel(axis)
    found = {label: handle for panel in axes for handle, label in zip(*panel.get_legend_handles_labels())}
    figure.legend(found.values(), found.keys(), loc="outside upper left", ncols=min(len(found), 3))
    _save(figure, path)


def trade_off(points: dict[str, tuple[Band, Band]], names: dict[str, str], path: Path, title: str) -> None:
    """Clean accuracy (across) against accuracy under attack (up) of all methods, with their spans."""
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
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
            markeredgecolor=PAPER,
            markeredgewidth=0.6,
        )
    axes.grid(axis="x")
    axes.xaxis.set_major_formatter(OF_HUNDRED)
    axes.yaxis.set_major_formatter(OF_HUNDRED)
    axes.set_xlabel("Clean: accuracy on unchanged sentences")
    axes.set_ylabel("Aua: accuracy under attack")
    axes.set_title(title)
    axes.margins(x=0.2, y=0.1)
    bars = [((c[1], a[0]), (c[2], a[0])) for c, a in points.values()] + [
        ((c[0], a[1]), (c[0], a[2])) for c, a in points.values()
    ]
    _name_points(figure, axes, {method: (c[0], a[0]) for method, (c, a) in points.items()}, names, bars)
    _save(figure, path)


def _arms(band: Band) -> list[list[float]]:
    return [[max(0.0, band[0] - band[1])], [max(0.0, band[2] - band[0])]]


def _name_points(figure, axes, places: dict[str, tuple[float, float]], names: dict[str, str], bars: list) -> None:
    """A name beside each point, moved until it covers neither another name nor a point nor a bar; points that fall
    together have theirs one below the other.

    `bars` are lower left and upper right corners, in the data's units.
    """
    figure.draw_without_rendering()  # settles the axes' place, which the names are measured against
    together: dict[tuple, list[str]] = {}
    for method, place in places.items():
        together.setdefault(place, []).append(names[method])
    pixels = {place: axes.transData.transform(place) for place in together}
    box, unit = axes.get_window_extent(), figure.dpi / 72
    taken = [(x - 5 * unit, y - 5 * unit, x + 5 * unit, y + 5 * unit) for x, y in pixels.values()]
    taken += [tuple(axes.transData.transform(corners).ravel()) for corners in bars]
    for place in sorted(together, key=lambda p: -pixels[p][1]):
        text = axes.annotate(
            "\n".join(together[place]),
            place,
            fontsize=8.5,
            va="center",
            textcoords="offset points",
            xytext=(0, 0),
        )
        text.set_in_layout(False)  # the axes must stay where the places were measured
        width, height = text.get_window_extent().size / unit
        x, y = pixels[place] / unit
        spots = [
            (dx, dy)
            for reach in range(0, 70, 10)
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


def training_curves(models: dict[str, tuple[str, list[dict]]], path: Path) -> None:
    """Training loss and dev accuracy of what was trained, by step: name to (method, training records)."""
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    loss, accuracy = figure.subplots(2, 1, sharex=True)
    for name, (method, records) in models.items():
        colour, line, marker = STYLES[method]
        _smoothed(loss, records, "loss", (colour, line), name)
        _series(accuracy, records, "dev_accuracy", (colour, line), name, marker=marker)
    loss.set_ylabel("training loss")
    accuracy.set_ylabel("dev accuracy")
    loss.set_ylim(bottom=0)
    accuracy.yaxis.set_major_formatter(PERCENT)
    accuracy.set_xlabel("training step")
    handles, labels = loss.get_legend_handles_labels()
    if not handles:
        handles, labels = accuracy.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2)
    _save(figure, path)


def _series(axes, records, key, style, label=None, marker=None, x="step") -> None:
    points = [(record[x], record[key]) for record in records if record.get(key) is not None]
    if points:
        axes.plot(
            *zip(*points),
            color=style[0],
            linestyle=style[1],
            label=label,
            marker=marker or ("o" if len(points) == 1 else None),
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
    axes.plot(steps, means, color=style[0], linestyle=style[1], label=label)


def _save(figure: Figure, path: Path) -> None:
    """A PNG to look at, a PDF for print, an SVG for the page. No software version and no time in them: the same run
    gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    timeless = {"Creator": None, "Producer": None, "CreationDate": None}
    figure.savefig(path, dpi=190, facecolor=PAPER, metadata={"Software": None})
    figure.savefig(path.with_suffix(".pdf"), facecolor=PAPER, metadata=timeless)
    figure.savefig(path.with_suffix(".svg"), facecolor="none", metadata={"Creator": None, "Date": None})


# --- on the page ---------------------------------------------------------------------------------------------


def style_sheet() -> str:
    """The colours of the pictures taken in by `on_page`, for a bright and a dark screen; print is bright."""
    bright, dark = (
        " ".join(f"{_name(colour)}: {value};" for colour, value in values.items())
        for values in ({colour: colour for colour in DARK}, DARK)
    )
    return f":root {{ {bright} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"


def on_page(path: Path, description: str) -> str:
    """The SVG beside a PNG as an element of a page, in the colours of `style_sheet`; `description` is escaped.

    Its ids begin with the file's name, so that a page may hold several.
    """
    text = path.with_suffix(".svg").read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="\w+?_\d+">', "<g>", text)  # matplotlib's names of parts, which nothing refers to
    text = re.sub(r'( id="|href="#|url\(#)', lambda found: f"{found[0]}{path.stem}-", text)
    text = re.sub("|".join(DARK), lambda found: f"var({_name(found[0])})", text)
    text = re.sub(r"\s*\n\s*", "\n", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(description)}" ', 1).strip()


def _name(colour: str) -> str:
    return "--picture-" + colour.removeprefix("#")
