"""Data parallel training: one process a device, started by MindSpore's own `msrun`.

Every rank works on its own part of each batch with its own noise; gradients are averaged once an update, so all
ranks make the same one. Rank 0 writes what was trained; small files that every rank knows are written by each, whole.
"""

from __future__ import annotations

import os

import mindspore as ms
from mindspore import nn, ops


def rank() -> int:
    return int(os.environ.get("RANK_ID", 0)) if ranks() > 1 else 0


def ranks() -> int:
    """Number of processes; `msrun` leaves it in the environment."""
    return int(os.environ.get("MS_WORKER_NUM", 1))


def start() -> None:
    """Join the other ranks. Call once, after the device is chosen; does nothing in a run of one process."""
    if ranks() > 1:
        from mindspore.communication import init

        init()
        ms.set_auto_parallel_context(
            parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=True, device_num=ranks()
        )


def average(parameters) -> nn.Cell:
    """A cell that averages gradients over all ranks: the identity if there is one."""
    return nn.DistributedGradReducer(list(parameters)) if ranks() > 1 else Same()


def wait() -> None:
    """Until all ranks are here: before one reads what rank 0 writes. A sum over all of them cannot end sooner."""
    if ranks() > 1:
        ops.AllReduce()(ms.Tensor([0.0], ms.float32)).asnumpy()


class Same(nn.Cell):
    def construct(self, gradients):
        return gradients
