"""Data-parallel training: one process for each device, started by MindSpore's `msrun`.

Every rank works on its own part of each batch with its own noise. Gradients are averaged once in an update, so that all
ranks make the same update. Rank 0 writes the results.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import mindspore as ms
from mindspore import nn, ops


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ.get("RANK_ID", 0)) if ranks() > 1 else 0


def ranks() -> int:
    """Return the number of processes, which `msrun` states in the environment."""
    return int(os.environ.get("MS_WORKER_NUM", 1))


def start() -> None:
    """Join the other ranks, if there are any. Call once, after the device is chosen."""
    if ranks() > 1:
        from mindspore.communication import init

        init()
        ms.set_auto_parallel_context(
            parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=True, device_num=ranks()
        )


def average(parameters: Sequence[ms.Parameter]) -> nn.Cell:
    """Return a cell that averages the gradients of `parameters` over all ranks."""
    return nn.DistributedGradReducer(list(parameters)) if ranks() > 1 else Identity()


def wait() -> None:
    """Wait until all ranks arrive here, as before one reads what rank 0 writes: a sum over all cannot end sooner."""
    if ranks() > 1:
        ops.AllReduce()(ms.Tensor([0.0], ms.float32)).asnumpy()


class Identity(nn.Cell):
    """The average over one rank."""

    def construct(self, gradients: tuple[ms.Tensor, ...]) -> tuple[ms.Tensor, ...]:
        """Return the gradients as they are."""
        return gradients
