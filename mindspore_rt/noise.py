"""Where random numbers come from: the one module that decides.

Every use of randomness in a training graph is a *place*: one number for each dropout, then one for
each gate. A place takes uniform numbers in [0, 1) of its own shape, fresh for every ascent step.

* On CPU they come from the host (`HostNoise`): a generator keyed by (seed, rank, step, ascent step,
  place). A run that was killed and resumed draws the same numbers, bit for bit.
* On GPU and Ascend they come from the device (`DeviceUniform`): host noise for the 85 million masks of
  BERT-base would take longer than the step. There a resumed run is the same only statistically.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from mindspore import Tensor, context, mutable, nn, ops

# What may be drawn outside of a place, with numbers far above any place.
PERTURBATION, SHUFFLE, INITIAL = 1 << 24, (1 << 24) + 1, (1 << 24) + 2
THREADS = ThreadPoolExecutor(min(8, os.cpu_count() or 1))


def generator(seed: int, place: int, step: int = 0, ascent: int = 0, rank: int = 0) -> np.random.Generator:
    """A NumPy generator for one key. Each part of the key is one word of the seed sequence, so two keys
    never collide by arithmetic; all parts must be below 2**32."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, rank, step, ascent, place])))


class HostNoise:
    """Uniform numbers made on the host for all places of one pass."""

    def __init__(self, seed: int, rank: int = 0):
        self.seed, self.rank = seed, rank

    def draw(self, shapes, step: int, ascent: int = 0) -> tuple[Tensor, ...]:
        """One float32 tensor in [0, 1) for each of `shapes`, the i-th for place i."""

        def one(place, shape):
            return generator(self.seed, place, step, ascent, self.rank).random(shape, dtype=np.float32)

        # Every place has a generator of its own, so the threads change nothing but the time.
        arrays = THREADS.map(one, range(len(shapes)), shapes)
        # A plain tuple would count as a constant of the graph, which then compiles anew at every step.
        return mutable(tuple(Tensor.from_numpy(array) for array in arrays))


class DeviceNoise:
    """Stands in for `HostNoise` where the graph draws by itself: there is nothing to pass."""

    def draw(self, shapes, step: int, ascent: int = 0) -> tuple:
        return ()


def noise_for(seed: int, rank: int = 0) -> HostNoise | DeviceNoise:
    return HostNoise(seed, rank) if on_host() else DeviceNoise()


def on_host() -> bool:
    return context.get_context("device_target") == "CPU"


class HostUniform(nn.Cell):
    """The uniform numbers of one place, handed in from the host."""

    def __init__(self, place: int):
        super().__init__(auto_prefix=False)
        self.place = place

    def construct(self, noise, shape):
        return noise[self.place]


class DeviceUniform(nn.Cell):
    """The uniform numbers of one place, drawn on the device. One primitive for each place: a random
    primitive that is used at two places of a graph draws the same values at both."""

    def __init__(self, place: int, seed: int):
        super().__init__(auto_prefix=False)
        self.uniform = ops.UniformReal(seed=seed + 1, seed2=place + 1)

    def construct(self, noise, shape):
        return self.uniform(shape)


def uniform_cell(place: int, seed: int = 0) -> nn.Cell:
    return HostUniform(place) if on_host() else DeviceUniform(place, seed)
