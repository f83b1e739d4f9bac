"""An environment that the user names is checked and used, and none is made beside it."""

import os
import shutil
import subprocess
import sys
import venv
from importlib import metadata

import pytest

from configs.contract.basics import environment
from configs.contract.basics.errors import UserError
from configs.contract.basics.files import ROOT
from tests.helpers.files import write_program


def test_this_environment_has_what_the_requirements_name():
    assert environment.problems([ROOT / "requirements-dev.txt"]) == {}


def test_all_files_pin_one_version_of_a_package():
    pins = {pin for path in ROOT.glob("requirements*.txt") for pin in environment.requirements(path)}
    assert len(pins) == len({name for name, _ in pins})


@pytest.mark.parametrize(
    "name, version, fits",
    [
        ("torch", "2.13.0+cpu", True),
        ("torch", "2.12.1", False),
        ("mindspore", "2.7.0", True),
        ("mindspore", "2.9.0", True),
        ("mindspore", "2.10.0", True),
        ("mindspore", "2.10.1", False),
        ("mindspore", "2.6.0", False),
        ("protobuf", "3.20.3", True),
    ],
)
def test_mindspore_may_be_of_several_versions(name, version, fits):
    assert (
        environment.fits(name, version, {"torch": "2.13.0", "mindspore": "2.7.0", "protobuf": "7.36.2"}[name]) == fits
    )


def test_included_files_and_lines_for_other_pythons(tmp_path):
    minor = sys.version_info[1]
    (tmp_path / "all.txt").write_text("# both\n-r half.txt\nc==3  # why\n")
    (tmp_path / "half.txt").write_text(
        f'a==1; python_version >= "3.{minor}"\na==0; python_version < "3.{minor}"\nb-b==2.0\n'
    )
    assert list(environment.requirements(tmp_path / "all.txt")) == [("a", "1"), ("b-b", "2.0"), ("c", "3")]


def test_one_message_lists_everything_and_the_remedy(tmp_path):
    (tmp_path / "r.txt").write_text(f"pytest=={metadata.version('pytest')}\nno-such-package==1.5\nPyYAML==1.0\n")
    with pytest.raises(UserError) as error:
        environment.check([tmp_path / "r.txt"])
    assert str(error.value).splitlines()[1:3] == [
        "  no-such-package==1.5: missing",
        f"  PyYAML==1.0: is {metadata.version('PyYAML')}",
    ]
    assert str(error.value).endswith(f"{sys.executable} -m pip install no-such-package==1.5 PyYAML==1.0")


@pytest.fixture
def clone(tmp_path):
    """A copy of run.sh with what it reads before anything is installed."""
    for path in [ROOT / "run.sh", *ROOT.glob("requirements*.txt")]:
        shutil.copy(path, tmp_path)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    return tmp_path


def run(clone, python, *arguments):
    environment = {**os.environ, "ROBUST_TICKETS_PYTHON": str(python)}
    return subprocess.run(
        ["bash", "run.sh", *arguments], cwd=clone, capture_output=True, text=True, env=environment, timeout=60
    )


def test_run_sh_says_what_an_environment_lacks_and_makes_none(clone):
    venv.create(clone / "theirs", with_pip=False)
    result = run(clone, "theirs/bin/python", "setup")
    assert result.returncode == 2
    version = dict(environment.requirements(ROOT / "requirements-training.txt"))["mindspore"]  # by the Python
    assert f"mindspore=={version}: missing" in result.stderr and "theirs/bin/python -m pip install" in result.stderr
    assert not (clone / ".venv").exists()


def test_run_sh_refuses_what_is_not_a_program(clone):
    result = run(clone, "theirs/bin/nothing", "setup")
    assert result.returncode == 2 and result.stderr.startswith("error: ROBUST_TICKETS_PYTHON=theirs/bin/nothing")


def test_run_sh_uses_the_named_environment(clone):
    write_program(clone / "python", '#!/bin/sh\nif [ "$2" = mindspore_rt ]; then echo "$@"; fi\n')
    assert run(clone, "./python", "help").stdout.splitlines()[-1] == "-m mindspore_rt --help"
    assert not (clone / ".venv").exists()


@pytest.fixture
def programs(clone):
    """A folder for the only programs in reach: what run.sh needs before it has found a Python."""
    folder = clone / "bin"
    folder.mkdir()
    for name in ("bash", "cat", "cksum", "dirname"):
        (folder / name).symlink_to(shutil.which(name))
    return folder


@pytest.mark.parametrize(
    "installer, remedy",
    [
        ("apt-get", "sudo apt-get install python3.11 python3.11-venv"),
        ("dnf", "sudo dnf install python3.11"),
        ("uv", "uv python install 3.11"),
    ],
)
def test_without_a_python_that_fits_run_sh_says_how_to_install_one(clone, programs, installer, remedy):
    """The only Python on the path is of another version; the remedy is that of the distribution."""
    for name in ("python3", installer):
        write_program(programs / name, "#!/bin/bash\nexit 1\n")
    result = subprocess.run(
        ["bash", "run.sh", "setup"], cwd=clone, capture_output=True, text=True, env={"PATH": str(programs)}, timeout=60
    )
    assert result.returncode == 2 and not (clone / ".venv").exists()
    assert "Python 3.10, 3.11 or 3.12 with venv is needed" in result.stderr and remedy in result.stderr
    assert "ROBUST_TICKETS_PYTHON=" in result.stderr


def test_run_sh_takes_the_python_of_uv(clone, programs):
    """Where uv has a Python 3.11, .venv is made with it."""
    write_program(programs / "uv", f'#!/bin/bash\n[ "$*" = "python find 3.11" ] && echo {programs}/theirs\n')
    write_program(programs / "theirs", '#!/bin/bash\necho "$@" >> calls\n')
    command, environment = ["bash", "run.sh", "setup"], {"PATH": str(programs)}
    subprocess.run(command, cwd=clone, capture_output=True, text=True, env=environment, timeout=60)
    assert f"-m venv --clear {clone}/.venv" in (clone / "calls").read_text()


def test_two_commands_at_once_make_the_environment_once(clone, programs):
    """The second would clear what the first is filling."""
    for name in ("cp", "flock", "mkdir", "sleep"):
        (programs / name).symlink_to(shutil.which(name))
    making = "mkdir -p .venv/bin; cp bin/python3.11 .venv/bin/python; until [ -e go ]; do sleep 0.02; done"
    write_program(programs / "python3.11", f'#!/bin/bash\necho "$@" >> calls\n[ "$2" != venv ] || {{ {making}; }}\n')
    environment, pipes = {"PATH": str(programs)}, {"stdout": subprocess.PIPE, "text": True}
    commands, lines = [], []
    for _ in range(2):
        commands.append(subprocess.Popen(["bash", "run.sh", "setup"], cwd=clone, env=environment, **pipes))
        lines.append(commands[-1].stdout.readline())
    (clone / "go").touch()
    assert [command.communicate(timeout=60) and command.returncode for command in commands] == [0, 0]
    assert lines[0].startswith("making .venv") and lines[1] == "another command is making .venv: waiting for it\n"
    assert (clone / "calls").read_text().count("-m venv --clear") == 1
