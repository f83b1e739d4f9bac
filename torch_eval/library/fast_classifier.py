"""A model wrapper for other people's TextAttack code: TextAttack's own answers at a fraction of the time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from textattack.models.wrappers import HuggingFaceModelWrapper

from configs.contract.inputs import classifiers
from torch_eval.library import hub
from torch_eval.victim.classifier import Victim


class FastClassifier(HuggingFaceModelWrapper):
    """TextAttack's `HuggingFaceModelWrapper` without its padding.

    The answers are those of the stock wrapper up to the rounding of sums; distinct texts are classified once, in
    batches of similar lengths. Everything else of the stock wrapper, such as gradients, is inherited.

    Args:
        model: A Hugging Face directory, or a name on the hub.
        texts: A sample of the data. Given, the fast forward pass is compared with the padded one on it, and used only
            where both agree. Without it the families that the tests cover are trusted, and others are padded.
        max_length: Word pieces to which texts are cut; None for the tokenizer's own limit, as in TextAttack.
        device: `cpu` or `cuda`.

    Raises:
        UserError: The model cannot be read, or has fewer positions than `max_length`.
    """

    def __init__(
        self,
        model: str | Path,
        texts: Sequence[str | Sequence[str]] | None = None,
        max_length: int | None = None,
        device: str = "cpu",
    ) -> None:
        folder = hub.model_dir(str(model))
        length = max_length or classifiers.longest_common_input([folder])
        classifiers.check_length(folder, length)
        victim = Victim(folder, length, device=device)
        super().__init__(victim.model, victim.tokenizer)
        self.victim = victim
        if texts:
            victim.use_fastest(texts)

    @property
    def batching(self) -> str:
        """How the model is run: unpadded, sorted or padded."""
        return self.victim.batching

    def __call__(self, text_input_list: Sequence[str | Sequence[str]]) -> torch.Tensor:
        """Return float32 logits (texts, labels)."""
        return self.victim(text_input_list)
