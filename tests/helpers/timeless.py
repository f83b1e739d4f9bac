"""What a run has written, without what a clock says: two that computed the same are equal."""

from pathlib import Path

from configs.contract.basics.files import read_lines

CLOCK = {"seconds", "processor_seconds", "sentences_per_second", "finished", "started"}


def without_clock(value):
    """A value of JSON without the keys that state a time or a speed, at any depth."""
    if isinstance(value, dict):
        return {key: without_clock(item) for key, item in value.items() if key not in CLOCK}
    return [without_clock(item) for item in value] if isinstance(value, list) else value


def timeless_lines(path: Path) -> list[dict]:
    """The lines of a log or of an attack's results."""
    return without_clock(read_lines(path))
