"""A BERT classifier without a padded position: the sentences of a batch lie in one row after another.

Attacks ask for sentences by the hundred, most of them short and nearly the same. Everything that treats positions by
themselves (the matrix products, which are nearly all of the work) runs once over all positions of a batch; attention
runs once for each length. The first layer's products are made once for each different token at a place, and in the
last layer only the first position, which the classifier reads, is computed. The result is that of the padded model up
to the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import BertForSequenceClassification
from transformers.models.bert.modeling_bert import BertSelfAttention


class UnpaddedBert:
    """`BertForSequenceClassification` in evaluation mode. Heads and intermediate neurons may have been pruned away."""

    def __init__(self, model: BertForSequenceClassification) -> None:
        self.bert, self.classifier = model.bert, model.classifier
        self.device = model.device
        self.projections = []
        for layer in self.bert.encoder.layer:
            attention = layer.attention.self
            linears = (attention.query, attention.key, attention.value)
            weight, bias = (torch.cat([getattr(one, name).detach() for one in linears]) for name in ("weight", "bias"))
            self.projections.append((weight, bias))

    def __call__(self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return logits (rows, labels).

        Args:
            ids: token ids of each row; the rows are sorted by their length.
            types: segment ids of each row.
        """
        lengths = [len(row) for row in ids]
        groups = [(length, len(list(rows))) for length, rows in groupby(lengths)]
        first = torch.tensor([0, *lengths[:-1]], device=self.device).cumsum(0)
        different, places = self._embed(ids, types, lengths)
        hidden = different[places]
        layers = self.bert.encoder.layer
        for layer, (weight, bias) in zip(layers, self.projections):
            attention, width = layer.attention.self, len(weight) // 3
            if layer is layers[-1]:
                rest = linear(hidden, weight[width:], bias[width:])
                hidden = hidden[first]
                parts = (linear(hidden, weight[:width], bias[:width]), *rest.chunk(2, 1))
            else:
                every = linear(different, weight, bias)[places] if layer is layers[0] else linear(hidden, weight, bias)
                parts = every.chunk(3, 1)
            hidden = layer.attention.output(_attend(*parts, groups, attention), hidden)
            hidden = layer.output(layer.intermediate(hidden), hidden)
        return self.classifier(self.bert.pooler.activation(self.bert.pooler.dense(hidden)))

    def _embed(
        self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]], lengths: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the distinct embeddings (distinct, hidden), and which of them each position has (positions,)."""
        places: dict[tuple, int] = {}
        rows = zip(ids, types, lengths)
        keys = [places.setdefault(key, len(places)) for i, t, n in rows for key in zip(i, t, range(n))]
        tokens, segments, positions = torch.tensor(list(places), device=self.device).T
        parts = self.bert.embeddings
        total = parts.word_embeddings(tokens) + parts.token_type_embeddings(segments)
        return parts.LayerNorm(total + parts.position_embeddings(positions)), torch.tensor(keys, device=self.device)


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    groups: list[tuple[int, int]],
    attention: BertSelfAttention,
) -> torch.Tensor:
    """Compute self-attention within each row.

    Args:
        query: (positions, all heads), or (rows, all heads) of first positions only.
        key: (positions, all heads).
        value: (positions, all heads).
        groups: (length, number of rows) of rows of equal length, in order.
        attention: the module, for its number and size of heads.

    Returns:
        The contexts, of the shape of `query`.
    """
    heads, size, contexts = attention.num_attention_heads, attention.attention_head_size, []
    one = len(query) == sum(count for _, count in groups)
    sizes = [length * count for length, count in groups]
    queries = query.split([count for _, count in groups] if one else sizes)
    for (_, count), *parts in zip(groups, queries, key.split(sizes), value.split(sizes)):
        q, k, v = (part.view(count, len(part) // count, heads, size).transpose(1, 2) for part in parts)
        contexts.append(scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, heads * size))
    return torch.cat(contexts)
