"""Compile `kernels.cc` and hand out its kernels, which run on CPU only.

The system's C++ compiler compiles them at first use into the cache folder, under a name made of the source, the
compiler, the flags and the processor: a library built for one processor never runs on another. Where they cannot be
compiled, the cells of `primitive_cells.py` replace them, as they do if ROBUST_TICKETS_KERNELS=plain is set.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import math
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from mindspore import float32, ops
from mindspore.ops import signature

from configs.contract.inputs import assets
from configs.contract.run.receipts import COMPILERS

SOURCE = Path(__file__).with_name("kernels.cc")
# The last two let square roots and comparisons be vectorised; both leave NaN and infinity as they are.
FLAGS = "-O3 -march=native -std=c++17 -fPIC -shared -fopenmp -fno-math-errno -fno-trapping-math".split()
SWITCH = "ROBUST_TICKETS_KERNELS"
BLOCK = 2**16  # numbers that NumPy draws at once, few enough to stay in the processor's cache
SCRAMBLE = ((16, 0x21F0AAAD), (15, 0xD35A2D97), (15, 1))  # shifts and factors of `scramble` of `kernels.cc`
ops.Custom.custom_aot_warning = False  # it warns of libraries outside a list of folders; this one is our own

Shape = Sequence[int]


def kernel(name: str, like: tuple[int | Callable[..., Shape], ...], writes: int = 0, reads: int = 0) -> ops.Custom:
    """Make one kernel of `kernels.cc` a MindSpore primitive.

    Args:
        name: Name of the C function.
        like: One item for each output, all of which are float32: the index of the input that has the output's shape,
            or a function of the shapes of all inputs, such as `rows`.
        writes: Number of inputs, the first ones, that are parameters and are updated in place.
        reads: Number of the other inputs; needed only if `writes` is not 0.
    """

    def shape(*shapes: Shape) -> Shape | tuple[Shape, ...]:
        outputs = [item(*shapes) if callable(item) else shapes[item] for item in like]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def dtype(*_: object) -> object:
        return float32 if len(like) == 1 else (float32,) * len(like)

    primitive = ops.Custom(f"{library()}:{name}", shape, dtype, func_type="aot")
    if writes:  # as ops.Assign declares it: the graph then keeps the order of reads and writes
        primitive.add_prim_attr("side_effect_mem", True)
        access = [signature.sig_rw.RW_WRITE] * writes + [signature.sig_rw.RW_READ] * reads
        primitive.set_signatures(tuple(signature.make_sig(f"input{i}", rw) for i, rw in enumerate(access)))
    return primitive


def rows(x: Shape, *_: Shape) -> Shape:
    """Shape of one number for each row of the first input."""
    return x[:-1]


def scalar(*_: Shape) -> Shape:
    """Shape of one number."""
    return [1]


def uniform(seed: int, rank: int, step: int, ascent: int, place: int, shape: Shape) -> np.ndarray:
    """Restate in NumPy, bit for bit, what the kernels draw at one place.

    Args:
        seed: First word of the key; like all words below 2^32.
        rank: Number of the worker.
        step: Number of the update.
        ascent: Number of the pass within the update.
        place: Number of the dropout or gate, see `encoder.NoisePlaces`.
        shape: Shape of the result.

    Returns:
        Uniform numbers in [0, 1), float32.
    """
    state = place_states(seed, rank, step, ascent, np.array([place]))
    low, high = state.astype(np.uint32), (state >> np.uint64(32)).astype(np.uint32)
    numbers = np.empty(math.prod(shape), np.float32)
    for start in range(0, numbers.size, BLOCK):
        block = numbers[start : start + BLOCK]
        bits = np.arange(start, start + block.size, dtype=np.uint32)
        bits ^= low
        _scramble(bits)
        bits += high
        _scramble(bits)
        block[:] = bits >> np.uint32(8)
        block *= np.float32(2**-24)
    return numbers.reshape(shape)


def place_states(seed: int, rank: int, step: int, ascent: int, places: np.ndarray) -> np.ndarray:
    """Restate the constructor of `Noise` of `kernels.cc` for several places (places,): one state for each, uint64."""
    state = np.zeros(places.shape, np.uint64)
    for word in (seed, rank, step, ascent, places):
        state = finalise((state + np.uint64(0x9E3779B97F4A7C15)) ^ np.asarray(word).astype(np.uint64))
    return state


def finalise(state: np.ndarray) -> np.ndarray:
    """Mix the bits of an array of uint64 as SplitMix64 does."""
    state = (state ^ state >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ state >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return state ^ state >> np.uint64(31)


def _scramble(x: np.ndarray) -> None:
    """Restate `scramble` of `kernels.cc`, in place."""
    for shift, factor in SCRAMBLE:
        x ^= x >> np.uint32(shift)
        if factor != 1:
            x *= np.uint32(factor)


@functools.cache
def library() -> Path | None:
    """Compile the library if needed. Prints its path, or why there is none."""
    try:
        if os.environ.get(SWITCH) == "plain":
            raise Unavailable(f"{SWITCH}=plain")
        compiler, version = _compiler()
        path = _build(compiler, version)
    except Unavailable as reason:
        print(f"kernels: plain primitives ({reason})", flush=True)
        return None
    shown = path.relative_to(assets.CACHE.parent) if path.is_relative_to(assets.CACHE.parent) else path
    print(f"kernels: fused ({Path(compiler).name} {version.split()[-1]}, {shown})", flush=True)
    return path


class Unavailable(Exception):
    """The kernels cannot be compiled or loaded here; the message says why."""


def _compiler() -> tuple[str, str]:
    """Return the path of the C++ compiler and the line that states its version."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else COMPILERS
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise Unavailable(f"no C++ compiler: none of {', '.join(names)} found")
    return path, _run([path, "--version"]).partition("\n")[0]


def _build(compiler: str, version: str) -> Path:
    """Return the path of a library that can be loaded, compiling it if it is not in the cache."""
    key = hashlib.sha256("\0".join([SOURCE.read_text("utf-8"), version, *FLAGS, _processor()]).encode())
    path = assets.CACHE / "kernels" / f"{key.hexdigest()[:32]}.so"
    if ":" in str(path):  # MindSpore splits file and kernel there
        raise Unavailable(f"colon in the path {path}")
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Of two processes that compile at once, the later one replaces the library by the same.
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                new = Path(folder, path.name)
                _run([compiler, *FLAGS, str(SOURCE), "-o", str(new)])
                os.replace(new, path)
        ctypes.CDLL(str(path))
    except OSError as error:
        raise Unavailable(str(error)) from None
    return path


def _run(command: list[str]) -> str:
    """Return the output of a command."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    except subprocess.CalledProcessError as error:
        message = next(iter(error.stderr.strip().splitlines()), f"exit status {error.returncode}")
        raise Unavailable(f"{command[0]}: {message}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]}: {error}") from None


def _processor() -> str:
    """Return the processor's model and instruction sets, on which -march=native depends."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = ("model name", "flags", "Features", "CPU part")
    values = dict(reversed([line.split(":", 1) for line in lines if line.startswith(names)]))
    return platform.machine() + "".join(f"{name.strip()}:{value}" for name, value in sorted(values.items()))
