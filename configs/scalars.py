"""TensorBoard scalars beside the JSON Lines of a training stage."""

from __future__ import annotations

from pathlib import Path

from tensorboardX import SummaryWriter


class Writer:
    """Writes the numbers of each record under `tensorboard/`; `tensorboard --logdir runs` shows them."""

    def __init__(self, directory: Path, rank: int = 0):
        self.writer = None if rank else SummaryWriter(str(directory / "tensorboard"), write_to_disk=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.writer:
            self.writer.close()

    def add(self, record: dict) -> None:
        """`record` has its `step`; `seconds` is the time of day, of use to no one here."""
        for name, value in record.items():
            if name not in ("step", "seconds") and isinstance(value, (int, float)):
                self.writer.add_scalar(name, value, record["step"])
