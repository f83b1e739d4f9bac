"""Models and data sets of the Hugging Face hub, downloaded once, by a process of their own.

    python -m torch_eval.library.hub model NAME REVISION FOLDER
    python -m torch_eval.library.hub dataset ID CONFIG REVISION SPLIT FOLDER
    python -m torch_eval.library.hub upload FOLDER NAME PUBLIC      (True or False)

Everything else of the scoring half works offline, and says so to the libraries before it loads them.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from configs.contract import assets
from configs.contract.errors import UserError, command
from configs.contract.files import whole_directory, write_lines
from configs.contract.processes import run_module
from configs.contract.tasks import Hub

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
MODEL_FILES = ("*.json", "*.safetensors", "*.bin", "*.txt", "*.model")


def model_dir(name: str) -> Path:
    """Return the directory of a model, downloaded on first use.

    Args:
        name: A Hugging Face directory, or a name on the hub, which may end in `@REVISION`.

    Raises:
        UserError: There is neither.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if folder.is_file():
        raise UserError(f"{name}: a file; give the folder that holds the model's files, and the data after the models")
    if not assets.HUB_NAME.fullmatch(name):
        raise UserError(f"{name}: no such directory, and no name on the hub, which is OWNER/NAME")
    hub_name, revision = assets.hub_key(name)
    return _cached("classifier", f"model {hub_name}", ["model", hub_name, revision])


def split_file(hub: Hub, split: str) -> Path:
    """Return one split of a data set as JSON Lines, downloaded on first use."""
    key = ["dataset", hub.id, hub.config or "", hub.revision, split]
    return _cached("split", f"data set {hub.id}", key) / f"{split}.jsonl"


def _cached(folder: str, title: str, arguments: list[str]) -> Path:
    target = assets.hub_folder(folder, *arguments[1:])
    if target.is_dir():
        return target
    print(f"downloading {title} from the hub", flush=True)
    with whole_directory(target, replace=False) as whole:
        reason = run_online(*arguments, str(whole))
        if reason:
            raise UserError(
                f"{title} is no directory here and could not be downloaded ({reason}); go online, set HF_ENDPOINT to "
                f"a mirror, or copy it from elsewhere and give its path"
            )
    return target


def run_online(*arguments: str) -> str:
    """Run a command of this module in a process that may use the network; return why it failed, or nothing."""
    try:
        run_module("torch_eval.library.hub", arguments, dict.fromkeys(OFFLINE, "0"))
    except UserError as error:
        return str(error)[:300]
    return ""


def _save_model(name: str, revision: str, target: str) -> None:
    from huggingface_hub import snapshot_download

    folder = snapshot_download(name, revision=revision, allow_patterns=list(MODEL_FILES))
    shutil.copytree(folder, target, dirs_exist_ok=True)


def _save_dataset(id: str, config: str, revision: str, split: str, target: str) -> None:
    from datasets import load_dataset

    rows = load_dataset(id, config or None, split=split, revision=revision)
    write_lines(Path(target) / f"{split}.jsonl", rows)


def _upload(folder: str, name: str, public: str) -> None:
    from huggingface_hub import HfApi

    HfApi().create_repo(name, private=public != "True", exist_ok=True)
    HfApi().upload_folder(repo_id=name, folder_path=folder, commit_message="Model, ticket and results")


@command
def main() -> int:
    """Run the command line; returns its exit status."""
    kind, *arguments = sys.argv[1:]
    try:
        commands: dict[str, Callable[..., None]] = {"model": _save_model, "dataset": _save_dataset, "upload": _upload}
        commands[kind](*arguments)
    except Exception as error:  # the libraries raise many kinds for a name, a revision or a network that is not there
        raise UserError(" ".join(f"{type(error).__name__}: {error}".split())) from None
    return 0


if __name__ == "__main__":
    sys.exit(main())
