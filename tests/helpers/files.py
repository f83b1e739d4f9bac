"""Files that tests write and change, and texts that are hard to keep in them."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from safetensors.numpy import load_file, save_file

from configs.contract.basics.files import write_json

HARD_TEXTS = [
    "plain words",
    'a "quoted", and\na second line',
    'three """ quotes',
    "tab\tinside",
    "line\u2028separator, next\u0085line",
    "naïve café 北京 😀",
    "it's 'single'",
    "Rated 8, 1\nor 9, 0 of 10,\n1 as ever",
]


def write_file(folder: Path, name: str, content: str | bytes) -> Path:
    """Write a file as it is, whatever its line ends; returns its path."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_program(path: Path, text: str) -> Path:
    """Write a program that can be started; returns its path."""
    path.write_text(text)
    path.chmod(0o755)
    return path


def edit_json(path: Path, **values: object) -> None:
    """Set keys of the object in a JSON file."""
    write_json(path, {**json.loads(path.read_text()), **values})


def edit_weights(folder: Path, change: Callable[[dict], dict | None]) -> None:
    """Change the weights of a model: `change` gets them by name, and changes them or returns others."""
    weights = load_file(folder / "model.safetensors")
    weights = change(weights) or weights
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


class Malicious:
    """Makes a folder if it is unpickled carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)
