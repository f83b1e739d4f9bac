"""Files are whole or not there, and what is wrong with one is said with its name."""

import contextlib
import hashlib
import os

import pytest

from configs.contract.basics import files
from configs.contract.basics.errors import UserError
from configs.contract.basics.files import (
    append_line,
    atomic_write,
    file_hash,
    read_json,
    read_lines,
    whole_directory,
    write_lines,
)


def failing(*_):
    raise OSError(28, "No space left on device")


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_atomic_write_replaces(tmp_path):
    path = tmp_path / "new" / "file.txt"
    atomic_write(path, "first é")
    atomic_write(path, b"second")
    assert path.read_bytes() == b"second"
    assert names(path.parent) == ["file.txt"]


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, broken):
    """And no temporary file."""
    path = tmp_path / "file.txt"
    atomic_write(path, "old")
    monkeypatch.setattr(files.os, broken, failing)
    with pytest.raises(OSError):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    atomic_write(path, "old")
    replace, contents = files.os.replace, []

    def watched(source, target):
        contents.append((path.read_text(), open(source).read()))
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", watched)
    atomic_write(path, "new")
    assert contents == [("old", "new")]


def test_a_directory_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "new" / "folder"
    for content, fails in (("old", False), ("half", True), ("new", False)):
        with contextlib.suppress(OSError), whole_directory(folder) as temporary:
            (temporary / content).touch()
            assert names(folder) == ["old"] if folder.exists() else content == "old"
            if fails:
                failing()
        assert names(folder) == (["new"] if content == "new" else ["old"]) and names(folder.parent) == ["folder"]


def test_the_hash_of_a_folder_covers_what_its_links_lead_to(tmp_path):
    """Links to folders too. A link to a folder that holds it is not followed."""
    texts, elsewhere = tmp_path / "texts", tmp_path / "elsewhere"
    texts.mkdir()
    elsewhere.mkdir()
    (texts / "pos").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(texts)
    hashes = []
    for content in ("fine", "fine", "dull"):
        (elsewhere / "1.txt").write_text(content)
        hashes.append(file_hash(texts))
    assert hashes[0] == hashes[1] != hashes[2]
    assert hashes[0] == hashlib.sha256(b"pos/1.txt\0fine").hexdigest()


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_directory_that_cannot_be_replaced_is_an_error(tmp_path, kind):
    """A new model that is dropped without a word would leave the old one under its name."""
    target, old = tmp_path / "model", tmp_path / "elsewhere"
    old.mkdir()
    target.symlink_to(old) if kind == "link" else target.touch()
    with pytest.raises(OSError) as error, whole_directory(target) as temporary:
        (temporary / "new").touch()
    assert str(error.value.filename) == str(target) and names(tmp_path) == ["elsewhere", "model"] and not names(old)


def test_of_two_directories_of_a_cache_that_are_whole_at_once_one_stays(tmp_path, monkeypatch):
    """The other process finishes between this one's check and its rename."""
    replace = os.replace

    def later(source, target):
        target.mkdir()
        (target / "theirs").touch()
        replace(source, target)

    monkeypatch.setattr(os, "replace", later)
    with whole_directory(tmp_path / "model", replace=False) as mine:
        (mine / "mine").touch()
    assert names(tmp_path / "model") == ["theirs"] and names(tmp_path) == ["model"]


def test_a_directory_of_a_cache_that_came_meanwhile_stays(tmp_path):
    with whole_directory(tmp_path / "model", replace=False) as mine:
        with whole_directory(tmp_path / "other", replace=False) as other:
            (other / "theirs").touch()
        (tmp_path / "other").rename(tmp_path / "model")
        (mine / "mine").touch()
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == ["theirs"]


def test_lines_come_back(tmp_path):
    path, records = tmp_path / "a.jsonl", [{"text": "line\u2028 separator\nand é"}, {"n": 1}]
    write_lines(path, records)
    append_line(path, {"n": 2})
    assert read_lines(path) == [*records, {"n": 2}]


def test_a_torn_last_line_is_dropped(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"n": 1}\n{"n": 2}\n{"n": 3')
    assert read_lines(path) == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("middle", ['{"n": 2', "[2]", "\udcff", "[" * 100_000])
def test_a_broken_middle_line_is_refused(tmp_path, middle):
    path = tmp_path / "a.jsonl"
    path.write_bytes(f'{{"n": 1}}\n{middle}\n{{"n": 3}}\n'.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match="a.jsonl, line 2"):
        read_lines(path)


@pytest.mark.parametrize(
    "content, expected", [(b'{"a":\n1,}', "line 2"), (b"[1]", "object"), (b"\xff", "not valid JSON")]
)
def test_broken_json_names_file_and_line(tmp_path, content, expected):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=f"a.json.*{expected}"):
        read_json(tmp_path / "a.json")


def test_missing_files_say_what_to_do(tmp_path):
    for read in (read_json, read_lines):
        with pytest.raises(UserError, match="gone.* is missing: run the stage"):
            read(tmp_path / "gone")


def test_file_hash_of_a_file_is_its_sha256(tmp_path):
    content = bytes(range(256)) * 5000  # more than one block
    (tmp_path / "a").write_bytes(content)
    assert file_hash(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_file_hash_of_a_folder_sees_names_and_contents(tmp_path):
    def folder(name, **files):
        for file, content in files.items():
            atomic_write(tmp_path / name / file, content)
        return file_hash(tmp_path / name)

    first = folder("1", a="x", b="y")
    assert folder("2", b="y", a="x") == first
    others = [folder("3", a="y", b="x"), folder("4", a="x", c="y"), folder("5", a="xy", b=""), folder("6", a="x")]
    assert len({first, *others}) == 5


@pytest.mark.parametrize(
    "write, name",
    [
        (lambda path: append_line(path, {"n": 1}), "metrics.jsonl"),
        (lambda path: atomic_write(path.with_name("file"), "new"), f".file.{os.getpid()}-{files.MACHINE}.tmp"),
        (lambda path: files.locked(path).__enter__(), ".lock"),
    ],
    ids=["log", "temporary", "lock"],
)
def test_a_link_is_never_written_through(tmp_path, write, name):
    other, link = tmp_path / "other", tmp_path / "run" / name
    link.parent.mkdir()
    other.write_text("somebody's")
    link.symlink_to(other)
    with pytest.raises(UserError, match=f"{name} is a link, .*; delete the link"):
        write(link)
    assert other.read_text() == "somebody's"
