"""Random numbers of training: keys, the host's generators, and the source of noise of each backend.

Every use of randomness in a training graph is a *place*: one for each dropout, then one for each gate
(`encoder.NoisePlaces`). A place takes uniform numbers in [0, 1) of its own shape. Every number is a function of a key
(seed, rank, step, pass), the place and the position. So a pass can be repeated with the same noise, and a resumed run
draws the same numbers as one that was never stopped.

* `KernelNoise` (CPU): the kernels draw each number where they need it. The graph is given only the key.
* `HostNoise` (CPU without kernels): NumPy draws the same numbers before the pass, ten times as fast as MindSpore's
  primitives would on a CPU.
* `IntegerNoise` (GPU): a graph of its own draws the same numbers before the pass.
* `FloatNoise` (Ascend): a graph of its own draws other numbers, by operations that Ascend has.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from mindspore import Tensor, mutable, nn, ops

from configs.contract.basics.processes import usable_cores
from mindspore_rt.cells import backend, kernels, uniform
from mindspore_rt.cells.backend import Backend

# Places of what is drawn outside of the graph; their numbers are far above those of the graph's places.
PERTURBATION, SHUFFLE, INITIAL, REINITIAL, CRITIC, PAIRS = ((1 << 24) + i for i in range(6))
THREADS = ThreadPoolExecutor(min(8, usable_cores()))

Shapes = Sequence[tuple[int, ...]]


def generator(seed: int, place: int, step: int = 0, ascent: int = 0, rank: int = 0) -> np.random.Generator:
    """Return NumPy's generator for one key.

    Every part of the key is a word of the seed sequence, so that no two keys meet by arithmetic. All parts must be
    below 2**32, as seeds are (`sections.LARGEST_SEED`).

    Args:
        seed: Seed of the training, or of the split of the data.
        place: Number of what is drawn: a constant above, such as `SHUFFLE`.
        step: Number of the update, or of the epoch.
        ascent: Number of the pass within the update.
        rank: Number of the worker.
    """
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, rank, step, ascent, place])))


class KernelNoise:
    """The key of one pass, from which the kernels draw.

    Args:
        seed: Seed of the training.
        rank: Number of the worker.
    """

    def __init__(self, seed: int, rank: int = 0) -> None:
        self.seed, self.rank = seed, rank

    def numbers(self, shapes: Shapes, step: int, ascent: int = 0) -> list[np.ndarray]:
        """Return what the kernels draw at every place, float32, for references and tests."""

        def draw_place(place: int, shape: tuple[int, ...]) -> np.ndarray:
            return kernels.uniform(self.seed, self.rank, step, ascent, place, shape)

        return list(THREADS.map(draw_place, range(len(shapes)), shapes))

    def draw(self, shapes: Shapes, step: int, ascent: int = 0) -> Tensor | tuple[Tensor, ...]:
        """Return what the graph takes: four words below 2**32 as the bits of int32 (4,), whatever the shapes."""
        return Tensor(np.array([self.seed, self.rank, step, ascent], np.uint32).view(np.int32))


class HostNoise(KernelNoise):
    """The kernels' numbers, drawn by NumPy."""

    def draw(self, shapes: Shapes, step: int, ascent: int = 0) -> tuple[Tensor, ...]:
        """Return what the graph takes: the numbers of every place."""
        # A plain tuple would count as a constant of the graph, which then compiles anew at every step.
        return mutable(tuple(Tensor.from_numpy(array) for array in self.numbers(shapes, step, ascent)))


class IntegerNoise(KernelNoise):
    """The kernels' numbers, drawn by a graph of their own for all places of a pass.

    Attributes:
        definition: Which numbers the graph draws.
    """

    definition: type[uniform.IntegerUniform | uniform.FloatUniform] = uniform.IntegerUniform

    def numbers(self, shapes: Shapes, step: int, ascent: int = 0) -> list[np.ndarray]:
        """Return what is drawn at every place, float32, for references and tests."""
        return [numbers.asnumpy() for numbers in self.draw(shapes, step, ascent)]

    def draw(self, shapes: Shapes, step: int, ascent: int = 0) -> tuple[Tensor, ...]:
        """Return what the graph of a pass takes: the numbers of every place, which stay on the device."""
        return mutable(self.draw_at(range(len(shapes)), shapes, step, ascent))

    def draw_at(self, places: Sequence[int], shapes: Shapes, step: int, ascent: int = 0) -> tuple[Tensor, ...]:
        """Return the numbers of some places, float32 of `shapes`, in their order."""
        states = kernels.place_states(self.seed, self.rank, step, ascent, np.array(places))
        graph = uniform.graph(self.definition, tuple(shapes))  # type: ignore[arg-type]  # a class is hashable
        return graph(states)


class FloatNoise(IntegerNoise):
    """Other numbers, by operations that are exact and fast on Ascend."""

    definition = uniform.FloatUniform


NOISE_SOURCES: dict[Backend, type[KernelNoise]] = {
    Backend.KERNELS: KernelNoise,
    Backend.PRIMITIVES: HostNoise,
    Backend.GPU: IntegerNoise,
    Backend.ASCEND: FloatNoise,
}


def source(seed: int, rank: int = 0) -> KernelNoise:
    """Return the backend's source of noise."""
    return NOISE_SOURCES[backend.current()](seed, rank)


class KernelUniform(nn.Cell):
    """Uniform numbers of one place, drawn by a kernel from the key of the pass.

    Args:
        place: Number of the place.
    """

    def __init__(self, place: int) -> None:
        super().__init__(auto_prefix=False)
        self.uniform, self.place_word = kernels.kernel("uniform", like=(0,)), Tensor(np.int32([place]))

    def construct(self, draws: Tensor, like: Tensor) -> Tensor:
        """Return numbers of the shape of `like`, float32."""
        return self.uniform(like, draws, self.place_word)

    def bprop(self, draws: Tensor, like: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        """Return zeros: neither input has a gradient."""
        return ops.zeros_like(draws), ops.zeros_like(like)


class DrawnUniform(nn.Cell):
    """Uniform numbers of one place, which were drawn before the pass.

    Args:
        place: Number of the place.
    """

    def __init__(self, place: int) -> None:
        super().__init__(auto_prefix=False)
        self.place = place

    def construct(self, draws: tuple[Tensor, ...], like: Tensor) -> Tensor:
        """Return the numbers of this place."""
        return draws[self.place]


def uniform_cell(place: int) -> nn.Cell:
    """Return the backend's cell (draws, like) -> uniform numbers of a place, of the shape of `like`, float32."""
    return KernelUniform(place) if backend.current() is Backend.KERNELS else DrawnUniform(place)
