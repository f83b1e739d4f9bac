"""TensorBoard scalars beside the JSON Lines of a training stage.

An event file is a sequence of TFRecords, each of which holds one protocol buffer `Event` (tensorboard/compat/proto).
Scalars need five fields of it. They are encoded here, since the packages that write them load torch or TensorFlow into
every training process.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from pathlib import Path

from configs.contract.basics.files import naming

CASTAGNOLI = 0x82F63B78  # polynomial of CRC-32C, bits reversed
DOUBLE, FLOAT, BYTES = 1, 5, 2  # wire types of protocol buffers


class Writer:
    """Writes the numbers of each record under `tensorboard/`; `tensorboard --logdir runs` shows them.

    Args:
        directory: Directory of the stage.
    """

    def __init__(self, directory: Path) -> None:
        self.folder = directory / "tensorboard"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = (self.folder / f"events.out.tfevents.{time.time():.0f}.{os.getpid()}").open("ab")
        self.file.write(_record(_event(0, _field(3, BYTES, b"brain.Event:2"))))

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # the disk is full: the error that led here says so
            self.file.close()

    def add(self, record: dict) -> None:
        """Write one event for each number.

        Args:
            record: Names and values, with the `step`; `seconds`, the time of day, is left out.
        """
        with naming(self.folder):
            for name, value in record.items():
                if name not in ("step", "seconds") and isinstance(value, (int, float)):
                    scalar = _field(1, BYTES, name.encode()) + _field(2, FLOAT, value)
                    self.file.write(_record(_event(record["step"], _field(5, BYTES, _field(1, BYTES, scalar)))))
            self.file.flush()


def _event(step: int, content: bytes) -> bytes:
    """Encode an `Event`: wall time (field 1), step (field 2, an integer) and `content`."""
    return _field(1, DOUBLE, time.time()) + b"\x10" + _varint(step) + content


def _field(number: int, wire_type: int, value: float | bytes) -> bytes:
    """Encode one field of a protocol buffer."""
    tag = bytes([number << 3 | wire_type])
    if isinstance(value, bytes):
        return tag + _varint(len(value)) + value
    return tag + struct.pack("<d" if wire_type == DOUBLE else "<f", value)


def _varint(value: int) -> bytes:
    """Encode an integer: seven bits a byte, the lowest first, the top bit set where more follow."""
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _varint(value >> 7)


def _record(data: bytes) -> bytes:
    """Frame a TFRecord: length, its checksum, data, its checksum."""
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _masked_crc(data: bytes) -> bytes:
    """Compute the CRC-32C of `data`, masked as TFRecords have it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (CASTAGNOLI if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
