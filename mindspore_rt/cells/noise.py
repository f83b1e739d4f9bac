"""Random numbers of training: keys, the host's generators, and the source of noise of each backend.

Every use of randomness in a training graph is a *place*: one for each dropout, then one for each gate
(`bert.NoisePlaces`). A place takes uniform numbers in [0, 1) of its own shape, new ones in every ascent step.

* `KernelNoise` (CPU, fused kernels): every number is a function of a key (seed, rank, step, ascent step), the place
  and the position. The graph is given only the key.
* `HostNoise` (CPU, primitives): NumPy draws all numbers, with one generator for each key and place.
  With both, a run that was killed and resumed draws the same numbers bit for bit.
* `DeviceNoise` (GPU, Ascend): the graph draws. NumPy would take longer for the 85 million gates of BERT-base than the
  step takes. A resumed run draws other numbers of the same distribution.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from mindspore import Tensor, mutable, nn, ops

from mindspore_rt import parallel
from mindspore_rt.cells import backend, kernels
from mindspore_rt.cells.backend import Backend

# Numbers of what is drawn outside of the graph, far above those of its places.
PERTURBATION, SHUFFLE, INITIAL, REINITIAL, CRITIC, PAIRS = ((1 << 24) + i for i in range(6))
THREADS = ThreadPoolExecutor(min(8, os.cpu_count() or 1))

Shapes = Sequence[tuple[int, ...]]


def generator(seed: int, place: int, step: int = 0, ascent: int = 0, rank: int = 0) -> np.random.Generator:
    """Return NumPy's generator for one key.

    Every part of the key is a word of the seed sequence, so that no two keys meet by arithmetic. All parts must be
    below 2**32, as seeds are (`schema.LARGEST_SEED`).
    """
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, rank, step, ascent, place])))


class HostNoise:
    """Uniform numbers drawn on the host for all places of one pass."""

    def __init__(self, seed: int, rank: int = 0) -> None:
        self.seed, self.rank = seed, rank

    def numbers(self, shapes: Shapes, step: int, ascent: int = 0) -> list[np.ndarray]:
        """Return one float32 array in [0, 1) for each of `shapes`, the i-th for place i."""

        def draw_place(place: int, shape: tuple[int, ...]) -> np.ndarray:
            return generator(self.seed, place, step, ascent, self.rank).random(shape, dtype=np.float32)

        # Every place has a generator of its own, so the threads change nothing but the time.
        return list(THREADS.map(draw_place, range(len(shapes)), shapes))

    def draw(self, shapes: Shapes, step: int, ascent: int = 0) -> tuple[Tensor, ...]:
        """Return what the graph takes: `numbers` as tensors."""
        # A plain tuple would count as a constant of the graph, which then compiles anew at every step.
        return mutable(tuple(Tensor.from_numpy(array) for array in self.numbers(shapes, step, ascent)))


class KernelNoise:
    """The key of one pass, from which the kernels draw."""

    def __init__(self, seed: int, rank: int = 0) -> None:
        self.seed, self.rank = seed, rank

    def numbers(self, shapes: Shapes, step: int, ascent: int = 0) -> list[np.ndarray]:
        """Return what the kernels draw at every place, for references and tests; see `HostNoise.numbers`."""
        return [kernels.uniform(self.seed, self.rank, step, ascent, i, shape) for i, shape in enumerate(shapes)]

    def draw(self, shapes: Shapes, step: int, ascent: int = 0) -> Tensor:
        """Return what the graph takes: four words below 2**32 as the bits of int32 (4,), whatever the shapes."""
        return Tensor(np.array([self.seed, self.rank, step, ascent], np.uint32).view(np.int32))


class DeviceNoise:
    """No noise from outside: the graph draws by itself."""

    def __init__(self, seed: int, rank: int = 0) -> None:
        """Take what the other sources take; the graph's seeds are set where it is built."""

    def draw(self, shapes: Shapes, step: int, ascent: int = 0) -> tuple:
        """Return what the graph takes: nothing."""
        return ()


Noise = HostNoise | KernelNoise | DeviceNoise
SOURCES: dict[Backend, type[Noise]] = {
    Backend.KERNELS: KernelNoise,
    Backend.HOST: HostNoise,
    Backend.DEVICE: DeviceNoise,
}


def source(seed: int, rank: int = 0) -> Noise:
    """Return the backend's source of noise."""
    return SOURCES[backend.current()](seed, rank)


class KernelUniform(nn.Cell):
    """Uniform numbers of one place, drawn by a kernel from the key of the pass."""

    def __init__(self, place: int, seed: int = 0) -> None:
        super().__init__(auto_prefix=False)
        self.place, self.uniform = place, kernels.kernel("uniform", like=(0,))
        self.place_word = Tensor(np.int32([place]))

    def construct(self, draws: Tensor, like: Tensor) -> Tensor:
        """Return numbers of the shape of `like`, float32."""
        return self.uniform(like, draws, self.place_word)

    def bprop(self, draws: Tensor, like: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        """Neither input has a gradient."""
        return ops.zeros_like(draws), ops.zeros_like(like)


class HostUniform(nn.Cell):
    """Uniform numbers of one place, drawn on the host."""

    def __init__(self, place: int, seed: int = 0) -> None:
        super().__init__(auto_prefix=False)
        self.place = place

    def construct(self, draws: tuple[Tensor, ...], like: Tensor) -> Tensor:
        """Return the numbers of this place."""
        return draws[self.place]


class DeviceUniform(nn.Cell):
    """Uniform numbers of one place, drawn on the device; every rank has its own.

    Each place has a primitive of its own: one that is used at two places of a graph draws the same numbers at both.
    """

    def __init__(self, place: int, seed: int = 0) -> None:
        super().__init__(auto_prefix=False)
        self.place, self.uniform = place, ops.UniformReal(seed=seed + 1, seed2=(parallel.rank() << 16) + place + 1)

    def construct(self, draws: tuple, like: Tensor) -> Tensor:
        """Return numbers of the shape of `like`, float32."""
        return self.uniform(like.shape)


UNIFORM_CELLS = {Backend.KERNELS: KernelUniform, Backend.HOST: HostUniform, Backend.DEVICE: DeviceUniform}


def uniform_cell(place: int, seed: int = 0) -> nn.Cell:
    """Return the backend's cell (draws, like) -> uniform numbers of the shape of `like`, float32.

    Args:
        place: Number of the place.
        seed: Seed of the device's own random numbers; on CPU the noise comes from outside.
    """
    return UNIFORM_CELLS[backend.current()](place, seed)
