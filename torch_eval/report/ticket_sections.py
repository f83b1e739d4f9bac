"""The report's section on tickets: where they prune (Figure 3), how alike they are, what their scores look like."""

from __future__ import annotations

import statistics
from itertools import combinations
from pathlib import Path

import numpy as np
import safetensors

from configs.contract.errors import UserError
from configs.contract.model_id import ModelId
from configs.contract.shapes import COUNT, POSITIVE, SHARE, Maybe
from mindspore_rt.ticket import Ticket
from torch_eval.report import figures
from torch_eval.report.figure_sections import file_name, or_missing, percent
from torch_eval.report.render import Cell, Details, Picture, Table, Text
from torch_eval.report.run_state import Run, read

REPORT = {
    "pruned": COUNT,
    "weights": POSITIVE,
    "layers": {str: SHARE},
    "magnitude_overlap": Maybe(SHARE),
    "chance_overlap": Maybe(SHARE),
}


def tickets(runs: list[Run], folder: Path) -> list:
    """Where the chosen tickets prune, on one colour scale for all data sets; facts of all tickets; overlaps."""
    found = {run.name: _reports(run) for run in runs}
    patterns = {run: _mean_layers(run, found[run.name]) for run in runs}
    top = max((share for layers in patterns.values() for share in layers.values()), default=1.0)
    blocks = []
    for run, layers in patterns.items():
        if layers:
            model = str(run.chosen)
            path = folder / file_name("sparsity-pattern", run.name)
            figures.sparsity_pattern(layers, path, f"{run.task}, {run.title(model)}: pruned weights in %", top)
            seeds = [str(seed) for seed, name in found[run.name] if name == model]
            over = f"mean of seeds {', '.join(seeds)}" if len(seeds) > 1 else f"seed {seeds[0]}"
            blocks.append(
                Picture(
                    path,
                    f"{run.task}: share of pruned weights for each layer and matrix type (Figure 3 of "
                    f"the paper), {run.title(model)}, {over}. All data sets have this colour scale.",
                )
            )
    for run in runs:
        blocks += _facts(run, found[run.name])
    blocks += [*overlaps(runs, folder), *distributions(runs, folder)]
    wanted = [
        f"`{run.command('draw')}` makes them ({run.task})."
        for run in runs
        if any(step.stage == "draw" for step in run.steps)
    ]
    return or_missing("Tickets: what was pruned", blocks, wanted)


def _reports(run: Run) -> dict[tuple[int, str], dict]:
    found = {}
    for seed in run.config.seeds:
        for path in sorted((run.paths.seed(seed) / "tickets").glob("*/report.json")):
            found[seed, path.parent.name] = read(path, REPORT)
    return found


def _mean_layers(run: Run, reports: dict) -> dict[str, float]:
    layers = [report["layers"] for (_, model), report in reports.items() if model == str(run.chosen)]
    common = [name for name in layers[0] if all(name in one for one in layers)] if layers else []
    return {name: statistics.mean(one[name] for one in layers) for name in common}


def _facts(run: Run, reports: dict) -> list:
    rows = []
    for (seed, model), facts in reports.items():
        pruned, weights = facts["pruned"], facts["weights"]
        model_id = ModelId.parse(model)
        away = round(pruned - (model_id.sparsity or 0.0) * weights, 2)
        overlap, chance = (facts.get(key) for key in ("magnitude_overlap", "chance_overlap"))
        rows.append(
            [
                Cell(run.title(model) + (f", {model_id.epochs_back} epochs back" if model_id.epochs_back else "")),
                Cell(str(seed)),
                Cell(f"{100 * pruned / weights:.5f}%"),
                Cell(f"{pruned:,}"),
                Cell(f"{weights:,}"),
                Cell(f"{away:+g}"),
                *(Cell("–") if v is None else Cell(percent(v)) for v in (overlap, chance)),
            ]
        )
    if not rows:
        return []
    header = ["Ticket", "Seed", "Sparsity", "Pruned", "Weights", "From the asked number", "Magnitude overlap", "Chance"]
    return [
        Details(
            f"{run.task}: facts of the tickets ({len(rows)})",
            [
                Text(
                    "A **magnitude ticket** of the same sparsity prunes the weights closest to zero. Overlap is the "
                    "number of weights that both prune over the number that either prunes; chance is what two random "
                    "tickets would give."
                ),
                Table(header, rows),
            ],
        )
    ]


def overlaps(runs: list[Run], folder: Path) -> list:
    """Overlap of the chosen tickets of all seeds and data sets, as far as they are of the same matrices."""
    loaded = {}
    for run in runs:
        for seed in run.config.seeds:
            path = run.paths.ticket(seed, str(run.chosen))
            if path.is_file():
                loaded[
                    f"{run.task if len(runs) > 1 else 'robust'}, seed {seed}"
                    + (f" ({run.name})" if sum(r.task == run.task for r in runs) > 1 else "")
                ] = Ticket.load(path)
    if len(loaded) < 2:
        return []
    names = list(loaded)
    grid = np.full((len(names), len(names)), np.nan)
    shapes = {name: {n: m.shape for n, m in ticket.masks.items()} for name, ticket in loaded.items()}
    for a, b in combinations(range(len(names)), 2):
        if shapes[names[a]] == shapes[names[b]]:
            grid[a, b] = grid[b, a] = loaded[names[a]].overlap(loaded[names[b]])
    if not np.isfinite(grid).any():
        return []
    path = folder / file_name("overlap")
    figures.square(grid, names, path, "Overlap of robust tickets in %")
    chance = sorted((s := ticket.sparsity) / (2 - s) for ticket in loaded.values())
    by_chance = " to ".join(dict.fromkeys(percent(c) for c in (chance[0], chance[-1])))
    return [
        Picture(
            path,
            "Overlap of the chosen robust tickets of different seeds and data sets: weights that both prune "
            f"over weights that either prunes. Two random tickets would have about {by_chance}.",
        )
    ]


def distributions(runs: list[Run], folder: Path) -> list:
    """Distribution of log alpha at the end of the first seed's search of each run."""
    histograms = {}
    for run in runs:
        seed = run.config.seeds[0]
        epochs = sorted(run.paths.log_alpha(seed, 1).parent.glob("epoch-*.safetensors"))
        if epochs:
            histograms[f"{run.task} ({run.name}), seed {seed}"] = _histogram(epochs[-1], run.chosen.sparsity)
    if not histograms:
        return []
    path = folder / file_name("log-alpha")
    figures.log_alpha(histograms, path)
    return [
        Picture(
            path,
            "Distribution of log α, one number for each mask, after the last epoch of the search. The filled "
            "part is what the chosen sparsity prunes.",
        )
    ]


def _histogram(path: Path, sparsity: float, bins: int = 120) -> tuple[np.ndarray, np.ndarray, float]:
    """(counts, edges, threshold), matrix by matrix: the scores of a BERT-base together would be 342 MB."""
    try:
        with safetensors.safe_open(path, "numpy") as file:
            names = list(file.keys())
            extremes = [(t.min(), t.max()) for t in map(file.get_tensor, names)]
            if not np.isfinite(extremes).all():
                raise ValueError("not all are finite numbers")
            low, high = min(lo for lo, _ in extremes), max(hi for _, hi in extremes)
            edges = np.linspace(low, high if high > low else low + 1, bins + 1)
            counts = sum(np.histogram(file.get_tensor(name), edges)[0] for name in names)
    except (safetensors.SafetensorError, TypeError, ValueError) as error:  # torn, empty, or a score is not finite
        raise UserError(f"{path}: not the scores of a search ({error}); delete {path.parents[1]} to redo it") from None
    place = int(np.searchsorted(np.cumsum(counts), sparsity * counts.sum()))
    return counts, edges, float(edges[place + 1])
