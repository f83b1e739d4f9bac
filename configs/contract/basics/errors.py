"""Errors that the user can correct, requests to stop, and the exit status of a command."""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, ParamSpec

P = ParamSpec("P")
# Environment variable: number of the process that started this one, and may hold the lock of its run.
STARTER = "ROBUST_TICKETS_STARTER"


class UserError(Exception):
    """An error that the user can correct. Its text is the whole message: what is wrong, where, and the remedy."""


class Missing(UserError):
    """A file or folder that a stage should have written is not there.

    Args:
        path: What is missing.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is missing: {redo(path, 'run the stage that writes it first')}")


def redo(path: Path, otherwise: str) -> str:
    """Return the remedy for a file or folder that is missing or damaged.

    If a finished stage has left it, that is to delete the stage, which would be skipped. Its folder has a manifest.

    Args:
        path: The file or folder.
        otherwise: The remedy if no finished stage has left it.
    """
    made = next((folder for folder in path.parents[:2] if is_ours(folder / "manifest.json", "stage")), None)
    return f"delete {made} to redo its stage" if made else otherwise


def is_ours(file: Path, key: str) -> bool:
    """Tell whether this project wrote a JSON file, or may have: a damaged one counts.

    Other programs write files of the same names, such as manifest.json beside a model of the user's own.

    Args:
        file: The file, which need not be there.
        key: A key that it has if it is ours.
    """
    try:
        content = json.loads(file.read_bytes())
    except OSError:
        return False
    except (ValueError, RecursionError):
        return True
    return isinstance(content, dict) and key in content


class Stopped(Exception):
    """The user or the cluster has requested a stop, and everything is saved.

    Args:
        message: What was stopped, and where.
        number: Number of the signal that requested it; the exit status is 128 more.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.status = 128 + number


def listed(values: Iterable[object], most: int = 12, width: int = 40) -> str:
    """Return the values for a message, on one short line even if a user's file holds long or unprintable ones.

    Args:
        values: What is listed.
        most: Number of values that are shown; the message then states the number of the others.
        width: Characters of a value that are shown.
    """
    texts = [str(value) for value in values]
    shown = [(text if text.isprintable() else repr(text)[1:-1])[:width] for text in texts[:most]]
    return ", ".join(shown) + (f" and {len(texts) - most} more" if len(texts) > most else "") or "nothing"


class StopRequest:
    """Context in which Ctrl-C and SIGTERM are remembered instead of stopping the process, so that a loop saves first.

    A second Ctrl-C stops at once. SIGTERM may come any number of times, because a parent process sends it on after the
    terminal has already sent Ctrl-C to all. Inside another such context, `with` gives the outer one, so that no request
    is lost.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.number: int | None = None
        self.interrupted = False

    @property
    def made(self) -> bool:
        """Whether somebody has asked to stop."""
        return self.number is not None

    def __enter__(self) -> StopRequest:
        self.before: dict[signal.Signals, Any] = {}
        outer = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        if isinstance(outer, StopRequest):
            return outer
        self.before = {number: signal.signal(number, self._remember) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.interrupted:
            raise KeyboardInterrupt
        self.interrupted |= number == signal.SIGINT
        if not self.made:
            self.number = number
            print("\nstopping after this step", file=sys.stderr)

    def obey(self, message: str) -> NoReturn:
        """Stop, after everything is saved. A process without a request of its own obeys that of another worker.

        Raises:
            Stopped: Always.
        """
        raise Stopped(message, self.number or signal.SIGTERM)


def stop_with_starter(starter: int | None = None) -> None:
    """Stop this process at a safe point, as after SIGTERM, once the process that started it is gone.

    Args:
        starter: Its number; None for the one that `STARTER` names. A command that a user gives has none: under `nohup`
            it outlives its terminal.
    """
    starter = starter or int(os.environ.get(STARTER, 0))

    def watch() -> None:
        while os.getppid() == starter:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    if starter:
        threading.Thread(target=watch, daemon=True).start()


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


REASON_LENGTH = 300  # letters of another library's message that are shown
# A framework's own allocator raises RuntimeError: PyTorch on the CPU and CUDA, MindSpore's memory pool and kernels.
NO_MEMORY = re.compile(r"(?i)not enough memory|out of memory|allocate .*memory failed|memory (isn't|not) enough")


def _is_no_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(NO_MEMORY.search(str(error))))


def _internal_error(error: Exception) -> str:
    """Return the message for an unexpected error, and write its traceback to a file."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    what = in_short(error)
    whole = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="robust-tickets-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(whole)
        where = f"in {file.name}"
    except OSError:  # no room, or no temporary directory
        where = f"below\n{whole.rstrip()}"
    return (
        f"internal error: {what} ({last.filename}:{last.lineno}); this is a fault of the program, not of its input: "
        f"please report it with the traceback, {where}"
    )


def in_short(error: BaseException) -> str:
    """Return kind and text of an error, on one short line whatever a library writes."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:REASON_LENGTH]


def first_reason(error: BaseException) -> str:
    """Return the first sentence of the first error in a chain; libraries often replace it by a guess at its cause."""
    while error.__context__:
        error = error.__context__
    return in_short(error).split(". ")[0]


def reason_of(stderr: str) -> str:
    """Return why a process of this project failed, by what it wrote to standard error: its last error or line."""
    lines = stderr.strip().splitlines() or ["no reason given"]
    return next((line for line in reversed(lines) if line.startswith("error:")), lines[-1]).removeprefix("error: ")


def command(main: Callable[P, int]) -> Callable[P, int]:
    """Wrap the entry point of a command.

    A `UserError` becomes one line on stderr and exit status 2. After a request to stop the status is above 128, after
    any other error 1. An unexpected error becomes a message that begins with "internal error".
    """

    @functools.wraps(main)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a name that the locale cannot write must not end the run
                stream.reconfigure(errors="backslashreplace")
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _terminate)  # clusters send it: end as after Ctrl-C
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except Stopped as stopped:
            print(f"{stopped}; the same command resumes from there", file=sys.stderr)
            return stopped.status
        except KeyboardInterrupt:
            print("\nstopped; the same command resumes from what is saved", file=sys.stderr)
            return 130
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            file = (full and error.filename2) or error.filename  # there is no room for the second, the copy
            where = f"{file}: " if file else ""
            reason = " ".join((error.strerror or str(error) or type(error).__name__).split())
            remedy = "; make room, then the same command resumes from what is saved" if full else ""
            print(f"error: {where}{reason}{remedy}", file=sys.stderr)
            return 1
        except UnicodeEncodeError as error:
            remedy = "set LC_ALL=C.UTF-8, or use other names"
            print(f"error: {error.object!a:.80} cannot be written as {error.encoding}; {remedy}", file=sys.stderr)
            return 1
        except Exception as error:
            no_memory = "error: out of memory; a smaller batch_size or data.max_length needs less"
            print(no_memory if _is_no_memory(error) else _internal_error(error), file=sys.stderr)
            return 1

    return guarded
