"""An exported model directory as a fast, exact classifier for attacks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

import torch_eval.recipes.fast_textattack  # noqa: F401  # isort: skip - sets what the next import needs
from textattack.models.wrappers import ModelWrapper
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from configs.contract.errors import UserError
from torch_eval.victim.unpadded_bert import PackedBert

POSITIONS = {"cpu": 512, "cuda": 1 << 15}  # of one forward pass: the fewest that keep the matrix products busy


class OutOfTime(Exception):
    """The victim was asked after its deadline."""


class Victim(ModelWrapper):
    """Logits of a Hugging Face BERT classifier for texts or pairs of texts.

    The same function as TextAttack's `HuggingFaceModelWrapper` at the same length, which pads every
    input to `max_length`: here each distinct input is classified once, and without padding.

    `temperature` divides the logits. `dtype` is that of weights and hidden states (float32, bfloat16 or
    float16); logits are float32 always. After `deadline`, in seconds of `time.monotonic`, a call raises `OutOfTime`.

    Raises `UserError` if the directory cannot be loaded or the device is absent.
    """

    def __init__(
        self, directory: Path, max_length: int, temperature: float = 1.0, device: str = "cpu", dtype: str = "float32"
    ):
        if not Path(directory).is_dir():
            raise UserError(f"{directory} is missing: run the stage that writes it first")
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("attack.device: PyTorch finds no CUDA device here; use cpu")
        try:
            self.model, loaded = AutoModelForSequenceClassification.from_pretrained(
                directory, local_files_only=True, torch_dtype=getattr(torch, dtype), output_loading_info=True
            )
            self.model.eval().to(device)
            self.tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        except Exception as error:  # transformers raises many kinds for a broken directory; all mean the same here
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"{directory}: not a loadable Hugging Face classifier ({reason})") from error
        if self.model.config.model_type != "bert":
            raise UserError(f"{directory}: a {self.model.config.model_type} model; only BERT classifiers are attacked")
        wrong = damage(self.model, loaded)
        if wrong:
            raise UserError(f"{directory}: {wrong}; delete its stage's folder and train it again")
        self.packed = PackedBert(self.model)
        self.positions = POSITIONS[device]
        self.max_length = max_length
        self.tokenizer.model_max_length = max_length
        self.temperature = temperature
        self.deadline = float("inf")

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str | Sequence[str]]) -> torch.Tensor:
        """Float32 logits (len(texts), labels), in the order of `texts`."""
        if time.monotonic() > self.deadline:
            raise OutOfTime
        columns = [list(texts)] if isinstance(texts[0], str) else [list(column) for column in zip(*texts)]
        encoded = self.tokenizer(*columns, truncation=True, max_length=self.max_length, return_token_type_ids=True)
        ids, types = encoded["input_ids"], encoded["token_type_ids"]
        # Attacks write many texts that read alike, such as words of unknown characters. One forward pass for all
        # of them saves time, and lets them tie exactly, as in one padded batch: then the text's order decides.
        first: dict[tuple, int] = {}
        alike = [first.setdefault((*ids[i], *types[i]), i) for i in range(len(texts))]
        logits = torch.zeros(len(texts), self.model.config.num_labels)
        for rows in self._batches(sorted(first.values(), key=lambda row: len(ids[row])), ids):
            batch = self.packed([ids[row] for row in rows], [types[row] for row in rows])
            logits[rows] = batch.float().cpu() / self.temperature
        return logits[alike]

    def _batches(self, order: list[int], ids: list[list[int]]):
        """Runs of rows that have about `positions` positions in all, and at least one row."""
        rows, positions = [], 0
        for row in order:
            if rows and positions + len(ids[row]) > self.positions:
                yield rows
                rows, positions = [], 0
            rows.append(row)
            positions += len(ids[row])
        yield rows


def damage(model, loaded: dict) -> str | None:
    """What is wrong with the weights of a loaded model. Transformers fills in what is missing at random, which scores
    as a model nobody trained; weights of parts that a classifier has not, such as another head's, do no harm."""
    parts = tuple(f"{name}." for name, _ in model.named_children())
    strange = [key for key in loaded["unexpected_keys"] if key.startswith(parts) and not key.endswith("position_ids")]
    for what, names in (("has no weights", loaded["missing_keys"]), ("has weights too many,", strange)):
        if names:
            return f"{what} {sorted(names)[0]}"
    infinite = [name for name, value in model.named_parameters() if not value.isfinite().all()]
    return f"weights of {infinite[0]} are not finite" if infinite else None
