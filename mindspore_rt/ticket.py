"""A ticket says which weights of an encoder are kept. This module needs neither MindSpore nor PyTorch.

>>> from mindspore_rt.ticket import Ticket
>>> ticket = Ticket.load("robust-0.30.safetensors")
>>> ticket.sparsity
0.3
>>> pruned = ticket.apply(weights)          # weights: {name: array}, pruned ones become exact zeros
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import save

from configs.contract.basics.errors import Missing, UserError, redo
from configs.contract.basics.files import atomic_write
from mindspore_rt import units

FORMAT = "ticket/1"


@dataclass
class Ticket:
    """Masks of all prunable matrices.

    Attributes:
        masks: Name of each matrix to a boolean array of its shape, True where the weight is kept.
        about: Origin of the ticket (method, seed, hash of the scores ...).
    """

    masks: dict[str, np.ndarray]
    about: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_scores(
        cls, scores: dict[str, np.ndarray], sparsity: float, official: bool = False, **about: str
    ) -> Ticket:
        """Prune the weights with the lowest scores, over all matrices at once (section 3.3).

        Equal scores are pruned in the order of the matrices.

        Args:
            scores: One array for each prunable matrix.
            sparsity: Share of weights to prune, 0 to 1; round(sparsity * weights) are pruned.
            official: Rank float32 sigmoids of the scores, as the official code does. Many of them tie once scores have
                grown, and that code leaves it to torch.topk which of the tied are pruned. `about["tied"]` then states
                how many are at the threshold, `about["tied_pruned"]` how many of those are pruned.
            **about: Origin of the ticket.

        Raises:
            ValueError: The sparsity is out of range, or a score is not finite.
        """
        if not 0 <= sparsity <= 1:
            raise ValueError(f"sparsity {sparsity} is not between 0 and 1")
        flat = np.concatenate([np.ravel(s) for s in scores.values()])
        if not np.isfinite(flat).all():
            raise ValueError("a score is not finite")
        if official:
            flat = float32_sigmoid(flat)
        count = round(sparsity * flat.size)
        mask = np.ones(flat.size, bool)
        if count:
            threshold = np.partition(flat, count - 1)[count - 1]
            below = flat < threshold
            mask[below] = False
            ties, missing = np.flatnonzero(flat == threshold), count - int(below.sum())
            mask[ties[:missing]] = False
            if official:
                about.update(tied=str(ties.size), tied_pruned=str(missing))
        parts = np.split(mask, np.cumsum([s.size for s in scores.values()])[:-1])
        masks = {name: part.reshape(scores[name].shape) for name, part in zip(scores, parts, strict=True)}
        return cls(masks, about)

    @classmethod
    def from_magnitudes(cls, weights: dict[str, np.ndarray], sparsity: float) -> Ticket:
        """Prune the weights of smallest absolute value."""
        return cls.from_scores({name: np.abs(w) for name, w in weights.items()}, sparsity)

    @classmethod
    def from_random_like(cls, ticket: Ticket, seed: int | np.random.Generator, **about: str) -> Ticket:
        """Draw a ticket with the sparsity of `ticket` in every matrix, at random positions."""
        random = np.random.default_rng(seed)
        masks = {name: random.permutation(mask.ravel()).reshape(mask.shape) for name, mask in ticket.masks.items()}
        return cls(masks, about)

    @classmethod
    def random_units_like(cls, ticket: Ticket, heads: int, seed: int | np.random.Generator) -> Ticket:
        """Draw a structured ticket with as many heads and neurons in every layer as `ticket` has, but random ones."""
        random = np.random.default_rng(seed)
        shuffled = ([random.permutation(layer) for layer in layers] for layers in units.remaining(ticket.masks, heads))
        return cls(units.masks(ticket.shapes, *shuffled))

    @classmethod
    def structured(cls, scores: dict[str, np.ndarray], heads: int, sparsity: float, **about: str) -> Ticket:
        """Prune whole attention heads and intermediate neurons, those of lowest mean score.

        A head owns its rows of query, key and value and its columns of attention output; a neuron owns its row of
        intermediate and its column of output. The same share of heads and of neurons is pruned: heads over all layers
        at once, but every layer keeps one; equally many neurons in every layer, so that the model can be shrunk to one
        intermediate size. The sparsity is as near to the requested one as whole neurons allow. The pooler has no units
        and stays dense.

        Args:
            scores: One score for each weight of every prunable matrix.
            heads: Number of heads of a layer.
            sparsity: Share of weights to prune.
            **about: Origin of the ticket.

        Raises:
            ValueError: The sparsity cannot be reached.
        """
        return cls(units.prune(scores, heads, sparsity), about)

    def spread(self, shapes: dict[str, tuple[int, int]]) -> Ticket:
        """Return the ticket of whole matrices, where weights shared the scores that this one was drawn from."""
        return Ticket({name: spread(mask, shapes[name]) for name, mask in self.masks.items()}, self.about)

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Name and shape of every prunable matrix."""
        return {name: mask.shape for name, mask in self.masks.items()}

    @property
    def weights(self) -> int:
        """Number of weights of all prunable matrices."""
        return sum(m.size for m in self.masks.values())

    @property
    def pruned(self) -> int:
        """Number of pruned weights."""
        return sum(int(m.size - np.count_nonzero(m)) for m in self.masks.values())

    @property
    def sparsity(self) -> float:
        """Share of pruned weights, 0 to 1."""
        return self.pruned / self.weights

    def is_structured(self, heads: int) -> bool:
        """Tell whether nothing is pruned but whole heads and neurons, each in all its matrices of a layer.

        A layer has so many heads, and one without any could not be shrunk.
        """
        kept_heads, kept_neurons = units.remaining(self.masks, heads)
        whole = units.masks(self.shapes, kept_heads, kept_neurons)
        return all(map(np.any, kept_heads)) and all((mask == whole[name]).all() for name, mask in self.masks.items())

    def pruned_share(self) -> dict[str, float]:
        """Return the share of pruned weights of each matrix (Figure 3)."""
        return {name: 1 - np.count_nonzero(m) / m.size for name, m in self.masks.items()}

    def overlap(self, other: Ticket) -> float:
        """Return intersection over union of the pruned weights: pruned in both tickets / pruned in either, 0 to 1.

        Raises:
            ValueError: The tickets are of other matrices.
        """
        self._same_matrices(other)
        both = sum(int((~m & ~other.masks[name]).sum()) for name, m in self.masks.items())
        either = self.pruned + other.pruned - both
        return both / either if either else 1.0

    @property
    def chance_overlap(self) -> float:
        """Overlap that two random tickets of this sparsity s have: each prunes s, both s², either 2s - s²."""
        return self.sparsity / (2 - self.sparsity)

    def distance(self, other: Ticket) -> float:
        """Return the Hamming distance: the share of weights that one ticket keeps and the other prunes, 0 to 1.

        Raises:
            ValueError: The tickets are of other matrices.
        """
        self._same_matrices(other)
        return sum(int(np.count_nonzero(m ^ other.masks[name])) for name, m in self.masks.items()) / self.weights

    def _same_matrices(self, other: Ticket) -> None:
        if self.shapes != other.shapes:
            raise ValueError("the tickets are of two models: their matrices differ")

    def apply(self, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return a copy of `weights` with an exact zero for every pruned weight.

        Raises:
            KeyError: A matrix is missing.
            ValueError: A matrix does not have the shape of its mask.
        """
        for name, mask in self.masks.items():
            if weights[name].shape != mask.shape:
                raise ValueError(f"{name} is {weights[name].shape}, the ticket's mask {mask.shape}")
        return {
            name: np.where(self.masks[name], w, w.dtype.type(0)) if name in self.masks else w
            for name, w in weights.items()
        }

    def save(self, path: Path) -> None:
        """Write a safetensors file with one bit for each weight.

        Raises:
            ValueError: A mask is not of a matrix, such as one of biases; `load` would refuse the file.
        """
        for name, mask in self.masks.items():
            if mask.ndim != 2 or mask.dtype != bool or not mask.size:
                raise ValueError(
                    f"{name} is {mask.shape} of {mask.dtype}: a ticket has boolean masks of matrices alone"
                )
        packed = {name: np.packbits(mask, axis=None) for name, mask in self.masks.items()}
        header = {"format": FORMAT, "shapes": self.shapes, "sparsity": self.sparsity}
        header |= {"sha256": _digest(self.shapes, packed), "about": self.about}
        # One key: the library writes several in random order, and the same ticket must be the same bytes.
        atomic_write(Path(path), save(packed, metadata={"ticket": json.dumps(header)}))

    @classmethod
    def load(cls, path: Path, shapes: dict[str, tuple[int, int]] | None = None) -> Ticket:
        """Read a ticket.

        Args:
            path: File that `save` wrote.
            shapes: Name and shape of every prunable matrix of the model that the ticket must fit, if given.

        Raises:
            UserError: The file is missing or damaged, or the ticket is of another model.
        """
        try:
            with safetensors.safe_open(path, "numpy") as file:
                header = (file.metadata() or {}).get("ticket", "{}")
                packed = {name: file.get_tensor(name) for name in file.keys()}
        except FileNotFoundError:
            raise Missing(Path(path)) from None
        except (safetensors.SafetensorError, AttributeError, TypeError, OSError) as error:  # of a folder; of a dtype
            remedy = redo(Path(path), "draw it again")
            raise UserError(f"{path}: not a complete safetensors file ({error}); {remedy}") from None
        try:
            header = json.loads(header)
            if header.get("format") != FORMAT:
                raise UserError(f"{path}: not a ticket (its format is not {FORMAT})")
            masks = {name: unpack_mask(packed[name], shape) for name, shape in header["shapes"].items()}
            ticket = cls(masks, dict(header["about"]))
            if not ticket.masks:
                raise ValueError("it has no masks")
            if header["sparsity"] != ticket.sparsity:
                raise ValueError(f"it says sparsity {header['sparsity']}, its masks have {ticket.sparsity}")
            if header.get("sha256") not in (None, _digest(header["shapes"], packed)):  # older tickets state none
                raise ValueError("its masks are not those that it was saved with")
        except (AttributeError, KeyError, ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{path}: damaged ticket ({error}); {redo(Path(path), 'draw it again')}") from None
        if shapes is not None and ticket.shapes != shapes:
            raise UserError(
                f"{path}: a ticket of another model: its masks are not those of this one's matrices; "
                f"draw it again, or choose the model that it was drawn for"
            )
        return ticket


def float32_sigmoid(scores: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x)) with every step rounded to float32, which the official code ranks.

    Near 1 it takes far fewer values than float32 has there. The last bit of the exponential may differ from torch's.
    """
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-scores.astype(np.float32)))


def spread(shared: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return one value for each weight of a matrix from values that weights share.

    The sharing has the stride of the official code: row i belongs to group i mod groups, and so do columns.

    Args:
        shared: (groups of rows, groups of columns).
        shape: Shape of the matrix.

    Raises:
        ValueError: The numbers of groups do not divide the shape.
    """
    if not divides(shared.shape, shape):
        raise ValueError(f"{list(shared.shape)} shared values do not divide a {shape[0]} x {shape[1]} matrix")
    return np.tile(shared, (shape[0] // shared.shape[0], shape[1] // shared.shape[1]))


def divides(groups: tuple[int, ...], shape: tuple[int, int]) -> bool:
    """Tell whether rows and columns of a matrix make up these numbers of groups, each of the same size."""
    return len(groups) == 2 and all(number and not size % number for size, number in zip(shape, groups))


def unpack_mask(bits: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the mask of a matrix from its bits. Raises `ValueError` if they are not those of this shape."""
    if len(shape) != 2 or any(type(size) is not int or size < 1 for size in shape):
        raise ValueError(f"a mask is {shape}")
    size = math.prod(shape)
    if bits.dtype != np.uint8 or bits.size != -(-size // 8):
        raise ValueError(f"{bits.size} bytes for a {shape} mask")
    return np.unpackbits(bits, count=size).astype(bool).reshape(shape)


def _digest(shapes: Mapping[str, Sequence[int]], packed: dict[str, np.ndarray]) -> str:
    """Return the SHA-256 of the masks; flipped bits may leave the sparsity as it was."""
    digest = hashlib.sha256(json.dumps(shapes).encode())
    for name in shapes:
        digest.update(packed[name].tobytes())
    return digest.hexdigest()
