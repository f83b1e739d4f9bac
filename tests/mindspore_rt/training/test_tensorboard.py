"""Event files, read by the protocol buffers and the checksum of tensorboardX."""

from mindspore_rt.training import tensorboard


def read_events(path):
    """Return the events of a file: records of length, its checksum, data, its checksum."""
    # MindSpore's protocol buffers do not load after others have: it has to be imported first.
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    raw, events = path.read_bytes(), []
    while raw:
        size = int.from_bytes(raw[:8], "little")
        data = raw[12 : 12 + size]
        checksums = [int.from_bytes(raw[i : i + 4], "little") for i in (8, 12 + size)]
        assert checksums == [masked_crc32c(raw[:8]), masked_crc32c(data)]
        events.append(Event.FromString(data))
        raw = raw[16 + size :]
    return events


def test_numbers_are_written_and_nothing_else(tmp_path):
    with tensorboard.Writer(tmp_path) as board:
        board.add({"step": 3, "seconds": 9.0, "loss": 0.5, "note": "text"})
        board.add({"step": 70_000, "l0_term": -1.5e-10, "a name of more than a hundred and twenty-eight " * 3: 7})
    version, *events = read_events(next((tmp_path / "tensorboard").iterdir()))
    assert version.file_version == "brain.Event:2"
    assert all(event.wall_time > 1.7e9 for event in (version, *events))
    scalars = [(event.step, value.tag, value.simple_value) for event in events for value in event.summary.value]
    name = "a name of more than a hundred and twenty-eight " * 3
    assert [scalar[:2] for scalar in scalars] == [(3, "loss"), (70_000, "l0_term"), (70_000, name)]
    assert [f"{value:.6g}" for *_, value in scalars] == ["0.5", "-1.5e-10", "7"]
