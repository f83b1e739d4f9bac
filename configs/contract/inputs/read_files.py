"""Labelled text as users have it on disk, to records: CSV, TSV, JSON Lines, and folders of texts."""

from __future__ import annotations

import collections
import math
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from configs.contract.basics.errors import UserError, listed
from configs.contract.inputs.decode import packed, read_text
from configs.contract.inputs.tables import REPEATED, BrokenRow, FileTable, HasNeeded, read_delimited, read_json
from configs.contract.inputs.tasks import GLUE, NUMBER, FileLayout, Task, columns_of, composed, label_entry

SECRET = "; -1 often stands for a label that is kept secret, as in GLUE's test sets: take the validation set"
BASES = (0, 1)  # from which people count labels
SPLIT_TOKEN = "<SPLIT>"  # TextAttack joins columns with it, and fails on a text that holds it
KINDS = (".csv", ".tsv", ".jsonl", ".json")
UNLABELLED = "unsup"  # folder of IMDB's texts without a label


class OtherNumber(BrokenRow):
    """A row whose label is unknown because the whole file numbers its labels in another way."""


def read_file(
    path: Path, task: Task, columns: list[str] | None = None, bad_rows: int | str = 0
) -> tuple[list[dict], list[str]]:
    """Read the records of a file.

    Args:
        path: CSV, TSV, JSON Lines or a JSON array, or a folder with a subfolder of .txt files for each label.
        task: Its layouts say which columns hold the texts and the label.
        columns: Names of the columns of a CSV or TSV file without a header.
        bad_rows: How many broken rows are skipped: a number, or a share of the file's rows such as "0.5%". In a folder
            each file is a row.

    Returns:
        Records with the task's own columns and the label's number, and a sentence for each row that was skipped.

    Raises:
        UserError: The file cannot be read, lacks a column, or has more broken rows; with line and remedy.
    """
    if path.is_dir():
        _refuse_names(path, columns)
        row, correct, rows = "file", "correct or move the file", _read_folder(path, task)
    else:
        table = read_table(path, columns, lambda names: any(not _missing(x, names) for x in task.layouts))
        row, correct, rows = "row", "correct the row", _read_rows(path, table, task)
    records = [one for one in rows if isinstance(one, dict)]
    broken = [one for one in rows if isinstance(one, BrokenRow)]
    skipped, limit = list(map(str, broken)), _limit(bad_rows, len(rows))
    if len(skipped) > limit:
        before = f" (broken {row}s skipped before it: {limit})" if limit else ""
        others = (
            f", or skip all broken {row}s with data.bad_rows={len(skipped)}" if records else f"; all {row}s are broken"
        )
        remedy = "" if isinstance(broken[limit], OtherNumber) else f"; {correct}{others}"
        raise UserError(f"{skipped[limit]}{before}{remedy}")
    if not records:
        raise UserError(f"{path}: no rows; write one labelled text a row")
    return records, skipped


def odd_texts(records: Iterable[dict], task: Task) -> list[str]:
    """Return warnings about texts with several labels, texts without a visible character, and quotes around most."""
    records = list(records)
    labels, invisible, quoted = collections.defaultdict(set), 0, 0
    for record in records:
        texts = tuple(record[column] for column in task.columns)
        labels[texts].add(record["label"])
        invisible += not all(map(_is_visible, texts))
        quoted += any(len(text) > 1 and text[0] == text[-1] == '"' for text in texts)
    conflicts = [texts for texts, numbers in labels.items() if len(numbers) > 1]
    warnings = []
    if conflicts:
        warnings.append(
            f"texts that appear with different labels: {len(conflicts)}, such as {' | '.join(conflicts[0])[:80]!r}"
        )
    if invisible:
        warnings.append(f"rows with a text without a visible character: {invisible}")
    if quoted * 2 > len(records):  # as in TSV files that escape a quote by a backslash, or after a comma and a space
        warnings.append(f"rows with a text in quotes, which are read as part of the text: {quoted} of {len(records)}")
    return warnings


def absent_labels(records: Iterable[dict], task: Task, name: str) -> list[str]:
    """Return a warning about labels that no text of the split of this name has."""
    present = {record["label"] for record in records}
    absent = [label for number, label in enumerate(task.labels) if number not in present]
    return [f"no sentence of {name} has the label {listed(absent)}"] if absent else []


def _is_visible(text: str) -> bool:
    """Tell whether a text has a character that is no space, control or format character, such as a zero-width one."""
    return any(unicodedata.category(character)[0] not in "CZ" for character in text)


def read_table(path: Path, columns: list[str] | None, has_needed: HasNeeded) -> FileTable:
    """Read the rows of a file as they are.

    Args:
        path: CSV, TSV, JSON Lines or a JSON array.
        columns: Names of the columns of a CSV or TSV file without a header.
        has_needed: Tells whether a header has the columns that are needed; a CSV file's delimiter is chosen by it.

    Raises:
        UserError: The file cannot be read, or holds nothing.
    """
    if path.suffix.lower() not in KINDS and path.exists():
        *most, last = KINDS
        kinds = f"give a {', '.join(most)} or {last} file, or a folder with a subfolder of .txt files for each label"
        raise UserError(f"{path}: {_packed(path) or kinds}")
    text = read_text(path)
    if text.lstrip("\ufeff \r\n\t")[:14].lower().startswith(("<!doctype html", "<html")):
        raise UserError(f"{path}: a web page; download the file itself, not the page that shows it")
    if _is_json(path):
        _refuse_names(path, columns)
        table = read_json(path, text, has_needed)
    else:
        table = read_delimited(path, text, columns, has_needed)
    if not table.names and not table.rows:
        raise UserError(f"{path}: empty; write one labelled text a row")
    return table


def _refuse_names(path: Path, columns: list[str] | None) -> None:
    """Refuse names of columns for what has no header to leave out: they would rename nothing."""
    if columns:
        raise UserError(
            f"{path}: data.columns names the columns of CSV and TSV files without a header, and this is none; unset "
            "data.columns, or write the data as such a file"
        )


def _is_json(path: Path) -> bool:
    return "json" in path.suffix.lower()


def _limit(bad_rows: int | str, rows: int) -> int:
    """Return how many of so many rows may be broken; a share is rounded down."""
    if isinstance(bad_rows, str):
        return math.floor(Decimal(bad_rows.removesuffix("%")) * rows / 100)
    return bad_rows


def _read_rows(path: Path, table: FileTable, task: Task) -> list[dict | BrokenRow]:
    """Return the record of each row of a file, or with its place why it has none."""
    rows: list[dict | BrokenRow] = []
    # Rows that are all broken, as in a file that is no JSON, have no columns: their own reason says more.
    layout = _layout(path, table, task) if table.names else task.layouts[0]
    numbers = task.numbers(layout)
    other = _other_numbers([row.get(layout.label) for _, row in table.rows if isinstance(row, dict)], task)
    for place, row in table.rows:
        try:
            if isinstance(row, BrokenRow):
                raise row
            rows.append(_record(row, task, layout, numbers, other))
        except BrokenRow as problem:
            rows.append(type(problem)(f"{path}, {place}: {problem}"))
    return rows


def _other_numbers(labels: Iterable[object], task: Task) -> str | None:
    """Return `data.labels` for a file whose labels are numbers, as many as the task's or counted up to as many.

    Rows whose labels are unknown must not be skipped there: others would be read as the labels beside their own.
    """
    texts = {str(label).strip() for label in labels if label is not None and label == label} - {""}
    if not all(map(NUMBER.fullmatch, texts)):
        return None
    values, count = {Decimal(text) for text in texts}, len(task.labels)
    counted = [{Decimal(base + number) for number in range(count)} for base in BASES]
    written = values if len(values) == count else next((numbers for numbers in counted if values <= numbers), None)
    if not written or -1 in written and 1 not in written:  # -1 alone, or beside 0, is a secret label
        return None
    return f"[{','.join(map(label_entry, (f'{value.normalize():f}' for value in sorted(written)), task.labels))}]"


def _missing(layout: FileLayout, names: list[str]) -> list[str]:
    return [name for name in layout.needed if name not in names]


def _layout(path: Path, table: FileTable, task: Task) -> FileLayout:
    """Return the first layout of the task whose columns are all in the file, each once."""
    names = table.names
    layout = min(task.layouts, key=lambda layout: len(_missing(layout, names)))
    missing = _missing(layout, names)
    if not missing:
        repeated = [name for name in layout.needed if names.count(name) > 1]
        if repeated:
            raise UserError(f"{path}, line 1: the header names {repeated[0]!r} twice; rename one")
        return layout
    present = listed(name for name in names if name)
    remedy, line = "name yours with data.text_columns and data.label_column", ""
    if not _is_json(path):
        remedy, line = f"{remedy}, or data.columns if the file has no header", ", line 1"
    if missing == [layout.label] and path.stem.startswith("test") and task.hub and task.hub.id == GLUE[0]:
        remedy = f"GLUE's test.tsv has no labels, its dev.tsv serves as the test set; otherwise {remedy}"
    raise UserError(f"{path}{line}: no column {', '.join(map(repr, missing))}, only {present}; {remedy}")


def _record(row: dict, task: Task, layout: FileLayout, numbers: dict[str, int], other: str | None) -> dict:
    """Build a record from the fields of a row, or raise `BrokenRow`."""
    record: dict = {column: _joined(row, source) for column, source in zip(task.columns, layout.texts, strict=True)}
    record["label"] = _label(row.get(layout.label), numbers, other)
    return record


def _joined(row: dict, source: str) -> str:
    """Join the columns of `source` by spaces; those that are absent, null or blank add nothing."""
    parts: list[Any] = [row.get(name) for name in columns_of(source)]
    parts = ["" if part is None or part != part else part for part in parts]  # pandas writes a missing text as NaN
    if not all(isinstance(part, str) for part in parts) or not any(part.strip() for part in parts):
        raise BrokenRow(f"column {source!r} " + ("appears twice" if REPEATED in parts else "holds no text"))
    text = " ".join(part.strip() for part in parts if part.strip())
    if not text.isprintable() and any("\ud800" <= character <= "\udfff" for character in text):
        raise BrokenRow(f"column {source!r} holds half a character (a lone surrogate)")
    if SPLIT_TOKEN in text:
        raise BrokenRow(f"column {source!r} holds {SPLIT_TOKEN}, which TextAttack cannot attack")
    return text


def _folded(text: str) -> str:
    """Return a text without what does not tell labels apart: capitals, and whether an accent is a letter's own part."""
    return composed([text])[0].casefold()


def _label(value: object, numbers: dict[str, int], other: str | None = None) -> int:
    """Return the number of a label, however it is written: 5, 5.0 or "5"; true or 1; in upper or lower case.

    Args:
        value: What the file writes.
        numbers: Number of the label for each entry that the file may hold.
        other: What `_other_numbers` says of the file.
    """
    if value is REPEATED:
        raise BrokenRow("the label appears twice")
    if value is None or value != value:  # null, or NaN
        raise BrokenRow("no label")
    if isinstance(value, list | dict):
        raise BrokenRow("the label is a list or an object; write one name or number")
    text = str(value).strip()
    if not text:
        raise BrokenRow("no label")
    label = numbers.get(text)
    if label is None:
        alike = {number for spelling, number in numbers.items() if _folded(spelling) == _folded(text)}
        label = alike.pop() if len(alike) == 1 else None
    if label is None and text.lower() in ("true", "false"):
        label = numbers.get(str(int(text.lower() == "true")))
    if label is None and NUMBER.fullmatch(text):
        equal = (
            n for spelling, n in numbers.items() if NUMBER.fullmatch(spelling) and Decimal(spelling) == Decimal(text)
        )
        label = next(equal, None)
    if label is None:
        spellings = {number: sorted(s for s, n in numbers.items() if n == number) for number in numbers.values()}
        unknown = f"unknown label {text[:40]!r}; allowed: {listed(' or '.join(names) for names in spellings.values())}"
        if other:
            raise OtherNumber(f"{unknown}; if the file counts its labels in this way, say so: data.labels={other}")
        remedy = SECRET if text == "-1" else "; data.labels=[1=bad,...] says that the file writes 1 for bad"
        raise BrokenRow(f"{unknown}{remedy}")
    return label


def _read_folder(path: Path, task: Task) -> list[dict | BrokenRow]:
    """Return the record of each file of a folder, or with its name why it has none."""
    layout, folders, unknown = task.layouts[0], [], []
    for name in folders_of_texts(path):
        try:
            folders.append((_label(name, task.numbers(layout)), path / name))
        except BrokenRow:
            unknown.append(name)
    names, present = layout.values or task.labels, {number for number, _ in folders}
    absent = [name for number, name in enumerate(names) if number not in present]
    if (absent or len(task.columns) != 1) and (other := _other_form(path)):
        raise UserError(other)
    if len(task.columns) != 1:
        raise UserError(f"{path}: a folder holds single texts, this task has pairs; give a {', '.join(KINDS)} file")
    if absent:
        holds = listed(sorted(inner.name for inner in path.iterdir()))
        other = f"; data.labels=[{unknown[0]}=bad,...] says that the folder {unknown[0]} is for bad" if unknown else ""
        raise UserError(
            f"{path}: no {absent[0]}/*.txt in it; it holds {holds}, and needs a folder of .txt files for each label"
            f"{other}"
        )
    if unknown:
        raise UserError(
            f"{path / unknown[0]}: no label has this name; allowed: {listed(names)}; move the folder elsewhere, or "
            "name its label with data.labels"
        )
    rows: list[dict | BrokenRow] = []
    for number, folder in sorted(folders):
        for file in sorted(file for file in folder.iterdir() if not file.name.startswith(".")):
            try:
                rows.append({task.columns[0]: _text_of(file), "label": number})
            except (BrokenRow, UserError) as problem:
                rows.append(BrokenRow(f"{problem}"))
    return rows


def _text_of(file: Path) -> str:
    """Return the text of a file of a label's folder, or raise `BrokenRow`, or `UserError` if it cannot be decoded."""
    if not _is_text(file):
        raise BrokenRow(f"{file}: no .txt file, and only such hold texts")
    text = read_text(file).strip()
    if not text:
        raise BrokenRow(f"{file}: empty")
    if SPLIT_TOKEN in text:
        raise BrokenRow(f"{file}: it holds {SPLIT_TOKEN}, which TextAttack cannot attack")
    return text


def folders_of_texts(path: Path) -> list[str]:
    """Return the names of the folders in a folder that hold .txt files, but for IMDB's texts without a label."""
    return sorted(inner.name for inner in path.iterdir() if inner.name != UNLABELLED and _texts_in(inner))


def _texts_in(folder: Path) -> list[Path]:
    """Return the .txt files of a folder; none if there is no such folder."""
    return list(filter(_is_text, folder.iterdir() if folder.is_dir() else ()))


def _is_text(path: Path) -> bool:
    return path.suffix.lower() == ".txt" and not path.name.startswith(".") and not path.is_dir()


def _other_form(path: Path) -> str | None:
    """Say which file of a folder holds the data, if they are there in another form, as `save_to_disk` leaves them."""
    files = [file for inner in ("*", "*/*") for file in sorted(path.glob(inner)) if file.is_file()]
    for file in files:
        if what := _packed(file):
            return f"{file}: {what}"
    table = next((file for file in files if file.suffix.lower() in KINDS), None)
    return f"{path}: a folder with tables; give one file, such as {table}" if table else None


def _packed(path: Path) -> str | None:
    with open(path, "rb") as file:
        return packed(file.read(512))
