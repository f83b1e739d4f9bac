"""The tables of docs/zoo.md: all entries of the zoo."""

from __future__ import annotations

from pathlib import Path

from configs.contract import schema
from configs.contract.files import ROOT, atomic_write, read_json
from configs.contract.model_id import ModelId
from configs.contract.read_values import ENTRY, ZOO
from torch_eval.library.zoo import Entry
from torch_eval.report.scores import RECIPES

PAGE, MARKS = ROOT / "docs" / "zoo.md", ("<!-- table -->\n", "<!-- end of table -->\n")
HEADER = ("entry", "task", "model", "pruned", "seed", "attack", "sentences", "ticket", "Fine-tune", "p", "unreliable")


def table(zoo: Path = ZOO) -> str:
    """Return the table of all entries as Markdown: Aua of each attack in per cent, and the test against Fine-tune."""
    rows = [HEADER, tuple("---" for _ in HEADER)]
    for path in sorted(zoo.glob("*/results.json")):
        entry, config = read_json(path, Entry), schema.load(str(path.with_name(ENTRY)))
        layers = f", {config.layers} layers" if config.layers else ""
        share = entry.ticket["pruned"] / entry.ticket["weights"]
        about = (f"`{path.parent.name}`", config.task, config.model + layers, f"{100 * share:.3g}%", str(entry.seed))
        ticket, dense = entry.models[str(ModelId("robust", config.sparsities[0]))], entry.models.get("finetune")
        rows.append((*about, "none (Clean)", "all", ticket.clean.text(), dense.clean.text() if dense else "", "", ""))
        for recipe, attacked in ticket.attacks.items():
            other = dense.attacks.get(recipe) if dense else None
            p = next((test.p for test in entry.paired if (test.other, test.attack) == ("finetune", recipe)), None)
            reasons = [f"ticket: {reason}" for reason in attacked.unreliable]
            reasons += [f"Fine-tune: {reason}" for reason in other.unreliable] if other else []
            texts = (RECIPES[recipe], str(attacked.examples), attacked.aua.text(), other.aua.text() if other else "")
            rows.append((*[""] * len(about), *texts, "" if p is None else f"{p:.2g}", "; ".join(reasons)))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def write_table(page: Path = PAGE) -> None:
    """Put the table of all entries between the marks of the page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    atomic_write(page, f"{before}{MARKS[0]}{table()}{MARKS[1]}{rest.partition(MARKS[1])[2]}")
