"""Modules in processes of their own, and the cores that they may use."""

import os

import pytest

from configs.contract.basics import processes
from configs.contract.basics.errors import STARTER
from configs.contract.basics.processes import run_module


def test_a_module_is_told_who_runs_it(tmp_path):
    """The module stops by itself once that process is gone, as when a script that calls `score` is killed."""
    (tmp_path / "probe.py").write_text(f"import os\nprint(os.environ[{STARTER!r}] == str(os.getppid()))\n")
    assert run_module("probe", [], {STARTER: "1"}, tmp_path) == "True\n"


@pytest.mark.parametrize(
    "files, cores",
    [
        ({}, 4),
        ({"cpu.max": "max 100000\n"}, 4),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "900000 100000\n"}, 4),
        ({"quota": "-1\n", "period": "100000\n"}, 4),
        ({"quota": "300000\n", "period": "100000\n"}, 3),
    ],
)
def test_a_container_may_use_fewer_cores_than_it_sees(tmp_path, monkeypatch, files, cores):
    """As under docker's --cpus, with control groups of either version."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(processes, "LIMITS", ((tmp_path / "cpu.max",), (tmp_path / "quota", tmp_path / "period")))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert processes.usable_cores() == cores
