"""A report as a list of blocks, written as Markdown and as one self-contained HTML page.

Text of blocks may hold `code` and **bold**; everything else in it, and all of an example's text, is
escaped. Sentences of a data set therefore can't become markup.
"""

from __future__ import annotations

import difflib
import html
import re
from dataclasses import dataclass, field
from pathlib import Path

from torch_eval.report import figures

STYLE = Path(__file__).with_name("report.css")


@dataclass
class Heading:
    text: str
    level: int = 2


@dataclass
class Text:
    text: str
    note: bool = False


@dataclass
class Bullets:
    items: list[str]


@dataclass
class Cell:
    """A table cell: its text, lines of small print below it, and whether it is the best or a missing one.

    `published` is the figure of a paper for the same cell; `interval` is shown on demand.
    """

    text: str
    small: str = ""
    best: bool = False
    missing: bool = False
    published: str = ""
    interval: str = ""


@dataclass
class Table:
    """`groups` are (title, number of columns) above the header; a table of `text` is aligned left. A row that is a
    string runs over all columns and names the rows below it."""

    header: list[str]
    rows: list[list[Cell] | str]
    groups: list[tuple[str, int]] = field(default_factory=list)
    text: bool = False


@dataclass
class Picture:
    path: Path
    caption: str


@dataclass
class Details:
    """Blocks that open on demand."""

    summary: str
    blocks: list


@dataclass
class Example:
    """One attacked sentence. `texts` are (what it is, its words as (text, is it changed) pieces)."""

    title: str
    texts: list[tuple[str, list[tuple[str, bool]]]]


def compare(original: str, perturbed: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Both texts in pieces, each with whether the attack changed it; upper and lower case count as the same."""
    before, after = (re.findall(r"\s+|\w+|[^\w\s]", text) for text in (original, perturbed))
    matcher = difflib.SequenceMatcher(None, [w.lower() for w in before], [w.lower() for w in after], autojunk=False)
    left, right = [], []
    for kind, a, b, c, d in matcher.get_opcodes():
        for pieces, words in ((left, before[a:b]), (right, after[c:d])):
            if words:
                pieces.append(("".join(words), kind != "equal"))
    return left, right


def to_html(title: str, blocks: list) -> str:
    body = "\n".join(_html(block) for block in blocks)
    links = [
        f'<a href="#{_anchor(b.text)}">{_inline(b.text)}</a>' for b in blocks if isinstance(b, Heading) and b.level == 2
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}{figures.style_sheet()}"
        f"</style>\n</head>\n"
        f"<body>\n<nav>{' '.join(links)}</nav>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _html(block) -> str:
    return _HTML[type(block)](block)


def _identity(heading: Heading) -> str:
    """Only sections are linked to; the names of smaller headings may stand in several."""
    return f' id="{_anchor(heading.text)}"' if heading.level == 2 else ""


def _anchor(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower()).strip("-")


def _inline(text: str) -> str:
    text = html.escape(text)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)


def _html_table(table: Table) -> str:
    first = '<td class="first"></td>'
    groups = "".join(f'<th class="group" colspan="{n}">{_inline(name)}</th>' for name, n in table.groups)
    head = f"<tr>{first}{groups}</tr>" if table.groups else ""
    head += (
        "<tr>"
        + "".join(f'<th scope="col"{_first(i)}>{_inline(name)}</th>' for i, name in enumerate(table.header))
        + "</tr>"
    )
    rows = "\n".join(_html_row(row, len(table.header)) for row in table.rows)
    kind = ' class="text"' if table.text else ""
    # A box to tick and a rule of the style sheet show the intervals: no script is needed.
    toggle = (
        '<label class="toggle"><input type="checkbox"> show 95% intervals</label>'
        if any(cell.interval for row in table.rows if not isinstance(row, str) for cell in row)
        else ""
    )
    # The frame scrolls sideways on a phone; tabindex lets a keyboard do it as well.
    return (
        f'<div class="table">{toggle}<div class="wide" tabindex="0"><table{kind}>\n<thead>{head}</thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div></div>"
    )


def _html_row(row: list[Cell] | str, columns: int) -> str:
    if isinstance(row, str):
        return f'<tr class="band"><th scope="rowgroup" colspan="{columns}"><span>{_inline(row)}</span></th></tr>'
    return f"<tr>{''.join(_html_cell(cell, i) for i, cell in enumerate(row))}</tr>"


def _first(column: int) -> str:
    return ' class="first"' if column == 0 else ""


def _html_cell(cell: Cell, column: int) -> str:
    text = _inline(cell.text)
    text = f"<strong>{text}</strong>" if cell.best else text
    text = f'<span class="missing">{text}</span>' if cell.missing else text
    for kind, small in (("", cell.small), (' class="interval"', cell.interval), (' class="published"', cell.published)):
        if small:
            text += f"<small{kind}>{'<br>'.join(map(_inline, small.splitlines()))}</small>"
    if column == 0:
        return f'<th scope="row"{_first(column)}>{text}</th>'
    return f"<td>{text}</td>"


def _html_picture(picture: Picture) -> str:
    drawn = figures.on_page(picture.path, picture.caption.replace("**", "").replace("`", ""))
    return f"<figure>{drawn}<figcaption>{_inline(picture.caption)}</figcaption></figure>"


def _html_example(example: Example) -> str:
    rows = []
    for name, pieces in example.texts:
        text = "".join(
            f"<mark>{html.escape(t)}</mark>" if changed and t.strip() else html.escape(t) for t, changed in pieces
        )
        rows.append(f"<dt>{html.escape(name)}</dt><dd>{text}</dd>")
    return f'<div class="example"><h4>{html.escape(example.title)}</h4><dl>{"".join(rows)}</dl></div>'


_HTML = {
    Heading: lambda b: f"<h{b.level}{_identity(b)}>{_inline(b.text)}</h{b.level}>",
    Text: lambda b: f"<p{' class=note' if b.note else ''}>{_inline(b.text)}</p>",
    Bullets: lambda b: "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in b.items) + "</ul>",
    Table: _html_table,
    Picture: _html_picture,
    Example: _html_example,
    Details: lambda b: (
        f"<details><summary>{_inline(b.summary)}</summary>\n" + "\n".join(map(_html, b.blocks)) + "\n</details>"
    ),
}


def to_markdown(blocks: list, folder: Path) -> str:
    """The blocks as GitHub's Markdown; pictures are named relative to `folder`."""
    writers = {
        Heading: lambda b: "#" * b.level + " " + _plain(b.text),
        Text: lambda b: ("> " if b.note else "") + _plain(b.text),
        Bullets: lambda b: "\n".join(f"- {_plain(item)}" for item in b.items),
        Table: _markdown_table,
        Picture: lambda b: f"![{_plain(b.caption)}]({b.path.relative_to(folder).as_posix()})\n\n*{_plain(b.caption)}*",
        Example: _markdown_example,
        Details: lambda b: _folded(b.summary, to_markdown(b.blocks, folder).rstrip("\n")),
    }
    return "\n\n".join(writers[type(block)](block) for block in blocks) + "\n"


def _folded(summary: str, text: str) -> str:
    return f"<details><summary>{_plain(summary)}</summary>\n\n{text}\n\n</details>"


def _plain(text: str) -> str:
    return text.replace("<", "&lt;")


def _markdown_table(table: Table) -> str:
    names = list(table.header)
    if table.groups:
        # Markdown has no header over several columns: the group's name goes before each column's.
        above = [name for name, count in table.groups for _ in range(count)]
        names = names[:1] + [f"{group} {name}".strip() for group, name in zip(above, names[1:])]
    align = ["---"] + ["---" if table.text else "---:"] * (len(names) - 1)
    text = _markdown_rows([names, align, *[_markdown_row(row, len(names), _markdown_cell) for row in table.rows]])
    if any(cell.interval for row in table.rows if not isinstance(row, str) for cell in row):
        rows = [
            _markdown_row(row, len(names), lambda cell: _plain(cell.interval or "").replace("\n", "; "))
            for row in table.rows
        ]
        for row, full in zip(rows, table.rows):
            row[0] = row[0] if isinstance(full, str) else _plain(full[0].text)
        text += "\n\n" + _folded("95% intervals", _markdown_rows([names, align, *rows]))
    return text


def _markdown_rows(rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _markdown_row(row: list[Cell] | str, columns: int, write) -> list[str]:
    return [_plain(row)] + [""] * (columns - 1) if isinstance(row, str) else [write(cell) for cell in row]


def _markdown_cell(cell: Cell) -> str:
    text = _plain(cell.text).replace("|", "\\|")
    text = f"**{text}**" if cell.best else f"*{text}*" if cell.missing else text
    small = "; ".join(filter(None, (cell.small + "\n" + cell.published).splitlines()))
    return f"{text} ({_plain(small)})" if small else text


def _markdown_example(example: Example) -> str:
    lines = [f"**{_escaped(example.title)}**", ""]
    for name, pieces in example.texts:
        text = "".join(_bold(t) if changed else _escaped(t) for t, changed in pieces)
        lines.append(f"- {_escaped(name)}: {text}")
    return "\n".join(lines)


def _bold(text: str) -> str:
    """Bold, with the blanks outside the stars: inside them Markdown would show the stars."""
    core = text.strip()
    return text.replace(core, f"**{_escaped(core)}**", 1) if core else text


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", html.escape(text, quote=False)).replace("\n", " ")
