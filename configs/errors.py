"""One kind of error for everything a user can mend."""

import functools
import sys


class UserError(Exception):
    """Something the user can mend. Its text is the whole message: what, where, and the remedy."""


def command(main):
    """Wrap a command's entry point: a `UserError` becomes one line on stderr and exit status 2."""

    @functools.wraps(main)
    def guarded(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("\nstopped; the same command goes on from the last checkpoint", file=sys.stderr)
            return 130
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            reason = " ".join((error.strerror or str(error) or type(error).__name__).split())
            print(f"error: {where}{reason}", file=sys.stderr)
            return 1

    return guarded
