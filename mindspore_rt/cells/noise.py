"""Where random numbers come from: the one module that decides.

Every use of randomness in a training graph is a *place*: one number for each dropout, then one for
each gate. A place takes uniform numbers in [0, 1) of its own shape, fresh for every ascent step.

* On CPU the fused kernels draw them, each element's from a counter: what is passed to the graph is only the key
  (seed, rank, step, ascent step), and every place adds its own number to it (`KernelNoise`).
* On CPU without kernels they come from the host (`HostNoise`), from one generator for each key and place.
  Either way a run that was killed and resumed draws the same numbers, bit for bit.
* On GPU and Ascend they come from the device (`DeviceUniform`): host noise for the 85 million masks of
  BERT-base would take longer than the step. There a resumed run is the same only statistically.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from mindspore import Tensor, context, mutable, nn, ops

from mindspore_rt import parallel
from mindspore_rt.cells import kernels

# What may be drawn outside of a place, with numbers far above any place.
PERTURBATION, SHUFFLE, INITIAL, REINITIAL, CRITIC, PAIRS = ((1 << 24) + i for i in range(6))
THREADS = ThreadPoolExecutor(min(8, os.cpu_count() or 1))


def generator(seed: int, place: int, step: int = 0, ascent: int = 0, rank: int = 0) -> np.random.Generator:
    """A NumPy generator for one key. Each part of the key is one word of the seed sequence, so two keys
    never collide by arithmetic; all parts must be below 2**32 (seeds are: `schema.LARGEST_SEED`)."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, rank, step, ascent, place])))


class HostNoise:
    """Uniform numbers made on the host for all places of one pass."""

    def __init__(self, seed: int, rank: int = 0):
        self.seed, self.rank = seed, rank

    def numbers(self, shapes, step: int, ascent: int = 0) -> list[np.ndarray]:
        """One float32 array in [0, 1) for each of `shapes`, the i-th for place i."""

        def one(place, shape):
            return generator(self.seed, place, step, ascent, self.rank).random(shape, dtype=np.float32)

        # Every place has a generator of its own, so the threads change nothing but the time.
        return list(THREADS.map(one, range(len(shapes)), shapes))

    def draw(self, shapes, step: int, ascent: int = 0) -> tuple[Tensor, ...]:
        """What the graph takes: `numbers` as tensors."""
        # A plain tuple would count as a constant of the graph, which then compiles anew at every step.
        return mutable(tuple(Tensor.from_numpy(array) for array in self.numbers(shapes, step, ascent)))


class KernelNoise:
    """The key of one pass; the kernels draw."""

    def __init__(self, seed: int, rank: int = 0):
        self.seed, self.rank = seed, rank

    def numbers(self, shapes, step: int, ascent: int = 0) -> list[np.ndarray]:
        """What the kernels draw at every place, for references and tests; as `HostNoise.numbers`."""
        return [kernels.uniform(self.seed, self.rank, step, ascent, i, shape) for i, shape in enumerate(shapes)]

    def draw(self, shapes, step: int, ascent: int = 0) -> Tensor:
        """(4,) int32, the bits of four words below 2**32; the same for all shapes."""
        return Tensor(np.array([self.seed, self.rank, step, ascent], np.uint32).view(np.int32))


class DeviceNoise:
    """Stands in for `HostNoise` where the graph draws by itself: there is nothing to pass."""

    def draw(self, shapes, step: int, ascent: int = 0) -> tuple:
        return ()


def noise_for(seed: int, rank: int = 0) -> KernelNoise | HostNoise | DeviceNoise:
    if not on_host():
        return DeviceNoise()
    return KernelNoise(seed, rank) if kernels.available() else HostNoise(seed, rank)


def source() -> str:
    """Where training draws its noise from, for manifests: another source means other numbers."""
    if not on_host():
        return "device"
    return "kernels" if kernels.available() else "host"


def on_host() -> bool:
    return context.get_context("device_target") == "CPU"


class KernelUniform(nn.Cell):
    """The uniform numbers of one place, (draws, like) -> float32 of the shape of `like`, drawn by a kernel."""

    def __init__(self, place: int):
        super().__init__(auto_prefix=False)
        self.place, self.uniform = place, kernels.kernel("uniform", like=(0,))
        self.word = Tensor(np.int32([place]))

    def construct(self, draws, like):
        return self.uniform(like, draws, self.word)

    def bprop(self, draws, like, out, dout):
        return ops.zeros_like(draws), ops.zeros_like(like)


class HostUniform(nn.Cell):
    """The uniform numbers of one place, handed in from the host."""

    def __init__(self, place: int):
        super().__init__(auto_prefix=False)
        self.place = place

    def construct(self, draws, like):
        return draws[self.place]


class DeviceUniform(nn.Cell):
    """The uniform numbers of one place, drawn on the device. One primitive for each place: a random
    primitive that is used at two places of a graph draws the same values at both. Every rank has its own numbers."""

    def __init__(self, place: int, seed: int):
        super().__init__(auto_prefix=False)
        self.place, self.uniform = place, ops.UniformReal(seed=seed + 1, seed2=(parallel.rank() << 16) + place + 1)

    def construct(self, draws, like):
        return self.uniform(like.shape)


def uniform_cell(place: int, seed: int = 0) -> nn.Cell:
    if not on_host():
        return DeviceUniform(place, seed)
    return KernelUniform(place) if kernels.available() else HostUniform(place)
