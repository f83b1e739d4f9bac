"""The budgets of one attack: an exception that ends it, and a limit on its time."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

REPEAT = 1.0  # seconds after which the signal comes again, in case a library has swallowed the exception


class OutOfBudget(BaseException):
    """The attack of an example has used up its time or its queries.

    It is no `Exception`, because TextAttack catches those in loops, and would continue.
    """


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise `OutOfBudget` in the main thread after some seconds of wall-clock time, unless the block has ended.

    A signal reaches every loop of Python code, also in libraries. A deadline that only the victim reads does not: some
    recipes go through millions of candidates before they ask it.

    Args:
        seconds: Length of the block; None for no limit.
    """
    if seconds is None:
        yield
        return

    def stop(_number: int, _frame: object) -> None:
        raise OutOfBudget

    handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, REPEAT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
