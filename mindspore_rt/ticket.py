"""A ticket: which weights of a BERT are kept. NumPy only; needs neither MindSpore nor PyTorch.

    >>> from mindspore_rt.ticket import Ticket
    >>> ticket = Ticket.load("robust-0.30.safetensors")
    >>> ticket.sparsity
    0.3
    >>> pruned = ticket.apply(weights)          # weights: {name: array}, pruned ones become exact zeros
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import save

from configs.errors import UserError
from configs.run_dir import atomic_write

FORMAT = "ticket/1"


@dataclass
class Ticket:
    """`masks`: name of each prunable matrix to a boolean array of its shape, True where the weight is kept.
    `about`: where it comes from (method, seed, source hash ...), strings only."""

    masks: dict[str, np.ndarray]
    about: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_scores(cls, scores: dict[str, np.ndarray], sparsity: float, **about: str) -> Ticket:
        """Prune the `sparsity` share of all weights with the lowest scores, over all matrices at once (section 3.3).

        Raw scores are ranked, so ties of a float32 sigmoid cannot arise; equal scores are pruned in the
        order of the matrices. The number pruned is round(sparsity * weights).
        """
        if not 0 <= sparsity <= 1:
            raise ValueError(f"sparsity {sparsity} is not between 0 and 1")
        flat = np.concatenate([np.ravel(s) for s in scores.values()])
        if not np.isfinite(flat).all():
            raise ValueError("a score is not finite")
        count = round(sparsity * flat.size)
        kept = np.ones(flat.size, bool)
        if count:
            threshold = np.partition(flat, count - 1)[count - 1]
            below = flat < threshold
            kept[below] = False
            ties = np.flatnonzero(flat == threshold)
            kept[ties[: count - int(below.sum())]] = False
        return cls(_split(kept, scores), dict(about))

    @classmethod
    def from_magnitudes(cls, weights: dict[str, np.ndarray], sparsity: float, **about: str) -> Ticket:
        """Prune the weights of smallest absolute value."""
        return cls.from_scores({name: np.abs(w) for name, w in weights.items()}, sparsity, **about)

    @property
    def weights(self) -> int:
        return sum(m.size for m in self.masks.values())

    @property
    def pruned(self) -> int:
        return sum(int(m.size - np.count_nonzero(m)) for m in self.masks.values())

    @property
    def sparsity(self) -> float:
        """Share of pruned weights, 0 to 1."""
        return self.pruned / self.weights

    def pruned_share(self) -> dict[str, float]:
        """Share of pruned weights of each matrix (Figure 3)."""
        return {name: 1 - np.count_nonzero(m) / m.size for name, m in self.masks.items()}

    def overlap(self, other: Ticket) -> float:
        """Pruned in both over pruned in either (intersection over union), 0 to 1."""
        both = sum(int((~m & ~other.masks[name]).sum()) for name, m in self.masks.items())
        either = self.pruned + other.pruned - both
        return both / either if either else 1.0

    def apply(self, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A copy of `weights` with every pruned one an exact zero. Raises `KeyError` for a missing matrix."""
        for name, mask in self.masks.items():
            if weights[name].shape != mask.shape:
                raise ValueError(f"{name} is {weights[name].shape}, the ticket's mask {mask.shape}")
        return {name: np.where(self.masks[name], w, w.dtype.type(0)) if name in self.masks else w
                for name, w in weights.items()}

    def save(self, path: Path) -> None:
        """One safetensors file, one bit a weight."""
        shapes = {name: list(mask.shape) for name, mask in self.masks.items()}
        header = {"format": FORMAT, "shapes": shapes, "sparsity": self.sparsity, "about": self.about}
        packed = {name: np.packbits(mask, axis=None) for name, mask in self.masks.items()}
        # One key: the library writes several in random order, and the same ticket must be the same bytes.
        atomic_write(Path(path), save(packed, metadata={"ticket": json.dumps(header)}))

    @classmethod
    def load(cls, path: Path) -> Ticket:
        """Read a ticket. Raises `UserError` naming the file and what is wrong with it."""
        try:
            with safetensors.safe_open(path, "numpy") as file:
                header = (file.metadata() or {}).get("ticket", "{}")
                packed = {name: file.get_tensor(name) for name in file.keys()}
        except FileNotFoundError:
            raise UserError(f"{path} is missing: run the draw stage first") from None
        except safetensors.SafetensorError as error:
            raise UserError(f"{path}: not a whole safetensors file ({error})") from None
        try:
            header = json.loads(header)
            if header.get("format") != FORMAT:
                raise UserError(f"{path}: not a ticket (its format is not {FORMAT})")
            ticket = cls({n: _unpack(packed[n], shape) for n, shape in header["shapes"].items()}, header["about"])
            stated = header["sparsity"]
        except (AttributeError, KeyError, ValueError, TypeError) as error:
            raise UserError(f"{path}: damaged ticket ({error}); draw it again") from None
        if stated != ticket.sparsity:
            raise UserError(f"{path}: says sparsity {stated}, its masks have {ticket.sparsity}; draw it again")
        return ticket


def _split(flat: np.ndarray, like: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    masks, start = {}, 0
    for name, array in like.items():
        masks[name] = flat[start : start + array.size].reshape(array.shape)
        start += array.size
    return masks


def _unpack(bits: np.ndarray, shape: list[int]) -> np.ndarray:
    size = int(np.prod(shape))
    if bits.dtype != np.uint8 or bits.size != -(-size // 8):
        raise ValueError(f"{bits.size} bytes for a {shape} mask")
    return np.unpackbits(bits, count=size).astype(bool).reshape(shape)
