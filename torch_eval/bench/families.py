"""Exactness and speed of attacks on a random classifier of every family, against TextAttack as it comes.

    python -m torch_eval.bench.families FOLDER [examples=50] [layers=2] [hidden=32] [recipes=textfooler,...]

Texts are packaged snippets; four of five carry the label that the model predicts, so that attacks have work. Both
sides run on one thread of this process. FOLDER gets `families.jsonl`, a line for each family and recipe, and the table
is printed. An interrupted run goes on after the last line.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from configs.contract import snippets
from configs.contract.files import append_line, read_lines
from torch_eval.attack import workers
from torch_eval.attack.workers import Target
from torch_eval.bench.attacks import attack_stock
from torch_eval.bench.random_models import NAMED, random_classifier
from torch_eval.recipes.recipes import Spec

LENGTH, COLUMN = 128, "sentence"
DEFAULTS = {"examples": "50", "layers": "2", "hidden": "32", "recipes": "textfooler,textbugger,bertattack"}
DEFAULTS |= {"families": ",".join(NAMED)}


def main(folder: Path, options: dict[str, str]) -> None:
    """Compare all families, one after another."""
    torch.set_num_threads(1)
    texts = [record[COLUMN] for record in snippets.split_snippets(*snippets.read_snippets())[0]["test"]]
    texts = texts[: int(options["examples"])]
    results = folder / "families.jsonl"
    lines: list[dict] = read_lines(results) if results.is_file() else []
    done = {(line["family"], line["recipe"]) for line in lines}
    sizes = {"hidden_size": int(options["hidden"]), "num_hidden_layers": int(options["layers"])}
    sizes |= {"intermediate_size": 4 * sizes["hidden_size"], "num_attention_heads": max(2, sizes["hidden_size"] // 32)}
    for family in options["families"].split(","):
        model = random_classifier(folder / family, family, texts, seed=1, **sizes)
        target = Target(model, LENGTH)
        predictions = [row.index(max(row)) for row in workers.logits_of(target, [(text,) for text in texts])]
        labels = [label if number % 5 else 1 - label for number, label in enumerate(predictions)]
        for recipe in options["recipes"].split(","):
            if (family, recipe) not in done:
                append_line(results, {"family": family, **compare(target, recipe, texts, labels)})
    print(table(read_lines(results)))


def compare(target: Target, recipe: str, texts: list[str], labels: list[int]) -> dict:
    """Attack every text by both sides in turn."""
    spec = Spec(recipe, (COLUMN,), (COLUMN,), candidates=8)
    sides = {"ours": workers.attack_example, "stock": attack_stock}
    examples = [{COLUMN: text, "label": label} for text, label in zip(texts, labels)]
    for attack in sides.values():  # what loads at the first attack is no part of one
        attack(target, spec, 1, 0, examples[0])
    pairs = [[attack(target, spec, 1, i, example) for attack in sides.values()] for i, example in enumerate(examples)]
    alike = [all(a[key] == b[key] for key in ("outcome", "queries", "perturbed")) for a, b in pairs]
    seconds = [sum(record["processor_seconds"] for record in records) for records in zip(*pairs)]
    return {
        "recipe": recipe,
        "examples": len(pairs),
        "exact": sum(alike),
        "differ": [i for i, same in enumerate(alike) if not same],
        "attacked": sum(a["outcome"] != "skipped" for a, _ in pairs),
        "queries": sum(b["queries"] for _, b in pairs),
        "ours_seconds": round(seconds[0], 2),
        "stock_seconds": round(seconds[1], 2),
        "faster": round(seconds[1] / seconds[0], 2),
    }


def table(lines: list[dict]) -> str:
    """Return the results as a Markdown table."""
    rows = [
        "| family | attack | exact | queries | stock s | ours s | faster |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for line in lines:
        cells = [line["family"], line["recipe"], f"{line['exact']}/{line['examples']}", line["queries"]]
        cells += [line["stock_seconds"], line["ours_seconds"], f"{line['faster']}x"]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), {**DEFAULTS, **dict(text.split("=", 1) for text in sys.argv[2:])})
