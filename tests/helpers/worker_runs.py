"""Runs of two CPU workers that are stopped: start, stop, look for processes that are left, compare what is there."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import safetensors

from configs.contract.basics.files import ROOT, read_lines
from configs.contract.basics.processes import with_project
from configs.contract.experiment import schema
from configs.contract.run.jobs import jobs
from configs.contract.run.run_dir import RunDir
from mindspore_rt.stages import runner
from tests.helpers.timeless import timeless_lines

SMALL = ["methods=[finetune]", "finetune.epochs=3", "checkpoint_steps=1000", "workers=2"]
SMALL += ["attack.recipes=[textfooler]", "attack.examples=4", "attack.workers=2"]
MARK = "ROBUST_TICKETS_TEST_RUN"  # environment variable that all processes of a run inherit
# Signal, whether the process that was started gets it, and whether its whole process group does.
WAYS = {
    "Ctrl-C": (signal.SIGINT, False, True),
    "SIGINT": (signal.SIGINT, True, False),
    "SIGTERM": (signal.SIGTERM, True, False),
    "scancel": (signal.SIGTERM, False, True),
    "timeout": (signal.SIGTERM, True, True),
    "kill -9": (signal.SIGKILL, True, False),
    "kill -9 of all": (signal.SIGKILL, False, True),
}


class TwoWorkers:
    """One training of two workers, in a run of its own name that is removed at the end; or the whole of ./run.sh."""

    def __init__(self, name: str, *more: str) -> None:
        self.settings = [*SMALL, f"name={name}", *more]
        self.run = RunDir(schema.load("tiny", self.settings))
        self.directory, self.name = self.run.stage(1, "finetune"), name

    def __enter__(self) -> "TwoWorkers":
        shutil.rmtree(self.run.root, ignore_errors=True)
        return self

    def __exit__(self, *_) -> None:
        for process in self.processes():
            os.kill(process, signal.SIGKILL)
        shutil.rmtree(self.run.root, ignore_errors=True)

    def start(self, *more: str) -> subprocess.Popen:
        """The training; its data are prepared first."""
        runner.run_job(self.run, next(job for job in jobs(self.run) if job.stage == "prepare"))
        return self._start(sys.executable, "-m", "mindspore_rt", "finetune", "tiny", *self.settings, *more)

    def start_all(self) -> subprocess.Popen:
        """All stages, by ./run.sh."""
        return self._start("bash", str(ROOT / "run.sh"), "tiny", *self.settings)

    def _start(self, *command: str) -> subprocess.Popen:
        """A command in a process group of its own, as a terminal starts it. Its messages go to a file."""
        environment = with_project({**os.environ, "ROBUST_TICKETS_PYTHON": sys.executable, MARK: self.name})
        environment["RANK_ID"] = "3"  # a stray one
        self.run.root.mkdir(parents=True, exist_ok=True)
        with open(self.run.root / "messages.log", "ab") as log:
            return subprocess.Popen(
                command, env=environment, start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def messages(self) -> str:
        return (self.run.root / "messages.log").read_text()

    def processes(self) -> list[int]:
        """Processes of this run that are alive, the starter and its workers alike."""
        mark, alive = f"{MARK}={self.name}".encode(), []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in path.read_bytes().split(b"\0"):
                    alive.append(int(path.parent.name))
            except OSError:  # it ended, or is another user's
                continue
        return alive

    def workers(self) -> list[int]:
        """The processes among them that train."""
        return [process for process in self.processes() if "--only" in _command_line(process)]

    def steps(self) -> int:
        """Steps that are in the log."""
        path = self.directory / "metrics.jsonl"
        return max((record["step"] for record in read_lines(path)), default=0) if path.is_file() else 0

    def attacked(self) -> int:
        """Sentences whose results are written."""
        return sum(len(path.read_bytes().splitlines()) for path in self.run.root.rglob("attacks/*/*/results.jsonl"))

    def wait_for(self, count: Callable[[], int], number: int, process: subprocess.Popen) -> None:
        """Wait until there are so many steps or attacked sentences, or the run ends."""
        while process.poll() is None and count() < number:
            time.sleep(0.01)

    def stop(self, process: subprocess.Popen, way: str) -> float | None:
        """Stop a run in one of the ways; seconds until no process is left, or None if one is after five minutes."""
        began, (number, itself, group) = time.monotonic(), WAYS[way]
        if itself:
            process.send_signal(number)
        if group:
            os.killpg(process.pid, number)
        process.wait()
        while self.processes():
            if time.monotonic() > began + 300:  # a busy machine still has steps to finish
                return None
            time.sleep(0.1)
        return time.monotonic() - began

    def saved(self) -> int:
        """Steps in the checkpoint; 0 without one."""
        path = self.directory / "checkpoint.safetensors"
        if not path.is_file():
            return 0
        with safetensors.safe_open(path, "numpy") as file:
            return int(file.metadata()["done"].split()[0])

    def results(self) -> tuple[list[dict], bytes]:
        """The log without its clock, and the model."""
        model = self.directory / "model" / "model.safetensors"
        return timeless_lines(self.directory / "metrics.jsonl"), model.read_bytes()


def _command_line(process: int) -> str:
    with contextlib.suppress(OSError):  # it has ended
        return Path(f"/proc/{process}/cmdline").read_text()
    return ""
