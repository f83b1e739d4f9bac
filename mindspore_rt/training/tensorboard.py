"""TensorBoard scalars beside the JSON Lines of a training stage."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

from configs.contract.files import naming

# tensorboardX loads torch and boto3 where they are installed: 190 MB that no scalar needs, in every training process.
unwanted = {name: None for name in ("torch", "boto3") if name not in sys.modules}
sys.modules.update(unwanted)  # None: an import says that there is no such module
try:
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.summary import scalar
finally:
    for name in unwanted:
        del sys.modules[name]


class Writer:
    """Writes the numbers of each record under `tensorboard/`; `tensorboard --logdir runs` shows them.

    In this thread: the one of tensorboardX's own writer dies when the disk is full, and the training then waits for
    it without end. Here the error is the caller's.
    """

    def __init__(self, directory: Path, rank: int = 0):
        self.events, self.folder = None, directory / "tensorboard"
        if not rank:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.events = EventsWriter(str(self.folder / "events"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.events:
            with contextlib.suppress(OSError):  # the disk is full: what led here says so
                self.events.close()

    def add(self, record: dict) -> None:
        """`record` has its `step`; `seconds` is the time of day, of use to no one here."""
        if not self.events:
            return
        with naming(self.folder):
            for name, value in record.items():
                if name not in ("step", "seconds") and isinstance(value, (int, float)):
                    self.events.write_event(
                        Event(wall_time=time.time(), step=record["step"], summary=scalar(name, value))
                    )
            self.events.flush()
