"""Processes as Linux shows them under /proc, and a port for those that meet."""

import contextlib
import os
import socket
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path


def _status(file: Path) -> list[str]:
    """State, parent and process group of a process or thread, and more; empty if it has ended."""
    with contextlib.suppress(OSError):
        return file.read_text().rpartition(")")[2].split()
    return []


def in_group(group: int) -> list[int]:
    """The processes of a process group."""
    files = Path("/proc").glob("[0-9]*/stat")
    return [int(file.parent.name) for file in files if _status(file)[2:3] == [str(group)]]


def _runs(process: int) -> bool:
    """Whether a thread of a process is neither stopped nor at its end."""
    files = Path("/proc", str(process), "task").glob("*/stat")
    return any(_status(file)[:1] not in ([], ["T"], ["Z"], ["X"]) for file in files)


def signal_all(processes: Iterable[int], number: int) -> None:
    """Send a signal to processes, of which some may have ended."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def wait_until_stopped(processes: Collection[int], seconds: float = 60) -> None:
    """Wait for the effect of SIGSTOP, which the kernel may deliver late; so many seconds at most."""
    deadline = time.monotonic() + seconds
    while running := [process for process in processes if _runs(process)]:
        assert time.monotonic() < deadline, f"not stopped: {running}"
        time.sleep(0.01)


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A port that no other process is given inside the block.

    It stays bound here, with the option that lets MindSpore's scheduler, which sets it too, listen on it.
    """
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]
