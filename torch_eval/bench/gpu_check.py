"""Five minutes on a GPU: are attacks there exact, and how fast? BERT-base size, float32, random weights.

    python -m torch_eval.bench.gpu_check [examples=30] [seconds=300] [device=cuda]

The attacks of TextFooler run on the GPU by our forward pass and by TextAttack's wrapper, on the same device, and by
ours on the CPU. It prints how many examples agree with each (outcome, queries, text) and examples a minute, and writes
the same to runs/gpu_check.json. TF32 is switched off: it rounds to 10 bits.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from configs.contract import snippets
from configs.contract.errors import command
from configs.contract.files import write_json
from configs.contract.options import read_options
from configs.contract.run_dir import RUNS
from configs.contract.schema import option
from torch_eval.attack.workers import Target, attack_example, logits_of
from torch_eval.bench import attacks
from torch_eval.bench.random_models import random_classifier
from torch_eval.recipes.recipes import Spec

SPEC = Spec("textfooler", ("sentence",), ("sentence",))
LENGTH = 128
STARTED = time.monotonic()
BERT_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}


@dataclass
class Options:
    """What the command line asks for."""

    examples: int = option(30, "texts that are attacked", low=1)
    seconds: float = option(300.0, "time in which no further attack begins", low=1)
    device: str = option("cuda", "device that is checked", choices=["cpu", "cuda"])


def check(options: Options, runs: Path = RUNS) -> dict:
    """Run the check; returns what it prints."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    records = snippets.split_snippets(*snippets.read_snippets())[0]["test"][: options.examples]
    texts: list[tuple[str, ...]] = [(record["sentence"],) for record in records]
    with tempfile.TemporaryDirectory() as folder:
        model = random_classifier(Path(folder), "bert", (), initializer_range=0.05, **BERT_BASE)
        target = Target(model, LENGTH, device=options.device)
        on_gpu, on_cpu = logits_of(target, texts), logits_of(replace(target, device="cpu"), texts)
        difference = max(abs(a - b) for rows in zip(on_gpu, on_cpu) for a, b in zip(*rows))
        examples = [
            {"sentence": text, "label": row.index(max(row))} for (text,), row in zip(texts, on_gpu, strict=True)
        ]
        sides = {
            "ours": lambda i: attack_example(target, SPEC, 1, i, examples[i]),
            "stock": lambda i: attacks.attack_stock(target, SPEC, 1, i, examples[i]),
            "ours_on_cpu": lambda i: attack_example(replace(target, device="cpu"), SPEC, 1, i, examples[i]),
        }
        lines: dict[str, list[dict]] = {}
        for share, (name, attack) in zip((0.2, 0.6, 1.0), sides.items(), strict=True):
            attack(0)  # what loads at the first attack is no part of one
            lines[name] = attack_until(attack, len(examples), STARTED + share * options.seconds)
    result = {
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "largest_difference_of_a_logit_from_the_cpu": difference,
        **{f"same_as_{name}": agreement(lines["ours"], lines[name]) for name in ("stock", "ours_on_cpu")},
        **{f"{name}_examples_a_minute": speed(done) for name, done in lines.items()},
    }
    write_json(runs / "gpu_check.json", result)
    print(json.dumps(result, indent=2))
    return result


def attack_until(attack: Callable[[int], dict], count: int, end: float) -> list[dict]:
    """Attack examples in order until the time is over."""
    done: list[dict] = []
    while len(done) < count and time.monotonic() < end:
        done.append(attack(len(done)))
    return done


def agreement(first: list[dict], second: list[dict]) -> str:
    """Count the examples of both with the same outcome, queries and text."""
    alike = list(map(attacks.same, first, second))
    return f"{sum(alike)}/{len(alike)}"


def speed(done: list[dict]) -> float | None:
    """Examples a minute of wall-clock time."""
    seconds = sum(record["seconds"] for record in done)
    return round(60 * len(done) / seconds, 1) if seconds else None


@command
def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit status."""
    check(read_options(Options, arguments, "gpu_check"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
