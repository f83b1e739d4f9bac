"""Data-parallel training: one process for each device, started by `mindspore_rt.launch` or by MindSpore's `msrun`.

Every worker has a number, its rank, its own part of each batch and its own noise. Gradients are averaged once in an
update, so that all workers make the same update. Worker 0 writes the results.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import mutable, nn, ops

from mindspore_rt.launch import rank, ranks

__all__ = ["StopVote", "any_rank", "average", "rank", "ranks", "start", "wait"]


def start() -> None:
    """Join the other workers, if there are any. Call once, after the device is chosen."""
    if ranks() > 1:
        from mindspore.communication import init

        init()
        ms.set_auto_parallel_context(
            parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=True, device_num=ranks()
        )


def average(parameters: Sequence[ms.Parameter]) -> nn.Cell:
    """Return a cell that averages the gradients of `parameters` over all workers."""
    return nn.DistributedGradReducer(list(parameters)) if ranks() > 1 else nn.Identity()


def any_rank(flag: bool) -> bool:
    """Return whether `flag` is true on any worker, the same on all of them. All workers must arrive here."""
    if ranks() == 1:
        return flag
    return bool(ops.AllReduce()(ms.Tensor([float(flag)], ms.float32)).asnumpy()[0] > 0)


class StopVote(nn.Cell):
    """Counts the workers that were asked to stop, in the graph of an update.

    All workers read the same count among the update's figures, and the host fetches nothing more. With one worker the
    graph holds nothing of this.

    Attributes:
        names: Name of the count among the figures, `stop_requests`; empty with one worker.
    """

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.all_reduce, self.names = ops.AllReduce(), ("stop_requests",) if ranks() > 1 else ()

    def ballot(self, asked: bool) -> tuple[ms.Tensor, ...]:
        """Return this worker's input of the graph: whether it was asked to stop, float32 (1,); () with one worker."""
        return mutable((ms.Tensor([float(asked)], ms.float32),)) if self.names else ()

    def construct(self, ballot: tuple[ms.Tensor, ...]) -> tuple[ms.Tensor, ...]:
        """Return the count, a float32 scalar; nothing with one worker."""
        return tuple(self.all_reduce(asked).reshape(()) for asked in ballot)


def wait() -> None:
    """Wait until all workers arrive here, as before one reads what worker 0 writes."""
    any_rank(False)


if __name__ == "__main__":  # the scheduler, as its environment says: it returns when all workers have left
    from mindspore.communication import init

    ms.set_device("CPU")
    init()
