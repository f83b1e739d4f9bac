"""Whether a victim reads texts as its training did: the ids of a sample, written by the training, are compared."""

from __future__ import annotations

from pathlib import Path

import msgspec

from configs.contract.basics.files import read_json
from configs.contract.inputs.tokenizer import TOKEN_IDS, compare_ids


class Row(msgspec.Struct):
    """One text, or the two of a pair, and their ids."""

    texts: list[str]
    ids: list[int]


class Sample(msgspec.Struct):
    """Content of `TOKEN_IDS`; texts are cut at `max_length` pieces."""

    max_length: int
    texts: list[Row]


def check_token_ids(model: Path) -> None:
    """Compare the ids that transformers gives with those of the training; for a model from elsewhere there are none.

    Args:
        model: Directory of a classifier.

    Raises:
        UserError: With the first text whose ids differ, and both lists.
    """
    path = model.parent / TOKEN_IDS
    if not path.is_file():
        return
    from transformers import AutoTokenizer  # takes seconds: only the processes that attack load it

    sample = read_json(path, Sample, f"delete {model.parent} to train the model again")
    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True, trust_remote_code=False)

    def encode(*texts: str) -> list[int]:
        return tokenizer(*texts, truncation=True, max_length=sample.max_length)["input_ids"]

    compare_ids([msgspec.structs.asdict(row) for row in sample.texts], encode, str(model))
