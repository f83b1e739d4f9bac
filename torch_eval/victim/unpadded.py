"""BERT and its relatives without a padded position: the texts of a batch lie in one row after another.

Attacks ask for texts by the hundred, most of them short and nearly the same. Everything that treats positions by
themselves (the matrix products, which are nearly all of the work) runs once over all positions of a batch; attention
runs once for each length. The first layer's products are made once for each different token at a place, and in the
last layer only the first position, which the classifier reads, is computed. The result is that of the padded model up
to the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch.nn.functional import gelu, linear, scaled_dot_product_attention

from configs.contract.inputs.families import FAMILIES

Row = dict[str, list[int]]  # the inputs of one text by their names in transformers, such as input_ids

ACTIVATIONS = {"tanh": torch.tanh, "gelu": gelu}  # of heads


def is_unpaddable(model: torch.nn.Module) -> bool:
    """Tell whether `UnpaddedClassifier` computes this model: a family of the table, with its usual attention."""
    config = model.config
    usual = getattr(config, "position_embedding_type", "absolute") == "absolute" and not config.is_decoder
    return config.model_type in FAMILIES and usual


class UnpaddedClassifier:
    """A sequence classifier without padding. Heads and intermediate neurons may have been pruned away.

    Args:
        model: `...ForSequenceClassification` of a family of `FAMILIES`, in evaluation mode.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.family = model, FAMILIES[model.config.model_type]
        self.body, self.device = getattr(model, self.family.body), model.device
        self.dense, self.output = map(model.get_submodule, (self.family.dense, self.family.output))
        self.activation = ACTIVATIONS[self.family.activation]
        self.projections = []
        for layer in self.body.encoder.layer:
            attention = layer.attention.self
            linears = (attention.query, attention.key, attention.value)
            weight, bias = (torch.cat([getattr(one, name).detach() for one in linears]) for name in ("weight", "bias"))
            self.projections.append((weight, bias))

    def __call__(self, rows: Sequence[Row]) -> torch.Tensor:
        """Compute logits (rows, labels) of rows that are sorted by their length."""
        lengths = [len(row["input_ids"]) for row in rows]
        groups = [(length, len(list(same))) for length, same in groupby(lengths)]
        first = torch.tensor([0, *lengths[:-1]], device=self.device).cumsum(0)
        different, places = self._embed(rows)
        hidden = different[places]
        layers = self.body.encoder.layer
        for layer, (weight, bias) in zip(layers, self.projections, strict=True):
            attention, width = layer.attention.self, len(weight) // 3
            if layer is layers[-1]:
                rest = linear(hidden, weight[width:], bias[width:])
                hidden = hidden[first]
                parts = (linear(hidden, weight[:width], bias[:width]), *rest.chunk(2, 1))
            else:
                every = linear(different, weight, bias)[places] if layer is layers[0] else linear(hidden, weight, bias)
                parts = every.chunk(3, 1)
            query, key, value = parts
            hidden = layer.attention.output(_attend(query, key, value, groups, attention), hidden)
            hidden = layer.output(layer.intermediate(hidden), hidden)
        return self.head(hidden)

    def head(self, first: torch.Tensor) -> torch.Tensor:
        """Compute logits (rows, labels) from the last layer's first positions (rows, hidden)."""
        return self.output(self.activation(self.dense(first)))

    def _embed(self, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the distinct embeddings (distinct, hidden), and the number of each position's one (positions,)."""
        numbers: dict[tuple[int, int, int], int] = {}
        keys = [numbers.setdefault(key, len(numbers)) for row in rows for key in self._tokens(row)]
        tokens, segments, positions = torch.tensor(list(numbers), device=self.device).T
        parts = self.body.embeddings
        total = parts.word_embeddings(tokens) + parts.token_type_embeddings(segments)
        embedded = parts.LayerNorm(total + parts.position_embeddings(positions))
        if hasattr(self.body, "embeddings_project"):  # small ELECTRA models have narrower embeddings
            embedded = self.body.embeddings_project(embedded)
        return embedded, torch.tensor(keys, device=self.device)

    def _tokens(self, row: Row) -> list[tuple[int, int, int]]:
        """Return token, segment and position id of each position of a row."""
        ids = row["input_ids"]
        positions: Sequence[int] = range(len(ids))
        if self.family.counts_from_padding:
            padding = self.model.config.pad_token_id
            positions = [padding + 1 + place for place in positions]
            if padding in ids:  # a text may spell the padding token
                is_token = [token != padding for token in ids]
                positions = [padding + sum(is_token[: place + 1]) * is_token[place] for place in range(len(ids))]
        return list(zip(ids, row.get("token_type_ids") or [0] * len(ids), positions, strict=True))


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    groups: list[tuple[int, int]],
    attention: torch.nn.Module,
) -> torch.Tensor:
    """Attend within each row.

    Args:
        query: (positions, all heads), or (rows, all heads) of the first positions alone.
        key: (positions, all heads).
        value: (positions, all heads).
        groups: (length, rows), in order.
        attention: Says how many heads there are.

    Returns:
        Contexts, shaped like the queries.
    """
    heads, size, contexts = attention.num_attention_heads, attention.attention_head_size, []
    first_only = len(query) == sum(count for _, count in groups)
    sizes = [length * count for length, count in groups]
    queries = query.split([count for _, count in groups] if first_only else sizes)
    for (_, count), *parts in zip(groups, queries, key.split(sizes), value.split(sizes), strict=True):
        q, k, v = (part.view(count, -1, heads, size).transpose(1, 2) for part in parts)
        contexts.append(scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, heads * size))
    return torch.cat(contexts)
