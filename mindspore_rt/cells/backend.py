"""Which implementation of the model's parts, its random numbers and its optimizer runs. Everything else asks here."""

from __future__ import annotations

import enum
import functools

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
