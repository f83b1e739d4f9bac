"""BERT and its relatives without a padded position: the texts of a batch lie in one row after another.

Attacks ask for texts by the hundred, most of them short and nearly the same. Everything that treats positions by
themselves (the matrix products, which are nearly all of the work) runs once over all positions of a batch; attention
runs once for each length. The first layer's products are made once for each different token at a place. In the last
layer only the first position, which the classifier reads, is computed, and without keys and values of the others: a
query takes a key's weights itself, and a mean of hidden states becomes one of values. The result is that of the padded
model up to the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch.nn.functional import gelu, linear, scaled_dot_product_attention

from configs.contract.families import FAMILIES

Row = dict[str, list[int]]  # the inputs of one text by their names in transformers, such as input_ids

ACTIVATIONS = {"tanh": torch.tanh, "gelu": gelu}  # of heads


def is_unpaddable(model: torch.nn.Module) -> bool:
    """Tell whether `UnpaddedClassifier` computes this model: a family of the table, with its usual attention."""
    config = model.config
    usual = getattr(config, "position_embedding_type", "absolute") == "absolute" and not config.is_decoder
    return config.model_type in FAMILIES and usual


class UnpaddedClassifier:
    """A sequence classifier in evaluation mode. Heads and intermediate neurons may have been pruned away."""

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
            attention = layer.attention.self
            if layer is layers[-1]:
                context = _attend_first(hidden, first, groups, weight, bias, attention)
                hidden = hidden[first]
            else:
                every = linear(different, weight, bias)[places] if layer is layers[0] else linear(hidden, weight, bias)
                context = _attend(every, groups, attention)
            hidden = layer.attention.output(context, hidden)
            hidden = layer.output(layer.intermediate(hidden), hidden)
        return self.head(hidden)

    def head(self, first: torch.Tensor) -> torch.Tensor:
        """Compute logits (rows, labels) from the last layer's first positions (rows, hidden)."""
        return self.output(self.activation(self.dense(first)))

    def _embed(self, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return different embeddings (different ones, hidden), and each position's number among them (positions,)."""
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
                kept = [token != padding for token in ids]
                positions = [padding + sum(kept[: place + 1]) * kept[place] for place in range(len(ids))]
        return list(zip(ids, row.get("token_type_ids") or [0] * len(ids), positions, strict=True))


def _attend(every: torch.Tensor, groups: list[tuple[int, int]], attention: torch.nn.Module) -> torch.Tensor:
    """Attend within each row.

    Args:
        every: queries, keys and values (positions, 3 * all heads).
        groups: (length, rows), in order.
        attention: says how many heads there are.

    Returns:
        Contexts (positions, all heads).
    """
    contexts = []
    for (length, count), part in zip(groups, every.split([length * count for length, count in groups]), strict=True):
        parts = part.view(count, length, 3, attention.num_attention_heads, attention.attention_head_size)
        context = scaled_dot_product_attention(*parts.permute(2, 0, 3, 1, 4))
        contexts.append(context.transpose(1, 2).reshape(count * length, -1))
    return torch.cat(contexts)


def _attend_first(
    hidden: torch.Tensor,
    first: torch.Tensor,
    groups: list[tuple[int, int]],
    weight: torch.Tensor,
    bias: torch.Tensor,
    attention: torch.nn.Module,
) -> torch.Tensor:
    """Attend from the first position of each row, without keys and values.

    A query's product with a key is that of `query @ key weights` with the hidden state, and with the keys' bias, which
    is the same for all keys of a head and does not change what they get. A mean of values is the product of the values'
    weights with the mean of hidden states.

    Args:
        hidden: (positions, hidden).
        first: numbers of the first positions (rows,).
        groups: (length, rows), in order.
        weight: of queries, keys and values (3 * all heads, hidden).
        bias: (3 * all heads,).
        attention: says how many heads there are.

    Returns:
        Contexts (rows, all heads).
    """
    heads, size = attention.num_attention_heads, attention.attention_head_size
    query_weight, key_weight, value_weight = weight.chunk(3)
    query_bias, _, value_bias = bias.chunk(3)
    query = linear(hidden[first], query_weight, query_bias).view(-1, heads, size)
    query = torch.einsum("rhs,hsd->rhd", query, key_weight.view(heads, size, -1))
    means, sizes = [], [length * count for length, count in groups]
    for (length, count), states, some in zip(
        groups, hidden.split(sizes), query.split([count for _, count in groups]), strict=True
    ):
        states = states.view(count, 1, length, -1)  # one head that all queries of a row share
        means.append(scaled_dot_product_attention(some[:, None], states, states, scale=size**-0.5)[:, 0])
    context = torch.einsum("rhd,hsd->rhs", torch.cat(means), value_weight.view(heads, size, -1))
    return context.flatten(1) + value_bias
