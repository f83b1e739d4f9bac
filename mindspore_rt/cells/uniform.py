"""Uniform random numbers by MindSpore graphs without state, for devices on which `kernels.cc` does not run.

A graph draws the numbers of all places of a pass. It takes a few words for each place, computed by NumPy from the key.
There are two definitions, since devices have different operators:

* `IntegerUniform`, for GPU, draws what the kernels draw, bit for bit.
* `FloatUniform` is for Ascend, which shifts integers on its AI CPU only, and documents no overflow of their products.
  Its sums and products are whole numbers below 2^24, which float32 holds exactly.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import operations

from mindspore_rt.cells import backend, kernels

Shapes = tuple[tuple[int, ...], ...]
COLUMNS = 4096  # the numbers of a place are drawn as a grid, whose last row may be cut
LARGEST_GROUP = 32  # places of one shape that are drawn at once; more would take more memory at a time


class IntegerUniform(nn.Cell):
    """The kernels' numbers, by uint32 operations that wrap.

    Each primitive reads and writes all numbers, so there are as few as can be. The first step of a scramble,
    x ^ (x >> 16), is linear in the bits. So it is done on the rows of the grid alone: that of a column, below 2^16, is
    the column itself.

    Args:
        sizes: Numbers of a place, for each group of places.
    """

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__(auto_prefix=False)
        self.sizes, self.columns = sizes, Tensor(np.arange(COLUMNS, dtype=np.uint32))
        self.rows = tuple(Tensor(np.arange(0, size, COLUMNS, dtype=np.uint32)[None]) for size in sizes)
        self.xor, self.shift, self.divide = ops.BitwiseXor(), operations.RightShift(), ops.Div()
        (first, *shifts), (*factors, _) = zip(*kernels.SCRAMBLE)  # the last factor is 1
        self.first, self.steps = _word(first), tuple((_word(f), _word(s)) for f, s in zip(factors, shifts))
        self.eight, self.whole = _word(8), _word(2**24)

    @staticmethod
    def words(states: np.ndarray) -> np.ndarray:
        """Return what the graph takes: both halves of the states of places, uint64 (places,), as uint32 (places, 2)."""
        return np.stack([states, states >> np.uint64(32)], 1).astype(np.uint32)

    def prepare(self, words: Tensor) -> tuple[Tensor, ...]:
        """Return both halves of the state of each place, uint32 (places, 1)."""
        return words[:, 0:1], words[:, 1:2]

    def construct(self, low: Tensor, high: Tensor, group: int) -> Tensor:
        """Return the numbers of a group of places, (places, size) float32 in [0, 1)."""
        rows = self._fold(self.xor(self.rows[group], low), self.first)
        x = self.xor(rows.reshape(rows.shape[0], -1, 1), self.columns).reshape(rows.shape[0], -1)
        x = self._scramble(self._fold(self._scramble(x) + high, self.first))
        # Div makes float32 of both, and the quotient of a number of 24 bits and 2^24 is exact.
        return _cut(self.divide(self.shift(x, self.eight), self.whole), self.sizes[group])

    def _fold(self, x: Tensor, bits: Tensor) -> Tensor:
        return self.xor(x, self.shift(x, bits))

    def _scramble(self, x: Tensor) -> Tensor:
        """Do the steps of a scramble after the first."""
        for factor, bits in self.steps:
            x = self._fold(x * factor, bits)
        return x


class FloatUniform(nn.Cell):
    """Numbers of 24 bits, by float32 operations on two words of 12 bits that a Feistel network mixes.

    The numbers of a place form a grid of 4,096 columns. Each row and each column gets three words of its own, by
    many rounds. A position starts from the sums of the words of its row and column, and takes four rounds. No two rows
    of a place have the same first two words, since a Feistel network is a bijection; nor have two columns.

    Args:
        sizes: Numbers of a place, for each group of places.
    """

    LINE_ROUNDS, THIRD_WORD_ROUNDS, ROUNDS = 6, 2, 4

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__(auto_prefix=False)
        self.sizes, self.rows = sizes, tuple(-(-size // COLUMNS) for size in sizes)
        lines = np.arange(COLUMNS + max(self.rows), dtype=np.float32)[None]
        self.line_low, self.line_high = Tensor(lines % 4096), Tensor(lines // 4096)

    @staticmethod
    def words(states: np.ndarray) -> np.ndarray:
        """Return what the graph takes: 10 words of 12 bits, float32 (places, 10), from states, uint64 (places,)."""
        pair = np.stack([states, kernels.finalise(states)], 1)
        shifted = pair[:, :, None] >> np.arange(0, 60, 12, dtype=np.uint64)
        return (shifted & np.uint64(4095)).reshape(len(states), 10).astype(np.float32)

    def prepare(self, words: Tensor) -> tuple[Tensor, ...]:
        """Return the three words of all lines of each place, (places, lines) float32: 4,096 columns, then rows."""
        a = _modulo(self.line_low + words[:, 0:1])
        b = _modulo(self.line_high + words[:, 1:2])
        for i in range(self.LINE_ROUNDS):
            a, b = _modulo(_square(a) + b + words[:, 2 + i : 3 + i]), a
        c, d = a, b
        for i in range(self.LINE_ROUNDS, self.LINE_ROUNDS + self.THIRD_WORD_ROUNDS):
            c, d = _modulo(_square(c) + d + words[:, 2 + i : 3 + i]), c
        return a, b, c

    def construct(self, first: Tensor, second: Tensor, third: Tensor, group: int) -> Tensor:
        """Return the numbers of a group of places, (places, size) float32 in [0, 1)."""
        end = COLUMNS + self.rows[group]
        columns = [words[:, :COLUMNS].reshape(-1, 1, COLUMNS) for words in (first, second, third)]
        rows = [words[:, COLUMNS:end].reshape(-1, end - COLUMNS, 1) for words in (first, second, third)]
        a, b = _modulo(rows[0] + columns[0]), rows[1] + columns[1]
        a, b = _modulo(_square(a) + b), a
        for i in range(1, self.ROUNDS):
            a, b = _modulo(_square(a) + b + (rows[2] if i % 2 else columns[2])), a
        return _cut(((a * 4096.0 + b) * 2.0**-24).reshape(a.shape[0], -1), self.sizes[group])


@functools.cache
def graph(generator: type[IntegerUniform | FloatUniform], shapes: Shapes) -> Callable[[np.ndarray], tuple[Tensor, ...]]:
    """Compile the draw of all places of a pass.

    Args:
        generator: Definition of the numbers.
        shapes: Shape of each place.

    Returns:
        A function from the states of the places, uint64 (places,), to their numbers, float32.
    """
    order = sorted(range(len(shapes)), key=lambda place: shapes[place])
    starts = [0]  # of the groups in `order`
    for i, place in enumerate(order):
        if shapes[place] != shapes[order[starts[-1]]] or i == starts[-1] + LARGEST_GROUP:
            starts.append(i)
    parts = tuple(
        (start, end, shapes[order[start]]) for start, end in zip(starts, [*starts[1:], len(order)], strict=True)
    )
    numbers = generator(tuple(math.prod(shape) for *_, shape in parts))

    @backend.jit
    def draw(words: Tensor) -> tuple[Tensor, ...]:
        state, drawn = numbers.prepare(words), ()
        for i in range(len(parts)):
            start, end, shape = parts[i]
            group = numbers(*[word[start:end] for word in state], i)
            drawn = drawn + ops.unstack(group.reshape(end - start, *shape))
        return drawn

    positions = np.argsort(order)

    def draw_all(states: np.ndarray) -> tuple[Tensor, ...]:
        drawn = draw(Tensor(generator.words(states[order])))
        return tuple(drawn[position] for position in positions)

    return draw_all


def _square(word: Tensor) -> Tensor:
    """Return the upper 18 bits of the square of a word of 12 bits, the function of the Feistel network."""
    return ops.floor(word * word * 2.0**-6)


def _modulo(x: Tensor) -> Tensor:
    """Return `x` modulo 4096, for whole numbers below 2^24."""
    return x - ops.floor(x * 2.0**-12) * 4096.0


def _cut(numbers: Tensor, size: int) -> Tensor:
    """Return the first `size` numbers of each place. A slice of all would copy them."""
    return numbers if numbers.shape[1] == size else numbers[:, :size]


def _word(word: int) -> Tensor:
    """Return a number below 2^32 as uint32 (1,)."""
    return Tensor(np.uint32([word]))
