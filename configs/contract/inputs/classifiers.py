"""What the files of a classifier say before it is loaded: its labels and its longest input."""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from configs.contract.basics.errors import UserError, listed
from configs.contract.basics.files import read_json
from configs.contract.inputs.decode import PACKED, POINTER
from configs.contract.inputs.families import FAMILIES

TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "spm.model",
    "sentencepiece.model",
    "sentencepiece.bpe.model",
)
WITHOUT_VOCABULARY = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")  # these read bytes or characters
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json")
TOKENIZER_CONFIG = "tokenizer_config.json"
READ_AS_JSON = ("tokenizer.json", TOKENIZER_CONFIG, "vocab.json", *(name for name in WEIGHTS if "index" in name))
LARGE = ("*.safetensors", "*.bin", "*.model", "tokenizer.json")  # files in whose place git may have left a `POINTER`
# Transformers leaves values out of config.json that are its defaults.
DEFAULT_POSITIONS = {"xlnet": None, "modernbert": 8192}  # of other families 512; None for no limit
LONGEST = 512  # word pieces: the most that is read, and TextAttack's limit where a tokenizer states none
SHORTEST = 4  # a pair has three or four special pieces: fewer leave nothing of a text
# The first position follows the padding id, 1.
COUNTED_FROM_PADDING = (
    *(name for name, family in FAMILIES.items() if family.counts_from_padding),
    *("data2vec-text", "esm", "ibert", "longformer", "luke", "mpnet", "roberta-prelayernorm", "xlm-roberta-xl", "xmod"),
)
GENERIC = re.compile(r"(label|class)?[ _-]?\d+", re.IGNORECASE)


@functools.cache
def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFC", name).casefold())


# Tests whether two names mean the same label, the strictest first: C++ is not C, although c is the only letter of both.
SAME: tuple[Callable[[str, str], bool], ...] = (
    str.__eq__,
    lambda a, b: _plain(a) == _plain(b) != "",
    lambda a, b: (
        min(len(_plain(a)), len(_plain(b))) > 2 and (_plain(a).startswith(_plain(b)) or _plain(b).startswith(_plain(a)))
    ),
)


def check(folder: Path, labels: Sequence[str], length: int) -> tuple[int, ...] | None:
    """Check the files of a classifier that is to be attacked, of any family that transformers knows.

    Args:
        folder: Hugging Face directory.
        labels: Names of the data's labels, in the order of their numbers.
        length: Word pieces to which inputs are cut.

    Returns:
        The model's label for each label of the data, as `match_labels` returns it.

    Raises:
        UserError: The model cannot be attacked, or its labels are not those of the data.
    """
    names, config = label_names(folder), read_config(folder)
    contents = {
        file: read_json(folder / file, remedy="copy it again from where the model is from")
        for file in present(folder, READ_AS_JSON)
    }
    needs_vocabulary = contents.get(TOKENIZER_CONFIG, {}).get("tokenizer_class") not in WITHOUT_VOCABULARY
    required = {"tokenizer": TOKENIZERS if needs_vocabulary else (TOKENIZER_CONFIG,), "weights": WEIGHTS}
    for what, files in required.items():
        if not present(folder, files):
            if files is WEIGHTS:
                refuse_parts(folder)
            raise UserError(f"{folder}: no {what} ({' or '.join(files[:2])}); save the model's {what} there too")
    if not config.get("model_type"):
        raise UserError(f'{folder / "config.json"}: no model_type; add the model\'s family: "model_type": "bert"')
    check_length(folder, length)
    return match_labels(names, labels, folder)


def refuse_parts(folder: Path) -> None:
    """Refuse a folder that holds weights in parts without their index.

    Raises:
        UserError: It holds such parts.
    """
    if parts := sorted(folder.glob("*-of-*")):
        index = f"{parts[0].name.partition('-')[0]}{parts[0].suffix}.index.json"
        raise UserError(f"{folder}: holds parts of weights, such as {parts[0].name}; copy {index} too")


def check_length(folder: Path, length: int) -> None:
    """Refuse a model that has fewer positions than inputs of so many word pieces need.

    Raises:
        UserError: There are too few.
    """
    positions = longest_input(read_config(folder))
    if positions is not None and positions < length:
        raise UserError(
            f"{folder}: a model of {positions} positions, but inputs have up to {length} (data.max_length, or 512 "
            f"under attack.protocol=official); give a smaller data.max_length, or a model of more positions"
        )


def present(folder: Path, files: Iterable[str]) -> list[str]:
    """Return those of the files that a folder has."""
    return [file for file in files if (folder / file).is_file()]


def longest_input(config: dict) -> int | None:
    """Return how many positions a model of this `config.json` has for its input; None if nothing limits them."""
    kind = config.get("model_type", "")
    default = config.get("n_positions", DEFAULT_POSITIONS.get(kind, 512))  # GPT-2's name of the key
    positions = config.get("max_position_embeddings", default)
    if type(positions) is not int or positions < 1:
        return None
    return positions - config.get("pad_token_id", 1) - 1 if kind in COUNTED_FROM_PADDING else positions


def longest_common_input(folders: Iterable[Path]) -> int:
    """Return how many word pieces all models can read, by what their tokenizers and configurations state.

    Args:
        folders: Hugging Face directories.

    Raises:
        UserError: A model states a length below `SHORTEST`.
    """
    lengths = [LONGEST]
    for folder in folders:
        tokenizer = folder / TOKENIZER_CONFIG
        stated = read_json(tokenizer, remedy="copy the tokenizer again") if tokenizer.is_file() else {}
        limits = (stated.get("model_max_length"), longest_input(read_config(folder)))
        lengths += [int(limit) for limit in limits if isinstance(limit, int | float) and limit > 0]
        if min(lengths) < SHORTEST:
            raise UserError(
                f"{folder}: its tokenizer_config.json or config.json limits a text to {min(lengths)} word pieces, "
                f"which leaves nothing of it; correct model_max_length there, or give max_length=128"
            )
    return min(lengths)


def match_labels(names: Sequence[str], labels: Sequence[str], folder: Path) -> tuple[int, ...] | None:
    """Find the model's label for each label of the data, by name.

    Names match if they are the same but for case, spaces and punctuation, or if both have three letters or more and
    one begins with the other, as `neg` and `negative` do. Names without a meaning (`LABEL_0`, numbers) are taken in
    their order.

    Returns:
        The number of the model's label for each label of the data; None if the order is the same, or is taken to be.

    Raises:
        UserError: The names differ, or their number does.
    """
    lists = f"its labels are {listed(names)}; the data's are {listed(labels)}"
    if len(names) != len(labels):
        raise UserError(
            f"{folder}: a classifier of {len(names)} labels for data of {len(labels)}: {lists}; give a classifier of "
            f"the data's labels; to `score`, name all of the model's with labels=[...], also those that no text has"
        )
    for same in SAME:
        matches = [[number for number, name in enumerate(names) if same(name, label)] for label in labels]
        order = tuple(numbers[0] for numbers in matches if len(numbers) == 1)
        if len(set(order)) == len(labels):
            return None if order == tuple(range(len(labels))) else order
    if says_nothing(names) or says_nothing(labels):
        return None
    raise UserError(
        f"{folder}: {lists}: which is which cannot be told; write the data's names into id2label of "
        f"{folder / 'config.json'}, or name the data's labels with data.labels"
    )


def find_label(label: str, names: Sequence[str]) -> int | None:
    """Find the one name that a label means, as `match_labels` compares them; None if no name or several do."""
    for same in SAME:
        numbers = [number for number, name in enumerate(names) if same(name, label)]
        if len(numbers) == 1:
            return numbers[0]
    return None


def says_nothing(names: Sequence[str]) -> bool:
    """Tell whether label names are only numbers, such as `LABEL_0`."""
    return all(GENERIC.fullmatch(name) for name in names)


def read_config(folder: Path) -> dict:
    """Read config.json of a model.

    Raises:
        UserError: It is missing or damaged, lacks the padding id from which its family counts positions, or the weights
            are an adapter's or were not fetched.
    """
    if (folder / "adapter_config.json").is_file():
        raise UserError(
            f"{folder} holds an adapter (adapter_config.json), not a whole model; write one with "
            f"merge_and_unload().save_pretrained(FOLDER) of peft, and save the tokenizer there too"
        )
    if not (folder / "config.json").is_file():
        inner = [f", such as {path.parent.name} in it" for path in sorted(folder.glob("*/config.json"))]
        raise UserError(f"{folder} has no config.json; give a Hugging Face directory{''.join(inner[-1:])}")
    for file in (path for ending in LARGE for path in folder.glob(ending) if path.is_file()):
        with open(file, "rb") as content:
            if content.read(len(POINTER)) == POINTER:
                raise UserError(f"{file} {PACKED[POINTER]}")
    config = read_json(folder / "config.json", remedy="copy the model again")
    if not isinstance(config.get("model_type"), str | None):
        raise UserError(f'{folder / "config.json"}: model_type must be text, such as "bert"; copy the model again')
    padding = config.get("pad_token_id", 1)
    if config.get("model_type") in COUNTED_FROM_PADDING and type(padding) is not int:
        raise UserError(f"{folder / 'config.json'}: pad_token_id is {padding!r:.40}, not a whole number")
    return config


def label_names(folder: Path) -> list[str]:
    """Return the names of a classifier's labels in the order of their numbers, as transformers reads `config.json`.

    Raises:
        UserError: They are not numbered from 0 on, or share a name; there is only one, as in a regression; or
            `label2id` contradicts `id2label`, or alone has the names.
    """
    config, file = read_config(folder), folder / "config.json"
    count = config.get("num_labels", 2)
    if type(count) is not int:
        raise UserError(f"{file}: num_labels must be a whole number, not {count!r:.40}")
    numbers, unnamed = config.get("label2id"), {str(number): f"LABEL_{number}" for number in range(count)}
    names = config.get("id2label") or unnamed
    if names is unnamed and isinstance(numbers, dict) and not numbers.keys() <= set(unnamed.values()):
        stated = json.dumps({str(number): name for name, number in numbers.items()})
        raise UserError(
            f"{file}: label2id alone names the labels, and transformers reads them from id2label; "
            f'add "id2label": {stated}'
        )
    if not isinstance(names, dict) or sorted(names) != sorted(str(number) for number in range(len(names))):
        found = names if isinstance(names, dict | list) else [names]
        raise UserError(f"{file}: id2label must number the labels from 0 on, not {listed(found)}")
    if len(names) < 2 or config.get("problem_type") == "regression":
        raise UserError(f"{file}: one label only, or a regression; give a classifier of two labels or more")
    ordered = [str(names[str(number)]) for number in range(len(names))]
    named = all(isinstance(name, str | int | float) and str(name).strip() for name in names.values())
    if not named or len(set(ordered)) < len(ordered):
        raise UserError(f"{file}: id2label must give every label a name of its own, not {listed(ordered)}")
    if isinstance(numbers, dict) and numbers.keys() == set(ordered):
        other = next((name for number, name in enumerate(ordered) if str(numbers[name]) != str(number)), None)
        if other is not None:
            raise UserError(
                f"{file}: id2label calls the label {ordered.index(other)} {other}, label2id says that {other} is "
                f"{numbers[other]}; correct the one that is wrong"
            )
    return ordered
