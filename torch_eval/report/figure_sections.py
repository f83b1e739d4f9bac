"""Sections of the report that hold figures: what the accuracies depend on, the search, the training."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path

from configs.contract.experiment.methods import with_snapshots
from configs.contract.experiment.model_id import ModelId
from configs.contract.run.run_files import TrainingLine, TrainingManifest
from torch_eval.report import figures
from torch_eval.report.captions import bars, remedies
from torch_eval.report.manifests import read_optional
from torch_eval.report.render import Block, Details, Paragraph, Picture, section
from torch_eval.report.run_state import Run
from torch_eval.report.scores import Value
from torch_eval.report.tables import sample_clean

# In every training record of a search. Its evaluations have all but the weight.
SEARCHED = ("l0_weight", "l0_term", "settled_zero", "settled_one")
MOST_CURVES = 6  # in one figure of trainings


def file_name(*parts: object) -> str:
    """Name of a figure's file."""
    return "-".join(re.sub(r"[^\w.+-]+", "_", str(part)) for part in parts) + ".png"


# --- the trade-off, Figures 2 and 4 --------------------------------------------------------------------------


def accuracies(runs: list[Run], folder: Path) -> list[Block]:
    """What accuracy and robustness depend on: the method, the length, the sparsity, the training's progress."""
    blocks = [
        block for run in runs for make in (trade_off, lengths, sparsities, progress) for block in make(run, folder)
    ]
    return section("Clean accuracy and robustness", blocks, remedies(runs, "attack"))


def trade_off(run: Run, folder: Path) -> list[Block]:
    """Clean accuracy against accuracy under attack of all methods."""
    blocks: list[Block] = []
    for recipe in run.recipes:
        points = {}
        for method in run.config.methods:
            model = run.model_of(method)
            if model and (clean := run.clean(model)) and (aua := run.value(model, recipe, "aua")):
                points[run.marked_title(model)] = (method, clean, aua)
        if len(points) > 1:
            path, attack = folder / file_name("trade-off", run.name, recipe), run.attack_facts(recipe)
            figures.trade_off(points, path, f"{run.task}\n{attack}")
            caption = (
                f"{run.task}: clean accuracy against accuracy under attack ({attack}) of all methods. "
                f"Bars: {bars(run)}. Up and to the right is better."
            )
            blocks.append(Picture(path, caption))
    # One figure is enough to see the trade-off; those of the other attacks open on demand.
    return blocks[:1] + ([Details(f"{run.task}: the same for the other attacks", blocks[1:])] if blocks[1:] else [])


def _panels(
    run: Run, points: Sequence[tuple[str, float | None, str]], clean: str, accuracy: Callable[[str], Value]
) -> figures.Panels:
    """Arrange points for `figures.accuracy_curves`: accuracy on unchanged sentences, then Aua of every attack.

    Args:
        run: The run.
        points: Method, place on the x axis (None: none), model.
        clean: Title of the first panel.
        accuracy: What it shows of a model.
    """
    measures = {clean: accuracy}
    for recipe in run.recipes:
        measures[f"Aua, {run.attack_title(recipe)}"] = partial(run.value, recipe=recipe, measure="aua")
    panels: figures.Panels = {}
    for title, measure in measures.items():
        for method, place, model in points:
            if place is not None and (value := measure(model)):
                panels.setdefault(title, {}).setdefault(method, []).append((place, value))
    return {
        title: {method: sorted(curve, key=itemgetter(0)) for method, curve in curves.items()}
        for title, curves in panels.items()
    }


def _unlearned(run: Run, models: Iterable[str]) -> str:
    """A sentence about the models that have learned nothing, if there are any."""
    titles = [run.marked_title(model) for model in models if run.unlearned(model)]
    return f" Learned nothing: {', '.join(titles)}." if titles else ""


def sparsities(run: Run, folder: Path) -> list[Block]:
    """Accuracies against sparsity (Figure 2)."""
    if len(run.config.sparsities) < 2:
        return []
    drawn = [(method, ModelId.parse(model)) for model, method in run.models.items() if method in ("robust", "lth")]
    points = [(method, model.sparsity, str(model)) for method, model in drawn if model.epochs is None]
    panels = _panels(run, points, "Clean (test set)", run.clean)
    if not panels:
        return []
    dense = _panels(run, [("finetune", 0.0, "finetune")], "Clean (test set)", run.clean)
    path = folder / file_name("sparsity", run.name)
    figures.accuracy_curves(panels, path, "share of weights pruned", dense)
    level = " The level line is the fine-tuned model, which has all its weights." if dense else ""
    caption = (
        f"{run.task}: accuracies against sparsity (Figure 2 of the paper; {run.attack_facts()}). Error bars: "
        f"{bars(run)}.{level}{_unlearned(run, run.models)}"
    )
    return [Picture(path, caption)]


def lengths(run: Run, folder: Path) -> list[Block]:
    """Accuracies against what the length of the training changes, a picture for each."""
    if len(run.config.lengths or []) < 2:
        return []
    blocks: list[Block] = []
    for what, place, note in (
        ("epochs", run.epochs, "each length has its own schedule"),
        (
            "passes over the training set",
            run.passes,
            "forward and back, with those of the search and of what it starts from",
        ),
        ("training loss", run.training_loss, "mean of the last epoch; methods with an adversarial loss are left out"),
        ("median margin", run.median_margin, "logit of the right class minus the largest other, over the test set"),
    ):
        points = [(method, place(model), model) for method in run.config.methods for model in run.models_of(method)]
        panels = _panels(run, points, "Clean (test set)", run.clean)
        if panels:
            path = folder / file_name("lengths", what, run.name)
            figures.accuracy_curves(panels, path, what, shares=False)
            caption = f"{run.task}: accuracies against {what} ({note}; {run.attack_facts()}). Error bars: {bars(run)}."
            blocks.append(Picture(path, caption))
    return blocks


def progress(run: Run, folder: Path) -> list[Block]:
    """Accuracies over the training (Figure 4), from its snapshots and its end."""
    if not run.config.snapshots:
        return []
    trained = [(method, model) for method in with_snapshots() if (model := run.model_of(method))]
    points = [(method, share, name) for method, model in trained for share, name in snapshots(run, model)]
    panels = _panels(run, points, "Clean (attacked sample)", lambda model: sample_clean(run, model))
    if not panels:
        remedy = f"`{run.command('attack')}` scores the snapshots"
        return [Paragraph(f"{run.task}, training progress (Figure 4): missing; {remedy}.", note=True)]
    path = folder / file_name("progress", run.name)
    figures.accuracy_curves(panels, path, "share of the training done")
    caption = (
        f"{run.task}: accuracies over training (Figure 4 of the paper; {run.attack_facts()}), from snapshots of the "
        f"training. Error bars: {bars(run)}.{_unlearned(run, run.models)}"
    )
    return [Picture(path, caption)]


def snapshots(run: Run, model: str) -> list[tuple[float, str]]:
    """(share of the training, name) of a model's snapshots, the finished model last."""
    seed = run.config.seeds[0]
    manifest = read_optional(run.paths.stage(seed, model) / "manifest.json", TrainingManifest)
    total = (manifest and manifest.results.steps) or max((r.step for r in run.records(seed, model)), default=0)
    points = [((saved.snapshot or 0) / total, str(saved)) for saved in run.paths.snapshots(seed, model) if total]
    return [*[point for point in points if point[0] < 1], (1.0, model)]


# --- curves of searches (Figures 1 and 5) and trainings ------------------------------------------------------


def learning(runs: list[Run], folder: Path) -> list[Block]:
    """Learning the masks. Searches of one task and model share a figure, so that values of λ can be compared."""
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        groups.setdefault((run.config.task, run.config.model, run.config.layers), []).append(run)
    blocks: list[Block] = []
    for group in groups.values():
        searches = _searches(group)
        if searches:
            path = folder / file_name("mask-learning", group[0].name)
            figures.mask_learning({name: records for name, (records, _) in searches.items()}, path)
            facts = [_search_facts(name if len(searches) > 1 else "", *search) for name, search in searches.items()]
            caption = (
                f"{group[0].task}, mask learning (Figures 1 and 5 of the paper). R(m) is the expected share of masks "
                "above 0. A mask is settled if the sigmoid of its log α is below 1/12 or above 11/12. "
                f"{' '.join(facts)}"
            )
            blocks.append(Picture(path, caption))
    searching = [run for run in runs if any(step.stage == step.model == "search" for step in run.steps)]
    return section("Learning the masks", blocks, remedies(searching, "search"))


def _searches(group: list[Run]) -> dict[str, tuple[list[TrainingLine], float | None]]:
    """Name to training records and last dev accuracy: every seed of one run, or the first seed of each of several."""
    searches = {}
    weights = {run.config.search.l0_weight for run in group}
    for run in group:
        for seed in run.config.seeds if len(group) == 1 else run.config.seeds[:1]:
            records = run.records(seed, "search")
            steps = [record for record in records if all(getattr(record, key) is not None for key in SEARCHED)]
            accuracies = dev_accuracies(records)
            name = f"seed {seed}"
            if len(group) > 1:
                distinct = len(weights) == len(group)
                name = f"λ = {run.config.search.l0_weight:g}" if distinct else run.name
            if steps:
                searches[name] = (steps, accuracies[-1] if accuracies else None)
    return searches


def dev_accuracies(records: list[TrainingLine]) -> list[float]:
    """Dev accuracies of a training, in order."""
    return [record.dev_accuracy for record in records if record.dev_accuracy is not None]


def _search_facts(name: str, records: list[TrainingLine], accuracy: float | None) -> str:
    first, last = records[0], records[-1]
    zero, one = (f"{share or 0.0:.1%}" for share in (last.settled_zero, last.settled_one))
    facts = f"R(m) from {first.l0_term:.3f} to {last.l0_term:.3f} in {last.step} steps, "
    facts += f"{zero} of the masks settled near 0 and {one} near 1"
    facts += f", dev accuracy {accuracy:.1%}." if accuracy is not None else "."
    return f"{name}: {facts}" if name else facts


def training(runs: list[Run], folder: Path) -> list[Block]:
    """Training curves of the first seed's models."""
    blocks: list[Block] = []
    for run in runs:
        seed = run.config.seeds[0]
        records = {model: run.records(seed, model) for model in run.first_models()}
        curves = [(run.title(m), (run.models[m], lines)) for m, lines in records.items() if lines]
        # More curves than a figure can tell apart go into the next one.
        for number, start in enumerate(range(0, len(curves), MOST_CURVES), 1):
            some, path = dict(curves[start : start + MOST_CURVES]), folder / file_name("training", run.name, number)
            figures.training_curves(some, path)
            ends = {name: dev_accuracies(lines) for name, (_, lines) in some.items()}
            accuracies = ", ".join(f"{name} {values[-1]:.1%}" for name, values in ends.items() if values)
            caption = f"{run.task}, seed {seed}. Dev accuracy at the end: {accuracies or 'not measured yet'}."
            blocks.append(Picture(path, caption))
    return section("Fine-tuning and retraining", blocks, remedies(runs, "finetune"))
