"""How this process computes: which implementation runs, and how graphs are compiled. Everything else asks here."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable

import mindspore as ms
from mindspore import context

from mindspore_rt.cells import kernels


class Backend(enum.Enum):
    """One implementation. Manifests state its value, since another one draws other random numbers.

    Attributes:
        KERNELS: CPU, with the fused kernels of `kernels.cc`, which also draw the noise.
        HOST: CPU, with MindSpore's primitives and noise drawn by NumPy.
        DEVICE: GPU or Ascend, with MindSpore's primitives and noise drawn on the device.
    """

    KERNELS = "kernels"
    HOST = "host"
    DEVICE = "device"


@functools.cache
def current() -> Backend:
    """Choose the backend of this process. Call after the device is set: the first call decides, and may compile."""
    device = context.get_context("device_target")
    if device != "CPU":
        print(f"kernels: plain primitives (device {device})", flush=True)
        return Backend.DEVICE
    return Backend.KERNELS if kernels.library() else Backend.HOST


def jit(function: Callable) -> Callable:
    """Make a function a compiled graph, at the level that `device.use_device` set.

    All graphs of the project are made here: `ms.jit` alone asks for level O0, whatever the context says.
    """
    return ms.jit(function, jit_level=context.get_context("jit_level"))
