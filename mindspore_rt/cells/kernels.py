"""Builds `kernels.cc` and hands out its kernels.

They run on CPU only. They are compiled at first use by the system's C++ compiler into the cache folder, under a name
made of the source, the compiler, the flags and the processor: a build for one processor never runs on another.
Without a compiler, or on another device, the cells of `plain.py` do the same with MindSpore's own primitives. The
environment variable ROBUST_TICKET_KERNELS=plain asks for them.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from mindspore import context, float32, ops
from mindspore.ops import signature

from configs.contract import assets

SOURCE = Path(__file__).with_name("kernels.cc")
# The last two let square roots and comparisons be vectorised; both leave NaN and infinity as they are.
FLAGS = "-O3 -march=native -std=c++17 -fPIC -shared -fopenmp -fno-math-errno -fno-trapping-math".split()
COMPILERS = ("g++", "c++", "clang++")
ops.Custom.custom_aot_warning = False  # about a list of allowed folders; the path here is our own


def available() -> bool:
    """Whether cells shall use the kernels. The first call of a process may compile, and prints one line."""
    return _library(context.get_context("device_target")) is not None


def kernel(name: str, like: tuple, writes: int = 0, reads: int = 0) -> ops.Custom:
    """One kernel of `kernels.cc` as a primitive.

    `like` has one item for each output, all float32: the index of the input whose shape the output has, or a function
    of the inputs' shapes, such as `rows`. If the first `writes` inputs are parameters that the kernel updates in place,
    `reads` is the number of its other inputs.
    """

    def shape(*shapes):
        found = [item(*shapes) if callable(item) else shapes[item] for item in like]
        return found[0] if len(found) == 1 else tuple(found)

    def dtype(*_):
        return float32 if len(like) == 1 else (float32,) * len(like)

    primitive = ops.Custom(f"{_library('CPU')}:{name}", shape, dtype, func_type="aot")
    if writes:  # as ops.Assign declares it: the graph then keeps the order of reads and writes
        primitive.add_prim_attr("side_effect_mem", True)
        access = [signature.sig_rw.RW_WRITE] * writes + [signature.sig_rw.RW_READ] * reads
        primitive.set_signatures(tuple(signature.make_sig(f"input{i}", rw) for i, rw in enumerate(access)))
    return primitive


def rows(x, *_):
    """Shape of one number for each row of the first input."""
    return x[:-1]


def scalar(*_):
    """Shape of one number."""
    return [1]


def uniform(seed: int, rank: int, step: int, ascent: int, place: int, shape) -> np.ndarray:
    """The numbers in [0, 1) that the kernels draw at one place, float32 of `shape`, bit for bit."""
    state, word64 = 0, (1 << 64) - 1
    for word in (seed, rank, step, ascent, place):
        state = (state + 0x9E3779B97F4A7C15 & word64) ^ word
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & word64
        state = (state ^ state >> 27) * 0x94D049BB133111EB & word64
        state ^= state >> 31
    low, high = np.uint32(state & 0xFFFFFFFF), np.uint32(state >> 32)
    index = np.arange(np.prod(shape, dtype=np.int64), dtype=np.uint64).astype(np.uint32)
    bits = _scramble(_scramble(index ^ low) + high)
    return ((bits >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)).reshape(shape)


def _scramble(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x21F0AAAD)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0xD35A2D97)
    return x ^ (x >> np.uint32(15))


@functools.cache
def _library(device: str) -> Path | None:
    """The compiled library, or None; prints which."""
    try:
        if os.environ.get("ROBUST_TICKET_KERNELS") == "plain":
            raise Unavailable("ROBUST_TICKET_KERNELS=plain")
        if device != "CPU":
            raise Unavailable(f"device {device}")
        compiler, version = _compiler()
        path = _build(compiler, version)
    except Unavailable as reason:
        print(f"kernels: plain primitives ({reason})", flush=True)
        return None
    shown = path.relative_to(assets.CACHE.parent) if path.is_relative_to(assets.CACHE.parent) else path
    print(f"kernels: fused ({Path(compiler).name} {version.split()[-1]}, {shown})", flush=True)
    return path


class Unavailable(Exception):
    """Why there are no kernels."""


def _compiler() -> tuple[str, str]:
    """Path and version line of the C++ compiler."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else COMPILERS
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise Unavailable(f"no C++ compiler: none of {', '.join(names)} found")
    return path, _run([path, "--version"]).partition("\n")[0]


def _build(compiler: str, version: str) -> Path:
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
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    except subprocess.CalledProcessError as error:
        message = next(iter(error.stderr.strip().splitlines()), f"exit status {error.returncode}")
        raise Unavailable(f"{command[0]}: {message}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]}: {error}") from None


def _processor() -> str:
    """Model and instruction sets, on which -march=native depends."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = ("model name", "flags", "Features", "CPU part")
    found = dict(reversed([line.split(":", 1) for line in lines if line.startswith(names)]))
    return platform.machine() + "".join(f"{name.strip()}:{value}" for name, value in sorted(found.items()))
