"""Options of commands that are about no experiment: `key=value` texts into a dataclass of `schema.option` fields."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Iterable
from typing import Any, TypeVar

from configs.contract.errors import UserError
from configs.contract.read_values import Values, checked

T = TypeVar("T")


def help_line(name: str, field: dataclasses.Field) -> str:
    """Return the line of a key in a help text: default, meaning and choices."""
    default = field.default_factory() if callable(field.default_factory) else field.default
    choices = f" ({', '.join(field.metadata['choices'])})" if field.metadata.get("choices") else ""
    return f"  {name + '=' + str(default):42s} {field.metadata['help']}{choices}"


def read_options(kind: type[T], arguments: Iterable[str], command: str) -> T:
    """Read the options of a command.

    Args:
        kind: The dataclass; its fields have the defaults and limits.
        arguments: `key=value` texts. Values are YAML.
        command: Name of the command, for messages.

    Raises:
        UserError: A key is unknown, or a value is not allowed; the message names the key and what is.
        SystemExit: Help was asked for, and printed: what the module of `kind` says of itself, and the options.
    """
    arguments = list(arguments)
    fields: dict[str, dataclasses.Field] = {f.name: f for f in dataclasses.fields(typing.cast(Any, kind))}
    if {"-h", "--help"} & set(arguments):
        print(sys.modules[kind.__module__].__doc__, *map(help_line, fields, fields.values()), sep="\n")
        raise SystemExit
    hints = typing.get_type_hints(kind)
    values = Values(hints)
    for text in arguments:
        values.read_override(text)
    for name, value in values.values.items():
        if name not in fields:
            raise UserError(f"{command}: unknown key {name}; known are {', '.join(fields)}")
        values.values[name] = checked(f"{command}: {name}", value, hints[name], fields[name].metadata)
    return kind(**values.values)
