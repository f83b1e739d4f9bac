"""Several commands of ours in one process: each process would load a framework, which takes seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

from configs.contract import receipts
from configs.contract.files import ROOT

# Importing MindSpore changes LD_LIBRARY_PATH. All stages of a run must record the same variables in their receipts,
# whichever process runs them: they get those that this process began with.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in receipts.VARIABLES}
ENVIRONMENT |= {**receipts.ENVIRONMENT, "PYTHONPATH": str(ROOT)}
CODE = """
import json, sys
from importlib import import_module
for module, *arguments in json.loads(sys.argv[1]):
    if import_module(module).main(arguments):
        sys.exit(f"{module} {arguments[0]} failed")
"""


def run_commands(commands: list[list[str]], folder: Path, **environment: str) -> str:
    """Run commands, each a module with a function `main` and its arguments, from a folder; returns what they print."""
    process = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(commands)],
        cwd=folder,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout
