"""An exported model directory as a fast, exact classifier for attacks."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import torch
import transformers
from sentencepiece import SentencePieceProcessor
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from configs.contract.basics.errors import Missing, UserError, first_reason
from configs.contract.inputs import classifiers
from configs.contract.inputs.families import FAMILIES
from torch_eval.victim.padded import PaddedClassifier
from torch_eval.victim.stock_batches import Rounding, StockBatches
from torch_eval.victim.unpadded import Row, UnpaddedClassifier, is_unpaddable

POSITIONS = {"cpu": 512, "cuda": 1 << 15}  # of one forward pass: the fewest that keep the matrix products busy
# How a model may be run, the fastest first: without padding, on rows sorted by length with as little padding as that
# leaves, or padded to the full length as TextAttack does.
BATCHINGS = ("unpadded", "sorted", "padded")
# Families whose logits padding does not change, as tests show. Others are padded until `use_fastest` has looked.
INDIFFERENT = (*FAMILIES, "distilbert", "albert", "deberta-v2", "mpnet", "xlnet", "modernbert")
MOST_KNOWN = 1 << 16  # texts whose logits are remembered
LETTERS_A_PIECE = 8  # more than a text has on average
SPACE_OR_CHINESE = re.compile(r"[ \t\r\n\u4e00-\u9fff]")  # not \s: BERT's tokenizer deletes a form feed, and joins
RARE = "a text \ua9c1"  # with a character that few vocabularies have: others need their unknown piece
ROUNDING = 200  # of the data type's epsilon: what sums in another order may differ by in a logit


def check_device(device: str) -> None:
    """Refuse `cuda` where there is none.

    Raises:
        UserError: PyTorch finds no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "attack.device: PyTorch finds no CUDA device here; use cpu, or set it only for the attacks, where these run"
        )


class Victim:
    """A Hugging Face classifier: logits of texts or pairs of texts.

    It computes what TextAttack's `HuggingFaceModelWrapper` computes at the same length, but classifies each distinct
    input once, and in the fastest of `BATCHINGS` that the model allows.
    """

    def __init__(
        self,
        directory: Path,
        max_length: int,
        temperature: float = 1.0,
        device: str = "cpu",
        dtype: str = "float32",
        label_order: Sequence[int] | None = None,
        batching: str | None = None,
    ) -> None:
        """Load the model.

        Args:
            directory: Hugging Face directory with weights and tokenizer.
            max_length: Word pieces to which inputs are cut.
            temperature: Divides the logits.
            device: cpu or cuda.
            dtype: Of weights and hidden states: float32, bfloat16 or float16. Logits are float32 always.
            label_order: The model's label for each label of the data; None if they are the same.
            batching: One of `BATCHINGS`; None for the fastest that is known to be exact for its family.

        Raises:
            UserError: The directory holds no whole classifier, or the device is missing.
        """
        if not Path(directory).is_dir():
            raise Missing(Path(directory))
        check_device(device)
        self.model, loaded = _load_model(Path(directory), getattr(torch, dtype))
        self.model.eval().to(device)
        self.tokenizer = _load_tokenizer(Path(directory))
        wrong = damage(self.model, loaded) or _mismatch(self.model, self.tokenizer)
        if wrong:
            raise UserError(f"{directory}: {wrong}")
        # A decoder's classifier reads a text where its padding begins: without the id, at the last padding.
        if self.model.config.pad_token_id is None:
            self.model.config.pad_token_id = self.tokenizer.pad_token_id
        self.splits_at_spaces = _splits_at_spaces(self.tokenizer)
        self.positions = POSITIONS[device]
        self.max_length = max_length
        self.tokenizer.model_max_length = max_length
        self.temperature = temperature
        self.label_order = None if label_order is None else list(label_order)
        # As transformers' Trainer does: BERT's tokenizer has token types, which a DistilBERT does not take.
        taken = inspect.signature(self.model.forward).parameters
        self.tokenizer.model_input_names = [name for name in self.tokenizer.model_input_names if name in taken]
        # In a coarser type nearly all scores nearly tie, and nobody compares them with TextAttack's.
        exact = dtype == "float32"
        self.stock = StockBatches(self.model, self.tokenizer, max_length) if exact else None
        known = self.model.config.model_type in INDIFFERENT and "attention_mask" in self.tokenizer.model_input_names
        self.use(batching or (self.batchings()[0] if known else "padded"))

    def batchings(self) -> list[str]:
        """Return those of `BATCHINGS` that the model allows."""
        return [name for name in BATCHINGS if name != "unpadded" or is_unpaddable(self.model)]

    def use(self, batching: str) -> None:
        """Run the model in one of `batchings()` from now on."""
        self.batching = batching
        self.forget()
        # BigBird leaves its sparse attention for good at the first short batch.
        if sparse := next((part for part in self.model.modules() if hasattr(part, "set_attention_type")), None):
            sparse.set_attention_type(self.model.config.attention_type)
        self.forward: UnpaddedClassifier | PaddedClassifier
        if batching == "unpadded":
            self.forward = UnpaddedClassifier(self.model)
        else:
            length = self.max_length if batching == "padded" else None
            self.forward = PaddedClassifier(self.model, self.tokenizer, length)

    def use_fastest(self, texts: Sequence[str | Sequence[str]]) -> float:
        """Run the model from now on in the fastest of `batchings()` that gives the logits of `padded` up to rounding.

        Args:
            texts: A sample of the data.

        Returns:
            The largest difference of a logit under the fastest one, in units of what rounding may make; above 1 it is
            not used. Infinite if the model cannot be run so.
        """
        self.use("padded")
        texts = [*texts, *map(_first_words, texts)]  # padding changes short texts the most
        expected, differences, positions = self(texts), [], self.positions
        rounding = ROUNDING * torch.finfo(self.model.dtype).eps * max(1.0, expected.abs().max().item())
        self.positions = 1  # every text by itself: as far from the full length as any batch comes
        for batching in self.batchings():
            self.use(batching)  # forgets what the last one gave
            try:
                differences.append((self(texts) - expected).abs().max().item() / rounding)
            except RuntimeError:  # CANINE's convolutions need four characters, or padding
                differences.append(math.inf)
            if differences[-1] <= 1:
                break
        self.positions = positions
        return differences[0]

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str | Sequence[str]]) -> torch.Tensor:
        """Return float32 logits (texts, labels) in the order of `texts`."""
        if len(self._encoded) > MOST_KNOWN:
            self.forget()
        rows = self._rows(texts)
        keys = list(map(self._key, rows))
        # Attacks write many texts with the same token ids (unknown words, say), in one call or in several.
        # One forward pass for all of them saves time, and lets them tie exactly, as in padded batches, which all have
        # one shape. With other last bits an attack would take such a text for a better one.
        new = {key: i for i, key in reversed(list(enumerate(keys))) if key not in self._known}
        for numbers in self._batches(sorted(new.values(), key=lambda i: (len(rows[i]["input_ids"]), i)), rows):
            logits = self.forward([rows[i] for i in numbers]).float().cpu() / self.temperature
            if not logits.isfinite().all():  # float16 ends at 65504
                folder, kind = self.model.name_or_path, self.model.dtype
                raise UserError(f"{folder}: its logits are not finite in {kind}; take float32, or another model")
            self._known.update((keys[i], row) for i, row in zip(numbers, logits, strict=True))
        return self._ordered([self._known[key] for key in keys])

    def roundings(self, texts: Sequence[str | Sequence[str]]) -> list[Rounding]:
        """Return the rounding that each of these texts has in a batch of TextAttack's."""
        assert self.stock
        return self.stock.roundings(self._rows(texts))

    def rounded_logits(self, texts: Sequence[str | Sequence[str]], rounding: Rounding) -> torch.Tensor:
        """Return logits (texts, labels) to the bit as TextAttack gets them where a batch has this rounding."""
        assert self.stock
        rows = self._rows(texts)
        keys = list(map(self._key, rows))
        distinct = dict(zip(keys, rows, strict=True))
        logits = dict(
            zip(distinct, self.stock.logits(list(distinct.values()), rounding) / self.temperature, strict=True)
        )
        return self._ordered([logits[key] for key in keys])

    def forget(self) -> None:
        """Forget the texts classified so far. Called before an example, it makes the results of each its own."""
        self._known: dict[tuple[int, ...], torch.Tensor] = {}
        self._encoded: dict[str | Sequence[str], Row] = {}

    def _ordered(self, logits: list[torch.Tensor]) -> torch.Tensor:
        """Stack rows of logits, with the labels in the order of the data."""
        stacked = torch.stack(logits)
        return stacked if self.label_order is None else stacked[:, self.label_order]

    @staticmethod
    def _key(row: Row) -> tuple[int, ...]:
        return tuple(chain.from_iterable(row.values()))

    def _rows(self, texts: Sequence[str | Sequence[str]]) -> list[Row]:
        """Return the model's inputs for each text, without padding."""
        texts = [text if isinstance(text, str) else tuple(text) for text in texts]
        new = [text for text in dict.fromkeys(texts) if text not in self._encoded]
        beginnings = [self._beginning(text) for text in new]
        for text, beginning, row in zip(new, beginnings, self._encode(beginnings), strict=True):
            whole = beginning is text or len(row["input_ids"]) == self.max_length
            self._encoded[text] = row if whole else self._encode([text])[0]
        return [self._encoded[text] for text in texts]

    def _beginning(self, text: str | Sequence[str]) -> str | Sequence[str]:
        """Return the part of a very long text that holds its first `max_length` pieces, if it can be found.

        An attack asks for a text of n words n times and more, and tokenizers read all of it before they cut. BERT's
        reads what stands between spaces and Chinese characters by itself.
        """
        least = LETTERS_A_PIECE * self.max_length
        if not isinstance(text, str) or len(text) <= least or not self.splits_at_spaces:
            return text
        boundary = SPACE_OR_CHINESE.search(text, least)
        return text[: boundary.start()] if boundary else text

    def _encode(self, texts: Sequence[str | Sequence[str]]) -> list[Row]:
        if not texts:
            return []
        columns = [list(texts)] if isinstance(texts[0], str) else [list(column) for column in zip(*texts)]
        encoded = self.tokenizer(*columns, truncation=True, max_length=self.max_length, return_attention_mask=False)
        return [dict(zip(encoded, values)) for values in zip(*encoded.values())]

    def _batches(self, order: list[int], rows: list[Row]) -> Iterator[list[int]]:
        """Yield runs of rows that have about `positions` positions in all, and at least one row."""
        batch: list[int] = []
        positions = 0
        for number in order:
            width = self.max_length if self.batching == "padded" else len(rows[number]["input_ids"])
            if batch and positions + width > self.positions:
                yield batch
                batch, positions = [], 0
            batch.append(number)
            positions += width
        if batch:
            yield batch


def _load_model(folder: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, dict]:
    """Return the model of a folder and the loading report of transformers."""
    kind, known = classifiers.read_config(folder).get("model_type"), MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    if kind not in known:
        raise UserError(
            f"{folder / 'config.json'}: model_type {kind!r} is no classifier of transformers {transformers.__version__}"
            f"; give one that is (code that comes with a model is never run)"
        )
    try:
        return AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, torch_dtype=dtype, output_loading_info=True
        )
    except Exception as error:  # transformers raises many kinds for a broken directory
        if kind := (classifiers.read_config(folder).get("quantization_config") or {}).get("quant_method"):
            raise UserError(
                f"{folder / 'config.json'}: weights quantised by {kind} cannot be loaded here ({first_reason(error)}); "
                f"give the model in float16 or float32"
            ) from error
        weights = " and ".join(["config.json", *classifiers.present(folder, classifiers.WEIGHTS)])
        raise UserError(
            f"{folder}: no classifier can be loaded from {weights} ({first_reason(error)}); save it there again with "
            f"save_pretrained, or copy these files again"
        ) from error


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        # Transformers would say that something else is missing. Beside tokenizer.json such a file is not read.
        for file in () if (folder / "tokenizer.json").is_file() else folder.glob("*.model"):
            SentencePieceProcessor(model_file=str(file))
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer(RARE)
        return tokenizer
    except Exception as error:
        files, these = classifiers.present(folder, classifiers.TOKENIZERS), "these files again"
        if "tokenizer.json" not in files and "vocab.json" in files:  # which is a part of a tokenizer
            these = "all its files: tokenizer.json, or vocab.json and merges.txt"
        raise UserError(
            f"{folder}: no tokenizer can be loaded from {', '.join(files)} ({first_reason(error)}); save it there "
            f"again with save_pretrained, or copy {these}"
        ) from error


def _first_words(text: str | Sequence[str]) -> str | tuple[str, ...]:
    """Return the first three words of a text, or of each text of a pair."""
    if isinstance(text, str):
        return " ".join(text.split()[:3])
    return tuple(" ".join(column.split()[:3]) for column in text)


def _splits_at_spaces(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether a tokenizer is BERT's, which reads what stands between spaces and Chinese characters by itself."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return (
        backend is not None
        and isinstance(backend.pre_tokenizer, BertPreTokenizer)
        and isinstance(backend.normalizer, BertNormalizer)
        and backend.normalizer.handle_chinese_chars
        and tokenizer.truncation_side == "right"
    )


def _mismatch(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Describe why a tokenizer cannot serve a model, if it cannot."""
    if tokenizer.vocab_files_names:  # others read bytes or characters, and CANINE's model has no table of them
        pieces, rows = max(tokenizer.get_vocab().values()) + 1, len(model.get_input_embeddings().weight)
        if pieces > rows:
            return (
                f"its tokenizer has {pieces} pieces, the model {rows}; give the tokenizer that belongs to it, or call "
                f"resize_token_embeddings({pieces}), train, and save both"
            )
    if tokenizer.pad_token_id is None:
        return (
            "its tokenizer has no padding token; set its pad_token and the model's config.pad_token_id, and save both "
            "again"
        )
    return None


def damage(model: PreTrainedModel, loaded: dict) -> str | None:
    """Describe what is wrong with the weights of a loaded model.

    Transformers fills in missing weights at random; such a model would score as one that nobody trained. Weights of
    parts that a classifier does not have, such as another head, do no harm.

    Args:
        model: The loaded model.
        loaded: The loading report of transformers.
    """
    missing, body = sorted(loaded["missing_keys"]), f"{model.base_model_prefix}."
    head = [key for key in missing if not key.startswith(body)]
    if head and all(key.startswith(f"{body}pooler.") for key in missing if key not in head):
        kind = model.config.model_type
        return f"a {kind} model without a trained classifier ({head[0]} is missing); fine-tune it first"
    if missing and any(key.endswith(f".{missing[0]}") for key in loaded["unexpected_keys"]):
        return (
            f"its weights have other names than {missing[0]}, as DataParallel writes them; for a BERT, "
            "`python -m mindspore_rt convert FOLDER NEW` mends that"
        )
    parts = tuple(f"{name}." for name, _ in model.named_children())
    strange = [key for key in loaded["unexpected_keys"] if key.startswith(parts) and not key.endswith("position_ids")]
    for what, names in (("has no weights", missing), ("also has weights", sorted(strange))):
        if names:
            return f"{what} {names[0]}: weights and config.json do not belong together; copy both again"
    infinite = [name for name, value in model.named_parameters() if not value.isfinite().all()]
    return f"weights of {infinite[0]} are not finite" if infinite else None
