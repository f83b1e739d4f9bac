"""What tests do with an objective: copy its state and put it back, see its graphs' results and what is fetched."""

import contextlib
from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
from mindspore import Tensor

from mindspore_rt.cells import backend


def snapshot(objective) -> dict[str, np.ndarray]:
    """A copy of everything that an update changes."""
    return {name: parameter.asnumpy().copy() for name, parameter in objective.state().items()}


def restore(objective, arrays) -> None:
    """Put such a copy back."""
    for name, parameter in objective.state().items():
        backend.put(parameter, np.float32(arrays[name]))


def watch(monkeypatch, objective, name: str) -> list[tuple]:
    """The arguments of every call of one graph, and its results."""
    calls, graph = [], getattr(objective, name)

    def call(*arguments):
        calls.append((arguments, graph(*arguments)))
        return calls[-1][1]

    monkeypatch.setattr(objective, name, call)
    return calls


@contextlib.contextmanager
def fetches() -> Iterator[list[Tensor]]:
    """The tensors that are copied from the device inside the block."""
    copied = []

    def recorded(method):
        return lambda self, *rest: copied.append(self) or method(self, *rest)

    with contextlib.ExitStack() as stack:
        for method in ("asnumpy", "item", "tolist"):
            stack.enter_context(patch.object(Tensor, method, recorded(getattr(Tensor, method))))
        yield copied
