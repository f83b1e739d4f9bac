"""What tests of attacks share: sentences, attacks without further processes, the labels that a victim gives."""

import contextlib
from collections.abc import Iterator

import pytest
import torch

from torch_eval.attack import choose, scoring, transfer, workers
from torch_eval.attack.workers import Target

SENTENCES = [
    "a gripping and thoughtful drama",
    "the jokes are stale and the pace is slow",
    "an honest portrait of grief",
    "loud , silly and far too long",
    "the cast is superb",
    "a dull script ruins a good idea",
]


class WorkersInThisProcess:
    """Workers without processes."""

    def __init__(self, count, threads=1):
        self.count = count

    def map(self, function, *arguments):
        return map(function, *arguments)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """As in a worker: several threads add in another order, and on busy cores they are ten times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def attacks_here(patch: pytest.MonkeyPatch, *leaders) -> Iterator[None]:
    """Attack in this process, on one thread, with models that are read anew. `leaders`: further modules that attack."""
    workers.load_victim.cache_clear()
    workers.load_attack.cache_clear()
    for leader in (choose, scoring, transfer, *leaders):
        patch.setattr(leader, "Workers", WorkersInThisProcess)
    with one_thread():
        yield


def labels_by_victim(target: Target, texts: list[tuple[str, ...]]) -> list[int]:
    """The label that a victim gives to each text."""
    return [row.index(max(row)) for row in workers.logits_of(target, texts)]
