"""An exported model directory as a fast, exact classifier for attacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from configs.contract.errors import UserError
from torch_eval.victim.unpadded_bert import UnpaddedBert

POSITIONS = {"cpu": 512, "cuda": 1 << 15}  # of one forward pass: the fewest that keep the matrix products busy


class Victim:
    """A Hugging Face BERT classifier: logits of texts or pairs of texts.

    It computes what TextAttack's `HuggingFaceModelWrapper` computes at the same length, but classifies each distinct
    input once, and without the padding to `max_length`.
    """

    def __init__(
        self,
        directory: Path,
        max_length: int,
        temperature: float = 1.0,
        device: str = "cpu",
        dtype: str = "float32",
        label_order: Sequence[int] | None = None,
    ) -> None:
        """Load the model.

        Args:
            directory: Hugging Face directory with weights and tokenizer.
            max_length: word pieces to which inputs are cut.
            temperature: divides the logits.
            device: cpu or cuda.
            dtype: of weights and hidden states: float32, bfloat16 or float16. Logits are float32 always.
            label_order: the model's label for each label of the data; None if they are the same.

        Raises:
            UserError: the directory holds no whole BERT classifier, or the device is missing.
        """
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
        except Exception as error:  # transformers raises many kinds for a broken directory
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"{directory}: not a loadable Hugging Face classifier ({reason})") from error
        if self.model.config.model_type != "bert":
            raise UserError(f"{directory}: a {self.model.config.model_type} model; only BERT classifiers are attacked")
        wrong = damage(self.model, loaded)
        if wrong:
            raise UserError(f"{directory}: {wrong}")
        self.unpadded = UnpaddedBert(self.model)
        self.positions = POSITIONS[device]
        self.max_length = max_length
        self.tokenizer.model_max_length = max_length
        self.temperature = temperature
        self.label_order = None if label_order is None else list(label_order)

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str | Sequence[str]]) -> torch.Tensor:
        """Return float32 logits (texts, labels) in the order of `texts`."""
        columns = [list(texts)] if isinstance(texts[0], str) else [list(column) for column in zip(*texts)]
        encoded = self.tokenizer(*columns, truncation=True, max_length=self.max_length, return_token_type_ids=True)
        ids, types = encoded["input_ids"], encoded["token_type_ids"]
        # Attacks write many texts that read alike, such as words of unknown characters. One forward pass for all
        # of them saves time, and lets them tie exactly, as in one padded batch: then the text's order decides.
        first: dict[tuple, int] = {}
        alike = [first.setdefault((*ids[i], *types[i]), i) for i in range(len(texts))]
        logits = torch.zeros(len(texts), self.model.config.num_labels)
        for rows in self._batches(sorted(first.values(), key=lambda row: len(ids[row])), ids):
            batch = self.unpadded([ids[row] for row in rows], [types[row] for row in rows])
            logits[rows] = batch.float().cpu() / self.temperature
        logits = logits[alike]
        return logits if self.label_order is None else logits[:, self.label_order]

    def _batches(self, order: list[int], ids: list[list[int]]) -> Iterator[list[int]]:
        """Yield runs of rows that have about `positions` positions in all, and at least one row."""
        rows, positions = [], 0
        for row in order:
            if rows and positions + len(ids[row]) > self.positions:
                yield rows
                rows, positions = [], 0
            rows.append(row)
            positions += len(ids[row])
        yield rows


def damage(model: PreTrainedModel, loaded: dict) -> str | None:
    """Describe what is wrong with the weights of a loaded model.

    Transformers fills in missing weights at random; such a model would score as one that nobody trained. Weights of
    parts that a classifier does not have, such as another head, do no harm.

    Args:
        model: the loaded model.
        loaded: the loading report of transformers.
    """
    missing = sorted(loaded["missing_keys"])
    if "classifier.weight" in missing and all(key.startswith(("classifier.", "bert.pooler.")) for key in missing):
        return f"a BERT without a trained classifier ({missing[0]} is missing); fine-tune it first"
    parts = tuple(f"{name}." for name, _ in model.named_children())
    strange = [key for key in loaded["unexpected_keys"] if key.startswith(parts) and not key.endswith("position_ids")]
    for what, names in (("has no weights", missing), ("has weights too many,", sorted(strange))):
        if names:
            return f"{what} {names[0]}"
    infinite = [name for name, value in model.named_parameters() if not value.isfinite().all()]
    return f"weights of {infinite[0]} are not finite" if infinite else None
