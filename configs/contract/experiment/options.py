"""Options of commands that are about no experiment: `key=value` texts into a dataclass of `sections.option` fields."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from typing import TypeVar

from configs.contract.basics.errors import UserError
from configs.contract.experiment.read_values import Values, checked
from configs.contract.experiment.schema import keys

T = TypeVar("T")


def help_line(name: str, field: dataclasses.Field) -> str:
    """Return the line of a key in a help text: default, as a command line takes it, then meaning and choices."""
    default = field.default_factory() if callable(field.default_factory) else field.default
    choices = f" ({', '.join(field.metadata['choices'])})" if field.metadata.get("choices") else ""
    return f"  {f'{name}={as_typed(default)}':42s} {field.metadata['help']}{choices}"


def as_typed(value: object) -> str:
    """Return a value as a command line takes it, without spaces: `null`, `true`, `[1,2]`."""
    if isinstance(value, list):
        return f"[{','.join(map(as_typed, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def read_options(kind: type[T], arguments: Iterable[str], command: str) -> T:
    """Read the options of a command.

    Args:
        kind: The dataclass; its fields have the defaults and limits.
        arguments: `key=value` texts. Values are YAML.
        command: Name of the command, for messages.

    Raises:
        UserError: A key is unknown, or a value is not allowed; the message names the key, and what is allowed.
        SystemExit: Help was asked for, and printed: the docstring of the module of `kind`, and the options.
    """
    arguments, known = list(arguments), keys(kind)
    if {"-h", "--help"} & set(arguments):
        lines = (help_line(name, field) for name, (field, _) in known.items())
        print(sys.modules[kind.__module__].__doc__, *lines, sep="\n")
        raise SystemExit
    values = Values(known)
    for text in arguments:
        values.read_override(text)
    for name, value in values.values.items():
        if name not in known:
            raise UserError(f"{command}: unknown key {name}; known are {', '.join(known)}")
        field, hint = known[name]
        values.values[name] = checked(f"{command}: {name}", value, hint, field.metadata)
    return kind(**values.values)
