"""Bytes of a file to text: UTF-8, or what a byte-order mark says; for other encodings, how to convert the file."""

from __future__ import annotations

import codecs
import shlex
from pathlib import Path

from configs.contract.basics.errors import UserError

# UTF-32 first: its little-endian mark begins with that of UTF-16.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
FEATHER = "a Feather file; write it as CSV with pandas.read_feather(FILE).to_csv(NEW, index=False)"
POINTER = b"version https://git-lfs"  # how a file begins that git clone leaves in place of a large one
SHOWN = 40  # characters of a line in a message
# How files begin that hold no text, whatever they are called.
PACKED = {
    b"\x1f\x8b": "compressed by gzip; unpack it with gunzip, or with tar xzf if its name ends in .tar.gz or .tgz",
    b"BZh": "compressed by bzip2; unpack it with bunzip2",
    b"\xfd7zXZ": "compressed by xz; unpack it with unxz",
    b"(\xb5/\xfd": "compressed by zstd; unpack it with unzstd",
    b"PK\x03\x04": "a workbook or a zip archive; save the sheet as CSV, or unpack it",
    b"\xd0\xcf\x11\xe0": "a workbook; save the sheet as CSV",
    b"PAR1": "a Parquet file; write it as CSV with pandas.read_parquet(FILE).to_csv(NEW, index=False)",
    b"ARROW1": FEATHER,
    b"FEA1": FEATHER,
    b"\xff\xff\xff\xff": "a data set in Arrow's format; write it as JSON Lines with "
    "datasets.load_from_disk(FOLDER).to_json(NEW), where FOLDER is the one in which this file is",
    POINTER: "only points to its content; fetch that with git lfs pull",
}


def packed(beginning: bytes) -> str | None:
    """Say what kind of file begins so, and how to get its text; None if it may be a text file."""
    if beginning[257:262] == b"ustar":
        return "a tar archive; unpack it with tar xf"
    return next((what for mark, what in PACKED.items() if beginning.startswith(mark)), None)


def read_text(path: Path) -> str:
    """Read a text file; line ends stay as they are.

    Raises:
        UserError: The file is missing or no text, holds NUL characters, or is in an encoding that it does not declare.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    if what := packed(raw):
        raise UserError(f"{path}: {what}")
    encoding = next((name for mark, name in MARKS.items() if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding.startswith("utf-8"):
            raise UserError(_not_utf8(path, raw, error.start)) from None
        name = encoding.upper()
        raise UserError(f"{path}: {name} by its byte-order mark, but damaged; save it again as UTF-8") from None
    if "\0" in text:
        raise UserError(_with_nul(path, raw, text))
    return text


def _not_utf8(path: Path, raw: bytes, place: int) -> str:
    """Describe bytes that are not UTF-8 and say how to convert the file."""
    if b"\0" in raw:
        return _with_nul(path, raw, raw.decode("latin-1"))
    start = raw.rfind(b"\n", 0, place) + 1
    line = raw[start:].split(b"\n", 1)[0]
    where = f"{path}, line {raw[:place].count(10) + 1}: not UTF-8"
    if any(map(_is_utf8, raw.split(b"\n"))):  # converting the file would spoil these
        return f"{where}, although other lines are; correct this line"
    try:
        raw.decode("cp1252")
    except UnicodeDecodeError:
        return f"{where}, and not Windows-1252; save the file again as UTF-8 in the program that wrote it"
    begin = max(0, place - start - SHOWN // 2)
    shown = line.decode("cp1252").strip("\r")[begin : begin + SHOWN]
    return (
        f"{where}; as Windows-1252 it reads {shown!r}: if that is right, convert the file with "
        f"{_conversion('WINDOWS-1252', path)}"
    )


def _is_utf8(line: bytes) -> bool:
    """Tell whether a line has letters beyond ASCII, all in UTF-8."""
    try:
        return not line.isascii() and bool(line.decode())
    except UnicodeDecodeError:
        return False


def _with_nul(path: Path, raw: bytes, text: str) -> str:
    """Describe NUL bytes: a few are damage, those beside line ends are of UTF-16 without a byte-order mark."""
    where = f"{path}, line {text[: text.index(chr(0))].count(chr(10)) + 1}: a NUL byte"
    for encoding, line_end in (("UTF-16LE", b"\n\0"), ("UTF-16BE", b"\0\n")):
        if raw.count(line_end) * 2 > raw.count(b"\n"):
            return f"{where}; this looks like {encoding}: convert it with {_conversion(encoding, path)}"
    return f"{where}; take it out, for example with tr -d '\\000'"


def _conversion(encoding: str, path: Path) -> str:
    new = path.with_stem(f"{path.stem}-utf8")
    return f"iconv -f {encoding} -t UTF-8 {shlex.quote(str(path))} > {shlex.quote(str(new))}"
