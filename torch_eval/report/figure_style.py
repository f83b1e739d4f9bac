"""What all figures of the report share: size, colours, tick formats, and how a figure is saved.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; line styles or markers differ as well. Figures
have a light palette and a transparent SVG; the style sheet of the page inverts them on a dark screen.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from configs.contract.basics.files import atomic_write
from configs.contract.experiment.methods import METHODS

matplotlib.style.use(Path(__file__).parent / "templates" / "figures.mplstyle")
BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"
SOFT, SHADE, PAPER, HEAT = "#666666", "#e6e6e6", "#ffffff", "#084594"
INK, RULE = matplotlib.rcParams["text.color"], matplotlib.rcParams["axes.edgecolor"]
NAMED = {  # the colours of `Method.style`
    "ink": INK,
    "soft": SOFT,
    "rule": RULE,
    "blue": BLUE,
    "vermilion": VERMILION,
    "green": GREEN,
    "purple": PURPLE,
    "sky": SKY,
    "orange": ORANGE,
}
WIDTH = 4.6  # inches; narrow, so that the letters stay readable on a phone
CYCLE = [(BLUE, "-", "o"), (VERMILION, "--", "s"), (GREEN, "-.", "^"), (PURPLE, ":", "D"), (SKY, "-", "v")]
PERCENT = FuncFormatter(lambda share, _: f"{round(100 * share, 2):g}%")  # of shares from 0 to 1
OF_HUNDRED = FuncFormatter(lambda value, _: f"{round(value, 2):g}%")  # of values from 0 to 100
ROUND_STEPS = [1, 2, 5, 10]  # distances of ticks, times a power of ten


def of(method: str) -> tuple[str, str, str]:
    """Return the colour, line and marker of a method, the same in every figure."""
    colour, line, marker = METHODS[method].style
    return NAMED[colour], line, marker


def save(figure: Figure, path: Path) -> None:
    """Write a PNG (`path`), a PDF for print, and an SVG for the page.

    The files state no software version and no time: the same run gives the same bytes.
    """
    undated = {"Creator": None, "Producer": None, "CreationDate": None}
    forms: dict[str, dict[str, Any]] = {
        ".png": {"dpi": 190, "facecolor": PAPER, "metadata": {"Software": None}},
        ".pdf": {"facecolor": PAPER, "metadata": undated},
        ".svg": {"transparent": True, "metadata": {"Creator": None, "Date": None}},
    }
    for suffix, options in forms.items():
        content = io.BytesIO()
        figure.savefig(content, format=suffix[1:], **options)
        atomic_write(path.with_suffix(suffix), content.getvalue())
