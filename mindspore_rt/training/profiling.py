"""MindSpore's profiler, over a few steps of a training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import mindspore as ms
from mindspore.profiler import ProfilerActivity, profile, schedule, tensorboard_trace_handler

SKIPPED = 10  # steps at the start, most of which compile a graph
ACTIVITY = {"CPU": [], "GPU": [ProfilerActivity.GPU], "Ascend": [ProfilerActivity.NPU]}


@contextlib.contextmanager
def profiler(directory: Path, steps: int) -> Iterator[Callable[[], None]]:
    """Context in which `steps` steps are recorded, after the first ten, and written to `directory`/profile.

    Yields:
        Function to call after each step.
    """
    if not steps:
        yield lambda: None
        return
    recorder = profile(
        activities=[ProfilerActivity.CPU, *ACTIVITY[ms.get_context("device_target")]],
        schedule=schedule(wait=0, active=steps, repeat=1, skip_first=SKIPPED),
        on_trace_ready=tensorboard_trace_handler(str(directory / "profile")),
    )
    recorder.start()
    try:
        yield recorder.step
    finally:
        recorder.stop()
