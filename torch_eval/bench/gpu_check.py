"""Five minutes on a GPU: are attacks there exact, and how fast? BERT-base size, float32, random weights.

    python -m torch_eval bench gpu [examples=30] [seconds=300] [device=cuda]

TextFooler attacks a model on the GPU by our forward pass and by TextAttack's wrapper, and then on the CPU by ours. All
run in one process, where TextAttack keeps the words that ours has split: stock alone would be a little slower. The
check prints how many examples of ours agree with the others (outcome, queries, text) and examples a minute, and writes
the same to runs/gpu_check.json. TF32 is switched off: it rounds to 10 bits.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from configs.contract.basics.files import write_json
from configs.contract.experiment.options import read_options
from configs.contract.experiment.sections import option
from configs.contract.run.run_dir import RUNS
from torch_eval.attack.workers import Target, attack_example, logits_of
from torch_eval.bench import attacks
from torch_eval.bench.random_models import COLUMN, labelled, random_classifier, snippet_texts
from torch_eval.recipes.recipes import Spec

SPEC = Spec("textfooler", (COLUMN,), (COLUMN,))
LENGTH = 128
BERT_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}


@dataclass
class Options:
    """What the command line asks for."""

    examples: int = option(30, "texts that are attacked", low=1)
    seconds: float = option(300.0, "time in which no further attack begins", low=1)
    device: str = option("cuda", "device that is checked", choices=["cpu", "cuda"])


def main(arguments: list[str], runs: Path = RUNS) -> int:
    """Run the check; returns the exit status."""
    options, started = read_options(Options, arguments, "bench gpu"), time.monotonic()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    texts = snippet_texts(options.examples)
    rows: list[tuple[str, ...]] = [(text,) for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        model = random_classifier(Path(folder), "bert", (), initializer_range=0.05, **BERT_BASE)
        target = Target(model, LENGTH, device=options.device)
        cpu = replace(target, device="cpu")
        on_gpu, on_cpu = logits_of(target, rows), logits_of(cpu, rows)
        difference = max(abs(a - b) for pair in zip(on_gpu, on_cpu) for a, b in zip(*pair))
        examples = labelled(texts, on_gpu)
        sides = {
            "ours": (attack_example, target, 0.2),
            "stock": (attacks.attack_stock, target, 0.6),
            "ours_on_cpu": (attack_example, cpu, 1.0),
        }
        lines: dict[str, list[dict]] = {}
        for name, (attack, on, share) in sides.items():
            tasks = [(on, SPEC, 1, i, example) for i, example in enumerate(examples)]
            attack(*tasks[0])  # what loads at the first attack is no part of one
            lines[name] = attack_until(attack, tasks, started + share * options.seconds)
    result = {
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "largest_difference_of_a_logit_from_the_cpu": difference,
        **{f"same_as_{name}": agreement(lines["ours"], lines[name]) for name in ("stock", "ours_on_cpu")},
        **{f"{name}_examples_a_minute": speed(done) for name, done in lines.items()},
    }
    write_json(runs / "gpu_check.json", result)
    print(json.dumps(result, indent=2))
    return 0


def attack_until(attack: Callable[..., dict], tasks: list[tuple], end: float) -> list[dict]:
    """Attack examples in order until the time is over."""
    return [attack(*task) for task in itertools.takewhile(lambda _: time.monotonic() < end, tasks)]


def agreement(first: list[dict], second: list[dict]) -> str:
    """Count the examples of both with the same outcome, queries and text."""
    alike = list(map(attacks.same, first, second))
    return f"{sum(alike)}/{len(alike)}"


def speed(done: list[dict]) -> float | None:
    """Examples a minute of wall-clock time."""
    seconds = sum(record["seconds"] for record in done)
    return round(60 * len(done) / seconds, 1) if seconds else None
