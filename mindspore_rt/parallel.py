"""Data-parallel training: one process for each device, started by `mindspore_rt.launch` or by MindSpore's `msrun`.

Every rank works on its own part of each batch with its own noise. Gradients are averaged once in an update, so that all
ranks make the same update. Rank 0 writes the results.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import nn, ops

from mindspore_rt.launch import rank, ranks

__all__ = ["any_rank", "average", "rank", "ranks", "start", "wait"]


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


def any_rank(flag: bool) -> bool:
    """Return whether `flag` is true on any rank, the same on all of them. All ranks must arrive here."""
    if ranks() == 1:
        return flag
    return bool(ops.AllReduce()(ms.Tensor([float(flag)], ms.float32)).asnumpy()[0] > 0)


def wait() -> None:
    """Wait until all ranks arrive here, as before one reads what rank 0 writes."""
    any_rank(False)


class Identity(nn.Cell):
    """The average over one rank."""

    def construct(self, gradients: tuple[ms.Tensor, ...]) -> tuple[ms.Tensor, ...]:
        """Return the gradients as they are."""
        return gradients


if __name__ == "__main__":  # the scheduler, as its environment says: it returns when all workers have left
    from mindspore.communication import init

    ms.set_device("CPU")
    init()
