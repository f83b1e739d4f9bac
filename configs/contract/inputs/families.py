"""The families of encoders: the one place that says how they differ, for both halves.

All families share BERT's layers.

A weight is prunable if a ticket can be a part of the pre-trained model there: every matrix of the encoder, and the
dense layer of the head where pre-training made it (BERT's pooler). The dense layer of the other heads starts at
random, as the last layer of every head does: neither has a pre-trained weight that a ticket could keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BERTS_PIECES = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
ROBERTAS_PIECES = {
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}


@dataclass(frozen=True)
class Reading:
    """How a family reads texts.

    Attributes:
        tokenizers: Classes of transformers that do so, without the ending `Fast`.
        special: Special pieces, under the names of their settings in transformers.
        segments: The second text of a pair has the token type 1; otherwise all types are 0.
    """

    tokenizers: tuple[str, ...]
    special: Mapping[str, str]
    segments: bool


@dataclass(frozen=True)
class Family:
    """BERT or a relative, as transformers names its parts. The head is dense layer, activation, output layer.

    Attributes:
        title: Name for readers.
        body: Attribute of the classifier that holds `embeddings` and `encoder`; the first part of their names.
        architecture: Class of the classifier.
        reading: How texts become ids.
        dense: The head's dense layer.
        output: The head's last layer, which gives the logits.
        activation: What follows the dense layer, `tanh` or `gelu`.
        counts_from_padding: The first position has the number of the padding id plus 1, and a padding piece in a text
            has no position of its own; otherwise positions count from 0.
    """

    title: str
    body: str
    architecture: str
    reading: Reading
    dense: str
    output: str
    activation: str = "tanh"
    counts_from_padding: bool = False

    @property
    def pooled(self) -> bool:
        """Whether the dense layer belongs to the pre-trained body: then it is prunable, and sees no dropout."""
        return self.dense.startswith(f"{self.body}.")

    @property
    def head(self) -> tuple[str, ...]:
        """Names of the head's weights and biases, dense layer first."""
        return tuple(f"{layer}.{kind}" for layer in (self.dense, self.output) for kind in ("weight", "bias"))

    @property
    def fresh(self) -> tuple[str, ...]:
        """Names of the head's weights and biases that no pre-training has made."""
        return self.head[2:] if self.pooled else self.head

    def first_position(self, config: Mapping[str, Any]) -> int:
        """Return the number of the first position in a model of this `config.json`."""
        return config.get("pad_token_id", 1) + 1 if self.counts_from_padding else 0


WORD_PIECES = Reading(
    ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer"), BERTS_PIECES, segments=True
)
ROBERTAS_READING = Reading(
    ("RobertaTokenizer", "XLMRobertaTokenizer", "CamembertTokenizer"), ROBERTAS_PIECES, segments=False
)
READINGS = (WORD_PIECES, ROBERTAS_READING)


def _roberta(title: str, architecture: str) -> Family:
    return Family(
        title,
        "roberta",
        architecture,
        ROBERTAS_READING,
        "classifier.dense",
        "classifier.out_proj",
        counts_from_padding=True,
    )


FAMILIES = {  # by `model_type` of config.json
    "bert": Family("BERT", "bert", "BertForSequenceClassification", WORD_PIECES, "bert.pooler.dense", "classifier"),
    "electra": Family(
        "ELECTRA",
        "electra",
        "ElectraForSequenceClassification",
        WORD_PIECES,
        "classifier.dense",
        "classifier.out_proj",
        activation="gelu",
    ),
    "roberta": _roberta("RoBERTa", "RobertaForSequenceClassification"),
    "xlm-roberta": _roberta("XLM-RoBERTa", "XLMRobertaForSequenceClassification"),
    "camembert": _roberta("CamemBERT", "CamembertForSequenceClassification"),
}


def family_of(config: Mapping[str, Any]) -> Family:
    """Return the family of a model by its `config.json`: BERT if it names none, as in BERT's first years."""
    return FAMILIES.get(config.get("model_type") or "bert", FAMILIES["bert"])
