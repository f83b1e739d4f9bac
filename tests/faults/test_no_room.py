"""Disk full, folder read-only, no memory: the error names the file, earlier results stay, and the run resumes."""

import errno
import os
import shutil
import subprocess

import numpy as np
import pytest
from mindspore import Parameter, Tensor

from configs.contract.basics import files
from configs.contract.basics.errors import UserError, command
from configs.contract.basics.files import append_line, write_json
from configs.contract.experiment import schema
from configs.contract.run.run_dir import RunDir, only_one
from configs.contract.run.stage import Stage
from mindspore_rt.ticket import Ticket
from mindspore_rt.training.trainer import Trainer
from tests.helpers.timeless import timeless_lines


class Batches:
    """Four batches an epoch of nothing."""

    def __len__(self):
        return 4

    def epoch(self, number):
        return [np.arange(2)] * 4

    def lengths(self, number):
        return [16]

    def batch(self, *_):
        return None


class Sum:
    """An objective whose state tells exactly which steps were made, and in which order."""

    def __init__(self):
        self.value = Parameter(Tensor(np.zeros(300, np.float32)), name="value")

    def step(self, batch, index, asked):
        self.value.set_data(Tensor(self.value.asnumpy() * np.float32(0.7) + np.float32(index)))
        return {"loss": float(self.value.asnumpy()[0])}

    def state(self):
        return {"value": self.value}

    def metrics(self):
        return {}


def train(directory):
    """Two epochs with a checkpoint every second step, then the manifest; the final state and the log."""
    objective, config = Sum(), schema.Experiment(checkpoint_steps=2, log_steps=1)
    stage = Stage(directory, "test", {}, {})
    Trainer(stage, objective, Batches(), 8, config, "test", lambda *_: {"dev_accuracy": 0.5}).run()
    stage.finish({"done": True})
    log = timeless_lines(directory / "metrics.jsonl")
    return objective.value.asnumpy().tobytes(), log, sorted(p.name for p in directory.iterdir())


@pytest.mark.parametrize("failing", range(1, 17, 3))
def test_a_full_disk_at_any_write_loses_nothing(tmp_path, monkeypatch, failing):
    """The n-th write fails; the file is named, no half-written one is left, and resuming ends with the same bytes."""
    expected, fsync, count = train(tmp_path / "whole"), os.fsync, []

    def full(descriptor):
        count.append(descriptor)
        if len(count) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device: '.*(jsonl|json|safetensors)'"):
        train(tmp_path / "full")
    assert not list((tmp_path / "full").glob(".*.tmp"))
    assert train(tmp_path / "full") == expected


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("room", [0, 4096, 8192])
def test_a_disk_that_is_really_full(small_disk, tmp_path, capsys, room):
    """Also for TensorBoard's file. The command says so in one line; with room again it ends as if nothing had been."""
    with open(small_disk / "other", "wb") as file:
        file.write(bytes(65536 - 4096 - room))
    assert command(lambda: train(small_disk / "run"))() == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: {small_disk}") and "No space left on device; make room" in error
    (small_disk / "other").unlink()
    assert train(small_disk / "run") == train(tmp_path / "whole")


def test_a_lock_without_room_is_named(small_disk, capsys):
    (small_disk / "other").write_bytes(bytes(65536))

    @command
    def lock():
        with files.locked(small_disk / ".lock"):
            return 0

    assert lock() == 1
    assert capsys.readouterr().err.startswith(f"error: {small_disk / '.lock'}: No space left on device; make room")


@pytest.fixture
def read_only(tmp_path):
    """A run whose file system is read-only, for root too."""
    write_json(tmp_path / "runs" / "tiny" / "data" / "summary.json", {"labels": ["a", "b"]})
    folder = tmp_path / "runs"
    if subprocess.run(["mount", "--bind", folder, folder], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_read_only_folder_is_named(read_only, capsys):
    run = RunDir(schema.load("tiny"), read_only)

    @command
    def write():
        with only_one(run):
            run.save_config()

    assert write() == 1
    assert f"error: {run.root / '.lock'}: Read-only file system" in capsys.readouterr().err
    assert (run.data / "summary.json").read_text()


def test_no_permission_is_named(tmp_path, monkeypatch, capsys):
    def denied(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("builtins.open", denied)
    assert command(lambda: append_line(tmp_path / "metrics.jsonl", {}))() == 1
    monkeypatch.undo()
    assert f"error: {tmp_path / 'metrics.jsonl'}: Permission denied" in capsys.readouterr().err


def test_out_of_memory_is_said_with_a_remedy_and_the_old_file_stays(tmp_path, monkeypatch, capsys):
    ticket = Ticket({"a": np.ones((4, 4), bool)})
    ticket.save(tmp_path / "ticket.safetensors")

    def exhausted(*_, **__):
        raise MemoryError

    monkeypatch.setattr("mindspore_rt.ticket.np.packbits", exhausted)
    assert command(lambda: ticket.save(tmp_path / "ticket.safetensors"))() == 1
    assert "out of memory; a smaller batch_size" in capsys.readouterr().err
    assert Ticket.load(tmp_path / "ticket.safetensors").pruned == 0


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """A training that a full disk has stopped after its first checkpoints."""
    fsync, count = os.fsync, []

    def stop(descriptor):
        count.append(descriptor)
        if len(count) == 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", stop)
    with pytest.raises(OSError):
        train(tmp_path / "interrupted")
    return tmp_path / "interrupted"


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw[:20],
        lambda raw: b"",
        lambda raw: raw[:-5] + bytes([raw[-5] ^ 1]) + raw[-4:],
        lambda raw: raw[:300] + bytes([raw[300] ^ 64]) + raw[301:],
        lambda raw: raw.replace(b"4 5", b"2 5"),
        lambda raw: raw.replace(b'"value"', b'"eulav"'),
        lambda raw: raw.replace(b"[300]", b"[003]"),
    ],
)
def test_a_damaged_checkpoint_never_goes_on(interrupted, damage):
    """Not even if one bit of a value, or the step, is wrong."""
    checkpoint = interrupted / "checkpoint.safetensors"
    raw = checkpoint.read_bytes()
    assert damage(raw) != raw
    checkpoint.write_bytes(damage(raw))
    with pytest.raises(UserError, match="checkpoint.safetensors: not a checkpoint of this stage .*delete it"):
        train(interrupted)


@pytest.mark.parametrize(
    "name, content",
    [
        ("metrics.jsonl", None),
        ("metrics.jsonl", b""),
        ("metrics.jsonl", b"{\n"),
        ("begun.json", None),
        ("begun.json", b"{"),
    ],
)
def test_a_lost_or_damaged_file_of_an_interrupted_training_costs_that_training(tmp_path, interrupted, name, content):
    """Without that file it would not resume either: the message says to delete the folder, and this helps."""
    path = interrupted / name
    path.write_bytes(content) if content is not None else path.unlink()
    with pytest.raises(UserError, match=f"{interrupted}.*delete (that folder|{interrupted}) to redo the stage"):
        train(interrupted)
    shutil.rmtree(interrupted)
    assert train(interrupted) == train(tmp_path / "whole")
