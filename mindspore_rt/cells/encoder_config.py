"""The shape of BERT or a relative of it, as its `config.json` states it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from configs.contract.basics.errors import UserError
from configs.contract.inputs import matrices
from configs.contract.inputs.families import FAMILIES, Family

MOST_LAYERS = 1000


@dataclass(frozen=True)
class EncoderConfig:
    """The part of a Hugging Face `config.json` that shapes the computation.

    Attributes:
        first_position: Number of the first position; see `Family.counts_from_padding`.
        model_type: A key of `FAMILIES`.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float = 1e-12
    first_position: int = 0
    model_type: str = "bert"

    @property
    def family(self) -> Family:
        """Family of the model; see `configs.contract.inputs.families`."""
        return FAMILIES[self.model_type]

    @property
    def positions(self) -> int:
        """Longest input, in word pieces."""
        return self.max_position_embeddings - self.first_position

    @classmethod
    def from_dict(cls, values: dict, where: str) -> EncoderConfig:
        """Read a `config.json`.

        Args:
            values: Its content.
            where: Name of the file, for messages.

        Raises:
            UserError: It does not describe a model that these cells compute.
        """
        kind = values.get("model_type")
        if not isinstance(kind, str) or kind not in FAMILIES:
            raise UserError(f"{where}: model_type is {kind!r}, only {', '.join(FAMILIES)} are supported")
        expectations = {"hidden_act": "gelu", "position_embedding_type": "absolute"}
        for key, expected in {**expectations, "embedding_size": values.get("hidden_size")}.items():
            if values.get(key, expected) != expected:
                raise UserError(f"{where}: {key} is {values.get(key)!r}, only {expected!r} is supported")
        for key in ("is_decoder", "add_cross_attention"):
            if values.get(key):
                raise UserError(f"{where}: {key} is set; a classifier needs an encoder")
        # Training has dropouts of its own, but transformers would refuse the trained model for these.
        dropouts = {key: values.get(key, 0) for key in ("hidden_dropout_prob", "attention_probs_dropout_prob")}
        for key, value in {**dropouts, "classifier_dropout": values.get("classifier_dropout") or 0}.items():
            if not 0 <= _number(value) <= 1:
                raise UserError(f"{where}: {key} is {value!r:.40}, not a number from 0 to 1")
        required = [name for name, f in cls.__dataclass_fields__.items() if f.default is dataclasses.MISSING]
        wrong = [name for name in required if type(values.get(name)) is not int or values[name] < 1]
        if wrong:
            raise UserError(f"{where}: {', '.join(wrong)} missing or not a positive whole number")
        if values["num_hidden_layers"] > MOST_LAYERS:  # or listing the names of all parameters would exhaust the memory
            raise UserError(
                f"{where}: num_hidden_layers is {values['num_hidden_layers']}, no model has so many; "
                f"give the config.json of the model"
            )
        if not 0 < _number(values.get("layer_norm_eps", cls.layer_norm_eps)) < 1:
            raise UserError(f"{where}: layer_norm_eps is {values['layer_norm_eps']!r}, not a number between 0 and 1")
        if values["hidden_size"] % values["num_attention_heads"]:
            raise UserError(f"{where}: hidden_size is no multiple of num_attention_heads")
        padding, counts = values.get("pad_token_id", 1), FAMILIES[kind].counts_from_padding
        if (counts or padding is not None) and (type(padding) is not int or counts and padding < 0):
            raise UserError(f"{where}: pad_token_id is {padding!r:.40}, not a whole number")
        if padding is not None and padding >= values["vocab_size"]:
            raise UserError(f"{where}: pad_token_id is {padding}, but vocab_size {values['vocab_size']}")
        first = FAMILIES[kind].first_position(values)
        if first >= values["max_position_embeddings"]:
            raise UserError(f"{where}: no position is left after that of the padding, {first - 1}")
        sizes = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        return cls(**{**sizes, "first_position": first})

    def prunable(self) -> dict[str, tuple[int, int]]:
        """Name and shape (out, in) of every prunable matrix, in the order of the forward pass."""
        sizes = (self.num_hidden_layers, self.hidden_size, self.intermediate_size)
        return matrices.prunable_shapes(*sizes, self.family)

    def parameters(self, labels: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter of the classifier."""
        hidden, body = self.hidden_size, self.family.body
        shapes: dict[str, tuple[int, ...]] = {
            f"{body}.embeddings.word_embeddings.weight": (self.vocab_size, hidden),
            f"{body}.embeddings.position_embeddings.weight": (self.max_position_embeddings, hidden),
            f"{body}.embeddings.token_type_embeddings.weight": (self.type_vocab_size, hidden),
            f"{body}.embeddings.LayerNorm.weight": (hidden,),
            f"{body}.embeddings.LayerNorm.bias": (hidden,),
        }
        for name, shape in self.prunable().items():
            shapes[name] = shape
            shapes[name.replace(".weight", ".bias")] = shape[:1]
        for layer in range(self.num_hidden_layers):
            for part in ("attention.output", "output"):
                for kind in ("weight", "bias"):
                    shapes[f"{body}.encoder.layer.{layer}.{part}.LayerNorm.{kind}"] = (hidden,)
        head: list[tuple[int, ...]] = [(hidden, hidden), (hidden,), (labels, hidden), (labels,)]
        return {**shapes, **dict(zip(self.family.head, head, strict=True))}


def _number(value: object) -> float:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
