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


def start_commands(commands: list[list[str]], folder: Path, **environment: str) -> subprocess.Popen:
    """Start commands, each a module with a function `main` and its arguments, in a process group of their own."""
    return subprocess.Popen(
        [sys.executable, "-c", CODE, json.dumps(commands)],
        cwd=folder,
        env={**ENVIRONMENT, **environment},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_commands(commands: list[list[str]], folder: Path, **environment: str) -> str:
    """Run commands, as `start_commands` does, to their end; return what they print."""
    process = start_commands(commands, folder, **environment)
    output, errors = process.communicate()
    assert process.returncode == 0, errors[-3000:]
    return output
