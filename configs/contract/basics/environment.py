"""Check that a Python environment has the packages that the requirements files name.

./run.sh runs this file in an environment that it did not make itself (ROBUST_TICKETS_PYTHON). So this file needs
nothing but the standard library.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from configs.contract.basics.errors import UserError, command

PYTHONS = ((3, 10), (3, 11), (3, 12))
# Packages whose versions may differ from the pinned one, from the first to the last that are accepted. An Ascend
# machine has the MindSpore that fits its CANN, and a protobuf for its tools.
ACCEPTED = {"mindspore": ("2.7.0", "2.10.0"), "protobuf": ("3.20.2", "7.99")}
LINE = re.compile(
    r"(?P<name>[\w.-]+)==(?P<version>[^\s;]+)(?:\s*;\s*python_version\s*(?P<sign><|>=)\s*\"3\.(?P<minor>\d+)\")?$"
)


def requirements(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (package, version) of a requirements file and of those that it includes.

    Lines for other versions of Python are left out.

    Raises:
        ValueError: A line is no pinned package.
    """
    for line in path.read_text(encoding="utf-8").splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("-r "):
            yield from requirements(path.parent / line[3:].strip())
        elif line:
            match = LINE.match(line)
            if not match:
                raise ValueError(f"{path}: `{line}` is not a pinned package")
            older = sys.version_info[1] < int(match["minor"] or 0)
            if not match["sign"] or older == (match["sign"] == "<"):
                yield match["name"], match["version"]


def fits(name: str, version: str, wanted: str) -> bool:
    """Return whether an installed version can stand in for the pinned one; a local part such as +cpu does not count."""
    version = version.partition("+")[0]
    if name not in ACCEPTED:
        return version == wanted
    first, last, given = (tuple(map(int, re.findall(r"\d+", text)[:3])) for text in (*ACCEPTED[name], version))
    return first <= given <= last


def problems(paths: list[Path]) -> dict[str, str]:
    """Return what is wrong with each package of the requirements files in the environment that runs this.

    Returns:
        From the requirement, as pip takes it, to what is there instead.
    """
    wrong = {}
    for name, wanted in dict(pair for path in paths for pair in requirements(path)).items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong[f"{name}=={wanted}"] = "missing"
        else:
            if not fits(name, version, wanted):
                wrong[f"{name}=={wanted}"] = f"is {version}"
    return wrong


def check(paths: list[Path]) -> None:
    """Stop with one message if this environment cannot run the project.

    Raises:
        UserError: Lists all packages that are missing or of another version, and the pip command that installs them.
    """
    if sys.version_info[:2] not in PYTHONS:
        first, last = (f"{major}.{minor}" for major, minor in (PYTHONS[0], PYTHONS[-1]))
        raise UserError(f"{sys.executable} is Python {sys.version.split()[0]}; {first} to {last} is needed")
    wrong = problems(paths)
    if wrong:
        lines = "".join(f"\n  {requirement}: {what}" for requirement, what in wrong.items())
        raise UserError(
            f"{sys.executable} lacks packages that {' and '.join(path.name for path in paths)} name:{lines}\n"
            f"install them with\n  {sys.executable} -m pip install {' '.join(wrong)}"
        )


@command
def main(arguments: list[str]) -> int:
    """Check this environment against requirements files."""
    check([Path(argument) for argument in arguments])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
