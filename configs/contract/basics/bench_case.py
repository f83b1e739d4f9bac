"""What the workers of the step benchmark share in both halves: the case, its inputs, and the protocol.

A worker is a process that keeps one step ready. It runs the step once by itself, then once for every line of its
standard input, and ends with that input. It answers each run with its times: one JSON object on one line of standard
output.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from configs.contract.basics.processes import usable_cores

LABELS = 2
# Processors and threads of each worker: two, or the only one that this process may use.
THREADS = min(2, usable_cores())
# What one run of a graph asks of a device: the number of kernels; the bytes that they read and write, in all, and those
# for products and for gates; the multiplications of the products; the most bytes in use by inputs and results.
COUNTS = ("primitives", "bytes", "product_bytes", "gate_bytes", "multiplications", "working_memory")
SPARSITY = 0.3  # of the ticket that is retrained
TOTAL_STEPS = 1000  # of a whole training, whose first steps are timed


@dataclass(frozen=True)
class StepCase:
    """One step: `task` is search, freelb, retrain, finetune or evaluate, on sentences of one length without padding."""

    task: str
    layers: int
    hidden: int
    batch: int
    length: int = 64
    passes: int = 1  # of a step of search or FreeLB (K)
    heads: int = 12
    vocabulary: int = 30522
    dropout: float = 0.1

    def config(self) -> dict:
        """The keys of a Hugging Face `config.json`."""
        return {
            "model_type": "bert",
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.hidden,
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
            "hidden_dropout_prob": self.dropout,
            "attention_probs_dropout_prob": self.dropout,
        }

    def inputs(self) -> tuple[np.ndarray, np.ndarray]:
        """Word pieces (batch, length) int64 and labels (batch,) int64."""
        draw = np.random.default_rng(0)
        return draw.integers(1, self.vocabulary, (self.batch, self.length)), draw.integers(0, LABELS, self.batch)

    def to_json(self) -> str:
        """Return the case as an argument of a worker's command line."""
        return json.dumps(dataclasses.asdict(self))


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The random value of a parameter, float32: the same under its Hugging Face name in every framework."""
    if name.endswith("LayerNorm.weight"):
        return np.ones(shape, np.float32)
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    return draw.standard_normal(shape, np.float32) * np.float32(0.02)


def mask(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The random mask of a prunable matrix, bool, True where kept."""
    return np.random.default_rng(zlib.crc32(f"{name}.mask".encode())).random(shape, np.float32) >= SPARSITY


def start() -> tuple[StepCase, list[str], TextIO]:
    """Return the case, the other arguments of this worker's command line, and where its answers go.

    All that libraries print goes to standard error; processors beyond `THREADS` are given up.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    case, *others = sys.argv[1:]
    return StepCase(**json.loads(case)), others, answers


def serve(answers: TextIO, about: dict) -> Iterator[None]:
    """Run the caller's loop body once, then once for every line of standard input, and report the time of each run.

    An answer holds wall and processor seconds, and the peak of resident memory so far in bytes; the first one, whose
    step compiles, also what is in `about`.
    """
    while True:
        wall, processor = time.perf_counter(), time.process_time()
        yield
        seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - processor}
        answers.write(json.dumps({**seconds, "memory": peak_memory(), **about}) + "\n")
        answers.flush()
        about = {}
        if not sys.stdin.readline():
            return


def peak_memory() -> int:
    """Return the peak of resident memory in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    peak = next(line for line in status if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024
