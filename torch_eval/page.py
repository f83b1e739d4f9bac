"""A report as a list of blocks, written as Markdown and as one self-contained HTML page.

Text of blocks may hold `code` and **bold**; everything else in it, and all of an example's text, is
escaped. Sentences of a data set therefore can't become markup.
"""

from __future__ import annotations

import base64
import difflib
import html
import re
from dataclasses import dataclass, field
from pathlib import Path

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
    """A table cell: its text, lines of small print below it, and whether it is the best or a missing one."""

    text: str
    small: str = ""
    best: bool = False
    missing: bool = False


@dataclass
class Table:
    """`groups` are (title, number of columns) above the header; a table of `text` is aligned left."""

    header: list[str]
    rows: list[list[Cell]]
    groups: list[tuple[str, int]] = field(default_factory=list)
    text: bool = False


@dataclass
class Picture:
    path: Path
    caption: str


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
    body = "\n".join(_HTML[type(block)](block) for block in blocks)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _inline(text: str) -> str:
    text = html.escape(text)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)


def _html_table(table: Table) -> str:
    first = '<td class="first"></td>'
    groups = "".join(f'<th class="group" colspan="{n}">{_inline(name)}</th>' for name, n in table.groups)
    head = f"<tr>{first}{groups}</tr>" if table.groups else ""
    head += "<tr>" + "".join(
        f'<th scope="col"{_first(i)}>{_inline(name)}</th>' for i, name in enumerate(table.header)
    ) + "</tr>"
    cells = ["".join(_html_cell(cell, i) for i, cell in enumerate(row)) for row in table.rows]
    rows = "\n".join(f"<tr>{row}</tr>" for row in cells)
    kind = ' class="text"' if table.text else ""
    # The frame scrolls sideways on a phone; tabindex lets a keyboard do it as well.
    return (f'<div class="wide" tabindex="0"><table{kind}>\n<thead>{head}</thead>\n'
            f"<tbody>\n{rows}\n</tbody></table></div>")


def _first(column: int) -> str:
    return ' class="first"' if column == 0 else ""


def _html_cell(cell: Cell, column: int) -> str:
    text = _inline(cell.text)
    if cell.best:
        text = f"<strong>{text}</strong>"
    if cell.missing:
        text = f'<span class="missing">{text}</span>'
    small = "".join(f"<small>{_inline(line)}</small>" for line in cell.small.splitlines())
    tag = 'th scope="row"' if column == 0 else "td"
    return f"<{tag}{_first(column)}>{text}{small}</{tag.split()[0]}>"


def _html_picture(picture: Picture) -> str:
    data = base64.b64encode(picture.path.read_bytes()).decode()
    alt = html.escape(picture.caption.replace("**", "").replace("`", ""))
    return (f'<figure><img alt="{alt}" src="data:image/png;base64,{data}">'
            f"<figcaption>{_inline(picture.caption)}</figcaption></figure>")


def _html_example(example: Example) -> str:
    rows = []
    for name, pieces in example.texts:
        text = "".join(f"<mark>{html.escape(t)}</mark>" if changed and t.strip() else html.escape(t)
                       for t, changed in pieces)
        rows.append(f"<dt>{html.escape(name)}</dt><dd>{text}</dd>")
    return f'<div class="example"><h4>{html.escape(example.title)}</h4><dl>{"".join(rows)}</dl></div>'


_HTML = {
    Heading: lambda b: f"<h{b.level}>{_inline(b.text)}</h{b.level}>",
    Text: lambda b: f'<p{" class=note" if b.note else ""}>{_inline(b.text)}</p>',
    Bullets: lambda b: "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in b.items) + "</ul>",
    Table: _html_table,
    Picture: _html_picture,
    Example: _html_example,
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
    }
    return "\n\n".join(writers[type(block)](block) for block in blocks) + "\n"


def _plain(text: str) -> str:
    return text.replace("<", "&lt;")


def _markdown_table(table: Table) -> str:
    names = list(table.header)
    if table.groups:
        # Markdown has no header over several columns: the group's name goes before each column's.
        above = [name for name, count in table.groups for _ in range(count)]
        names = names[:1] + [f"{group} {name}".strip() for group, name in zip(above, names[1:])]
    align = ["---"] + ["---" if table.text else "---:"] * (len(names) - 1)
    lines = [names, align, *[[_markdown_cell(cell) for cell in row] for row in table.rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _markdown_cell(cell: Cell) -> str:
    text = _plain(cell.text).replace("|", "\\|")
    text = f"**{text}**" if cell.best else f"*{text}*" if cell.missing else text
    return f"{text} ({_plain(cell.small).replace(chr(10), '; ')})" if cell.small else text


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
