"""Any sequence classifier of transformers on padded batches, as the library computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from torch_eval.victim.unpadded import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PaddedClassifier:
    """A model in evaluation mode; rows are padded on the side and with the ids that its tokenizer pads with.

    Args:
        model: A `...ForSequenceClassification`.
        tokenizer: Its tokenizer.
        length: The length that every row is padded to, as TextAttack's wrapper does; None: that of the longest row.
    """

    def __init__(self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, length: int | None = None) -> None:
        self.model, self.length = model, length
        self.on_left = tokenizer.padding_side == "left"
        # As in TextAttack's wrapper, a tokenizer that makes no mask leaves the padding to be read.
        self.masks = "attention_mask" in tokenizer.model_input_names
        self.fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}

    def __call__(self, rows: Sequence[Row]) -> torch.Tensor:
        """Compute logits (rows, labels)."""
        width = self.length or max(len(row["input_ids"]) for row in rows)
        masked = [{**row, "attention_mask": [1] * len(row["input_ids"])} if self.masks else row for row in rows]
        inputs = {name: self._tensor([row[name] for row in masked], name, width) for name in masked[0]}
        return self.model(**inputs, return_dict=True).logits

    def _tensor(self, values: list[list[int]], name: str, width: int) -> torch.Tensor:
        fill = self.fill.get(name, 0)
        if self.on_left:
            padded = [[fill] * (width - len(row)) + row for row in values]
        else:
            padded = [row + [fill] * (width - len(row)) for row in values]
        return torch.tensor(padded, device=self.model.device)
