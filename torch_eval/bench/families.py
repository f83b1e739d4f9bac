"""Exactness and speed of attacks on a random classifier of every family, against unmodified TextAttack.

    python -m torch_eval bench families [families=[bert,...]] [examples=50] [layers=2] [hidden=32] [recipes=[...]]

Texts are packaged snippets; four of five carry the label that the model predicts, so that attacks have work. Each
side runs in a process of its own, on one thread, because ours makes TextAttack's functions faster; they take turns.
Results: `runs/bench/families/results.jsonl`, a line for each family and recipe. The table of them is printed. An
interrupted run is resumed after the last text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from configs.contract.basics import markdown
from configs.contract.basics.files import append_line, read_lines, write_lines
from configs.contract.experiment.options import read_options
from configs.contract.experiment.sections import option
from configs.contract.run.run_dir import RUNS
from torch_eval.attack.workers import Target, logits_of
from torch_eval.bench.attacks import ComparisonOptions, compare
from torch_eval.bench.random_models import ARCHITECTURES, COLUMN, PROMISED, labelled, random_classifier, snippet_texts

HEADER = ["family", "attack", "exact", "exact, stock on one thread", "queries"]
HEADER += ["stock a minute", "ours a minute", "faster"]


@dataclass
class Options(ComparisonOptions):
    """What the command line asks for."""

    examples: int = option(50, "texts that are attacked", low=1)
    candidates: list[int] = option([8], "BERT-Attack: numbers of replacements tried for a word (K)", low=1)
    long_examples: int = option(0, "of the texts, how many stock attacks padded to 512 too", low=0)
    layers: int = option(2, "layers of the models", low=1)
    hidden: int = option(32, "size of their hidden states", low=1)
    families: list[str] = option([*PROMISED], "families of models", choices=ARCHITECTURES)


def main(arguments: list[str], runs: Path = RUNS) -> int:
    """Compare all families, one after another, and print the table; returns the exit status."""
    options, folder = read_options(Options, arguments, "bench families"), runs / "bench" / "families"
    texts, results = snippet_texts(options.examples), folder / "results.jsonl"
    sizes = {"hidden_size": options.hidden, "num_hidden_layers": options.layers}
    sizes |= {"intermediate_size": 4 * options.hidden, "num_attention_heads": max(2, options.hidden // 32)}
    for family in options.families:
        model = random_classifier(folder / family, family, texts, seed=1, **sizes)
        examples = folder / f"{family}.jsonl"
        write_lines(examples, labelled(texts, logits_of(Target(model, options.max_length), [(t,) for t in texts])))
        for line in compare(folder / "attacks", model, examples, (COLUMN,), (COLUMN,), options, cores=1):
            append_line(results, {"family": family, **line})
    print(table(read_lines(results)))
    return 0


def table(lines: list[dict]) -> str:
    """Return the last result of each family and recipe as a Markdown table; ratios are of processor time."""
    rows = {}
    for line in lines:
        exact = (f"{line[key]}/{line['of']}" for key in ("exact", "exact_with_one_thread"))
        speeds = (line["stock_examples_a_minute"], line["ours_examples_a_minute"], f"{line['processor_ratio']}x")
        rows[line["family"], line["name"]] = (line["family"], line["name"], *exact, line["queries"], *speeds)
    return markdown.table(HEADER, rows.values())
