"""The real command line on a small run: signals, numbers that are not finite, limits, a second run, another setting."""

import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from configs.contract.basics.errors import STARTER, Stopped
from configs.contract.basics.files import ROOT, read_lines
from configs.contract.basics.processes import with_project
from configs.contract.experiment import schema
from configs.contract.run import jobs
from configs.contract.run.run_dir import RunDir
from mindspore_rt import launch
from mindspore_rt.__main__ import main
from mindspore_rt.stages import runner
from tests.helpers.files import write_program
from tests.helpers.processes import in_group, wait_until_stopped
from tests.helpers.timeless import timeless_lines

PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "stdin": subprocess.DEVNULL}
SMALL = [f"name=test-faults-{os.getpid()}", "methods=[freelb]", "freelb.epochs=3", "checkpoint_steps=2"]


@pytest.fixture(scope="module")
def run():
    """A prepared experiment of its own name, removed at the end."""
    run = RunDir(schema.load("tiny", SMALL))
    shutil.rmtree(run.root, ignore_errors=True)
    try:
        runner.run_job(run, next(job for job in jobs.jobs(run) if job.stage == "prepare"))
        yield run
    finally:
        shutil.rmtree(run.root, ignore_errors=True)


@pytest.fixture
def trained(run):
    """Where the model goes; removed first."""
    directory = run.stage(1, "freelb")
    shutil.rmtree(directory, ignore_errors=True)
    return directory


def output_of(process):
    """What a process in a group of its own prints until it ends. After ten minutes its group is killed."""
    try:
        return process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def ended(process, status):
    output, errors = output_of(process)
    assert process.returncode == status, errors[-2000:]
    assert "Traceback" not in errors
    return output, errors


def here(capsys, status, *overrides):
    """Run the training in this process, where one of its own need not be: loading MindSpore takes seconds."""
    capsys.readouterr()
    assert main(["finetune", "tiny", *SMALL, *overrides]) == status
    output, errors = capsys.readouterr()
    assert "Traceback" not in errors
    return output, errors


def wait_for_step(directory, step, process):
    metrics = directory / "metrics.jsonl"
    while process.poll() is None and not (metrics.is_file() and len(read_lines(metrics)) >= step):
        time.sleep(0.01)
    assert process.poll() is None, "it ended too soon"


def artefacts(directory):
    return timeless_lines(directory / "metrics.jsonl"), (directory / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(run):
    directory = run.stage(1, "freelb")
    shutil.rmtree(directory, ignore_errors=True)
    assert main(["finetune", "tiny", *SMALL]) == 0
    return artefacts(directory)


def test_ctrl_c_stops_at_a_safe_point_and_a_second_run_is_refused(undisturbed, run, trained, capsys):
    """Ctrl-C reaches run.sh, the stage that it waits for and that stage's job, and each hands it on: that is one
    request to stop. Meanwhile nobody else gets in, and a changed setting not afterwards."""
    command = ["bash", ROOT / "run.sh", "tiny", *SMALL, "methods=[freelb,infobert]"]
    process = subprocess.Popen(command, start_new_session=True, **PIPES)
    wait_for_step(trained, 3, process)
    os.killpg(process.pid, signal.SIGSTOP)  # so that it does not end before the second one has looked
    wait_until_stopped(in_group(process.pid))
    _, errors = here(capsys, 2)
    assert f"{run.root} is in use by process " in errors and "started 20" in errors
    os.killpg(process.pid, signal.SIGCONT)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = ended(process, 130)
    assert "stopped after step" in errors and "the same command resumes from there" in errors
    assert "from what is saved" not in errors
    assert not (trained / "manifest.json").exists() and (trained / "checkpoint.safetensors").exists()

    _, errors = here(capsys, 2, "freelb.learning_rate=0.5")
    assert "freelb.learning_rate: 0.0002, now 0.5" in errors
    assert schema.load(str(run.root / "config.yaml")).freelb.learning_rate == 2e-4
    output, _ = here(capsys, 0)
    assert "resuming from step" in output
    assert artefacts(trained) == undisturbed


class Child:
    """A process that ends by itself when one waits for it."""

    returncode, pid, started = None, 1, []

    def __init__(self, command, **_):
        self.started.append(command[-1])

    def poll(self):
        return self.returncode

    def wait(self, timeout):
        signal.raise_signal(signal.SIGTERM)
        self.returncode = 0


def two_jobs(folder):
    return [jobs.Job("finetune", name, folder / name, 1) for name in ("finetune", "freelb")]


def test_a_request_that_comes_too_late_for_a_job_keeps_the_next_one_from_starting(monkeypatch, tmp_path):
    """The job ends as if nothing had been requested; the process that starts the jobs has got the request."""
    monkeypatch.setattr(launch.subprocess, "Popen", Child)
    monkeypatch.setattr(Child, "started", [])
    monkeypatch.setattr(jobs.Job, "done", True)
    with open(os.devnull) as lock, pytest.raises(Stopped, match="seed-1/finetune: finished") as error:
        launch.launch(RunDir(schema.load("tiny", SMALL)), two_jobs(tmp_path), ["tiny", *SMALL], lock)
    assert Child.started == ["seed-1/finetune"] and error.value.status == 143


def test_a_process_that_ends_well_without_a_manifest_has_not_finished(monkeypatch, tmp_path):
    monkeypatch.setattr(launch.subprocess, "Popen", Child)
    with open(os.devnull) as lock, pytest.raises(RuntimeError, match="seed-1/finetune: .*manifest.json is missing"):
        launch.launch(RunDir(schema.load("tiny", SMALL)), two_jobs(tmp_path), ["tiny", *SMALL], lock)


def test_a_run_whose_starter_was_killed_stops_its_job_and_goes_on_later(undisturbed, run, trained, capsys):
    """kill -9 of the process that started the stage, as run.sh does: the stage hands it on to its job, which saves."""
    stage = ["-m", "mindspore_rt", "finetune", "tiny", *SMALL, "methods=[freelb,infobert]"]
    script = f"{STARTER}=$$ {shlex.join([sys.executable, *stage])} & wait"
    process = subprocess.Popen(["bash", "-c", script], env=with_project(os.environ), start_new_session=True, **PIPES)
    wait_for_step(trained, 3, process)
    process.kill()
    output_of(process)  # until the stage and its job have closed the pipes
    assert (trained / "checkpoint.safetensors").exists() and not (trained / "manifest.json").exists()
    here(capsys, 0)
    assert artefacts(trained) == undisturbed


def test_the_scoring_half_stops_with_its_starter_too():
    """The variable names a process that is not the parent: the command stops, as if its starter were gone."""
    environment = with_project({**os.environ, STARTER: str(os.getpid() + 1)})
    watching = [sys.executable, "-m", "torch_eval", "watch", "tiny", SMALL[0]]
    ended(subprocess.Popen(watching, env=environment, start_new_session=True, **PIPES), 130)


STAGES = """#!/bin/bash
reach() {  # goes on, at the moment of the test, when the request was sent
    touch $1
    [ $1 != $MOMENT ] || for i in {1..3000}; do [ -e requested ] && break; sleep 0.02; done
}
case $3 in
    pending) reach planned; echo half first; echo half second ;;
    first) [ "$ROBUST_TICKETS_STARTER" = "$PPID" ] || exit 1; trap "" TERM; reach first ;;
    second) touch second ;;
esac
"""


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("moment, not_started", [("planned", "first"), ("first", "second")])
def test_run_sh_starts_no_stage_after_a_stop_request(tmp_path, number, status, moment, not_started):
    """The request comes while the plan is made, or too late for the running stage. Only run.sh gets it."""
    program = write_program(tmp_path / "python", STAGES)
    environment = {**os.environ, "ROBUST_TICKETS_PYTHON": str(program), "MOMENT": moment}
    command = ["bash", ROOT / "run.sh", "tiny"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True, **PIPES)
    while process.poll() is None and not (tmp_path / moment).exists():
        time.sleep(0.01)
    process.send_signal(number)
    (tmp_path / "requested").touch()
    ended(process, status)
    assert not (tmp_path / not_started).exists()


def test_a_loss_that_is_not_finite_stops_at_its_step_and_is_never_saved(run, trained, capsys):
    """Weights of 1e30 after the first update: the second step's loss overflows."""
    _, errors = here(capsys, 2, "freelb.learning_rate=1e30", "freelb.clip_norm=0", "checkpoint_steps=1")
    assert "is not finite" in errors and "in train.jsonl" in errors and "try a smaller learning rate" in errors
    assert "the last good checkpoint is" in errors and "step " in errors
    assert all(np.isfinite(value).all() for value in load_file(trained / "checkpoint.safetensors").values())
    assert not (trained / "model").exists() and not (trained / "manifest.json").exists()


def test_a_limit_on_file_size_is_said_and_leaves_what_is_there(run, trained, capsys):
    """A limit too small for the checkpoint."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        _, errors = here(capsys, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"error: {trained / 'checkpoint.safetensors'}: File too large" in errors
    assert len(read_lines(trained / "metrics.jsonl")) == 2 and not list(trained.glob(".*.tmp"))
