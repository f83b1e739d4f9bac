"""Modules of this project in processes of their own, and how many of these work at the same time."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from configs.contract.basics.errors import STARTER, UserError, reason_of
from configs.contract.basics.files import ROOT

# What a container may use, as docker's --cpus sets it, in control groups of both versions: quota and period.
LIMITS = (("/sys/fs/cgroup/cpu.max",), ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"))


def usable_cores() -> int:
    """Return the number of cores that this process may use: those of its affinity, if its container allows as many."""
    cores = len(os.sched_getaffinity(0))
    for files in LIMITS:
        with suppress(OSError, ValueError):  # no such file, or the word "max"
            quota, period = map(int, " ".join(Path(file).read_text(encoding="ascii") for file in files).split())
            if quota > 0:
                cores = min(cores, math.ceil(quota / period))
    return cores


def with_project(environment: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables that let Python find this project from any folder."""
    path = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    return {**environment, "PYTHONPATH": path}


def run_module(
    module: str,
    arguments: Iterable[str],
    environment: Mapping[str, str] | None = None,
    folder: Path | str | None = None,
    show: bool = False,
) -> str:
    """Run a module and wait for it.

    Args:
        module: Its dotted name.
        arguments: Words of its command line.
        environment: Variables to set beside those of this process.
        folder: Where it runs; None for the folder of this process.
        show: Show what it prints in the terminal, in place of returning it.

    Returns:
        What it printed; empty with `show`.

    Raises:
        UserError: It failed; the message is the last error that it printed.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=with_project({**os.environ, **(environment or {}), STARTER: str(os.getpid())}),
        cwd=folder,
        stdout=None if show else subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(reason_of(done.stderr))
    return done.stdout or ""
