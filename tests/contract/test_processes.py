"""Modules in processes of their own."""

from configs.contract.errors import STARTER
from configs.contract.processes import run_module


def test_a_module_is_told_who_runs_it(tmp_path):
    """The module stops by itself once that process is gone, as when a script that calls `score` is killed."""
    (tmp_path / "probe.py").write_text(f"import os\nprint(os.environ[{STARTER!r}] == str(os.getppid()))\n")
    assert run_module("probe", [], {STARTER: "1"}, tmp_path) == "True\n"
