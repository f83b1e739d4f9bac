"""The tables of docs/zoo.md, and the pictures of docs/results: all entries of the zoo."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from pathlib import Path

from configs.contract.basics import markdown
from configs.contract.basics.files import ROOT, atomic_write, read_json
from configs.contract.experiment import schema
from configs.contract.experiment.model_id import ModelId
from configs.contract.experiment.read_values import ENTRY, ZOO
from torch_eval.attack import metrics
from torch_eval.library.zoo import LETTERS, Entry, MeasuredModel, Outcomes
from torch_eval.report import figures
from torch_eval.report.scores import RECIPES, Value, seeds_text

Pair = tuple[Outcomes, Outcomes]  # of the ticket and of another model, under one attack and one seed

PAGE = ROOT / "docs" / "zoo.md"
PICTURES = ROOT / "docs" / "results"
HEADER = ("entry", "task", "model", "pruned", "seed", "attack", "sentences", "ticket", "Fine-tune", "p", "unreliable")
TOGETHER = ["experiment", "seeds", "attack", "temperature", "ticket", "other", "only ticket : only other", "gain"]
TOGETHER += ["p", "p (Holm)"]


def table(zoo: Path = ZOO) -> str:
    """Return the table of all entries as Markdown: Aua of each attack in per cent, and the test against Fine-tune."""
    rows: list[tuple[str, ...]] = []
    for name, entry in _entries(zoo).items():
        config = schema.load(str(zoo / name / ENTRY))
        layers = f", {config.layers} layers" if config.layers else ""
        share = entry.ticket["pruned"] / entry.ticket["weights"]
        about = (f"`{name}`", config.task, config.model + layers, f"{100 * share:.3g}%", str(entry.seed))
        ticket, dense = _ticket(entry), entry.models.get("finetune")
        rows.append((*about, "none (Clean)", "all", ticket.clean.text(), dense.clean.text() if dense else "", "", ""))
        for recipe, attacked in ticket.attacks.items():
            other = dense.attacks.get(recipe) if dense else None
            p = next((test.p for test in entry.paired if (test.other, test.attack) == ("finetune", recipe)), None)
            reasons = [f"ticket: {reason}" for reason in attacked.unreliable]
            reasons += [f"Fine-tune: {reason}" for reason in other.unreliable] if other else []
            texts = (RECIPES[recipe], str(attacked.examples), attacked.aua.text(), other.aua.text() if other else "")
            rows.append((*[""] * len(about), *texts, "" if p is None else f"{p:.2g}", "; ".join(reasons)))
    return markdown.table(HEADER, rows) + "\n"


def _entries(zoo: Path) -> dict[str, Entry]:
    """Return the results of all entries by name."""
    return {path.parent.name: read_json(path, Entry) for path in sorted(zoo.glob("*/results.json"))}


def _ticket(entry: Entry) -> MeasuredModel:
    """Return what was measured of the ticket, the one robust model of an entry."""
    return next(model for name, model in entry.models.items() if ModelId.parse(name).method == "robust")


def together(zoo: Path = ZOO) -> str:
    """Return the table of the paired tests over all seeds of each experiment, as Markdown."""
    rows = []
    for (experiment, temperature), family in _families(zoo).items():
        records = [[(_records(ours), _records(theirs)) for ours, theirs in pairs.values()] for pairs in family.values()]
        tests = list(map(metrics.paired, records))
        corrected = metrics.holm([test.p for test in tests])
        for ((other, recipe, _), pairs), made, test, p in zip(family.items(), records, tests, corrected):
            ours, theirs = (100 * statistics.fmean(pair[side].aua.value for pair in pairs.values()) for side in (0, 1))
            about = (experiment, ", ".join(map(str, sorted(pairs))), RECIPES[recipe], temperature)
            counts = f"{test.only_first} : {test.only_second}"
            gain = metrics.gain(made).text(sign="+", nothing="–")
            rows.append((*about, f"{ours:.1f}", f"{other} {theirs:.1f}", counts, gain, f"{test.p:.2g}", f"{p:.2g}"))
    return markdown.table(TOGETHER, rows) + "\n"


def _families(zoo: Path) -> dict[tuple[str, str], dict[tuple[str, str, str], dict[int, Pair]]]:
    """Return the paired attacks of all entries, by family of Holm's correction, test and seed.

    A family is all tests of one experiment that were made with the same temperatures. Entries are tested apart if their
    attacks were made in another way, or on other sentences.
    """
    families: dict[tuple[str, str], dict[tuple[str, str, str], dict[int, Pair]]] = {}
    for entry in _entries(zoo).values():
        ticket = _ticket(entry)
        for model in entry.models.values():
            for recipe, attacked in model.attacks.items():
                ours = ticket.attacks.get(recipe)
                if model is ticket or not ours or ours.made_with != attacked.made_with:
                    continue
                by_temperature = {"none": (ours, attacked), "fitted": (ours.calibrated, attacked.calibrated)}
                for temperature, (first, second) in by_temperature.items():
                    if first and second:
                        tests = families.setdefault((entry.experiment, temperature), {})
                        way = json.dumps(ours.made_with, sort_keys=True)
                        tests.setdefault((model.title, recipe, way), {})[entry.seed] = (first, second)
    return families


def _records(attacked: Outcomes) -> list[dict]:
    return [{"index": index, "outcome": LETTERS[letter]} for index, letter in enumerate(attacked.outcomes)]


def write() -> None:
    """Put both tables between their marks in the page, and draw the pictures."""
    atomic_write(PAGE, with_tables(PAGE.read_text(encoding="utf-8")))
    draw(PICTURES)


def draw(folder: Path, zoo: Path = ZOO) -> None:
    """Draw Aua and Clean of all models of an experiment, over the seeds of its entries, into <experiment>.png."""
    entries = list(_entries(zoo).values())
    for experiment in dict.fromkeys(entry.experiment for entry in entries):
        seeds = [entry for entry in entries if entry.experiment == experiment]
        rows: list[tuple[str, Value, dict[str, Value]]] = []
        for name, model in seeds[0].models.items():
            by_seed = {entry.seed: entry.models[name] for entry in seeds if name in entry.models}
            clean = Value(((seed, one.clean) for seed, one in by_seed.items()), scale=100)
            auas = {
                RECIPES[recipe]: Value(
                    ((seed, one.attacks[recipe].aua) for seed, one in by_seed.items() if recipe in one.attacks),
                    scale=100,
                )
                for recipe in model.attacks
            }
            rows.append((model.title, clean, auas))
        title = f"{experiment}, {seeds_text([entry.seed for entry in seeds])}"
        with tempfile.TemporaryDirectory() as temporary:  # for the other formats that a report has
            figures.overview(rows, picture := Path(temporary) / f"{experiment}.png", title)
            shutil.copyfile(picture, folder / picture.name)


def with_tables(text: str, zoo: Path = ZOO) -> str:
    """Return the text of the page with both tables between their marks."""
    for name, rows in (("entries", table(zoo)), ("seeds together", together(zoo))):
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}{rows}{end}{rest.partition(end)[2]}"
    return text
