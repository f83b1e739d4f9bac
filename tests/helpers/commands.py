"""Commands, modules and code in processes of their own, or in few: each loads a framework, which takes seconds."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from configs.contract.basics.errors import UserError, reason_of
from configs.contract.basics.files import ROOT
from configs.contract.basics.processes import with_project
from configs.contract.run import receipts

# Importing MindSpore changes LD_LIBRARY_PATH. All stages of a run must record the same variables in their receipts,
# whichever process runs them: they get those that this process began with.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in receipts.VARIABLES}
ENVIRONMENT |= {**receipts.ENVIRONMENT, "PYTHONPATH": str(ROOT)}
CODE = """
import json, os, signal, sys
from importlib import import_module
from pathlib import Path
from configs.contract.basics import files
commands, (file, lines) = map(json.loads, sys.argv[1:])

def append_and_die(path, record, append=files.append_line):
    append(path, record)
    if str(path) == file and path.read_bytes().count(b"\\n") == lines:
        os.killpg(0, signal.SIGKILL)

if file:
    files.append_line = append_and_die  # before a module imports the name
for module, *arguments in commands:
    if import_module(module).main(arguments):
        sys.exit(f"{module} {arguments[0]} failed")
"""


def start_commands(
    commands: list[list[str]], folder: Path, dies_at: tuple[str, int] = ("", 0), **environment: str
) -> subprocess.Popen:
    """Start commands, each a module with a function `main` and its arguments, in a process group of their own.

    `dies_at`: a file of JSON Lines, and the number of its lines with which the whole group is killed.
    """
    return subprocess.Popen(
        [sys.executable, "-c", CODE, json.dumps(commands), json.dumps(dies_at)],
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


def run_python(
    code: str, *arguments: object, status: int = 0, folder: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess:
    """Run code in a process of its own, which must end with this status."""
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=folder,
        env=with_project({**os.environ, **environment}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == status, result.stderr[-3000:]
    return result


def modules_here(mains: dict[str, Callable[[list[str]], int]]) -> Callable[..., None]:
    """Make what takes the place of `run_module`: it calls `main` of a module, and raises the error that this prints."""

    def run_module(module, arguments, **_):
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            status = mains[module](list(arguments))
        if status:
            raise UserError(reason_of(errors.getvalue()))

    return run_module


def run_here(commands: list[list[str]], folder: Path) -> str:
    """Run commands in this process, and attack in it too; return what they print."""
    from tests.helpers.attacked_runs import attacks_here

    with (
        pytest.MonkeyPatch.context() as patch,
        attacks_here(patch),
        contextlib.redirect_stdout(io.StringIO()) as output,
    ):
        patch.chdir(folder)
        for module, *arguments in commands:
            assert import_module(module).main(arguments) == 0, arguments[0]
    return output.getvalue()
