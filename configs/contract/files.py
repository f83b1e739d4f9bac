"""Files that are whole or not there: atomic writes, JSON that says what is wrong with it, hashes, locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
import time
from pathlib import Path

from configs.contract.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
OWNER = "ROBUST_TICKET_RUN"  # process that holds the lock, for the processes that it starts


@contextlib.contextmanager
def naming(path: Path):
    """An `OSError` in the block tells which file it is about: that of a full disk does not by itself."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _opener(path: str, flags: int) -> int:
    """Opens what is written in a run's directory: never through a link, whose target would be overwritten."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UserError(f"{path} is a link, and the file that it names would be overwritten; delete the link") from None


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write to a temporary name, sync, replace: a reader sees the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path), open(temporary, "wb", opener=_opener) as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def write_json(path: Path, value) -> None:
    atomic_write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict:
    """Read a JSON object. Raises `UserError` naming the file, and the line where there is one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the stage that writes it first") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}); delete it and run again") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; delete it and run again") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete it and run again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object; delete it and run again")
    return value


def read_lines(path: Path) -> list[dict]:
    """Records of a JSON Lines file. A torn last line (a killed writer) is dropped; any other is an error."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the stage that writes it first") from None
    lines, records = raw.split(b"\n"), []
    for number, line in enumerate(lines[:-1], 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # not JSON, not UTF-8, a number of thousands of digits, or too deep
            raise UserError(f"{path}, line {number}: not valid JSON; delete the file and run again") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number}: expected a JSON object")
        records.append(record)
    return records


def append_line(path: Path, record: dict) -> None:
    """Add one record to a JSON Lines file, on the disk before this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), open(path, "a", encoding="utf-8", opener=_opener) as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def write_lines(path: Path, records) -> None:
    atomic_write(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or of all files of a directory with their names."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode() + b"\0")
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(path: Path):
    """Hold a lock in a run's directory. Raises `UserError` naming the owner if another process has it.

    The lock is the kernel's: it falls open when its owner ends, however that comes about, so a dead process never
    leaves a stale one. A process that the owner starts may enter too. Gives the open lock, for such a process to
    inherit: then the run counts as in use until that has ended as well.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8", opener=_opener) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"  # which has not written down who it is yet
            if not owner.startswith(f"process {os.environ.get(OWNER)} "):
                raise UserError(
                    f"{path.parent} is in use by {owner}; wait for it, or choose another name=..."
                ) from None
            yield file
            return
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        file.truncate(0)
        file.write(f"process {os.getpid()} of {platform.node()}, started {started}")
        file.flush()
        yield file


def sweep(root: Path) -> None:
    """Remove the temporary files and directories of processes that were killed while they wrote."""
    for path in list(root.rglob(".*.tmp")):
        owner = path.name.split(".")[-2]
        if owner.isdigit() and not Path("/proc", owner).exists():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
