"""Labelled text as users have it on disk, to records: CSV, TSV, JSON Lines, and folders of texts."""

from __future__ import annotations

import csv
import io
import json
from functools import partial
from pathlib import Path

from configs.contract.errors import UserError
from configs.contract.tasks import GLUE, Layout, Task


class _Broken(Exception):
    """A row that cannot be used, and why."""


def read_file(
    path: Path, task: Task, columns: list[str] | None = None, bad_rows: int = 0
) -> tuple[list[dict], list[str]]:
    """Records of a file under the task's own columns, and a sentence for each broken row that was skipped.

    CSV is RFC 4180's; TSV has no quoting, as GLUE's; JSON Lines has an object a line; a folder has a folder of .txt
    files for each label, as IMDB's. `columns` names the columns of a CSV or TSV file without a header.
    Raises `UserError` with file, line and remedy, also for more than `bad_rows` broken rows.
    """
    if path.is_dir():
        return _read_folder(path, task)
    kind = path.suffix.lower()
    if kind not in (".csv", ".tsv", ".jsonl"):
        raise UserError(f"{path}: give a .csv, .tsv or .jsonl file, or a folder that has one of texts for each label")
    names, rows, parse = (_json_lines if kind == ".jsonl" else _table)(path, _read_text(path), columns)
    if not names:
        raise UserError(f"{path}: empty; write one labelled text a row")
    layout = _layout(path, names, task)
    numbers = task.numbers(layout)
    records, skipped = [], []
    for line, raw in rows:
        try:
            row = parse(raw)
            if kind == ".csv" and _swallows(row, layout, numbers):
                raise UserError(f"{path}, line {line}: a quote opened here swallows the rows below; close or double it")
            records.append(_record(row, task, layout, numbers))
        except _Broken as problem:
            skipped.append(f"{path}, line {line}: {problem}")
            if len(skipped) > bad_rows:
                limit = f" ({bad_rows} broken rows skipped before it)" if bad_rows else ""
                raise UserError(
                    f"{skipped[-1]}{limit}; mend the row, or allow so many broken ones with data.bad_rows"
                ) from None
    if not records:
        raise UserError(f"{path}: no rows; write one labelled text a row")
    return records, skipped


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: not UTF-8; convert it, for example with iconv -f LATIN1") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UserError(f"{path}, line {line}: a NUL byte; if this is UTF-16, convert it with iconv -f UTF-16")
    return text


def _lines(text: str):
    """Numbered lines that LF or CRLF ends: `splitlines` also cuts at characters such as U+2028 inside a sentence."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r")


# --- the kinds of files: column names, rows with their lines, and what makes a dictionary of a row --------------


def _json_lines(path, text, columns):
    rows = list(_lines(text))
    try:
        names = list(_json_object(rows[0][1])) if rows else []
    except _Broken as problem:
        raise UserError(f"{path}, line {rows[0][0]}: {problem}") from None
    return names, rows, _json_object


def _json_object(line: str) -> dict:
    try:
        row = json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "nested too deep, or a number of too many digits")
        raise _Broken(f"not valid JSON ({reason}); one object a line") from None
    if not isinstance(row, dict):
        raise _Broken("expected a JSON object")
    return row


def _once(pairs: list[tuple[str, object]]) -> dict:
    """A row that names a column twice has two texts or two labels there: nobody knows which one is meant."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Broken(f"{next(name for name in names if names.count(name) > 1)!r:.40} stands twice in an object")
    return row


def _table(path, text, columns):
    tabbed = ((n, line.split("\t")) for n, line in _lines(text))
    rows = _csv_rows(path, text) if path.suffix.lower() == ".csv" else tabbed
    line, first = next(rows, (1, []))
    names = [name.strip() for name in columns or first] if first else []
    if columns and first and [name.strip() for name in first] == names:
        raise UserError(f"{path}, line {line}: this file has a header; unset data.columns")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"{path}, line {line}: the header names {', '.join(map(repr, repeated))} twice; rename one")
    return names, _chain(line, first, rows) if columns else rows, partial(_named, names)


def _chain(line, first, rows):
    yield line, first
    yield from rows


def _csv_rows(path, text):
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    try:
        for values in reader:
            if values:
                yield start, values
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}, line {start}: {error}; close the quote, quote fields that hold quotes or commas, "
            "and double quotes inside them"
        ) from None


def _named(names: list[str], values: list[str]) -> dict:
    if len(values) != len(names):
        raise _Broken(f"{len(values)} fields, the header has {len(names)}")
    return dict(zip(names, values, strict=True))


def _swallows(row: dict, layout: Layout, numbers: dict[str, int]) -> bool:
    """True if a field of several lines holds what looks like the end, the whole or the start of other rows.

    A quote that is never closed swallows rows until the next quote. RFC 4180 cannot tell that from a text of several
    lines; but a line of a text hardly ever has a row's commas with a label at the label's place.
    """
    names = list(row)
    label = names.index(layout.label)
    for place, value in enumerate(row.values()):
        lines = value.replace("\r\n", "\n").split("\n")
        for number, line in enumerate(lines):
            fields = line.split(",")
            # The columns that this line reaches from and to: a text of one line, from its own to its own.
            first = place if number == 0 else 0
            last = place if number == len(lines) - 1 else len(names) - 1
            if first < last and first <= label <= last and label != place and len(fields) > last - first:
                # Commas of the text itself stand between the columns before it and those after it.
                found = fields[label - last - 1] if label > place else fields[label - first]
                if found.strip('"') in numbers:
                    return True
    return False


# --- records -------------------------------------------------------------------------------------------------


def _layout(path: Path, names: list[str], task: Task) -> Layout:
    """The first layout of the task whose columns are all there."""
    missing = {layout: [name for name in layout.needed if name not in names] for layout in task.layouts}
    for layout in task.layouts:
        if not missing[layout]:
            return layout
    nearest = min(task.layouts, key=lambda layout: len(missing[layout]))
    there = ", ".join(str(name)[:40] for name in names) or "nothing"
    remedy = "name yours with data.text_columns and data.label_column, or data.columns if the file has no header"
    if missing[nearest] == [nearest.label] and task.hub and task.hub.id == GLUE[0]:
        remedy = f"GLUE's test.tsv has no labels, its dev.tsv serves as the test set; otherwise {remedy}"
    raise UserError(f"{path}, line 1: no column {', '.join(map(repr, missing[nearest]))}, only {there}; {remedy}")


def _record(row: dict, task: Task, layout: Layout, numbers: dict[str, int]) -> dict:
    record = {}
    for column, source in zip(task.columns, layout.texts, strict=True):
        parts = [row.get(name) for name in source.split("+")]
        if not all(isinstance(part, str) for part in parts) or not any(part.strip() for part in parts):
            raise _Broken(f"column {source!r} holds no text")
        record[column] = " ".join(part.strip() for part in parts if part.strip())
        if not record[column].isprintable() and any("\ud800" <= character <= "\udfff" for character in record[column]):
            raise _Broken(f"column {source!r} holds half a character (a lone surrogate)")
    label = row.get(layout.label)
    label = "a list or an object" if isinstance(label, list | dict) else str(label).strip()
    if label not in numbers:
        by_number = {}
        for spelling, number in numbers.items():
            by_number.setdefault(number, []).append(spelling)
        allowed = ", ".join(" or ".join(sorted(spellings)) for spellings in by_number.values())
        raise _Broken(f"unknown label {label[:40]!r}; allowed: {allowed} (see data.labels)")
    record["label"] = numbers[label]
    return record


def _read_folder(path: Path, task: Task) -> tuple[list[dict], list[str]]:
    if len(task.columns) != 1:
        raise UserError(f"{path}: a folder holds single texts, this task has pairs; give a .csv, .tsv or .jsonl file")
    records = []
    for number, label in enumerate(task.labels):
        files = sorted((path / label).glob("*.txt"))
        if not files:
            raise UserError(f"{path}: no {label}/*.txt in it; it needs a folder of texts for each label")
        for file in files:
            text = _read_text(file).strip()
            if not text:
                raise UserError(f"{file}: empty; delete it")
            records.append({task.columns[0]: text, "label": number})
    return records, []
