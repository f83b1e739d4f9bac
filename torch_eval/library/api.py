"""`score` for Python programs: the command of the same name in a process of its own, and its figures as data."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import read_json
from configs.contract.basics.processes import run_module


def score(
    model: str | Path | Sequence[str | Path],
    data: str | Path | Iterable[dict],
    recipes: str | Sequence[str] = ("textfooler", "textbugger", "bertattack"),
    examples: int = 200,
    out: str | Path | None = None,
    **options: object,
) -> dict:
    """Attack one classifier or several, and return what they withstand.

    The work is done by processes of their own: a script needs no `if __name__ == "__main__"`, and the libraries that it
    has loaded keep their settings.

    Args:
        model: A Hugging Face directory or a name on the hub, or several.
        data: A file, a folder, a task's name, or records such as {"text": ..., "label": ...}.
        recipes: Attacks to run, or one.
        examples: Number of texts that are attacked.
        out: Folder of the results, where what is finished is not done again; None to keep no files.
        options: Further keys of the command, such as `workers`, `max_length` or `label_column`.

    Returns:
        The contents of `results.json`: under `scores` one entry for each model and attack with its `metrics` (`clean`,
        `aua`, `suc`, `queries`: each a value with a 95% interval), under `paired` the tests between models.

    Raises:
        UserError: The model or the data cannot be scored; the message says why.
    """
    models = [model] if isinstance(model, str | Path) else list(model)
    with tempfile.TemporaryDirectory() as temporary:
        if not isinstance(data, str | Path):
            lines = [_line(record) for record in data]
            data = Path(temporary) / "records.jsonl"
            data.write_text("\n".join(lines), encoding="utf-8")
        folder = Path(out or Path(temporary) / "score").resolve()
        keys = {"recipes": recipes if isinstance(recipes, str) else list(recipes), "examples": examples, **options}
        words = ["score", *map(_absolute, models), _absolute(data)]
        words += [
            f"{key}={json.dumps(value, default=str, ensure_ascii=False)}" for key, value in keys.items()
        ]  # JSON is YAML
        run_module("torch_eval", [*words, "--out", str(folder)], show=True)
        return read_json(folder / "results.json")


def _line(record: object) -> str:
    """Return a record as a line of JSON; numbers of NumPy are numbers, and what is not asked for may be anything."""
    if not isinstance(record, Mapping):
        raise UserError(
            f"data: expected records such as {{'text': ..., 'label': ...}}, found {record!r:.40}; those of a DataFrame "
            f"are frame.to_dict('records')"
        )
    return json.dumps(dict(record), default=lambda value: value.tolist() if hasattr(value, "tolist") else str(value))


def _absolute(name: str | Path) -> str:
    """Return the whole path of what is a file or folder here, and any other name as it is."""
    return str(Path(name).resolve()) if Path(name).exists() else str(name)
