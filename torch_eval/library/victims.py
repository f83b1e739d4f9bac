"""What the files of models say before they are loaded: how long their inputs may be."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from configs.contract import classifiers
from configs.contract.files import read_json

LONGEST = 512  # word pieces: the most that is read, and TextAttack's limit where a tokenizer states none


def longest_common_input(folders: Iterable[Path]) -> int:
    """Return how many word pieces all models can read, by what their tokenizers and configurations state.

    Args:
        folders: Hugging Face directories.
    """
    lengths = [LONGEST]
    for folder in folders:
        config, tokenizer = folder / "config.json", folder / "tokenizer_config.json"
        stated = read_json(tokenizer).get("model_max_length") if tokenizer.is_file() else None
        positions = classifiers.longest_input(read_json(config)) if config.is_file() else None
        lengths += [int(limit) for limit in (stated, positions) if limit]
    return min(lengths)
