"""The bench's end of the protocol of `bench_case.py` in the contract: a worker process that is asked for steps."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from typing import Any

from configs.contract.basics import bench_case
from configs.contract.basics.errors import UserError
from configs.contract.basics.processes import with_project
from torch_eval.bench.step_groups import Contender


class Worker:
    """A process that keeps one step ready. If it stops, a `UserError` repeats the last line of its error output.

    Args:
        contender: What computes the step.
        command: Words that start the process.

    Attributes:
        answers: `wall` and `cpu`, the seconds of every step asked for; `first`, those of the step before them, which
            compiles; `memory`, the peak in bytes; `title`; and what the worker says about itself.
    """

    def __init__(self, contender: Contender, command: list[str]) -> None:
        self.contender, self.log = contender, tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(
            command,
            env=_environment(contender),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            cwd=tempfile.gettempdir(),  # libraries leave files in the directory they run in
        )
        assert self.process.stdin and self.process.stdout  # both are pipes
        self._requests, self._replies = self.process.stdin, self.process.stdout
        try:
            answer = self._answer()
        except BaseException:
            self.close()
            raise
        self.answers: dict[str, Any] = {
            **answer,
            "title": contender.title,
            "first": answer["wall"],
            "wall": [],
            "cpu": [],
        }

    def step(self) -> None:
        """Ask for one step, and add its answer."""
        with contextlib.suppress(BrokenPipeError):  # the log says what went wrong
            self._requests.write("\n")
            self._requests.flush()
        answer = self._answer()
        self.answers["wall"].append(answer["wall"])
        self.answers["cpu"].append(answer["cpu"])
        self.answers["memory"] = answer["memory"]

    def _answer(self) -> dict[str, Any]:
        line = self._replies.readline()
        if not line:
            self.process.wait()
            self.log.seek(0)
            lines = [line.strip() for line in self.log if line.strip()] or ["no message"]
            raise UserError(f"{self.contender.title}: stopped with status {self.process.returncode}: {lines[-1]}")
        return json.loads(line)

    def close(self) -> None:
        """End the process and wait for it."""
        self.process.kill()
        self.process.wait()
        for stream in (self._requests, self._replies, self.log):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def _environment(contender: Contender) -> dict[str, str]:
    """Return the environment variables of a worker: its own, and the same number of threads for all."""
    return with_project(os.environ) | {
        "ROBUST_TICKETS_KERNELS": contender.kernels,  # whatever the user has chosen
        "GLOG_v": "3",
        "OMP_WAIT_POLICY": "passive",
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(bench_case.THREADS)),
    }
