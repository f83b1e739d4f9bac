"""The work of a training step on an accelerator, and its least possible time: estimated on a CPU, not measured.

    python -m torch_eval bench device [layers=12]

Our steps are compiled as for a GPU, and what their graphs ask for is counted (`mindspore_rt.compare.graph_worker`).
That is done with 2 and 4 layers of BERT-base's size. Every further layer adds the same, so that a line through both
gives the counts of any number. A search with 3 layers is counted too, as a check. Beside ours stands the step of the
reference in PyTorch (`torch_counts.py`).
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass

from configs.contract.basics import markdown
from configs.contract.basics.bench_case import COUNTS, StepCase
from configs.contract.basics.errors import UserError
from configs.contract.basics.processes import run_module
from configs.contract.experiment.options import read_options
from configs.contract.experiment.sections import option

BERT_BASE = StepCase("finetune", layers=12, hidden=768, batch=32, length=128)
FEW, BETWEEN, MORE = 2, 3, 4  # layers that are counted; those in between are the check
# Title, task, and the variant of the PyTorch worker; FreeLB has no reference here.
STEPS = (
    ("fine-tuning", "finetune", "transformers"),
    ("search", "search", "official"),
    ("FreeLB", "freelb", None),
    ("retraining", "retrain", "official"),
)
Counts = dict[str, float]


@dataclass(frozen=True)
class Device:
    """Peak rates of an accelerator.

    Attributes:
        name: Name.
        bandwidth: Bytes a second of its memory.
        float32: Multiplications a second of float32 products. Vendors count each as two operations.
        float16: Those of float16 products.
        source: Where these figures are from.
    """

    name: str
    bandwidth: float
    float32: float
    float16: float
    source: str


DEVICES = (
    Device("A100 80 GB", 2.039e12, 19.5e12 / 2, 312e12 / 2, "NVIDIA, A100 Tensor Core GPU data sheet, SXM"),
    Device("H100 80 GB", 3.35e12, 67e12 / 2, 989e12 / 2, "NVIDIA, H100 Tensor Core GPU data sheet, SXM, not sparse"),
    # 24 cube units x 1.8 GHz x 16^3 multiplications. float32 is taken as a quarter, as for Atlas 300T A2 (75 of 280).
    Device(
        "Ascend 910B2",
        1.6e12,
        24 * 1.8e9 * 16**3 / 4,
        24 * 1.8e9 * 16**3,
        "CANN: Ascend910B2.ini, migration guide of ops-cv; float32 assumed",
    ),
)


def seconds(counts: Counts, device: Device, float16: bool = False) -> float:
    """Return a lower bound on the time of a step.

    Memory limits what is not a product; products are limited by memory or by the rate of multiplications. The time to
    launch kernels comes on top where the host is slower than the device. Under float16 only the rate of multiplications
    is another one.
    """
    rate = device.float16 if float16 else device.float32
    others = (counts["bytes"] - counts["product_bytes"]) / device.bandwidth
    return others + max(counts["product_bytes"] / device.bandwidth, counts["multiplications"] / rate)


def extrapolate(few: Counts, more: Counts, layers: int) -> Counts:
    """Return the counts at `layers`, on the line through those at `FEW` and `MORE` layers."""
    share = (layers - FEW) / (MORE - FEW)
    return {name: value + (more[name] - value) * share for name, value in few.items()}


def largest_error(counts: Counts, exact: Counts) -> float:
    """Return the largest relative difference of counts that are not 0."""
    return max(abs(counts[name] / value - 1) for name, value in exact.items() if value)


def parts_of(case: StepCase) -> dict[str, Counts]:
    """Count our step of a case as on a GPU.

    Returns:
        For `pass` (all that happens once in a pass, the draw of its noise included) and `update` (the rest) the
        counts of one run, and in `memory` the peak of the whole step in bytes.
    """
    answer = _worker("mindspore_rt.compare.graph_worker", case, "GPU")
    adversarial = case.task in ("search", "freelb")
    parts: dict[str, Counts] = {"pass": dict.fromkeys(COUNTS, 0), "update": dict.fromkeys(COUNTS, 0)}
    for graph in answer["graphs"]:
        in_pass = graph["name"].endswith("one_pass") or (case.task == "search" and graph["name"].endswith("draw"))
        part = parts["pass" if adversarial and in_pass else "update"]
        for name in COUNTS:
            part[name] += graph[name]
    peak = max(graph["working_memory"] for graph in answer["graphs"])
    return {**parts, "memory": {"memory": answer["parameters"] + peak}}


def _worker(module: str, case: StepCase, variant: str) -> dict:
    try:  # in a folder of its own: libraries leave files where they run
        printed = run_module(module, [case.to_json(), variant], folder=tempfile.gettempdir())
    except UserError as error:
        raise UserError(f"{module} {case.task}: {error}") from None
    return json.loads(printed.splitlines()[-1])


def row(title: str, counts: Counts, memory: float | None = None) -> str:
    """Return one line of the table."""
    gates = f"{100 * counts['gate_bytes'] / counts['bytes']:.0f}%" if counts.get("gate_bytes") else ""
    bounds = [f"{1000 * seconds(counts, device, half):.0f}" for device in DEVICES for half in (False, True)]
    cells = [
        title,
        f"{counts['primitives']:,.0f}",
        f"{counts['bytes'] / 1e9:.1f}",
        gates,
        f"{counts['multiplications'] / 1e12:.2f}",
        "" if memory is None else f"{memory / 1e9:.1f}",
        *(f"{a} / {b}" for a, b in zip(bounds[::2], bounds[1::2])),
    ]
    return markdown.row(cells)


def _check_line(case: StepCase, few: Counts, more: Counts) -> list[str]:
    """Compare the counts on the line with those of a search that has a number of layers in between."""
    exact = parts_of(dataclasses.replace(case, layers=BETWEEN))["pass"]
    per_layer = (more["primitives"] - few["primitives"]) / (MORE - FEW)
    return [
        f"A further layer of a search pass adds {per_layer:.0f} primitives.",
        f"Between, at {BETWEEN} layers, the line is off by at most "
        f"{largest_error(extrapolate(few, more, BETWEEN), exact):.1e}.",
    ]


@dataclass
class Options:
    """What the command line asks for."""

    layers: int = option(BERT_BASE.layers, "layers of the model", low=FEW)


def main(arguments: Iterable[str]) -> int:
    """Count all steps and print the table; returns the exit status."""
    layers = read_options(Options, arguments, "bench device").layers
    bounds = [f"{device.name}, ms" for device in DEVICES]
    head = ["step", "primitives", "GB moved", "of gates", "10^12 multiplications", "peak GB", *bounds]
    print(markdown.table(head, []), flush=True)
    notes = []
    for title, task, variant in STEPS:
        case = dataclasses.replace(BERT_BASE, task=task)
        few, more = (parts_of(dataclasses.replace(case, layers=number)) for number in (FEW, MORE))
        parts = {name: extrapolate(few[name], more[name], layers) for name in few}
        memory = parts.pop("memory")["memory"]
        if parts["pass"]["primitives"]:
            print(row(f"{title}, pass", parts["pass"]), flush=True)
            print(row(f"{title}, update", parts["update"], memory), flush=True)
        else:
            print(row(title, parts["update"], memory), flush=True)
        if variant:
            counts = _worker("torch_eval.bench.torch_counts", dataclasses.replace(case, layers=layers), variant)
            both = ", pass and update" if parts["pass"]["primitives"] else ""
            print(row(f"{title}, PyTorch ({variant}){both}", counts), flush=True)
        if task == "search":
            notes += _check_line(case, few["pass"], more["pass"])
    print("\nBounds: float32 / float16 products.", *notes, sep="\n")
    print(*(f"{device.name}: {device.source}" for device in DEVICES), sep="\n")
    return 0
