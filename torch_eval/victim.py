"""An exported model directory as a fast, exact classifier for attacks."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import torch
import torch_eval.resources  # noqa: F401  sets what the next import needs
from textattack.models.wrappers import ModelWrapper
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from configs.errors import UserError

MICRO_BATCH = 32  # on CPU, 8 to 32 rows a forward pass give the most rows a second


class Victim(ModelWrapper):
    """Logits of a Hugging Face classifier for texts or pairs of texts.

    The same function as TextAttack's `HuggingFaceModelWrapper` at the same length, which pads every
    input to `max_length`: here each distinct input is classified once, sorted by length and padded to the
    longest of its batch.

    Raises `UserError` if the directory cannot be loaded.
    """

    def __init__(self, directory: Path, max_length: int):
        if not Path(directory).is_dir():
            raise UserError(f"{directory} is missing: run the stage that writes it first")
        try:
            self.model = AutoModelForSequenceClassification.from_pretrained(
                directory, local_files_only=True, torch_dtype=torch.float32
            ).eval()
            self.tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        except Exception as error:  # transformers raises many kinds for a broken directory; all mean the same here
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"{directory}: not a loadable Hugging Face classifier ({reason})") from error
        self.max_length = max_length
        self.tokenizer.model_max_length = max_length

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str | Sequence[str]]) -> torch.Tensor:
        """Float32 logits (len(texts), labels), in the order of `texts`."""
        columns = [list(texts)] if isinstance(texts[0], str) else [list(column) for column in zip(*texts)]
        encoded = self.tokenizer(*columns, truncation=True, max_length=self.max_length)
        # Attacks write many texts that read alike, such as words of unknown characters. One forward pass for all
        # of them saves time, and lets them tie exactly, as in one padded batch: then the text's order decides.
        first: dict[tuple, int] = {}
        alike = [first.setdefault(tuple(map(tuple, row)), i) for i, row in enumerate(zip(*encoded.values()))]
        order = sorted(first.values(), key=lambda row: len(encoded["input_ids"][row]))
        logits = torch.zeros(len(texts), self.model.config.num_labels)
        for start in range(0, len(order), MICRO_BATCH):
            rows = order[start : start + MICRO_BATCH]
            batch = {name: [values[row] for row in rows] for name, values in encoded.items()}
            padded = self.tokenizer.pad(batch, return_tensors="pt")
            logits[rows] = self.model(**padded).logits
        return logits[alike]
