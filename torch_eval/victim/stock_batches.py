"""Logits with exactly the rounding of TextAttack's padded batches.

The last bits of a logit depend on the shape of its batch, and on some processors on its row in it, because matrix
products of other shapes add in another order. Where scores nearly tie, these bits decide what TextAttack does next.
Here a text's row goes through the body in a small batch in which the products add as they do in TextAttack's own. The
head, whose products are small and add in another order first, is computed with as many rows as TextAttack has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from configs.contract.inputs.families import FAMILIES
from torch_eval.victim.padded import PaddedClassifier
from torch_eval.victim.unpadded import Row

SIZES = (1, 2, 4, 8, 16)  # of the small batches that are tried
PROBE = "what this text says does not matter , only how its numbers are added does "
# Layers that compute the same, one after another, from a hidden state (rows, positions, hidden).
LAYERS = {kind: f"{family.body}.encoder.layer" for kind, family in FAMILIES.items()}
LAYERS |= {"distilbert": "distilbert.transformer.layer", "mpnet": "mpnet.encoder.layer"}
VECTORS = 16  # on which the sums of a layer are compared


@dataclass(frozen=True)
class Rounding:
    """The order in which the products of one row of a batch add.

    Attributes:
        order: The same for rows that give the same text the same bits.
        size: Rows of the batch.
        full: Whether no row of it has padding; transformers leaves the mask out of such batches.
    """

    order: bytes
    size: int
    full: bool


class Looks(NamedTuple):
    """What is seen of each row of a batch in which all rows are the same text.

    Attributes:
        orders: A hash of the logits, and of what the head's layers make of the text and of random numbers. The body has
            so many sums in a row that a difference of rounding shows in the first of them; a product with two results
            may round alike by chance.
        bodies: A hash of what the head gets.
        head: Its first layer; None if no layer takes one vector of each text: then the logits count as the body's.
    """

    orders: list[bytes]
    bodies: list[bytes]
    head: torch.nn.Linear | None


class StockBatches:
    """The padded batches of TextAttack's wrapper.

    Args:
        model: A classifier in evaluation mode.
        tokenizer: Its tokenizer.
        length: The length that TextAttack pads to.
    """

    def __init__(self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, length: int) -> None:
        self.model, self.length = model, length
        self.forward = PaddedClassifier(model, tokenizer, length)
        self._looks: dict[tuple[int, bool], Looks] = {}
        self._layers = _equal_layers(model)
        self._names = {layer: name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}

        def probe(text: str) -> Row:
            return dict(tokenizer(text, truncation=True, max_length=length, return_attention_mask=False))

        self._probes = {False: probe(PROBE.split()[0]), True: probe(PROBE * length)}

    def roundings(self, rows: Sequence[Row]) -> list[Rounding]:
        """Return the rounding of every row of a batch."""
        full = all(map(self._is_full, rows))
        return [Rounding(order, len(rows), full) for order in self._look(len(rows), full).orders]

    @torch.inference_mode()
    def logits(self, rows: Sequence[Row], rounding: Rounding) -> torch.Tensor:
        """Return logits (rows, labels) as they are at a place of this rounding in a batch of TextAttack's."""
        probe = self._probes[rounding.full]
        stock = self._look(rounding.size, rounding.full)
        targets = [place for place, order in enumerate(stock.orders) if order == rounding.order]
        mixed = not rounding.full and any(map(self._is_full, rows))  # the batch needs a row that is not full
        logits: list[torch.Tensor] = []
        while len(logits) < len(rows):
            remaining = rows[len(logits) :]
            size, places = self._places(rounding, stock.bodies[targets[0]], len(remaining), mixed)
            count = min(len(remaining), len(places), len(targets), size - mixed)
            batch = [probe] * size
            for place, row in zip(places[:count], remaining):
                batch[place] = {**probe, **row}
            with _rows_of_head(stock.head, places[:count], targets[:count], rounding.size):
                logits += self.forward(batch)[places[:count] if stock.head is None else targets[:count]]
        return torch.stack(logits).float().cpu()

    def _is_full(self, row: Row) -> bool:
        return len(row["input_ids"]) >= self.length

    def _places(self, rounding: Rounding, body: bytes, count: int, mixed: bool) -> tuple[int, list[int]]:
        """Return the rows of the batch that wastes least for some texts, and the places that round like `body` in it.

        Args:
            rounding: Of TextAttack's batch, which is taken if no smaller one will do.
            body: What a place must have.
            count: Number of texts.
            mixed: Whether the batch must hold one row more.
        """
        sizes = [size for size in SIZES if mixed < size < rounding.size]
        fitting = [size for size in sizes if size <= count + mixed]
        for size in [*reversed(fitting), *sizes[len(fitting) :], rounding.size]:
            looks = self._look(size, rounding.full)
            places = [place for place, other in enumerate(looks.bodies) if other == body]
            if places:
                break
        return size, places

    @torch.inference_mode()
    def _look(self, size: int, full: bool) -> Looks:
        """Compute the same text in every row of a batch, and the head on random numbers too."""
        if (size, full) not in self._looks:
            alike = size > 1 and self._layers and set(self._first_layer(size, full)) == set(self._first_layer(1, full))
            self._looks[size, full] = self._observe(size, full, 1 if alike else size)
        return self._looks[size, full]

    def _first_layer(self, size: int, full: bool) -> list[bytes]:
        """Return a hash of what each row of a batch of the same text is after the first layer."""
        found: list[bytes] = []

        def stop(_layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            found.extend(hashlib.blake2b(row.float().cpu().numpy().tobytes()).digest() for row in inputs[0])
            raise _Stop

        hook = self._layers[1].register_forward_pre_hook(stop)
        try:
            self.forward([self._probes[full]] * size)
        except _Stop:
            return found
        finally:
            hook.remove()
        raise AssertionError("the model has a second layer")

    def _observe(self, size: int, full: bool, rows: int) -> Looks:
        """Look at a batch.

        Args:
            size: Rows of it.
            full: Whether no row has padding.
            rows: Rows that the layers before the head compute: `size`, or 1 of which the head takes copies.
        """
        orders, bodies = ([hashlib.blake2b(digest_size=16) for _ in range(size)] for _ in range(2))
        heads: list[torch.nn.Linear] = []

        def add(hashes: list, values: torch.Tensor) -> None:
            for digest, row in zip(hashes, values.float().cpu().numpy(), strict=True):
                digest.update(row.tobytes())

        def look(layer: torch.nn.Linear, inputs: tuple[torch.Tensor, ...], _output: torch.Tensor) -> None:
            values = inputs[0]
            if values.shape[:-1] == (size,):
                if not heads:
                    add(bodies, values)
                    for digest in bodies:
                        digest.update(repr((self._names[layer], values.stride())).encode())
                heads.append(layer)
                add(orders, values)
                for vector in _random_vectors(values.shape[1]).to(values):
                    same = values.new_empty_strided(values.shape, values.stride())
                    same.copy_(vector.expand_as(same))
                    add(orders, torch.nn.functional.linear(same, layer.weight, layer.bias))

        hooks = [layer.register_forward_hook(look) for layer in self._names]
        head = self._look(1, full).head if rows < size else None
        try:
            with _rows_of_head(head, [0] * size, list(range(size)), size):
                logits = self.forward([self._probes[full]] * rows)
        finally:
            for hook in hooks:
                hook.remove()
        add(orders, logits)
        if not heads:
            add(bodies, logits)
        return Looks([one.digest() for one in orders], [one.digest() for one in bodies], heads[0] if heads else None)


class _Stop(Exception):
    """Ends a forward pass early."""


@contextmanager
def _rows_of_head(layer: torch.nn.Linear | None, places: list[int], targets: list[int], size: int) -> Iterator[None]:
    """Give a layer, and so all that follows it, more rows: those at `places` become those at `targets` of `size`."""

    def widen(_layer: torch.nn.Linear, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        values = inputs[0]
        wide = values.new_empty_strided((size, values.shape[1]), values.stride()).zero_()
        wide[targets] = values[places]
        return (wide, *inputs[1:])

    if layer is None:
        yield
        return
    hook = layer.register_forward_pre_hook(widen)
    try:
        yield
    finally:
        hook.remove()


def _equal_layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the layers of a model of `LAYERS`; none if there is one, or if some have been pruned unlike others.

    Layers of the same shapes add in the same order: what the first one shows of a batch holds for all.
    """
    if model.config.model_type not in LAYERS:
        return []
    layers = list(model.get_submodule(LAYERS[model.config.model_type]))
    shapes = {tuple(weight.shape for weight in layer.parameters()) for layer in layers}
    return layers if len(layers) > 1 and len(shapes) == 1 else []


def _random_vectors(size: int) -> torch.Tensor:
    return torch.randn(VECTORS, size, generator=torch.Generator().manual_seed(0))
