"""Ten minutes on a GPU or an Ascend: does training there compute what it computes on the CPU, and how fast?

    python -m mindspore_rt.compare.device_check [device=GPU] [seconds=300] [case=base|small] [out=device_check.json]

The same computation runs on the device and, with the graphs of the device, on this machine's CPU: the noise of several
passes, which must be equal bit for bit, logits, gradients and one update. Then steps of BERT-base's size are timed on
the device, for `seconds` in all, and float16 is trained from a loss scale that is too large. All is printed and written
to `out`, a file to send back. The exit status is 1 if anything differs by more than rounding.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np

from configs.contract.basics.bench_case import StepCase
from configs.contract.basics.errors import command, first_reason
from configs.contract.basics.files import write_json
from configs.contract.basics.processes import run_module
from configs.contract.experiment import schema
from configs.contract.experiment.options import read_options
from configs.contract.experiment.sections import option
from configs.contract.run.stage import versions
from mindspore_rt.cells import backend, noise
from mindspore_rt.compare import step_worker
from mindspore_rt.device import use_device
from mindspore_rt.training import loss_scale
from mindspore_rt.training.objectives import FineTuning, RobustSearch
from mindspore_rt.training.trainer import compile_logits

COMPARED = StepCase("search", layers=2, hidden=128, heads=2, batch=8, length=32, vocabulary=1000)
TIMED = {
    "base": StepCase("search", layers=12, hidden=768, batch=32, length=128, passes=3),
    "small": dataclasses.replace(COMPARED, passes=2),
}
# Largest relative distance, in the l2 norm, that rounding explains; noise must be the same. `edges` is a share.
TOLERANCES = {"noise": 0, "logits": 1e-4, "loss": 1e-4, "norm": 1e-3, "gradient": 1e-3, "edges": 1e-4, "update": 1e-2}
Arrays = dict[str, np.ndarray]


@dataclass
class Options:
    """What the command line asks for."""

    device: str = option("GPU", "device that is checked", choices=["CPU", "GPU", "Ascend"])
    seconds: int = option(300, "time of all timed steps together", low=0)
    case: str = option("base", "size of the timed steps", choices=TIMED)
    out: str = option("device_check.json", "file of the result")
    side: str | None = option(None, "compute one side alone, into the folder `out`", choices=["device", "cpu"])


def quantities() -> Iterator[tuple[str, np.ndarray]]:
    """Compute by name all that both sides compute; the first part of a name is a key of `TOLERANCES`."""
    batch = step_worker.batch_of(COMPARED)
    shapes = [(3, 5), (128, 128), (7,), (128, 512)]
    for step, ascent in ((0, 0), (1, 0), (1, 2)):
        for place, numbers in enumerate(noise.source(11, rank=1).numbers(shapes, step, ascent)):
            yield f"noise {step}.{ascent}.{place}", numbers
    for task in ("finetune", "search"):
        case = dataclasses.replace(COMPARED, task=task)
        model = step_worker.model_of(case)
        yield f"logits {task}", compile_logits(model)(*batch.tensors()[:3]).asnumpy()
        objective: FineTuning | RobustSearch
        if task == "search":  # the start of the perturbation is drawn by NumPy on CPU
            settings = schema.MaskSearch(ascent_steps=2, initial_norm=0.0, warmup=0.0)
            objective = RobustSearch(model, settings, 100, 5)
        else:
            objective = FineTuning(model, schema.Training(warmup=0.0), 100, 5)
        before = {name: p.asnumpy().copy() for name, p in objective.state().items()}
        figures = objective.step(batch, 0)
        yield f"loss {task}", np.array(figures["loss" if task == "finetune" else "adversarial_loss"])
        yield f"norm {task}", np.array(figures["gradient_norm"])
        after = {name: p.asnumpy() for name, p in objective.state().items()}
        moments = {name: value.ravel() for name, value in after.items() if name.endswith("moment1")}
        yield f"gradient {task}", np.concatenate(list(moments.values()))
        # Adam divides each gradient by its own size: where that is near rounding, so is the update.
        changes = []
        for name, moment in moments.items():
            own = name.removesuffix(".moment1")
            clear = np.abs(moment) > 1e-3 * np.abs(moment).max(initial=0)
            changes.append(np.where(clear, (after[own] - before[own]).ravel(), 0))
        yield f"update {task}", np.concatenate(changes)


def timings(case: StepCase, seconds: float) -> Iterator[tuple[str, float]]:
    """Time steps on the device, by the name of what is timed: median seconds, and that of the first one."""
    kinds = [(task, amp) for amp in (None, "float16", "bfloat16") for task in ("finetune", "search")]
    for task, amp in kinds:
        name = f"{task} {amp or 'float32'}"
        kind = dataclasses.replace(case, task=task)
        try:
            batch = step_worker.batch_of(kind)
            objective = step_worker.objective_of(kind, step_worker.model_of(kind, amp))
            times: list[float] = []
            started = time.monotonic()
            while len(times) < 4 or (time.monotonic() - started < seconds / len(kinds) and len(times) < 30):
                begun = time.perf_counter()
                objective.step(batch, len(times))  # returns when the device has finished: its figures are fetched
                times.append(time.perf_counter() - begun)
            yield f"{name}, median step", round(float(np.median(times[1:])), 5)
            yield f"{name}, first step", round(times[0], 2)
        except (RuntimeError, TypeError, ValueError) as error:
            print(f"{name}: {first_reason(error)}", flush=True)


def overflowing_run(case: StepCase) -> dict[str, float]:
    """Train float16 from a loss scale of 2^24 and return the figures of its last update."""
    kind = dataclasses.replace(case, task="finetune")
    with patch.object(loss_scale, "FIRST", loss_scale.LARGEST):
        objective = FineTuning(step_worker.model_of(kind, "float16"), schema.Training(warmup=0.0), 100, 5)
    batch = step_worker.batch_of(kind)
    return [objective.step(batch, index) for index in range(20)][-1]


def compute(options: Options) -> None:
    """Compute one side into the folder `out`: `device`, with its times, or `cpu`, with the graphs of the device."""
    on_device, folder = options.side == "device", Path(options.out)
    use_device(schema.Experiment(device=options.device if on_device else "CPU"))
    form = backend.Backend.GPU if options.device == "CPU" else backend.Backend(options.device)
    with contextlib.nullcontext() if on_device else patch.object(backend, "current", lambda: form):
        np.savez(folder / f"{options.side}.npz", **dict(quantities()))
        if on_device:
            case = TIMED[options.case]
            figures = {
                "seconds": dict(timings(case, options.seconds)),
                "float16": overflowing_run(case),
                "versions": versions("mindspore", "numpy"),
            }
            write_json(folder / "figures.json", figures)


def compare(ours: Arrays, reference: Arrays) -> dict[str, float]:
    """Return by name the l2 distance of what both sides computed, relative to the reference.

    A gate's gradient jumps to 0 at the edges of the clamp, and rounding decides on which side a mask there is. So of
    gradients and updates those elements are compared that are 0 on neither side; `edges` is the share of the others.
    """
    distances = {}
    for name, value in reference.items():
        other = ours[name]
        if name.startswith(("gradient", "update")):
            both = (other != 0) & (value != 0)
            if name.startswith("gradient"):
                distances[name.replace("gradient", "edges")] = float(((other != 0) != (value != 0)).mean())
            other, value = other[both], value[both]
        distances[name] = float(np.linalg.norm(other - value) / max(float(np.linalg.norm(value)), 1e-12))
    return distances


def differing(distances: dict[str, float]) -> list[str]:
    """Return the names of the distances that rounding does not explain."""
    return [name for name, value in distances.items() if not value <= TOLERANCES[name.partition(" ")[0]]]


@command
def main(arguments: list[str]) -> int:
    """Run the check; returns the exit status."""
    options = read_options(Options, arguments, "device_check")
    if options.side:
        compute(options)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        for side in ("device", "cpu"):  # a process has one device
            print(f"computing: {side}", flush=True)
            asked = dataclasses.asdict(dataclasses.replace(options, side=side, out=folder))
            words = [f"{key}={value}" for key, value in asked.items()]
            run_module("mindspore_rt.compare.device_check", words, show=True)
        sides = [dict(np.load(Path(folder, f"{side}.npz"))) for side in ("device", "cpu")]
        figures = json.loads(Path(folder, "figures.json").read_text(encoding="utf-8"))
    distances = compare(*sides)
    wrong = differing(distances)
    result = {"device": options.device, "distances": distances, "differs": wrong, **figures}
    write_json(Path(options.out), result)
    print(json.dumps(result, indent=2))
    print(f"written: {options.out}; {'DIFFERS: ' + ', '.join(wrong) if wrong else 'all agrees'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
