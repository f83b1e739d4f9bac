"""What the files of a BERT classifier say before it is loaded: its kind, its labels, its positions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from configs.contract.errors import UserError
from configs.contract.files import read_json

TOKENIZERS = ("tokenizer.json", "vocab.txt")
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json")
DEFAULT_POSITIONS = 512  # transformers leaves values out of config.json that are its defaults
GENERIC = re.compile(r"(label|class)?[ _-]?\d+", re.IGNORECASE)


def check(folder: Path, labels: Sequence[str], length: int) -> tuple[int, ...] | None:
    """Check the files of a classifier that is to be attacked.

    Args:
        folder: Hugging Face directory.
        labels: names of the data's labels, in the order of their numbers.
        length: word pieces to which inputs are cut.

    Returns:
        The model's label for each label of the data; None if they are the same.

    Raises:
        UserError: the model cannot be attacked, or its labels are others.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} has no config.json; give a Hugging Face directory")
    config = read_json(folder / "config.json")
    if config.get("model_type") != "bert":
        raise UserError(f"{folder}: a {config.get('model_type')} model; only BERT classifiers are scored")
    for key, usual in (("position_embedding_type", "absolute"), ("is_decoder", False)):
        if config.get(key, usual) != usual:  # `torch_eval.victim.unpadded_bert` computes only the usual one
            raise UserError(f"{folder}: {key} is {config[key]!r}; only classifiers with {usual!r} are scored")
    for what, files in (("tokenizer", TOKENIZERS), ("weights", WEIGHTS)):
        if not any((folder / file).is_file() for file in files):
            raise UserError(f"{folder}: no {what} ({' or '.join(files[:2])}); save the model's {what} there too")
    positions = config.get("max_position_embeddings", DEFAULT_POSITIONS)
    if type(positions) is not int or positions < length:
        raise UserError(
            f"{folder}: a BERT of {positions} positions, but inputs have up to {length} (data.max_length, or 512 under "
            f"attack.protocol=official); give a smaller data.max_length, or a model of more positions"
        )
    names = config.get("id2label")
    if not isinstance(names, dict):
        names = {"0": "LABEL_0", "1": "LABEL_1"}  # where transformers leaves them out
    if sorted(names) != sorted(str(number) for number in range(len(names))):
        raise UserError(f"{folder / 'config.json'}: id2label must number the labels from 0 on, not {', '.join(names)}")
    return match_labels([str(names[str(number)]) for number in range(len(names))], labels, folder)


def match_labels(names: Sequence[str], labels: Sequence[str], folder: Path) -> tuple[int, ...] | None:
    """Find the model's label for each label of the data, by name.

    Names match if they are the same but for case, spaces and punctuation, or if one begins with the other, as `neg`
    and `negative` do. Names that say nothing (`LABEL_0`, numbers) are taken in their order.

    Returns:
        The number of the model's label for each label of the data; None if the order is the same.

    Raises:
        UserError: the names differ, or their number does.
    """
    lists = f"its labels are {', '.join(names)}; the data's are {', '.join(labels)}"
    if len(names) != len(labels):
        raise UserError(f"{folder}: a classifier of {len(names)} labels for data of {len(labels)}: {lists}")
    theirs, ours = ([re.sub(r"[\W_]+", "", name.casefold()) for name in side] for side in (names, labels))
    for same in (str.__eq__, lambda a, b: min(len(a), len(b)) > 2 and (a.startswith(b) or b.startswith(a))):
        matches = [[number for number, name in enumerate(theirs) if same(name, label)] for label in ours]
        order = tuple(found[0] for found in matches if len(found) == 1)
        if len(set(order)) == len(labels):
            return None if order == tuple(range(len(labels))) else order
    if says_nothing(names) or says_nothing(labels):
        return None
    raise UserError(
        f"{folder}: {lists}: which is which cannot be told; write the data's names into id2label of "
        f"{folder / 'config.json'}, or name the data's labels with data.labels"
    )


def says_nothing(names: Sequence[str]) -> bool:
    """Tell whether label names are only numbers, such as `LABEL_0`."""
    return all(GENERIC.fullmatch(name) for name in names)


def label_names(folder: Path) -> list[str]:
    """Return the label names of a model's `config.json`, in the order of their numbers; empty if it has none."""
    names = read_json(folder / "config.json").get("id2label")
    return [str(names[number]) for number in sorted(names, key=int)] if isinstance(names, dict) else []
