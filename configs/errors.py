"""One kind of error for everything a user can mend, and stopping at a safe point."""

import errno
import functools
import signal
import sys
import threading


class UserError(Exception):
    """Something the user can mend. Its text is the whole message: what, where, and the remedy."""


class Stopped(Exception):
    """The user, or the cluster, asked to stop, and everything is saved."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.status = 128 + number


class StopRequest:
    """While it lasts, Ctrl-C and SIGTERM do not stop the process but are remembered, so that a loop can save first.
    A second Ctrl-C stops at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.number = None

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
        if self.made:
            raise KeyboardInterrupt
        self.number = number
        print("\nstopping after this step", file=sys.stderr)

    def obey(self, message: str):
        raise Stopped(message, self.number)


def _terminate(_number, _frame):
    raise KeyboardInterrupt


def command(main):
    """Wrap a command's entry point: a `UserError` becomes one line on stderr and exit status 2."""

    @functools.wraps(main)
    def guarded(*args, **kwargs):
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
        except MemoryError:
            print("error: out of memory; a smaller batch_size or data.max_length needs less", file=sys.stderr)
            return 1
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

    return guarded
