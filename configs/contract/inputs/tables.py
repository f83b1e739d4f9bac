"""Files to rows of named fields: CSV and TSV through Python's csv module, JSON Lines and arrays of JSON objects."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from configs.contract.basics.errors import UserError
from configs.contract.inputs.tasks import NUMBER, composed

REPEATED = object()  # value of a key that appears more than once in a JSON object
# When programs put a field of a TSV file into quotes: where it needs them (spreadsheets also for a comma), always, or
# unless it is a number.
QUOTED_WHEN: tuple[Callable[[str], object], ...] = (
    re.compile(r'["\t\r\n]').search,
    re.compile(r'[",\t\r\n]').search,
    lambda field: True,
    lambda field: not NUMBER.fullmatch(field),
)
DELIMITERS = ",;\t|"  # of CSV files, in the order in which they are tried
NAMED_DELIMITER = re.compile(r'"?sep=(.)"?\r?\n')
csv.field_size_limit(sys.maxsize)  # the default refuses fields above 128 KiB
HasNeeded = Callable[[list[str]], bool]  # tells whether a header has the columns that are needed


class BrokenRow(Exception):
    """A row that cannot be used, and why."""


FileRows = Iterator[tuple[int, "list[str] | BrokenRow"]]  # the line on which a row begins, and its fields


@dataclass
class FileTable:
    """The rows of a file.

    Attributes:
        names: Of the columns. A table of JSON objects has all keys of all its objects.
        rows: For each row its place in the file, and its fields under their names or why it has none.
    """

    names: list[str]
    rows: list[tuple[str, dict | BrokenRow]]


def read_json(path: Path, text: str, has_needed: HasNeeded) -> FileTable:
    """Read one object a line, an array of objects, or an object of columns. Objects of rows may differ in their keys.

    Args:
        path: For messages.
        text: Content of the file.
        has_needed: Tells whether names of columns have the needed ones.

    Raises:
        UserError: The file is one object that does not hold columns, or a damaged array.
    """
    whole = _json(text)
    if isinstance(whole, dict) and whole and all(isinstance(value, dict | list) for value in whole.values()):
        whole = _transposed(path, whole, has_needed)
    if isinstance(whole, list):
        rows = [(f"row {number}", _object(value)) for number, value in enumerate(whole, 1)]
    elif isinstance(whole, dict):
        rows = [(f"line {next(_lines(text))[0]}", whole)]
    elif isinstance(whole, BrokenRow) and path.suffix.lower() == ".json" and text.lstrip().startswith("["):
        raise UserError(f"{path}: begins as an array, but is {str(whole).partition(';')[0]}; correct the array there")
    else:
        rows = [(f"line {number}", _object(_json(line))) for number, line in _lines(text)]
    names = dict.fromkeys(name for _, row in rows if isinstance(row, dict) for name in row)
    return FileTable(list(names), rows)


def _transposed(path: Path, columns: dict[str, dict | list], has_needed: HasNeeded) -> list[dict]:
    """Return the rows of columns as `DataFrame.to_json` writes them: each an object of the same index.

    With orient='index' it writes rows under the index: numbers, or names of the rows, which may differ in their keys.
    """
    objects = [column for column in columns.values() if isinstance(column, dict)]
    keys = list(dict.fromkeys(key for one in objects for key in one))
    if len(objects) == len(columns) and has_needed(keys):
        return objects
    if len(objects) < len(columns) or any(one.keys() != objects[0].keys() for one in objects):
        raise UserError(
            f"{path}: one object of {', '.join(map(repr, list(columns)[:5]))}; write one object for each row, as "
            f"DataFrame.to_json(FILE, orient='records', lines=True) does"
        )
    if all(map(str.isdecimal, columns)) and not any(map(str.isdecimal, objects[0])):
        return objects
    return [{name: one[key] for name, one in zip(columns, objects, strict=True)} for key in objects[0]]


def _json(text: str) -> object:
    """Parse JSON, or return the reason why that cannot be done."""
    try:
        return json.loads(text, object_pairs_hook=_marked)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "nested too deep, or a number of too many digits")
        line = getattr(error, "lineno", 1)
        place = f" in line {line}" if line > 1 else ""
        return BrokenRow(f"not valid JSON ({reason}{place}); one object a line")


def _marked(pairs: list[tuple[str, object]]) -> dict:
    """Build an object in which a repeated key has no value: nobody knows which of its values is meant."""
    names = composed(name for name, _ in pairs)
    row = {name: value for name, (_, value) in zip(names, pairs)}
    if len(row) < len(pairs):
        row |= {name: REPEATED for name in names if names.count(name) > 1}
    return row


def _object(value: object) -> dict | BrokenRow:
    return value if isinstance(value, dict | BrokenRow) else BrokenRow("expected a JSON object")


def read_delimited(path: Path, text: str, columns: list[str] | None, has_needed: HasNeeded) -> FileTable:
    """Read a CSV or TSV file.

    CSV follows RFC 4180. Its delimiter is the one that a first line such as `sep=;` names for Excel, else the first of
    `DELIMITERS` that gives a header with the needed columns. In TSV a quote is a character like others, as in GLUE's
    files, unless a CSV writer with tabs for commas would have written exactly this file.

    Args:
        path: For messages; its suffix says which of both it is.
        text: Content of the file.
        columns: Names of the columns of a file without a header.
        has_needed: Tells whether a header has the needed columns.

    Raises:
        UserError: A quote is never closed, or the file has a header although `columns` is given.
    """
    readings: list[Callable[[], FileRows]]
    if path.suffix.lower() == ".csv":
        named = NAMED_DELIMITER.match(text)
        if named:
            text = text[named.end() - 1 :]  # an empty line stays in its place, so that lines keep their numbers
        readings = [partial(_quoted_rows, path, text, mark) for mark in (named[1] if named else DELIMITERS)]
    elif '"' in text and _is_quoted(text):
        readings = [partial(_quoted_rows, path, text, "\t")]
    else:
        readings = [partial(_unquoted_rows, text)]

    def fits(reading: Callable[[], FileRows]) -> bool:
        try:
            _, first = next(reading(), (1, []))
        except UserError:  # quotes that are wrong with this delimiter
            return False
        if isinstance(first, BrokenRow):
            return False
        return len(first) == len(columns) if columns else has_needed(_stripped(first))

    chosen = next(filter(fits, readings), readings[0])
    line, first = next(chosen(), (1, []))
    if isinstance(first, BrokenRow):
        raise UserError(f"{path}, line {line}: {first}")
    header = _stripped(first)
    names = _stripped(columns) if columns and header else header
    if path.suffix.lower() != ".csv" and len(header) == 1 and not has_needed(header):
        mark = next((mark for mark in DELIMITERS if has_needed(_stripped(header[0].split(mark)))), None)
        if mark:
            raise UserError(f"{path}, line {line}: its columns end at {mark!r}, not at tabs; call it {path.stem}.csv")
    if columns and header and header == names:
        raise UserError(f"{path}, line {line}: this file has a header; unset data.columns")
    rows = [(number, row) for number, row in chosen() if columns or number != line]
    source = "data.columns" if columns else "the header"
    return FileTable(names, [(f"line {number}", _named(names, row, has_needed, source)) for number, row in rows])


def _stripped(names: list[str]) -> list[str]:
    return [name.strip() for name in composed(names)]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Number the lines that hold something. LF or CRLF ends one: `splitlines` also cuts at U+2028 inside a text.

    CR ends one in a file without LF, as old spreadsheets write it.
    """
    for number, line in enumerate(text.split("\n" if "\n" in text else "\r"), 1):
        if line.strip():
            yield number, line.removesuffix("\r")


def _unquoted_rows(text: str) -> FileRows:
    for number, line in _lines(text):
        yield number, line.split("\t")


def _quoted_rows(path: Path, text: str, delimiter: str) -> FileRows:
    """Read rows with the line on which each begins; a row of one line with wrong quotes is broken.

    Raises:
        UserError: Quotes are wrong in a row of several lines: nothing tells where that row ends.
    """
    reader, start = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), 1
    while True:
        row: list[str] | BrokenRow | None
        try:
            row = next(reader, None)
        except csv.Error as error:
            row = BrokenRow(f"{error}; close the quote, quote fields that hold quotes, and double quotes inside them")
            if reader.line_num > start or "unexpected end" in str(error):
                raise UserError(f"{path}, line {start}: {row}") from None
        if row is None:
            return
        if isinstance(row, BrokenRow) or any(field.strip() for field in row):
            yield start, row
        start = reader.line_num + 1


def _is_quoted(text: str) -> bool:
    """Tell whether a CSV writer with tabs for commas would have written this text."""
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True))
    except csv.Error:
        return False
    text = text.replace("\r\n", "\n").rstrip("\n")
    return any(_written(rows, quoted_when) == text for quoted_when in QUOTED_WHEN)


def _written(rows: list[list[str]], quoted_when: Callable[[str], object]) -> str:
    def field(value: str) -> str:
        return '"' + value.replace('"', '""') + '"' if quoted_when(value) else value

    return "\n".join("\t".join(map(field, row)) for row in rows).replace("\r\n", "\n").rstrip("\n")


def _named(names: list[str], row: list[str] | BrokenRow, has_needed: HasNeeded, source: str) -> dict | BrokenRow:
    """Give the fields of a row their names.

    Spreadsheets leave out empty fields at the end of a row, or add some: what counts is that the needed columns are
    there, and that nothing stands beyond the names, which the message calls by their source.
    """
    if isinstance(row, BrokenRow):
        return row
    short = len(row) < len(names) and not has_needed(names[: len(row)])
    if short or any(field.strip() for field in row[len(names) :]):
        return BrokenRow(f"{len(row)} fields, {source} has {len(names)}")
    return dict(zip(names, row, strict=False))
