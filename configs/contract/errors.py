"""One kind of error for everything a user can mend, and stopping at a safe point."""

import errno
import functools
import re
import signal
import sys
import tempfile
import threading
import traceback


class UserError(Exception):
    """Something the user can mend. Its text is the whole message: what, where, and the remedy."""


class Stopped(Exception):
    """The user, or the cluster, asked to stop, and everything is saved."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.status = 128 + number


class StopRequest:
    """While it lasts, Ctrl-C and SIGTERM do not stop the process but are remembered, so that a loop can save first.
    A second Ctrl-C stops at once. SIGTERM may come any number of times: whoever started this process hands on as such
    what the terminal has already sent to all."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.number, self.interrupted = None, False

    @property
    def made(self) -> bool:
        return self.number is not None

    def __enter__(self):
        self.before = {number: signal.signal(number, self._remember) for number in self.SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _remember(self, number, _frame):
        if number == signal.SIGINT and self.interrupted:
            raise KeyboardInterrupt
        self.interrupted |= number == signal.SIGINT
        if not self.made:
            self.number = number
            print("\nstopping after this step", file=sys.stderr)

    def obey(self, message: str):
        raise Stopped(message, self.number)


def _terminate(_number, _frame):
    raise KeyboardInterrupt


# A framework's own allocator raises RuntimeError: PyTorch on the CPU and CUDA, MindSpore's memory pool and kernels.
NO_MEMORY = re.compile(r"(?i)not enough memory|out of memory|allocate .*memory failed|memory (isn't|not) enough")


def _is_no_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(NO_MEMORY.search(str(error))))


def _internal(error: Exception) -> str:
    """What is said of an error that nobody foresaw; its traceback goes to a file."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
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


def command(main):
    """Wrap a command's entry point: a `UserError` becomes one line on stderr and exit status 2. What nobody foresaw is
    told as a fault of the program, in words that no message to the user begins with, and exit status 1."""

    @functools.wraps(main)
    def guarded(*args, **kwargs):
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a name that the locale cannot write must not end the run
                stream.reconfigure(errors="backslashreplace")
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _terminate)  # clusters send it: leave by the same door as Ctrl-C
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except Stopped as stopped:
            print(f"{stopped}; the same command goes on from there", file=sys.stderr)
            return stopped.status
        except KeyboardInterrupt:
            print("\nstopped; the same command goes on from the last checkpoint", file=sys.stderr)
            return 130
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            reason = " ".join((error.strerror or str(error) or type(error).__name__).split())
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            remedy = "; make room, then the same command goes on from the last checkpoint" if full else ""
            print(f"error: {where}{reason}{remedy}", file=sys.stderr)
            return 1
        except UnicodeEncodeError as error:
            remedy = "set LC_ALL=C.UTF-8, or use other names"
            print(f"error: {error.object!a:.80} cannot be written as {error.encoding}; {remedy}", file=sys.stderr)
            return 1
        except Exception as error:
            no_memory = "error: out of memory; a smaller batch_size or data.max_length needs less"
            print(no_memory if _is_no_memory(error) else _internal(error), file=sys.stderr)
            return 1

    return guarded
