"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def row(cells: Iterable[object]) -> str:
    """Return one line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def table(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a whole table, without a line end after its last row."""
    return "\n".join(map(row, [header, ["---"] * len(header), *rows]))
