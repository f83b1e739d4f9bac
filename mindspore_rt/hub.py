"""The Hugging Face hub, through mindnlp: models with their tokenizers, and data sets.

    python -m mindspore_rt.hub model bert-base-uncased TARGET_DIR
    python -m mindspore_rt.hub dataset nyu-mll/glue sst2 REVISION TARGET_DIR SPLIT [SPLIT ...]

Runs as a process of its own: importing mindnlp replaces `torch` in its process, and takes seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from configs import assets
from configs.errors import UserError, command
from configs.run_dir import ROOT, write_lines


def model_dir(name: str) -> Path:
    """A hub model as a local Hugging Face directory, downloaded on first use."""
    return _cached("model", [name])


def dataset_dir(id: str, config: str | None, revision: str, splits: list[str]) -> Path:
    """A hub data set as `<split>.jsonl` files, downloaded on first use."""
    return _cached("dataset", [id, config or "", revision], splits)


def _cached(kind: str, key: list[str], extra: list[str] = ()) -> Path:
    target = assets.CACHE / "hub" / kind / "--".join(part.replace("/", "--") for part in key if part)
    if target.is_dir():
        return target
    print(f"downloading {kind} {key[0]} from the hub", flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        folder = Path(temporary) / "whole"
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-m", "mindspore_rt.hub", kind, *key, str(folder), *extra],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no reason given"]
            reason = next((line for line in lines if line.startswith("error:")), lines[-1])
            reason = reason.removeprefix("error:").lstrip(" :")[:300]
            local = "model=DIRECTORY" if kind == "model" else "data.train=FILE data.test=FILE"
            raise UserError(
                f"{kind} {key[0]} is not in {target} and could not be downloaded ({reason}); "
                f"go online, set HF_ENDPOINT to a mirror, or give {local}"
            )
        os.replace(folder, target)
    return target


def _save_model(name: str, target: str) -> None:
    from mindnlp.transformers import AutoModelForSequenceClassification, AutoTokenizer

    AutoTokenizer.from_pretrained(name).save_pretrained(target)
    AutoModelForSequenceClassification.from_pretrained(name).save_pretrained(target)


def _save_dataset(id: str, config: str, revision: str, target: str, *splits: str) -> None:
    from mindnlp.dataset import load_dataset

    for split in splits:
        rows = load_dataset(id, config or None, split=split, revision=revision)
        names = rows.column_names if hasattr(rows, "column_names") else rows.get_col_names()
        write_lines(
            Path(target) / f"{split}.jsonl",
            ({name: row[name].item() if hasattr(row[name], "item") else row[name] for name in names}
             for row in rows.create_dict_iterator(output_numpy=True, num_epochs=1)),
        )


@command
def main() -> int:
    kind, *arguments = sys.argv[1:]
    {"model": _save_model, "dataset": _save_dataset}[kind](*arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
