"""What one run of a compiled graph asks of a device, counted in the text that MindSpore dumps of it.

Nothing is measured. Every primitive counts as one kernel that reads its inputs from memory and writes its outputs
there, as without fusion (`jit_level=O0`).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from configs.contract.basics.bench_case import COUNTS

# Structure of the graph, and views: resolved by the compiler or the host, without a kernel.
FREE = {
    "MakeTuple", "TupleGetItem", "Load", "UpdateState", "Depend", "Return", "Partial", "StopGradient", "Reshape",
    "Squeeze", "ExpandDims",
}  # fmt: skip
BYTES = {"Float32": 4, "Int32": 4, "Float16": 2, "BFloat16": 2, "Bool": 1, "Float64": 8, "Int64": 8, "UInt32": 4}
NODE = re.compile(
    r"^ *(%\d+)\([^\n]*?\) = (?:PrimFunc_)?([A-Za-z_]\w*)\((.*?)\n *: \(([^\n]*)\) -> \(([^\n]*)\)$", re.M | re.S
)
TENSOR = re.compile(
    r"<(?:Ref\[)?Tensor\[(\w+)\]\]?, \(([\d, ]*)\)|<Tuple\[([^<>]*?)\], TupleShape\(((?:\([\d, ]*\)|NoShape|, )*)\)"
)


@dataclass(frozen=True)
class Graph:
    """What one run of a graph asks for.

    Attributes:
        name: Function that was compiled.
        parameters: Bytes of each parameter by name.
        counts: Sums over all its kernels, by the names of `bench_case.COUNTS`. `gate_bytes` are those of
            primitives that are no product and work on as many numbers as a matrix has scores, or on a stack of such;
            `working_memory` is the largest sum of the bytes of inputs and of results that are still needed.
    """

    name: str
    parameters: dict[str, int]
    counts: dict[str, int]


def read_graphs(folder: Path, score_sizes: Collection[int]) -> list[Graph]:
    """Read the graphs that were dumped into a folder, in the order in which they were compiled.

    Args:
        folder: `save_graphs_path`, filled under `MS_DEV_DUMP_IR_PASSES=validate`.
        score_sizes: Numbers of scores of the matrices. No activation may be as large.
    """
    files = sorted(folder.rglob("*_validate_*.ir"), key=lambda file: int(file.stem.rpartition("_")[2]))
    return [read_graph(file.read_text(encoding="utf-8"), score_sizes) for file in files]


def read_graph(text: str, score_sizes: Collection[int]) -> Graph:
    """Read one graph; see `read_graphs`."""
    name = re.sub(r"^[\d_]*|_\d+$", "", text.splitlines()[0].rpartition("@")[2])
    parameters, counts = {}, dict.fromkeys(COUNTS, 0)
    for title, kind, rest in re.findall(r"^%para\d+_([^:\n]*): <(Ref\[)?(Tensor[^\n]*)", text, re.M):
        size = sum(_bytes(*tensor) for tensor in _tensors(f"<{kind}{rest}"))
        if kind:
            parameters[title] = size
        else:
            counts["working_memory"] += size
    made, last_use = {}, {}
    for number, (node, primitive, arguments, before, after) in enumerate(NODE.findall(text)):
        inputs, outputs = _tensors(before), _tensors(after)
        of_inputs = re.findall(r"%\d+\b", arguments)
        last_use.update(dict.fromkeys(of_inputs, number))
        if primitive in FREE:
            made[node] = (number, 0, of_inputs)
            continue
        size = sum(_bytes(*tensor) for tensor in outputs)
        made[node] = (number, size, [])
        moved = sum(_bytes(*tensor) for tensor in inputs) + size
        counts["primitives"] += 1
        counts["bytes"] += moved
        shapes = [shape for _, shape in [*inputs, *outputs] if shape]
        if products := _multiplications(primitive, arguments, inputs, outputs):
            counts["product_bytes"] += moved
            counts["multiplications"] += products
        elif any({math.prod(shape), math.prod(shape[1:])} & set(score_sizes) for shape in shapes):
            counts["gate_bytes"] += moved
    counts["working_memory"] += _peak(made, last_use)
    return Graph(name, parameters, counts)


def _peak(made: dict[str, tuple[int, int, list[str]]], last_use: dict[str, int]) -> int:
    """Return the largest sum of the results that are still needed, in bytes.

    Args:
        made: For each node its place in the graph, the bytes of its result (0 for a view), and what a view shows: it
            keeps that alive.
        last_use: The place of each node's last use.
    """
    for node, (_, size, shown) in reversed(made.items()):
        if not size:
            for other in shown:
                last_use[other] = max(last_use.get(other, 0), last_use.get(node, 0))
    changes: Counter[int] = Counter()
    for node, (number, size, _) in made.items():
        changes[number] += size
        changes[last_use.get(node, number) + 1] -= size
    return max(accumulate(changes[number] for number in sorted(changes)), default=0)


def _multiplications(primitive: str, arguments: str, inputs: list, outputs: list) -> int:
    """Return the scalar multiplications of a matrix product, output elements times the length of a sum."""
    if primitive not in ("MatMul", "BatchMatMul"):
        return 0
    transposed = re.findall(r"Bool\((\d)\)", arguments)[0] == "1"
    return math.prod(outputs[0][1]) * inputs[0][1][-2 if transposed else -1]


def _tensors(types: str) -> list[tuple[str, tuple[int, ...]]]:
    """Return the dtype and shape of every tensor in a list of types, those of a tuple one by one."""
    tensors = []
    for dtype, shape, dtypes, shapes in TENSOR.findall(types):
        if dtype:
            tensors.append((dtype, _shape(shape)))
            continue
        kinds = []
        for kind, times in re.findall(r"Tensor\[(\w+)\](?:\*(\d+))?", dtypes):
            kinds += [kind] * int(times or 1)
        tensors += zip(kinds, map(_shape, re.findall(r"\(([\d, ]*)\)", shapes)), strict=False)
    return tensors


def _shape(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


def _bytes(dtype: str, shape: tuple[int, ...]) -> int:
    return BYTES[dtype] * math.prod(shape)
