"""Sections of the report that hold pictures: what the results depend on, the search, the training."""

from __future__ import annotations

import re
import statistics
from itertools import product
from pathlib import Path

import numpy as np

from configs.contract.files import file_hash
from configs.contract.methods import METHODS, with_snapshots
from configs.contract.model_id import ModelId
from configs.contract.shapes import COUNT, SHARE, TEXT, Maybe
from torch_eval.report import figures
from torch_eval.report.render import Details, Heading, Picture, Text
from torch_eval.report.run_state import MANIFEST, Run, lines, read
from torch_eval.report.tables import sample_clean

TRANSFER = {
    "rows": [{**dict.fromkeys(("recipe", "source", "target"), TEXT), "seed": COUNT, "share": Maybe(SHARE)}],
    "models": [{"seed": COUNT, "model": TEXT, "sha256": TEXT}],
    "attacks": Maybe([{"seed": COUNT, "model": TEXT, "recipe": TEXT, "sha256": TEXT}]),
}
SEARCHED = ("l0_weight", "l0_term", "settled_zero", "settled_one")  # in every line of a search
MOST_CURVES = 6  # in one picture of training


def file_name(*parts) -> str:
    return "-".join(re.sub(r"[^\w.+-]+", "_", str(part)) for part in parts) + ".png"


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def names_of(methods) -> dict[str, str]:
    return {method: METHODS[method].title for method in methods}


def spans(run: Run) -> str:
    """What the bars and bands of a picture mean."""
    alone = "the 95% interval"
    return f"one standard deviation over seeds, or {alone} of a lone one" if len(run.config.seeds) > 1 else alone


def band(value) -> figures.Band:
    return figures.Band(value.mean, *value.span)


def or_missing(title: str, blocks: list, wanted: list[str]) -> list:
    """The blocks under their heading, or what makes them; nothing if nobody asked for them."""
    if blocks:
        return [Heading(title), *blocks]
    return [Heading(title), *(Text(f"Missing; {line}", note=True) for line in wanted)] if wanted else []


# --- Figure 2, the trade-off, Figure 4, transfer -------------------------------------------------------------


def accuracies(runs: list[Run], folder: Path) -> list:
    blocks = []
    for run in runs:
        blocks += [*trade_off(run, folder), *sparsities(run, folder), *progress(run, folder)]
    return or_missing(
        "Clean accuracy and robustness",
        blocks,
        [f"`{run.command('attack')}` scores what is drawn here ({run.task})." for run in runs],
    )


def trade_off(run: Run, folder: Path) -> list:
    blocks = []
    for recipe in run.recipes:
        points = {}
        for method in run.config.methods:
            model = run.pick(method)
            if model:
                clean, aua = run.clean(model), run.value(model, recipe, "aua")
                if clean and aua:
                    points[method] = (band(clean), band(aua))
        if len(points) > 1:
            path = folder / file_name("trade-off", run.name, recipe)
            figures.trade_off(points, names_of(points), path, f"{run.task}\n{run.attack_facts(recipe)}")
            blocks.append(
                Picture(
                    path,
                    f"{run.task}: clean accuracy against accuracy under attack ({run.attack_facts(recipe)}), for all "
                    f"methods; bars: {spans(run)}. Up and to the right is better.",
                )
            )
    # One picture is enough to see the trade-off; the other attacks' open on demand.
    return blocks[:1] + ([Details(f"{run.task}: the same for the other attacks", blocks[1:])] if blocks[1:] else [])


def sparsities(run: Run, folder: Path) -> list:
    """Figure 2."""
    if len(run.config.sparsities) < 2:
        return []
    panels, level = {}, {}
    columns = {"Clean (test set)": run.clean}
    columns |= {f"Aua, {run.attack_title(r)}": lambda model, r=r: run.value(model, r, "aua") for r in run.recipes}
    for title, measure in columns.items():
        curves = {}
        for model, method in run.models.items():
            if METHODS[method].kind == "ticket" and method in ("robust", "lth") and measure(model):
                curves.setdefault(method, []).append((ModelId.parse(model).sparsity, band(measure(model))))
        if curves:
            panels[title] = {method: sorted(points) for method, points in curves.items()}
            level[title] = (
                {"finetune": band(measure("finetune"))} if "finetune" in run.models and measure("finetune") else {}
            )
    if not panels:
        return []
    path = folder / file_name("sparsity", run.name)
    figures.accuracy_curves(panels, names_of(("finetune", "lth", "robust")), path, "share of weights pruned", level)
    return [
        Picture(
            path,
            f"{run.task}: accuracies against sparsity (Figure 2 of the paper; {run.attack_facts()}); "
            f"bands: {spans(run)}. "
            "The level line is the fine-tuned model, which has all its weights.",
        )
    ]


def progress(run: Run, folder: Path) -> list:
    """Figure 4: models kept on the way of a training, and its end."""
    if not run.config.snapshots:
        return []
    panels = {}
    columns = {"Clean (attacked sample)": lambda model: sample_clean(run, model)}
    columns |= {f"Aua, {run.attack_title(r)}": lambda model, r=r: run.value(model, r, "aua") for r in run.recipes}
    for title, measure in columns.items():
        curves = {}
        for method in with_snapshots():
            model = run.pick(method)
            if model:
                found = [(share, band(measure(name))) for share, name in kept(run, model) if measure(name)]
                if found:
                    curves[method] = found
        if curves:
            panels[title] = curves
    if not panels:
        return [
            Text(
                f"{run.task}, training progress (Figure 4): missing; `{run.command('attack')}` scores the kept models.",
                note=True,
            )
        ]
    path = folder / file_name("progress", run.name)
    figures.accuracy_curves(panels, names_of(with_snapshots()), path, "share of the training done")
    return [
        Picture(
            path,
            f"{run.task}: accuracies over training (Figure 4 of the paper; {run.attack_facts()}), from models kept "
            "on the way; "
            f"bands: {spans(run)}.",
        )
    ]


def transfer(runs: list[Run], folder: Path) -> list:
    """Adversarial texts made on one model (rows), given to the others (columns); means over seeds."""
    blocks = []
    for run in runs:
        rows, changed = transferred(run)
        if changed:
            names = ", ".join(f"{model} (seed {seed})" for seed, model in sorted(changed))
            command = f"`python -m torch_eval transfer {run.arguments}`"
            told = f"Transfer is left out for what was trained or attacked again since: {names}. {command} redoes it."
            blocks.append(Text(told, note=True))
        models = [model for method in run.config.methods if (model := run.pick(method))]
        for recipe in run.recipes:
            grid = np.full((len(models), len(models)), np.nan)
            for (a, source), (b, target) in product(enumerate(models), repeat=2):
                shares = [
                    row["share"]
                    for row in rows
                    if (row["recipe"], row["source"], row["target"]) == (recipe, source, target)
                    and row["share"] is not None
                ]
                if shares:
                    grid[a, b] = statistics.fmean(shares)
            if np.isfinite(grid).any():
                path = folder / file_name("transfer", run.name, recipe)
                figures.square(
                    grid,
                    [run.title(model) for model in models],
                    path,
                    f"{run.task}: fooled, in %\n{run.attack_facts(recipe)}",
                    side="texts made on",
                    bottom="given to",
                )
                blocks.append(
                    Picture(
                        path,
                        f"{run.task}: share of the adversarial texts ({run.attack_facts(recipe)}) made on "
                        "one model (row) that fool another (column), of those it classifies rightly unchanged.",
                    )
                )
    return [Heading("Transfer of adversarial texts"), *blocks] if blocks else []


def transferred(run: Run) -> tuple[list[dict], set[tuple[int, str]]]:
    """Rows of `transfer.json`, but those of (seed, model) trained or attacked again since, which come second."""
    found = read(run.paths.root / "transfer.json", TRANSFER) or {"rows": [], "models": []}
    asked = {(seed, model) for seed in run.config.seeds for model in run.paths.victims(seed)}  # no others are drawn
    models = {(m["seed"], m["model"]): m["sha256"] for m in found["models"]}
    attacks = {(a["seed"], a["model"], a["recipe"]): a["sha256"] for a in found.get("attacks") or []}
    trained = {key for key in asked & models.keys() if run.trained(*key) not in (None, models[key])}
    attacked = {
        key
        for key, then in attacks.items()
        if key[:2] in asked and key[2] in run.recipes and _hash_of_results(run, *key) != then
    }

    def holds(row: dict) -> bool:
        seed, source, target = row["seed"], row["source"], row["target"]
        return not trained & {(seed, source), (seed, target)} and (seed, source, row["recipe"]) not in attacked

    return list(filter(holds, found["rows"])), trained | {key[:2] for key in attacked}


def _hash_of_results(run: Run, seed: int, model: str, recipe: str) -> str | None:
    path = run.paths.attack(seed, model) / recipe / "results.jsonl"
    return file_hash(path) if path.is_file() else None


def kept(run: Run, model: str) -> list[tuple[float, str]]:
    """(share of the training, name) of a model's snapshots, the finished one last."""
    seed = run.config.seeds[0]
    manifest = read(run.paths.stage(seed, model) / "manifest.json", MANIFEST)
    last = max([r["step"] for r in lines(run.paths.stage(seed, model) / "metrics.jsonl")], default=0)
    total = (manifest and manifest["results"].get("steps")) or last
    found = [(copy.snapshot / total, str(copy)) for copy in run.paths.snapshots(seed, model) if total]
    return [*[point for point in found if point[0] < 1], (1.0, model)]


# --- Figures 1 and 5, training curves ------------------------------------------------------------------------


def learning(runs: list[Run], folder: Path) -> list:
    """Searches of the same task and model stand in one picture, so that several lambda can be compared."""
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        groups.setdefault((run.config.task, run.config.model, run.config.layers), []).append(run)
    blocks = []
    for group in groups.values():
        searches = _searches(group)
        if searches:
            path = folder / file_name("mask-learning", group[0].name)
            figures.mask_learning({name: records for name, (records, _) in searches.items()}, path)
            told = " ".join(_told_search(name if len(searches) > 1 else "", *found) for name, found in searches.items())
            blocks.append(
                Picture(
                    path,
                    f"{group[0].task}, mask learning (Figures 1 and 5 of the paper). R(m) is the "
                    f"expected share of weights kept; settled: sigmoid of log α below 1/12 or above "
                    f"11/12. {told}",
                )
            )
    wanted = [
        f"`{run.command('search')}` makes it ({run.task})."
        for run in runs
        if any(step.title == "search" for step in run.steps)
    ]
    return or_missing("Learning the masks", blocks, wanted)


def _searches(group: list[Run]) -> dict[str, tuple[list[dict], float | None]]:
    """Name to training records and last dev accuracy: of several runs the first seed of each, else every seed."""
    found = {}
    weights = {run.config.search.l0_weight for run in group}
    for run in group:
        for seed in run.config.seeds if len(group) == 1 else run.config.seeds[:1]:
            records = lines(run.paths.stage(seed, "search") / "metrics.jsonl")
            trained = [record for record in records if all(record.get(key) is not None for key in SEARCHED)]
            dev = dev_accuracies(records)
            name = f"seed {seed}"
            if len(group) > 1:
                distinct = len(weights) == len(group)
                name = f"λ = {run.config.search.l0_weight:g}" if distinct else run.name
            if trained:
                found[name] = (trained, dev[-1] if dev else None)
    return found


def dev_accuracies(records: list[dict]) -> list[float]:
    return [record["dev_accuracy"] for record in records if record.get("dev_accuracy") is not None]


def _told_search(name: str, records: list[dict], accuracy: float | None) -> str:
    first, last = records[0], records[-1]
    told = f"{name}: " if name else ""
    told += (
        f"R(m) from {first['l0_term']:.3f} to {last['l0_term']:.3f} in {last['step']} steps, "
        f"{percent(last['settled_zero'])} of the masks settled near 0 and {percent(last['settled_one'])} near 1"
    )
    return told + (f", dev accuracy {percent(accuracy)}." if accuracy is not None else ".")


def training(runs: list[Run], folder: Path) -> list:
    blocks = []
    for run in runs:
        seed = run.config.seeds[0]
        models = [model for method in run.config.methods if (model := run.pick(method))]
        curves = [(model, lines(run.paths.stage(seed, model) / "metrics.jsonl")) for model in models]
        curves = [(run.title(model), (run.models[model], records)) for model, records in curves if records]
        # More than a picture can hold apart go into the next one.
        for number, part in enumerate(range(0, len(curves), MOST_CURVES), 1):
            some, path = dict(curves[part : part + MOST_CURVES]), folder / file_name("training", run.name, number)
            figures.training_curves(some, path)
            ends = {name: dev_accuracies(of) for name, (_, of) in some.items()}
            told = ", ".join(f"{name} {percent(values[-1])}" for name, values in ends.items() if values)
            blocks.append(
                Picture(path, f"{run.task}, seed {seed}. Dev accuracy at the end: {told or 'not measured yet'}.")
            )
    wanted = [f"`{run.command('finetune')}` makes it ({run.task})." for run in runs]
    return or_missing("Fine-tuning and retraining", blocks, wanted)
