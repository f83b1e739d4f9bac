"""Packaged assets: what has the wrong hash is never used, and what is missing says how to get it."""

import hashlib
import io
import subprocess
import tarfile
import zipfile

import pytest

from configs.contract.basics.errors import UserError
from configs.contract.inputs import assets


def wheel(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def sdist(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index of one archive: `put(archive name, what is served, what was expected)`. Returns pip's calls."""
    calls = []

    def put(archive, served, expected):
        digest = hashlib.sha256(expected).hexdigest()
        asset = assets.Asset("thing==1", archive, digest, {"p/a.txt": "a.txt", "p/deep/b": "data/b"}, "MIT", "a thing")
        monkeypatch.setattr(assets, "ASSETS", {"thing": asset})
        monkeypatch.setattr(assets, "CACHE", tmp_path)

        def run(command, **_):
            calls.append(command)
            if served is not None:
                folder = command[command.index("--dest") + 1]
                with open(f"{folder}/{archive}", "wb") as file:
                    file.write(served)
            return subprocess.CompletedProcess(command, int(served is None), "", "noise\nERROR: no network\n")

        monkeypatch.setattr(assets.subprocess, "run", run)
        return calls

    return put


FILES = {"p/a.txt": b"words", "p/deep/b": b"\x00\xff", "p/unused.py": b"raise SystemExit"}


@pytest.mark.parametrize("name, make", [("thing-1-py3-none-any.whl", wheel), ("thing-1.tar.gz", sdist)])
def test_members_are_unpacked_once(index, name, make):
    """Only the members that are asked for, under their names in the cache; the second call asks nobody."""
    content = make(FILES)
    calls = index(name, content, content)
    folder = assets.fetch("thing")
    assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == {
        "a.txt": b"words",
        "data/b": b"\x00\xff",
    }
    assert assets.fetch("thing") == assets.fetched_folder("thing") == folder
    assert len(calls) == 1 and "thing==1" in calls[0]


def test_a_wrong_hash_is_refused(index, tmp_path):
    """Nothing of the archive stays in the cache."""
    index("thing-1-py3-none-any.whl", wheel({**FILES, "p/a.txt": b"evil"}), wheel(FILES))
    with pytest.raises(UserError, match="any.whl: SHA-256 is .*, not .*; not used; take it from pypi.org"):
        assets.fetch("thing")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    with pytest.raises(UserError, match="missing"):
        assets.fetched_folder("thing")


def test_a_failed_download_gives_pips_reason(index, tmp_path):
    index("thing-1-py3-none-any.whl", None, b"")
    with pytest.raises(UserError, match="thing==1 could not be downloaded: ERROR: no network; .*PIP_INDEX_URL"):
        assets.fetch("thing")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_missing_asset_says_how_to_get_it(index):
    index("thing-1.tar.gz", None, b"")
    with pytest.raises(UserError, match="is missing: run `python -m configs.contract.inputs.assets` once while online"):
        assets.fetched_folder("thing")
