"""The Hugging Face hub, through mindnlp or its own clients: models with their tokenizers, and data sets.

    python -m mindspore_rt.formats.hub model bert-base-uncased REVISION TARGET_DIR
    python -m mindspore_rt.formats.hub dataset nyu-mll/glue sst2 REVISION TARGET_DIR SPLIT [SPLIT ...]

It runs as a process of its own, because importing mindnlp takes seconds and replaces the module `torch`. Where mindnlp
is not installed, because it takes no MindSpore above 2.7.0, huggingface_hub and datasets stand in for it.
`HF_ENDPOINT` chooses a mirror and `HF_TOKEN` opens private repositories; the hub's own client reads both.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from configs.contract import assets
from configs.contract.errors import UserError, command
from configs.contract.files import whole_directory, write_lines
from configs.contract.processes import run_module

HUB = "https://huggingface.co"
COMMIT = "commit.txt"
MODEL_FILES = ("config.json", "tokenizer*", "vocab.txt", "special_tokens_map.json", "added_tokens.json")


def model_dir(name: str) -> Path:
    """Return the local directory of a hub model, downloaded on first use.

    Args:
        name: May end in `@REVISION`. Without a revision, the paper's model has a pinned one. Of another model the
            newest commit is taken on first use; the cache keeps it from then on, with its commit in `commit.txt`.
    """
    return _cached("model", assets.hub_key(name))


def dataset_dir(id: str, config: str | None, revision: str, splits: list[str]) -> Path:
    """Return the directory of a hub data set, one `<split>.jsonl` for each split, downloaded on first use."""
    return _cached("dataset", (id, config or "", revision), splits)


def _cached(kind: str, key: tuple[str, ...], extra: Sequence[str] = ()) -> Path:
    target = assets.hub_folder(kind, *key)
    if target.is_dir():
        return target
    print(f"downloading {kind} {key[0]} from the hub", flush=True)
    # Without a value mindnlp would use a mirror, and send it the user's token.
    endpoint = {"HF_ENDPOINT": os.environ.get("HF_ENDPOINT") or HUB}
    try:
        with whole_directory(target, replace=False) as folder:
            run_module("mindspore_rt.formats.hub", [kind, *key, str(folder), *extra], endpoint)
    except UserError as error:
        local = "model=DIRECTORY" if kind == "model" else "data.train=FILE data.test=FILE"
        by_hand = shlex.join(["python", "-m", "mindspore_rt.formats.hub", kind, *key, "FOLDER", *extra])
        raise UserError(
            f"{kind} {key[0]} is not in {target} and could not be downloaded ({str(error)[:300]}); go online, set "
            f"HF_ENDPOINT to a mirror, give {local}, or run `{by_hand}` where there is a network and copy FOLDER to "
            f"{target}"
        ) from None
    if (target / COMMIT).is_file():
        commit = (target / COMMIT).read_text(encoding="utf-8")
        print(f"  its newest commit is {commit}; model={key[0]}@{commit} asks for that one anywhere", flush=True)
    return target


def _save_model(name: str, revision: str, target: str) -> None:
    if not find_spec("mindnlp"):
        return _copy_model(name, revision, target)
    from mindnlp.transformers import AutoModelForSequenceClassification, AutoTokenizer

    # The hub's client compares sizes, not hashes; the stages of a run hash the files that they read.
    model = AutoModelForSequenceClassification.from_pretrained(name, revision=revision)
    commit = getattr(model.config, "_commit_hash", None)
    if revision == "main" and commit:  # the tokenizer must be of the same commit, whatever is pushed meanwhile
        revision = commit
        (Path(target) / COMMIT).write_text(commit, encoding="utf-8")
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(name, revision=revision).save_pretrained(target)


def _copy_model(name: str, revision: str, target: str) -> None:
    """Copy the files of a model: its safetensors, or PyTorch weights where it has none."""
    from huggingface_hub import HfApi, snapshot_download

    about = HfApi().model_info(name, revision=revision)
    if revision == "main":
        (Path(target) / COMMIT).write_text(str(about.sha), encoding="utf-8")
    names = [file.rfilename for file in about.siblings or []]
    safe = any(name.startswith("model") and name.endswith(".safetensors") for name in names)
    weights = ["model*.safetensors*"] if safe else ["pytorch_model*.bin*"]
    snapshot_download(name, revision=about.sha, allow_patterns=[*MODEL_FILES, *weights], local_dir=target)
    shutil.rmtree(Path(target) / ".cache", ignore_errors=True)  # its notes on the download


def _save_dataset(id: str, config: str, revision: str, target: str, *splits: str) -> None:
    if find_spec("mindnlp"):
        from mindnlp.dataset import load_dataset
    else:
        from datasets import load_dataset
    for split in splits:
        rows = load_dataset(id, config or None, split=split, revision=revision)
        write_lines(Path(target) / f"{split}.jsonl", _records(rows))


def _records(rows: Any) -> Iterator[dict]:
    """Yield the rows of a data set of mindnlp or of `datasets` with values that JSON can hold."""
    if not hasattr(rows, "create_dict_iterator"):
        yield from map(dict, rows)
        return
    names = rows.column_names if hasattr(rows, "column_names") else rows.get_col_names()
    for row in rows.create_dict_iterator(output_numpy=True, num_epochs=1):
        yield {name: row[name].item() if hasattr(row[name], "item") else row[name] for name in names}


@command
def main() -> int:
    """Run the command line; returns its exit status."""
    kind, *arguments = sys.argv[1:]
    try:
        if kind == "model":
            _save_model(*arguments)
        else:
            _save_dataset(*arguments)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # The libraries raise all of these for a name, a revision or a file that is not what they expect.
        raise UserError(" ".join(f"{type(error).__name__}: {error}".split())) from None
    return 0


if __name__ == "__main__":
    sys.exit(main())
