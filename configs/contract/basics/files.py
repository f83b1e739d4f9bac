"""Reading and writing files: atomic writes, typed JSON, hashes, locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar, overload

import msgspec

from configs.contract.basics.errors import STARTER, Missing, UserError, redo

ROOT = Path(__file__).resolve().parents[3]
MACHINE = re.sub(r"[^\w-]", "-", platform.node())  # several may share a disk
T = TypeVar("T")


def with_home(name: str) -> Path:
    """Return a path with the home folder in place of a leading `~` or `~user`, which shells leave after `key=`.

    `Path.expanduser` stops at `~x.csv`, which may be a file, and where a user has no home.
    """
    return Path(os.path.expanduser(name))


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the file's name to an `OSError` of the block. That of a full disk has none by itself."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _opener(path: str, flags: int) -> int:
    """Open a file for writing. Raises `UserError` for a link, whose target would be overwritten."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UserError(f"{path} is a link, and the file that it names would be overwritten; delete the link") from None


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name, sync it, and rename it: a reader sees all of the old file or of the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        with naming(path), open(temporary, "wb", opener=_opener) as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


@contextlib.contextmanager
def whole_directory(target: Path, *, replace: bool = True) -> Iterator[Path]:
    """Give an empty directory to fill; it becomes `target` when the block ends without an error.

    Args:
        target: Directory that appears whole.
        replace: Take the place of a `target` that is there. Otherwise that one stays: in a cache, another process was
            faster, and may be reading it.

    Raises:
        OSError: `target` cannot be replaced: it is a link or a file, or must not be removed.
    """
    temporary = temporary_path(target)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if replace and os.path.lexists(target):
            with naming(target):
                shutil.rmtree(target)
        try:
            os.replace(temporary, target)
        except OSError:
            if replace or not target.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON."""
    atomic_write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@overload
def read_json(path: Path, *, remedy: str | None = ...) -> dict[str, Any]: ...
@overload
def read_json(path: Path, kind: type[T], remedy: str | None = ...) -> T: ...
def read_json(path: Path, kind: Any = dict, remedy: str | None = None) -> Any:
    """Read a JSON object.

    Args:
        path: The file.
        kind: What the object must be: a `msgspec.Struct` (keys that it does not name may stand in the file and are
            left out), or `dict` for any object.
        remedy: What the user can do about a damaged file.

    Raises:
        UserError: If the file is missing, is not JSON (NaN and Infinity are not), or is not of this kind. The message
            names the file, the line or the key, and the remedy.
    """
    raw = _content(path)
    return _decode(raw, kind, path, 1, remedy or redo(path, "delete it and run again"))


@overload
def read_lines(path: Path, *, remedy: str = ...) -> list[dict[str, Any]]: ...
@overload
def read_lines(path: Path, kind: type[T], remedy: str = ...) -> list[T]: ...
def read_lines(path: Path, kind: Any = dict, remedy: str = "delete the file and run again") -> list[Any]:
    """Read a JSON Lines file of objects of one kind, as `read_json` does.

    The last line is dropped if it is torn, because its writer was killed.
    """
    lines = _content(path).split(b"\n")[:-1]
    return [_decode(line, kind, path, number, remedy) for number, line in enumerate(lines, 1)]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise Missing(path) from None


def as_struct(value: dict, kind: type[T], where: str, remedy: str) -> T:
    """Check a decoded object, and return it as a `msgspec.Struct`.

    The caller keeps the dictionary as well: it shows or rewrites keys that the Struct does not name.

    Raises:
        UserError: The object is of another kind. The message names the key and the remedy.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise UserError(f"{where}: {_plain(error)}; {remedy}") from None


def _decode(raw: bytes, kind: type[T], path: Path, line: int, remedy: str) -> T:
    """Return the object that `raw` holds; it begins on line `line` of the file."""
    where = str(path) if line == 1 and path.suffix == ".json" else f"{path}, line {line}"
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        problem = _plain(error)
    except msgspec.DecodeError as error:
        place = re.search(r"byte (\d+)", str(error))
        at = int(place[1]) if place else len(raw)
        where = f"{path}, line {line + raw[:at].count(10)}"
        problem = f"not valid JSON near {ascii(raw[max(0, at - 32) : at + 8].decode(errors='replace'))}"
    except UnicodeDecodeError:
        problem = "not UTF-8 text"
    except RecursionError:
        problem = "nested too deeply"
    raise UserError(f"{where}: {problem}; {remedy}")


KINDS = {"int": "a whole number", "float": "a number", "str": "text", "object": "an object", "array": "a list"}


def _plain(error: msgspec.ValidationError) -> str:
    """Return what msgspec reports, the key first: `splits[...].count: expected a whole number, got text`."""
    problem, _, place = str(error).partition(" - at `$")
    problem = re.sub(r"`([^`]*)`", lambda kind: " or ".join(KINDS.get(k, k) for k in kind[1].split(" | ")), problem)
    key = place.strip(".`")
    return f"{key}: {problem[0].lower()}{problem[1:]}" if key else problem[0].lower() + problem[1:]


def append_line(path: Path, record: dict) -> None:
    """Add one record to a JSON Lines file and sync it to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), open(path, "a", encoding="utf-8", opener=_opener) as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def write_lines(path: Path, records: Iterable[dict]) -> None:
    """Write records as a JSON Lines file."""
    atomic_write(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def files_below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield the files of a folder and of all folders in it, also of those that are links.

    Args:
        folder: The folder.
        above: Folders that it lies in, without links: one that leads back to them is left out.
    """
    if (real := folder.resolve()) not in above:
        for path in folder.iterdir():
            if path.is_dir():
                yield from files_below(path, (*above, real))
            elif path.is_file():
                yield path


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, or of all files of a directory with their names."""
    digest = hashlib.sha256()
    for file in sorted(files_below(path)) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode() + b"\0")
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def json_hash(value: object) -> str:
    """Return the SHA-256 of a value as JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[IO[str]]:
    """Hold the lock of a run's directory.

    The operating system releases the lock when its owner ends, for whatever reason. A process that the owner starts
    may enter too.

    Yields:
        The open lock file. A process that inherits it keeps the run in use until it has ended as well.

    Raises:
        UserError: Another process holds the lock; the message names it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8", opener=_opener) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"  # it has not written its number yet
            if not owner.startswith(f"process {os.environ.get(STARTER)} "):
                raise UserError(
                    f"{path.parent} is in use by {owner}; wait for it, or choose another name=..."
                ) from None
            yield file
            return
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        with naming(path):
            os.truncate(file.fileno(), 0)
            os.write(file.fileno(), f"process {os.getpid()} of {platform.node()}, started {started}".encode())
        yield file


def temporary_path(path: Path) -> Path:
    """Return the name under which this process writes a file or directory until it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}-{MACHINE}.tmp")


def sweep(root: Path, pattern: str = "**/.*.tmp") -> None:
    """Remove the temporary files and directories that killed processes of this machine left.

    Args:
        root: Directory that is searched.
        pattern: Their names, as `Path.glob` takes them; the part before `.tmp` is of `temporary_path`.
    """
    for path in list(root.glob(pattern)):
        process, _, machine = path.name.split(".")[-2].partition("-")
        if machine == MACHINE and process.isdigit() and not Path("/proc", process).exists():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
