"""JSON files read with every value checked that somebody counts on, so that a damaged one is an error that names it.

A shape is `{key: shape}`, `{str: shape}` for any keys, `[shape]`, `Maybe(shape)` for what may be absent or null, or
(predicate, words) of one value. Keys that a shape does not name may be there and hold anything.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from configs.contract.errors import UserError
from configs.contract.files import read_json, read_lines

MOST = 2**53  # of what a count or a time can be: below it every whole number is a float too


class Maybe(NamedTuple):
    shape: object


def count(value) -> bool:
    return type(value) is int and 0 <= value < MOST


def share(value) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def seconds(value) -> bool:
    return type(value) in (int, float) and 0 <= value < MOST


TEXT = (lambda value: isinstance(value, str), "a text")
COUNT = (count, "a whole number from 0 on")
POSITIVE = (lambda value: count(value) and value > 0, "a whole number from 1 on")
SHARE = (share, "a number from 0 to 1")
SECONDS = (seconds, "a number from 0 on")
NUMBER = (lambda value: type(value) in (int, float) and abs(value) < math.inf, "a finite number")


def misfit(value, shape, name: str = "it") -> str | None:
    """What is wrong with a value of this shape, or none."""
    if isinstance(shape, Maybe):
        return None if value is None else misfit(value, shape.shape, name)
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{name} must be an object"
        wanted = dict.fromkeys(value, shape[str]) if str in shape else shape
        inner = ((value.get(key), of, key if name == "it" else f"{name}.{key}") for key, of in wanted.items())
    elif isinstance(shape, list):
        if not isinstance(value, list):
            return f"{name} must be a list"
        inner = ((item, shape[0], f"{name}[{place}]") for place, item in enumerate(value))
    else:
        fits, words = shape
        return None if fits(value) else f"{name} must be {words}"
    return next(filter(None, (misfit(*each) for each in inner)), None)


def read(path: Path, shape: dict, remedy: str | None = None) -> dict:
    """`read_json` of a file of this shape. Raises `UserError` naming the file and the key."""
    return _checked(path, path, read_json(path), shape, remedy)


def lines(path: Path, shape: dict) -> list[dict]:
    """`read_lines` of a file whose lines have this shape. Raises `UserError` naming the line and the key."""
    found = enumerate(read_lines(path), 1)
    return [_checked(path, f"{path}, line {number}", record, shape, None) for number, record in found]


def _checked(path: Path, where, value: dict, shape: dict, remedy: str | None) -> dict:
    wrong = misfit(value, shape)
    if wrong:
        made = (path.parent / "manifest.json").is_file()  # then a stage counts as whole, and would be skipped
        again = f"delete {path.parent} to redo its stage" if made else "delete it and run again"
        raise UserError(f"{where}: {wrong}; {remedy or again}")
    return value
