"""How this process computes: which implementation runs, and how graphs are compiled, for all other modules."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, context, ops

from mindspore_rt.cells import kernels


class Backend(enum.Enum):
    """One implementation. Manifests state its value: another one rounds differently, or draws other random numbers.

    Attributes:
        KERNELS: CPU, with the fused kernels of `kernels.cc`.
        PRIMITIVES: CPU, with MindSpore's primitives.
        GPU: GPU, with MindSpore's primitives.
        ASCEND: Ascend, with MindSpore's primitives, and random numbers of its own (`noise.FloatNoise`).
    """

    KERNELS = "kernels"
    PRIMITIVES = "primitives"
    GPU = "GPU"
    ASCEND = "Ascend"


@functools.cache
def current() -> Backend:
    """Choose the backend of this process. Call after the device is set: the first call decides, and may compile."""
    device = context.get_context("device_target")
    if device != "CPU":
        print(f"kernels: plain primitives (device {device})", flush=True)
        return Backend(device)
    return Backend.KERNELS if kernels.library() else Backend.PRIMITIVES


def on_device() -> bool:
    """Tell whether this process computes on a GPU or an Ascend."""
    return current() in (Backend.GPU, Backend.ASCEND)


def jit(function: Callable) -> Callable:
    """Make a function a compiled graph, at the level that `device.use_device` set.

    All graphs of the project are made here: `ms.jit` alone asks for level O0, whatever the context says.
    """
    return ms.jit(function, jit_level=context.get_context("jit_level"))


def put(parameter: Parameter, values: np.ndarray) -> None:
    """Give a parameter new values, also for graphs that have run.

    Such a graph of MindSpore 2.10 keeps the memory that it began with, which `Parameter.set_data` would replace.

    Args:
        parameter: float32.
        values: float32, of its shape.
    """
    ops.assign(parameter, Tensor(values))
