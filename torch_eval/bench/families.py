"""Exactness and speed of attacks on a random classifier of every family, against TextAttack as it comes.

    python -m torch_eval.bench.families FOLDER [examples=50] [layers=2] [hidden=32] [recipes=[textfooler,...]]

Texts are packaged snippets; four of five carry the label that the model predicts, so that attacks have work. Each
side runs in a process of its own, on one thread, and they take turns: ours makes TextAttack's functions faster. FOLDER
gets `families.jsonl`, a line for each family and recipe, and the table is printed. An interrupted run goes on after
the last line.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from configs.contract import markdown, schema, snippets
from configs.contract.errors import UserError, command
from configs.contract.files import append_line, read_lines
from configs.contract.options import read_options
from configs.contract.schema import option
from torch_eval.attack import workers
from torch_eval.attack.workers import Target, Workers
from torch_eval.bench.attacks import attack_stock, same
from torch_eval.bench.random_models import FAMILIES, NAMED, random_classifier
from torch_eval.recipes.recipes import Spec

LENGTH, COLUMN = 128, "sentence"
HEADER = ("family", "attack", "exact", "queries", "stock s", "ours s", "faster")


@dataclass
class Options:
    """What the command line asks for."""

    examples: int = option(50, "texts that are attacked", low=1)
    layers: int = option(2, "layers of the models", low=1)
    hidden: int = option(32, "size of their hidden states", low=1)
    recipes: list[str] = option(["textfooler", "textbugger", "bertattack"], "attacks", choices=schema.RECIPES)
    families: list[str] = option([*NAMED], "families of models", choices=FAMILIES)


def run(folder: Path, options: Options) -> None:
    """Compare all families, one after another, and print the table."""
    texts = [record[COLUMN] for record in snippets.split_snippets(*snippets.read_snippets())[0]["test"]]
    texts = texts[: options.examples]
    results = folder / "families.jsonl"
    lines: list[dict] = read_lines(results) if results.is_file() else []
    done = {(line["family"], line["recipe"]) for line in lines}
    sizes = {"hidden_size": options.hidden, "num_hidden_layers": options.layers}
    sizes |= {"intermediate_size": 4 * options.hidden, "num_attention_heads": max(2, options.hidden // 32)}
    for family in options.families:
        model = random_classifier(folder / family, family, texts, seed=1, **sizes)
        target = Target(model, LENGTH)
        predictions = [row.index(max(row)) for row in workers.logits_of(target, [(text,) for text in texts])]
        labels = [label if number % 5 else 1 - label for number, label in enumerate(predictions)]
        for recipe in options.recipes:
            if (family, recipe) not in done:
                append_line(results, {"family": family, **compare(target, recipe, texts, labels)})
    print(table(read_lines(results)))


def compare(target: Target, recipe: str, texts: list[str], labels: list[int]) -> dict:
    """Attack every text by both sides in turn."""
    spec = Spec(recipe, (COLUMN,), (COLUMN,), candidates=8)
    tasks = [(target, spec, 1, i, {COLUMN: text, "label": label}) for i, (text, label) in enumerate(zip(texts, labels))]
    with Workers(1) as ours, Workers(1) as stock:

        def attack(task: tuple) -> list[dict]:
            sides = (ours, workers.attack_example), (stock, attack_stock)
            return [record for pool, function in sides for record in pool.map(function, *zip(task))]

        attack(tasks[min(1, len(tasks) - 1)])  # what loads at an attack, which the first label does not need
        pairs = [attack(task) for task in tasks]
    alike = [same(a, b) for a, b in pairs]
    seconds = [sum(record["processor_seconds"] for record in records) for records in zip(*pairs)]
    return {
        "recipe": recipe,
        "examples": len(pairs),
        "exact": sum(alike),
        "differ": [i for i, exact in enumerate(alike) if not exact],
        "attacked": sum(a["outcome"] != "skipped" for a, _ in pairs),
        "queries": sum(b["queries"] for _, b in pairs),
        "ours_seconds": round(seconds[0], 2),
        "stock_seconds": round(seconds[1], 2),
        "faster": round(seconds[1] / seconds[0], 2),
    }


def table(lines: list[dict]) -> str:
    """Return the results as a Markdown table."""
    rows = []
    for line in lines:
        exact, seconds = f"{line['exact']}/{line['examples']}", (line["stock_seconds"], line["ours_seconds"])
        rows.append((line["family"], line["recipe"], exact, line["queries"], *seconds, f"{line['faster']}x"))
    return markdown.table(HEADER, rows)


@command
def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit status."""
    if not arguments or "=" in arguments[0]:
        raise UserError("families: name a folder for the results first")
    run(Path(arguments[0]), read_options(Options, arguments[1:], "families"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
