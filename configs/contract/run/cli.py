"""The command line of both halves and of the plan: sub-commands, CONFIG, key=value, and help texts."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from configs.contract.basics.errors import UserError
from configs.contract.experiment import schema
from configs.contract.experiment.options import help_line
from configs.contract.run.run_dir import RUNS, RunDir


class Parser(argparse.ArgumentParser):
    """A parser that reports a wrong command line as every other mistake of the user is reported."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise `UserError` with what is wrong and where the allowed arguments are listed."""
        raise UserError(f"{message}; `{self.prog} --help` lists what can be given")


def help_text(sections: Collection[str] = ()) -> str:
    """Return the help text of all keys, or of those of some sections, with defaults and choices."""
    rows = [
        help_line(name, field)
        for name, (field, _) in schema.keys().items()
        if not sections or name.partition(".")[0] in sections
    ]
    return "\n".join(rows)


def program(name: str, description: str) -> tuple[Parser, argparse._SubParsersAction]:
    """Create the parser of a program, whose help lists every key of a configuration.

    Returns:
        The parser, and what `add_command` adds sub-commands to.
    """
    keys = f"keys of a configuration, with their defaults (null: unset):\n{help_text()}"
    parser = Parser(prog=f"python -m {name}", description=description, epilog=keys)
    return parser, parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")


def add_command(
    commands: argparse._SubParsersAction,
    function: Callable,
    name: str = "",
    description: str = "",
    *,
    config: bool = True,
    sections: Collection[str] = (),
    delegates: bool = False,
) -> Parser:
    """Add a sub-command.

    Args:
        commands: The sub-commands of a program.
        function: What the command runs, called with the parsed arguments.
        name: Name of the command, if it is not the function's.
        description: Help text, if it is not the function's docstring; the list of commands shows its first line.
        config: Whether the command is about an experiment, and takes `CONFIG [key=value ...]`.
        sections: Sections of the configuration whose keys the help lists.
        delegates: Whether the function parses the arguments itself, given as `options.arguments`: its module, which
            takes seconds to load, has the parser.
    """
    name, text = name or function.__name__, inspect.cleandoc(description or function.__doc__ or "")
    lines = (
        [f"keys of {', '.join(sections)}, with their defaults (null: unset):", help_text(sections)] if sections else []
    )
    lines += [f"`{commands._prog_prefix} --help` lists every key of a configuration."] if config else []
    summary, epilog = text.splitlines()[0], "\n".join(lines)
    parser = commands.add_parser(name, help=summary, description=text, epilog=epilog, add_help=not delegates)
    parser.set_defaults(function=function, parser=parser, delegates=delegates)
    if config:
        parser.add_argument("config", metavar="CONFIG", help="name of a file in configs/ (demo, sst2 ...), or a path")
        parser.add_argument(
            "overrides", nargs="*", default=[], metavar="key=value", help="changes to the configuration"
        )
    return parser


def parse(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line. Words (overrides, or other arguments) may follow an option, which argparse alone refuses.

    Raises:
        UserError: An argument is missing, unknown or not allowed.
    """
    options, rest = parser.parse_known_args(arguments)
    if options.delegates:
        options.arguments = list(arguments[1:])
        return options
    words = next((name for name in ("overrides", "arguments") if name in options), None)
    unknown = [text for text in rest if text.startswith("-") or words is None]
    if unknown:
        options.parser.error(f"unknown argument {unknown[0]!r}")
    if words:
        setattr(options, words, [*getattr(options, words), *rest])
    return options


def names_and_keys(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """Divide the words of a command line into names of files or configurations, and `key=value` texts."""
    names, keys = list[str](), list[str]()
    for word in words:
        (keys if "=" in word and not Path(word).exists() else names).append(word)
    return names, keys


def run_dir(options: argparse.Namespace, runs: Path = RUNS) -> RunDir:
    """Load the experiment that a command is about."""
    return RunDir(schema.load(options.config, options.overrides), runs)
