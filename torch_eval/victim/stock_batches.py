"""Logits with the very rounding of TextAttack's padded batches.

The last bits of a logit depend on the shape of its batch, and on some processors on its row in it, because matrix
products of other shapes add in another order. Where scores nearly tie, these bits decide what TextAttack does next.
Here a text's row is computed in the smallest batch in which its products add as they do in TextAttack's own batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from torch_eval.victim.padded import PaddedClassifier
from torch_eval.victim.unpadded import Row

SIZES = (1, 2, 4, 8, 16)  # of the small batches that are tried
PROBE = "what this text says does not matter , only how its numbers are added does "
VECTORS = 16  # on which the sums of a layer are compared


@dataclass(frozen=True)
class Rounding:
    """The order in which the products of one row of a batch add.

    Attributes:
        order: the same for rows that give the same text the same bits.
        size: rows of the batch.
        full: whether no row of it has padding; transformers leaves the mask out of such batches.
    """

    order: bytes
    size: int
    full: bool


class StockBatches:
    """The padded batches of TextAttack's wrapper.

    Args:
        model: a classifier in evaluation mode.
        tokenizer: its tokenizer.
        length: the length that TextAttack pads to.
        token_types: whether rows have token types; None where the tokenizer decides.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        length: int,
        token_types: bool | None = None,
    ) -> None:
        self.model, self.length = model, length
        self.forward = PaddedClassifier(model, tokenizer, length)
        self._orders: dict[tuple[int, bool], list[bytes]] = {}

        def probe(text: str) -> Row:
            encoded = tokenizer(
                text,
                truncation=True,
                max_length=length,
                return_token_type_ids=token_types,
                return_attention_mask=False,
            )
            return dict(encoded)

        self._probes = {False: probe(PROBE.split()[0]), True: probe(PROBE * length)}

    def roundings(self, rows: Sequence[Row]) -> list[Rounding]:
        """Return the rounding of every row of a batch."""
        full = all(map(self._is_full, rows))
        return [Rounding(order, len(rows), full) for order in self._order(len(rows), full)]

    @torch.inference_mode()
    def logits(self, rows: Sequence[Row], rounding: Rounding) -> torch.Tensor:
        """Return logits (rows, labels) as they are at a place of this rounding in a batch of TextAttack's."""
        full = rounding.full
        mixed = not full and any(map(self._is_full, rows))  # the batch needs a row that is not full
        sizes = [size for size in SIZES if mixed < size < rounding.size]
        matching = ((size, self._places(size, rounding)) for size in (*sizes, rounding.size))
        size, places = next((size, places) for size, places in matching if places)
        count = min(len(places), size - mixed)
        found = []
        for start in range(0, len(rows), count):
            some, batch = rows[start : start + count], [self._probes[full]] * size
            for place, row in zip(places, some):
                batch[place] = {**self._probes[full], **row}
            found.append(self.forward(batch)[places[: len(some)]])
        return torch.cat(found).float().cpu()

    def _is_full(self, row: Row) -> bool:
        return len(row["input_ids"]) >= self.length

    def _places(self, size: int, rounding: Rounding) -> list[int]:
        return [place for place, order in enumerate(self._order(size, rounding.full)) if order == rounding.order]

    @torch.inference_mode()
    def _order(self, size: int, full: bool) -> list[bytes]:
        """Return what tells rows of a batch apart by their rounding: a hash of the same numbers' results in each row.

        The hash covers a text's logits, and what the layers of the head make of the text and of random numbers. The
        body has so many sums in a row that a difference of rounding shows in the first of them; a product with two
        results may round alike by chance.
        """
        if (size, full) not in self._orders:
            hashes = [hashlib.blake2b(digest_size=16) for _ in range(size)]

            def add(rows: torch.Tensor) -> None:
                for one, row in zip(hashes, rows.float().cpu().numpy(), strict=True):
                    one.update(row.tobytes())

            def look(layer: torch.nn.Linear, inputs: tuple[torch.Tensor, ...], _output: torch.Tensor) -> None:
                values = inputs[0]
                if values.shape[:-1] == (size,):
                    add(values)
                    for vector in _random_vectors(values.shape[1]).to(values):
                        same = values.new_empty_strided(values.shape, values.stride())
                        same.copy_(vector.expand_as(same))
                        add(torch.nn.functional.linear(same, layer.weight, layer.bias))

            linears = [layer for layer in self.model.modules() if isinstance(layer, torch.nn.Linear)]
            hooks = [layer.register_forward_hook(look) for layer in linears]
            try:
                add(self.forward([self._probes[full]] * size))
            finally:
                for hook in hooks:
                    hook.remove()
            self._orders[size, full] = [one.digest() for one in hashes]
        return self._orders[size, full]


def _random_vectors(size: int) -> torch.Tensor:
    return torch.randn(VECTORS, size, generator=torch.Generator().manual_seed(0))
