"""The Hugging Face hub: models and data sets that are downloaded once, and folders that are uploaded.

    python -m configs.contract.inputs.hub model NAME REVISION FOLDER
    python -m configs.contract.inputs.hub dataset ID CONFIG REVISION FOLDER SPLIT [SPLIT ...]
    python -m configs.contract.inputs.hub upload FOLDER NAME PUBLIC      (True or False)

Each of these is a process of its own, because its libraries take seconds to load. `HF_ENDPOINT` chooses a mirror and
`HF_TOKEN` opens private repositories; the hub's own client reads both.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from configs.contract.basics.errors import UserError, command
from configs.contract.basics.files import whole_directory, write_lines
from configs.contract.basics.processes import run_module
from configs.contract.inputs import assets

HUB = "https://huggingface.co"
CLIENT = "configs.contract.inputs.hub"
COMMIT = "commit.txt"  # in the folder of a model: its commit, if the newest one was asked for
MODEL_FILES = ("*.json", "*.txt", "*.model", "*.codes")  # and the weights; the last one is BERTweet's
WAIT = 10.0  # seconds for the hub's first answer
OFFLINE = dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"), "1")
NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(@[\w./-]+)?", re.ASCII)  # OWNER/NAME@REVISION
# Revisions of models whose name is given without one.
BERT = "86b5e0934494bd15c9632b12f734a8a67f723594"
REVISIONS = {"bert-base-uncased": BERT, "google-bert/bert-base-uncased": BERT}


def folder(kind: str, *key: str) -> Path:
    """Folder of a model or data set, once it has been downloaded."""
    return assets.CACHE / "hub" / kind / "--".join(part.replace("/", "--") for part in key if part and part != "main")


def model_key(model: str) -> tuple[str, str]:
    """Name and revision of a model, given as `name` or `name@REVISION`."""
    name, _, revision = model.partition("@")
    return name, revision or REVISIONS.get(name, "main")


def download(
    target: Path,
    kind: str,
    key: Sequence[str],
    splits: Sequence[str] = (),
    *,
    instead: str,
    environment: Mapping[str, str] | None = None,
    client: str = CLIENT,
) -> Path:
    """Return `target`, into which a model or data set is downloaded on first use.

    Args:
        target: Its folder in the cache.
        kind: `model` or `dataset`.
        key: Name and revision of a model; name, configuration and revision of a data set.
        splits: Splits of a data set; each becomes a file `<split>.jsonl`.
        instead: What the user can give in place of it.
        environment: Variables that the client gets, beside those of this process.
        client: Module that downloads.

    Raises:
        UserError: The hub cannot be reached, or has nothing of this name and revision.
    """
    if target.is_dir():
        return target
    print(f"downloading {kind} {key[0]} from the hub", flush=True)
    try:
        with whole_directory(target, replace=False) as temporary:
            run_module(client, [kind, *key, str(temporary), *splits], environment)
    except UserError as error:
        by_hand = shlex.join(["python", "-m", client, kind, *key, "FOLDER", *splits])
        raise UserError(
            f"{kind} {key[0]} is not in {target} and could not be downloaded ({str(error)[:300]}); go online, set "
            f"HF_ENDPOINT to a mirror, give {instead}, or run `{by_hand}` where there is a network and copy FOLDER to "
            f"{target}"
        ) from None
    if (target / COMMIT).is_file():
        commit = (target / COMMIT).read_text(encoding="utf-8")
        print(f"  its newest commit is {commit}; {key[0]}@{commit} asks for that one anywhere", flush=True)
    return target


def save_model(name: str, revision: str, target: str) -> None:
    """Copy the files of a model into a folder: its safetensors, or PyTorch weights where it has none."""
    from huggingface_hub import HfApi, snapshot_download

    about = HfApi().model_info(name, revision=revision)
    if revision == "main":
        (Path(target) / COMMIT).write_text(str(about.sha), encoding="utf-8")
    names = [file.rfilename for file in about.siblings or []]
    safe = any(name.startswith("model") and name.endswith(".safetensors") for name in names)
    weights = "model*.safetensors" if safe else "pytorch_model*.bin"
    snapshot_download(name, revision=about.sha, allow_patterns=[*MODEL_FILES, weights], local_dir=target)
    shutil.rmtree(Path(target) / ".cache", ignore_errors=True)  # its notes on the download


def save_dataset(id: str, config: str, revision: str, target: str, *splits: str) -> None:
    """Write splits of a data set into a folder, as JSON Lines."""
    from datasets import load_dataset

    for split in splits:
        rows = load_dataset(id, config or None, split=split, revision=revision)
        write_lines(Path(target) / f"{split}.jsonl", rows)


def upload(source: str, name: str, public: str) -> None:
    """Upload a folder into a repository, which is made if it is not there, private unless `public` is `True`."""
    from huggingface_hub import HfApi

    HfApi().create_repo(name, private=public != "True", exist_ok=True)
    HfApi().upload_folder(repo_id=name, folder_path=source, commit_message="Model, ticket and results")


def unreachable(endpoint: str) -> str | None:
    """Return why nobody answers at an address; None if somebody does, or if a proxy would have to be asked."""
    if getproxies().keys() & {"http", "https", "all"}:
        return None
    address = urlsplit(endpoint)
    try:
        port = address.port or (80 if address.scheme == "http" else 443)
        socket.create_connection((address.hostname or "", port), WAIT).close()
    except (OSError, ValueError) as error:
        return f"{endpoint} cannot be reached: {getattr(error, 'strerror', None) or error}"
    return None


@command
def main(model: Callable[..., None] = save_model, dataset: Callable[..., None] = save_dataset) -> int:
    """Run the command line; returns its exit status."""
    kind, *words = sys.argv[1:]
    # Without a value mindnlp would use a mirror, and send it the user's token.
    endpoint = os.environ["HF_ENDPOINT"] = os.environ.get("HF_ENDPOINT") or HUB
    if reason := unreachable(endpoint):
        os.environ.update(OFFLINE)  # the libraries look into their caches, and do not ask for a minute
    try:
        {"model": model, "dataset": dataset, "upload": upload}[kind](*words)
    except Exception as error:  # the libraries raise many kinds for a name, a revision or a network that is not there
        raise UserError(reason or " ".join(f"{type(error).__name__}: {error}".split())) from None
    return 0


if __name__ == "__main__":
    sys.exit(main())
