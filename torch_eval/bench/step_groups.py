"""What the bench of training steps compares: groups of contenders that compute the same step."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from configs.contract.basics.bench_case import StepCase


def installed(package: str) -> str | None:
    """Return the version of a package, or None if it is not installed, as mindnlp on Python 3.12."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Contender:
    """One way to compute a step.

    Attributes:
        title: Its name in the results.
        module: The module that its worker process runs.
        variant: Which step of that module.
        kernels: Value of ROBUST_TICKETS_KERNELS for its worker: `plain` for MindSpore's primitives.
        needs: A package and the first of its versions that can do this step; None for those of the requirements files.
    """

    title: str
    module: str
    variant: str
    kernels: str = ""
    needs: tuple[str, str] | None = None

    def is_possible(self) -> bool:
        """Return whether the package that it needs is installed."""
        if not self.needs:
            return True
        package, first = self.needs
        version = installed(package)
        if not version:
            return False
        least, given = ([int(number) for number in re.findall(r"\d+", text)] for text in (first, version))
        return given >= least

    def command(self, case: StepCase, official: Path | None) -> list[str]:
        """Return the command that starts its worker on a case, with the official checkout where that is compared."""
        checkout = [f"official={official}"] if official and self.variant in OFFICIAL else []
        return [sys.executable, "-m", self.module, case.to_json(), self.variant, *checkout]


CONTENDERS = {
    "official": Contender("official PyTorch", "torch_eval.bench.torch_step_worker", "official"),
    "frozen": Contender("official PyTorch, weights frozen", "torch_eval.bench.torch_step_worker", "frozen"),
    "transformers": Contender("transformers", "torch_eval.bench.torch_step_worker", "transformers"),
    "mindnlp": Contender("mindnlp", "mindspore_rt.compare.step_worker", "mindnlp", needs=("mindnlp", "0.5")),
    "fused": Contender("MindSpore, fused kernels", "mindspore_rt.compare.step_worker", "ours"),
    "plain": Contender("MindSpore, plain primitives", "mindspore_rt.compare.step_worker", "ours", "plain"),
    "bfloat16": Contender(
        "MindSpore, bfloat16 products", "mindspore_rt.compare.step_worker", "bfloat16", needs=("mindspore", "2.10")
    ),
}
OFFICIAL = ("official", "frozen")
REPOSITORY = "github.com/ruizheng20/robust_ticket"


@dataclass(frozen=True)
class Group:
    """One step, computed by a reference and by others.

    Attributes:
        title: The step in words.
        case: Its shape and inputs.
        reference: Key of the contender that the others are compared with.
        others: For each other contender, its targets: the most that a `ratio` (of wall time) or `memory_ratio` may be.
        seconds: How long the group is measured; enough on two cores of a server.
        memory: Memory of its largest worker, in GB.
        first_step: Target for compiling and the first step, in seconds.
    """

    title: str
    case: StepCase
    reference: str
    others: dict[str, dict[str, float]]
    seconds: float
    memory: float
    first_step: float | None = None


MINILM, BERT_BASE = {"layers": 6, "hidden": 384}, {"layers": 12, "hidden": 768}
GROUPS = {
    "search-minilm": Group(
        "search step, 6 layers x 384, batch 16, length 64, K=3",
        StepCase("search", **MINILM, batch=16, passes=3),
        "official",
        {
            "fused": {"ratio": 0.70, "memory_ratio": 0.90},
            "plain": {"ratio": 1.04, "memory_ratio": 1.33},
            "frozen": {},
            "bfloat16": {"ratio": 0.35},
        },
        110,
        2.4,
        first_step=10,
    ),
    "search-bert-base": Group(
        "search step, 12 layers x 768, batch 8, length 64, K=2",
        StepCase("search", **BERT_BASE, batch=8, passes=2),
        "official",
        {"fused": {"ratio": 0.55, "memory_ratio": 0.65}, "frozen": {}, "plain": {}, "bfloat16": {"ratio": 0.35}},
        240,
        7.3,
    ),
    "retrain": Group(
        "retraining step of a ticket, 6 layers x 384, batch 32, length 64",
        StepCase("retrain", **MINILM, batch=32),
        "official",
        {"fused": {"ratio": 0.60}},
        50,
        2.5,
    ),
    "finetune": Group(
        "fine-tuning step, 6 layers x 384, batch 32, length 64",
        StepCase("finetune", **MINILM, batch=32),
        "transformers",
        {"fused": {"ratio": 1.05}, "mindnlp": {}},
        90,
        4.0,
    ),
    "evaluate": Group(
        "evaluation, 6 layers x 384, batch 32, length 64",
        StepCase("evaluate", **MINILM, batch=32),
        "transformers",
        {"fused": {"ratio": 1.0}},
        40,
        1.5,
    ),
}
