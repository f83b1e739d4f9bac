"""What the files of models say before they are loaded: how long their inputs may be."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from configs.contract import classifiers
from configs.contract.files import read_json


def longest_common_input(folders: Iterable[Path], most: int) -> int:
    """Return the word pieces to which inputs of all models are cut: what their tokenizers state, as in TextAttack.

    Args:
        folders: Hugging Face directories.
        most: where a tokenizer states no limit.
    """
    lengths = [most]
    for folder in folders:
        config, tokenizer = folder / "config.json", folder / "tokenizer_config.json"
        stated = read_json(tokenizer).get("model_max_length") if tokenizer.is_file() else None
        positions = classifiers.longest_input(read_json(config)) if config.is_file() else None
        lengths += [int(limit) for limit in (stated, positions) if limit]
    return min(lengths)
