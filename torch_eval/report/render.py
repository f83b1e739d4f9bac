"""A report as a list of blocks, written as one self-contained HTML page and as Markdown through Jinja templates.

Texts of blocks may hold `code` and **bold**; everything else is escaped, and all of an example's text. Sentences of a
data set therefore cannot become markup.
"""

from __future__ import annotations

import base64
import difflib
import functools
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from markupsafe import Markup

TEMPLATES = Path(__file__).with_name("templates")


class Block:
    """A part of the report; the templates write each `kind` in its own way."""

    @property
    def kind(self) -> str:
        """The class's name in small letters."""
        return type(self).__name__.lower()


@dataclass
class Heading(Block):
    """A heading; those of level 2 begin a section, which the page links to."""

    text: str
    level: int = 2

    @property
    def anchor(self) -> str:
        """The section's id on the page."""
        return re.sub(r"\W+", "-", self.text.lower()).strip("-")


@dataclass
class Paragraph(Block):
    """A paragraph; a `note` stands out, a `lead` is larger."""

    text: str
    note: bool = False
    lead: bool = False


@dataclass
class Bullets(Block):
    """A list of short texts."""

    items: list[str]


@dataclass
class Cell:
    """One cell of a table.

    Attributes:
        text: What it says.
        small: Lines of small print below it.
        best: True if it is the best value of its column.
        missing: True if the result does not exist yet.
        published: The same figure from papers, a line each.
        interval: 95% intervals, a line each, shown on demand.
        ends: Its number as it is shown, twice, or both ends of its range; None if it has no number.
    """

    text: str
    small: str = ""
    best: bool = False
    missing: bool = False
    published: str = ""
    interval: str = ""
    ends: tuple[float, float] | None = None


Row = list[Cell] | str


@dataclass
class Table(Block):
    """A table.

    Attributes:
        header: Names of the columns.
        rows: Cells of each row. A text in place of a row spans all columns and names the rows below it.
        groups: (title, number of columns) of a second header above the first, without the first column.
        text: True for columns of words, which are aligned left.
    """

    header: list[str]
    rows: Sequence[Row]
    groups: list[tuple[str, int]] = field(default_factory=list)
    text: bool = False

    @property
    def has_intervals(self) -> bool:
        """True if a cell has an interval to show."""
        return any(cell.interval for row in self.rows if not isinstance(row, str) for cell in row)

    @property
    def flat_header(self) -> list[str]:
        """The header with the groups' titles before the names: Markdown has no header over several columns."""
        titles = [title for title, count in self.groups for _ in range(count)] or [""] * (len(self.header) - 1)
        return [self.header[0], *(f"{title} {name}".strip() for title, name in zip(titles, self.header[1:]))]


@dataclass
class Picture(Block):
    """A figure (its PNG; an SVG of the same name lies beside it) and its caption."""

    path: Path
    caption: str

    @property
    def svg(self) -> str:
        """The SVG in base64."""
        return base64.b64encode(self.path.with_suffix(".svg").read_bytes()).decode()


@dataclass
class Details(Block):
    """Blocks that open on demand."""

    summary: str
    blocks: Sequence[Block]


Pieces = list[tuple[str, bool]]  # of a text, each with whether the attack changed it


@dataclass
class TableOfContents(Block):
    """Links to the sections of the page."""


@dataclass
class Example(Block):
    """One attacked sentence: its title, and (label, text) pairs."""

    title: str
    texts: list[tuple[str, Pieces]]


def section(title: str, blocks: Sequence[Block], remedies: Sequence[str] = ()) -> list[Block]:
    """Return the blocks under their heading; without blocks, the commands that make them; nothing if there are none."""
    blocks = blocks or [Paragraph(f"Missing; {remedy}", note=True) for remedy in remedies]
    return [Heading(title), *blocks] if blocks else []


def compare(original: str, perturbed: str) -> tuple[Pieces, Pieces]:
    """Split both texts into pieces and mark what the attack changed; upper and lower case count as the same."""
    before, after = (re.findall(r"\s+|\w+|[^\w\s]", text) for text in (original, perturbed))
    matcher = difflib.SequenceMatcher(None, [w.lower() for w in before], [w.lower() for w in after], autojunk=False)
    left: Pieces = []
    right: Pieces = []
    for kind, a, b, c, d in matcher.get_opcodes():
        for pieces, words in ((left, before[a:b]), (right, after[c:d])):
            if words:
                pieces.append(("".join(words), kind != "equal"))
    return left, right


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """Return the page, which loads nothing from elsewhere and needs no script."""
    return _environment().get_template("report.html.j2").render(title=title, blocks=blocks).strip() + "\n"


def to_markdown(blocks: Sequence[Block], folder: Path) -> str:
    """Return the blocks as GitHub's Markdown; figures are named relative to `folder`."""
    text = _environment().get_template("report.md.j2").render(blocks=blocks, folder=folder)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        inline=_inline, escaped=_escaped, bold=_bold, plain=lambda text: text.replace("<", "&lt;")
    )
    return environment


def _inline(text: str) -> Markup:
    """A block's text as HTML, with `code` and **bold**."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text))


def _escaped(text: str) -> str:
    """A data set's text as one line of Markdown that shows every character as it is."""
    return re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", html.escape(text, quote=False)).replace("\n", " ")


def _bold(text: str) -> str:
    """Bold Markdown, with blanks outside the stars: inside them Markdown would show the stars."""
    core = text.strip()
    return text.replace(core, f"**{_escaped(core)}**", 1) if core else text
