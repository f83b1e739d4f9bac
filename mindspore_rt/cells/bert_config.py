"""The shape of a BERT, as its `config.json` states it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from configs.contract import matrices
from configs.contract.errors import UserError

MOST_LAYERS = 1000


@dataclass(frozen=True)
class BertConfig:
    """The part of a Hugging Face `config.json` that shapes the computation."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float = 1e-12

    @classmethod
    def from_dict(cls, values: dict, where: str) -> BertConfig:
        """Read a `config.json`.

        Args:
            values: Its content.
            where: Name of the file, for messages.

        Raises:
            UserError: It does not describe a BERT that these cells compute.
        """
        if not isinstance(values, dict):
            raise UserError(f"{where}: missing, or not a JSON object; give the config.json of a BERT")
        if values.get("model_type") == "roberta":
            raise UserError(
                f"{where}: a RoBERTa; it has no segments, its positions start at 2, its pieces are bytes: give a BERT"
            )
        for key, expected in (
            ("model_type", "bert"),
            ("hidden_act", "gelu"),
            ("position_embedding_type", "absolute"),
        ):
            if values.get(key, expected if key != "model_type" else None) != expected:
                raise UserError(f"{where}: {key} is {values.get(key)!r}, only {expected!r} is supported")
        if values.get("is_decoder"):
            raise UserError(f"{where}: is_decoder is set; a classifier needs an encoder")
        required = [name for name, f in cls.__dataclass_fields__.items() if name != "layer_norm_eps"]
        wrong = [name for name in required if type(values.get(name)) is not int or values[name] < 1]
        if wrong:
            raise UserError(f"{where}: {', '.join(wrong)} missing or not a positive whole number")
        if values["num_hidden_layers"] > MOST_LAYERS:  # or listing the names of all parameters would exhaust the memory
            raise UserError(
                f"{where}: num_hidden_layers is {values['num_hidden_layers']}, no BERT has so many; "
                f"give the config.json of the model"
            )
        if not 0 < _number(values.get("layer_norm_eps", cls.layer_norm_eps)) < 1:
            raise UserError(f"{where}: layer_norm_eps is {values['layer_norm_eps']!r}, not a number between 0 and 1")
        if values["hidden_size"] % values["num_attention_heads"]:
            raise UserError(f"{where}: hidden_size is no multiple of num_attention_heads")
        return cls(**{name: values[name] for name in cls.__dataclass_fields__ if name in values})

    def prunable(self) -> dict[str, tuple[int, int]]:
        """Name and shape (out, in) of every prunable matrix, in the order of the forward pass."""
        return matrices.prunable_shapes(self.num_hidden_layers, self.hidden_size, self.intermediate_size)

    def parameters(self, labels: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter of the classifier."""
        hidden = self.hidden_size
        shapes = {
            "bert.embeddings.word_embeddings.weight": (self.vocab_size, hidden),
            "bert.embeddings.position_embeddings.weight": (self.max_position_embeddings, hidden),
            "bert.embeddings.token_type_embeddings.weight": (self.type_vocab_size, hidden),
            "bert.embeddings.LayerNorm.weight": (hidden,),
            "bert.embeddings.LayerNorm.bias": (hidden,),
        }
        for name, shape in self.prunable().items():
            shapes[name] = shape
            shapes[name.replace(".weight", ".bias")] = shape[:1]
        for layer in range(self.num_hidden_layers):
            for part in ("attention.output", "output"):
                for kind in ("weight", "bias"):
                    shapes[f"bert.encoder.layer.{layer}.{part}.LayerNorm.{kind}"] = (hidden,)
        return {**shapes, "classifier.weight": (labels, hidden), "classifier.bias": (labels,)}


def _number(value: object) -> float:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
