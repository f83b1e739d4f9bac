"""Read YAML files and `key=value` texts into dotted keys, remember where each key was set, and check its value."""

from __future__ import annotations

import contextlib
import math
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import with_home

CONFIG_DIR = Path(__file__).parents[2]
ZOO, ENTRY = CONFIG_DIR / "zoo", "experiment.yaml"  # each folder of the zoo has a configuration of this name
NOTHING = ("null", "~")  # these unset a text on the command line; an empty text does so there and in files
LARGEST = 2**31 - 1  # of a number without a limit of its own: no more fit into MindSpore's and NumPy's counters
COMMAND_LINE = "the command line"  # origin of keys that no file sets; a later one replaces an earlier one


class Values:
    """The values of dotted keys, and the origin of each: a file or the command line.

    Args:
        known: Every dotted key with its field and type, from `schema.keys`.
    """

    def __init__(self, known: Mapping[str, tuple[Any, Any]]) -> None:
        self.sections = {name.partition(".")[0] for name in known if "." in name}
        self.texts = {name for name, (_, hint) in known.items() if hint in (str, str | None)}
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}

    def read_file(self, path: Path, below: tuple[Path, ...] = ()) -> None:
        """Add the keys of a YAML file, after those of the file that it `extends`.

        Args:
            path: The YAML file.
            below: Files that extend this one, directly or not.

        Raises:
            UserError: The file cannot be read. The message names the file, and the line or the key.
        """
        loaded = load_yaml(path)
        parent = loaded.pop("extends", None)
        below = (*below, path.resolve())
        if parent is not None:
            try:
                extended = find(parent, path.parent) if isinstance(parent, str) and parent.isprintable() else path
            except UserError as error:
                raise UserError(f"{path}: extends: {error}") from None
            if extended.resolve() in below:
                raise UserError(f"{path}: extends: name another configuration, not {quoted(parent)}")
            self.read_file(extended, below)
        if isinstance(given := loaded.get("tickets_from"), str) and (path.parent / given).is_file():
            loaded["tickets_from"] = str((path.parent / given).resolve())
        self._merge(loaded, str(path))

    def read_override(self, text: str) -> None:
        """Add one `key=value` of the command line.

        A text stands as it is, unless it is quoted: YAML would end a path at a #, and take [x].csv for a list.

        Raises:
            UserError: There is no key, or the value is not YAML.
        """
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise UserError(f"`{text}` on the command line: write overrides as key=value, such as search.epochs=5")
        is_text = key in self.texts and value.strip() not in NOTHING
        try:
            parsed = _Loader(value).get_single_data()
        except (yaml.YAMLError, ValueError, RecursionError):
            if not is_text:
                raise UserError(f"{key:.80} on the command line: {quoted(value)} is not valid YAML") from None
            parsed = None
        if is_text and not (isinstance(parsed, str) and value.startswith(("'", '"'))):
            parsed = value.strip()
        self._merge({key: parsed}, COMMAND_LINE)

    def _merge(self, new: Mapping[Any, Any], origin: str, prefix: str = "") -> None:
        if prefix.count(".") > 1:  # a YAML alias that refers to itself ends here too
            raise UserError(
                f"{prefix[:-1]} in {origin}: expected one value or a list, found a mapping; write {_as_list(new)}"
            )
        for key, value in new.items():
            name = f"{prefix}{key}"
            if not name.isprintable() or len(name) > 80:
                raise UserError(f"{quoted(name)} in {origin}: unknown key")
            if isinstance(value, dict):
                self._merge(value, origin, f"{name}.")
            elif name in self.sections:
                raise UserError(f"{name} in {origin}: this is a section; set its keys, such as {name}.KEY")
            elif self.origins.get(name) == origin != COMMAND_LINE:
                raise UserError(f"{name} in {origin}: set twice, in its section and as a dotted key; keep one")
            else:
                nothing = name in self.texts and isinstance(value, str) and not value.strip()
                self.values[name], self.origins[name] = None if nothing else value, origin


def find(source: str, folder: Path = Path()) -> Path:
    """Return the file of a configuration.

    Args:
        source: Name of a file in `configs/` without its suffix, `zoo/` and a name of the zoo, or a path.
        folder: Where a relative path begins: that of the file that names it, or the current one.

    Raises:
        UserError: There is no such file.
    """
    given = with_home(source)
    for path in (CONFIG_DIR / f"{source}.yaml", CONFIG_DIR / source / ENTRY, folder / given):
        if path.is_file():
            return path
    known = ", ".join(sorted([p.stem for p in CONFIG_DIR.glob("*.yaml")] + [f"zoo/{p.name}" for p in ZOO.glob("*/")]))
    raise UserError(f"no configuration `{source}`: give a YAML file, or one of {known}")


PLAIN_WORDS = yaml.SafeLoader.yaml_implicit_resolvers  # first letter to what PyYAML takes an unquoted word for


class _Loader(yaml.SafeLoader):
    """Refuses a repeated key, which PyYAML takes silently, and reads numbers as people write them.

    In PyYAML's version of YAML, 010 is 8 and 1:30 is 90. Here as in YAML 1.2 the first is 10, the second a text. So is
    a date.
    """

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("int", "timestamp")]
        for first, resolvers in PLAIN_WORDS.items()
    }

    def compose_mapping_node(self, anchor: dict) -> yaml.MappingNode:
        node, seen = super().compose_mapping_node(anchor), set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise ComposerError(None, None, f"{quoted(key.value)} appears twice, keep one", key.start_mark)
                seen.add(key.value)
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes a text that `_Loader` would read as a number, such as 0809."""


for reader_or_writer in (_Loader, _Dumper):
    reader_or_writer.add_implicit_resolver(
        "tag:yaml.org,2002:int", re.compile(r"[-+]?\d+$", re.ASCII), list("-+0123456789")
    )
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))


def load_yaml(path: Path) -> dict[Any, Any]:
    """Read a YAML file of `key: value` lines.

    Raises:
        UserError: It is not such a file. The message names the file and the line.
    """
    try:
        loaded = _Loader(path.read_text(encoding="utf-8")).get_single_data()
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise UserError(f"{path}{line}: not valid YAML ({problem})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    loaded = {} if loaded is None else loaded
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: expected `key: value` lines, found a {type(loaded).__name__}")
    return loaded


def yaml_text(values: Mapping[str, Any]) -> str:
    """Return a YAML file that `load_yaml` reads as these values."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)


def _as_list(pairs: Mapping[Any, Any]) -> str:
    """Return how pairs of labels or folders are written: [0=neg, 1=pos]; names with their numbers only in order."""
    parts = [part for pair in pairs.items() for part in pair]
    if any(isinstance(part, bool) for part in parts):  # nobody knows which word stood there
        return "a list, and quote no, yes, on, off, true and false in it"
    if not pairs or not all(isinstance(part, str | int | float) for part in parts):
        return "a list"
    numbered = all(isinstance(key, str) and isinstance(value, int) for key, value in pairs.items())
    items = sorted(pairs, key=pairs.__getitem__) if numbered else [f"{key}={value}" for key, value in pairs.items()]
    return f"[{', '.join(map(str, items)):.80}]"


def quoted(value: object) -> str:
    """Return a user's value for a message, on one short line.

    Lists are named, not shown: YAML aliases make megabytes of lists out of a kilobyte.
    """
    if value is None:
        return "nothing"
    kind = "mapping" if isinstance(value, dict) else type(value).__name__
    return f"{value!r:.80}" if isinstance(value, str | int | float) else f"a {kind}"


def checked(where: str, value: Any, hint: Any, limits: Mapping[str, Any], in_list: bool = False) -> Any:
    """Check a value, and convert it to its type where nothing is lost.

    Args:
        where: Key and origin, for messages.
        value: Value from YAML.
        hint: Type that the key has.
        limits: `low`, `high`, `choices` and `pattern`, as in `sections.option`.
        in_list: Whether the value is an item of a list.

    Raises:
        UserError: The value has another type, or breaks a limit.
    """
    if isinstance(hint, types.UnionType):
        kinds = typing.get_args(hint)
        if value is None and types.NoneType in kinds:
            return None
        hint = next((kind for kind in kinds if kind is type(value)), kinds[0])
    if typing.get_origin(hint) is list:
        items = value if isinstance(value, list) else [value]
        if not items:
            raise UserError(f"{where}: give at least one value")
        return [checked(where, item, typing.get_args(hint)[0], limits, True) for item in items]
    # A list without its brackets is one text, which may even be of the right type.
    commas = isinstance(value, str) and "," in value
    remedy = f"; write a list: [{value.strip('[]'):.80}]" if in_list and commas else ""
    value = _converted(where, value, hint, in_list, remedy)
    _check_limits(where, value, limits, remedy)
    return value


def _converted(where: str, value: Any, hint: type, in_list: bool, remedy: str) -> Any:
    """Return a single value as its type; arguments as for `checked`."""
    if isinstance(value, int) and value.bit_length() > 63:
        raise UserError(f"{where}: a number of {value.bit_length()} bits; 63 are the most")
    if hint is float and isinstance(value, str):
        # YAML 1.1 reads 2e-5 as a string; a learning rate written so is meant as a number.
        with contextlib.suppress(ValueError):
            value = float(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if hint is str and type(value) in (int, float) and in_list:
        value = str(value)  # labels: [1, 2], or [1.0, 2.0]
    if type(value) is not hint:
        names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        if hint is str and isinstance(value, bool):
            remedy = "; YAML reads no, yes, on and off so: quote them"
        elif hint is str and isinstance(value, dict):
            remedy = f"; write {_as_list(value).strip('[]')}"
        raise UserError(f"{where}: expected {names[hint]}, found {quoted(value)}{remedy}")
    if isinstance(value, str) and value.startswith("~/"):  # the shell leaves it as it is after `data.train=`
        return str(with_home(value))
    return value


def _check_limits(where: str, value: Any, limits: Mapping[str, Any], remedy: str) -> None:
    """Refuse a value of its type that breaks a limit; arguments as for `checked`."""
    choices, low, high = (limits.get(name) for name in ("choices", "low", "high"))
    if choices and value not in choices:
        raise UserError(f"{where}: {quoted(value)} is not one of {', '.join(choices)}{remedy}")
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise UserError(f"{where}: {quoted(value)} holds half a character (a lone surrogate)")
        if limits.get("pattern") and not re.fullmatch(limits["pattern"], value):
            raise UserError(f"{where}: {quoted(value)} is neither a number nor a share such as 0.5%")
        return
    if not math.isfinite(value):
        raise UserError(f"{where}: expected a finite number, found {value}")
    if high is None and isinstance(value, int) and value > LARGEST:
        high = LARGEST
    if (low is not None and value < low) or (high is not None and value > high):
        span = f"from {low} to {high}" if high is not None else f"{low} or more"
        raise UserError(f"{where}: {value} is out of range, allowed is {span}")
