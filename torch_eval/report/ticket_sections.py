"""Sections on tickets: how one was chosen, where they prune (Figure 3), how alike they are, their mask scores."""

from __future__ import annotations

import re
import statistics
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import read_json, read_lines
from configs.contract.experiment.methods import METHODS
from configs.contract.experiment.model_id import ModelId
from configs.contract.run.run_files import TicketReport
from mindspore_rt.ticket import Ticket
from torch_eval.attack import metrics
from torch_eval.report import figures
from torch_eval.report.captions import facts, remedies
from torch_eval.report.figure_sections import file_name
from torch_eval.report.render import Block, Cell, Details, Heading, Paragraph, Picture, Row, Table, section
from torch_eval.report.run_state import Run
from torch_eval.report.tables import NONE, attack_cell, with_timeouts

BESIDE = ("transferred", "robust", "random", "finetune")  # columns of the table of transferred tickets
SENTENCES = {  # what part the test set plays, by `choice.split`
    "dev": "Test sentences play no part in the choice.",
    "test_half": "Half of the test set is kept for the choice, and all results are of the other half.",
}
BINS = 120  # of the histograms of mask scores
Reports = dict[tuple[int, str], TicketReport]  # (seed, model) to the facts of its ticket

# --- the choice ----------------------------------------------------------------------------------------------


def choices(runs: list[Run]) -> list[Block]:
    """How the reported tickets were chosen."""
    return section("The choice of the ticket", [block for run in runs if run.has("choose") for block in choice(run)])


def choice(run: Run) -> list[Block]:
    """The candidates on dev, means over seeds, and the rule that chose one of them."""
    if not run.choice:
        return [
            Paragraph(
                f"{run.task}: no choice yet; `{run.command('choose')}` makes it. Until then the tables show the "
                f"first requested sparsity, {100 * run.sparsity:g}%.",
                note=True,
            )
        ]
    chosen = f"{run.task}: **{run.title(str(run.chosen))}** was chosen. Rule: {run.choice.rule}."
    blocks: list[Block] = [Paragraph(f"{chosen} {SENTENCES[run.config.choice.split]}")]
    rows, attacks = [], []
    for candidate in run.paths.candidates():
        results = [row for row in run.choice.candidates if row.model == str(candidate)]
        if results:
            own = run.dev_attacks(str(candidate))
            attacks += own
            aua = [100 * row.aua for row in results]
            summaries = [metrics.summarise(score.records) for score in own if score.settings.has_budget]
            rows.append(
                [
                    Cell(_title(run, candidate), best=candidate == run.chosen),
                    with_timeouts(_over_seeds(aua), "aua", statistics.mean(aua), summaries),
                    _over_seeds([100 * row.accuracy for row in results]),
                ]
            )
    header = ["Candidate (the chosen one is bold)", "Aua% in the choice", "Clean% in the choice"]
    return [*blocks, Table(header, [facts(run, attacks), *rows])] if rows else blocks


def _over_seeds(values: list[float]) -> Cell:
    spread = f"± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return Cell(f"{statistics.fmean(values):.1f}", spread)


# --- where tickets prune -------------------------------------------------------------------------------------


def tickets(runs: list[Run], folder: Path) -> list[Block]:
    """Where the chosen tickets prune, on one colour scale for all data sets; facts of all tickets; overlaps."""
    reports = {run.name: _reports(run) for run in runs}
    patterns = {run: _mean_layers(run, reports[run.name]) for run in runs}
    darkest = max((share for layers in patterns.values() for share in layers.values()), default=1.0)
    blocks: list[Block] = []
    for run, layers in patterns.items():
        if layers:
            model, path = str(run.chosen), folder / file_name("sparsity-pattern", run.name)
            figures.sparsity_pattern(layers, path, f"{run.task}, {run.title(model)}: pruned weights in %", darkest)
            seeds = [str(seed) for seed, name in reports[run.name] if name == model]
            over = f"mean of seeds {', '.join(seeds)}" if len(seeds) > 1 else f"seed {seeds[0]}"
            caption = (
                f"{run.task}: share of pruned weights for each layer and matrix type (Figure 3 of the paper), "
                f"{run.title(model)}, {over}. All data sets have this colour scale."
            )
            blocks.append(Picture(path, caption))
    for run in runs:
        blocks += _facts(run, reports[run.name])
    blocks += [*transferred(runs), *overlaps(runs, folder), *distributions(runs, folder)]
    return section("Tickets: what was pruned", blocks, remedies(runs, "draw"))


def _reports(run: Run) -> Reports:
    paths = {seed: sorted((run.paths.seed(seed) / "tickets").glob("*/report.json")) for seed in run.config.seeds}
    return {(seed, path.parent.name): read_json(path, TicketReport) for seed in paths for path in paths[seed]}


def _mean_layers(run: Run, reports: Reports) -> dict[str, float]:
    layers = [report.layers for (_, model), report in reports.items() if model == str(run.chosen)]
    common = [name for name in layers[0] if all(name in one for one in layers)] if layers else []
    return {name: statistics.mean(one[name] for one in layers) for name in common}


def _title(run: Run, model: ModelId) -> str:
    """Title of a model, with the epoch of the search that its ticket is of."""
    epochs = f"{model.epochs_back} epoch{'s' * (model.epochs_back > 1)}"
    return run.title(str(model)) + (f", {epochs} before the end of the search" if model.epochs_back else "")


def _facts(run: Run, reports: Reports) -> list[Block]:
    rows = []
    for (seed, model), report in reports.items():
        pruned, weights, model_id = report.pruned, report.weights, ModelId.parse(model)
        texts = (
            _title(run, model_id),
            str(seed),
            f"{100 * pruned / weights:.5f}%",
            f"{pruned:,}",
            f"{weights:,}",
            f"{round(pruned - (model_id.sparsity or 0.0) * weights, 2):+g}",
            *("–" if share is None else f"{share:.1%}" for share in (report.magnitude_overlap, report.chance_overlap)),
        )
        rows.append([Cell(text) for text in texts])
    if not rows:
        return []
    header = [
        "Ticket",
        "Seed",
        "Sparsity",
        "Pruned",
        "Weights",
        "Off the requested number",
        "Magnitude overlap",
        "Chance",
    ]
    explanation = (
        "A **magnitude ticket** of the same sparsity prunes the weights closest to zero. Overlap is the number of "
        "weights that both prune over the number that either prunes. Chance is the overlap of two random tickets."
    )
    return [Details(f"{run.task}: facts of the tickets ({len(rows)})", [Paragraph(explanation), Table(header, rows)])]


def overlaps(runs: list[Run], folder: Path) -> list[Block]:
    """Overlap of the chosen tickets of all seeds and data sets, where they are of the same matrices."""
    loaded = {}
    for run in runs:
        task = run.task if len(runs) > 1 else "robust"
        name = f" ({run.name})" if sum(other.task == run.task for other in runs) > 1 else ""
        for seed in run.config.seeds:
            path = run.paths.ticket(seed, str(run.chosen))
            if path.is_file():
                loaded[f"{task}, seed {seed}{name}"] = Ticket.load(path)
    names, grid = list(loaded), np.full((len(loaded), len(loaded)), np.nan)
    for (a, one), (b, other) in combinations(enumerate(loaded.values()), 2):
        if one.shapes == other.shapes:
            grid[a, b] = grid[b, a] = one.overlap(other)
    if not np.isfinite(grid).any():
        return []
    path = folder / file_name("overlap")
    figures.square(grid, names, path, "Overlap of robust tickets in %")
    chance = sorted(ticket.chance_overlap for ticket in loaded.values())
    by_chance = " to ".join(dict.fromkeys(f"{c:.1%}" for c in (chance[0], chance[-1])))
    caption = (
        "Overlap of the chosen robust tickets of different seeds and data sets: weights that both prune over weights "
        f"that either prunes. Two random tickets would have about {by_chance}."
    )
    return [Picture(path, caption)]


def transferred(runs: list[Run]) -> list[Block]:
    """One ticket for many tasks: transferred tickets beside the task's own, source by target, and their overlaps."""
    tasks = {run.name: run.task for run in runs}
    names = [METHODS[method].title for method in BESIDE]
    rows: list[Row] = []
    for run in (run for run in runs if "transferred" in run.config.methods):
        name = Path(str(run.config.tickets_from)).name
        models = [run.model_of(method) for method in BESIDE]
        rows.append(f"**{tasks.get(name, name)}** to **{run.task}**{_texts_of_source(run)}")
        for recipe in run.recipes:
            auas = [attack_cell(run, model, recipe, "aua", 0, ()) if model else Cell(NONE) for model in models]
            rows.append([Cell(run.attack_title(recipe)), *auas, *_own_and_transferred(run)])
    if not rows:
        return []
    explanation = (
        "A **transferred ticket** was found on one task, the source, and was trained and attacked on another, the "
        "target. Aua% of it and of the target's own models, mean over seeds. Overlap is that of the transferred ticket "
        "with the target's own; chance is the overlap of two random tickets."
    )
    header = ["Source to target", *names, "Overlap", "Chance"]
    return [Heading("One ticket for many tasks", 3), Paragraph(explanation), Table(header, rows)]


def _texts_of_source(run: Run) -> str:
    """Say how many test texts of a run the search of its transferred ticket was trained on.

    Such a ticket was fitted to texts that it is now attacked on. Texts are compared by their letters and digits,
    because two data sets may differ in spaces, capitals and punctuation.
    """
    source, target = run.paths.root.parent / str(run.config.tickets_from) / "data/train.jsonl", run.paths.split("test")
    if not (source.is_file() and target.is_file()):
        return ""
    learned, tested = set(map(_letters, read_lines(source))), list(map(_letters, read_lines(target)))
    count = sum(text in learned for text in tested)
    return f": {count:,} of the {len(tested):,} test texts are among the source's training texts" if count else ""


def _letters(record: dict[str, Any]) -> tuple[str, ...]:
    return tuple(re.sub(r"[\W_]+", "", value.casefold()) for value in record.values() if isinstance(value, str))


def _own_and_transferred(run: Run) -> list[Cell]:
    """Overlap of a run's transferred ticket with its own, mean over seeds, and the overlap by chance."""
    overlaps, models = [], [model for method in ("transferred", "robust") if (model := run.model_of(method))]
    for seed in run.config.seeds:
        paths = [run.paths.ticket(seed, model) for model in models]
        if len(paths) == 2 and all(path.is_file() for path in paths):
            other, own = map(Ticket.load, paths)
            overlaps.append((other.overlap(own), other.chance_overlap))
    return [Cell(f"{statistics.fmean(shares):.1%}") for shares in zip(*overlaps)] or [Cell(NONE), Cell(NONE)]


# --- mask scores ---------------------------------------------------------------------------------------------


def distributions(runs: list[Run], folder: Path) -> list[Block]:
    """Distribution of log alpha at the end of the first seed's search of each run."""
    histograms = {}
    for run in runs:
        seed = run.config.seeds[0]
        epochs = run.paths.log_alpha(seed, 1).parent.glob("epoch-*.safetensors")
        last = max(epochs, key=lambda path: int(path.stem.removeprefix("epoch-")), default=None)
        if last:
            # A structured ticket prunes whole heads and neurons by their mean, not the lowest scores.
            sparsity = 0.0 if run.config.structured else run.sparsity
            histograms[f"{run.named_task}, seed {seed}"] = histogram(last, sparsity)
    if not histograms:
        return []
    path = folder / file_name("log-alpha")
    figures.log_alpha(histograms, path)
    caption = (
        "Distribution of log α, one number for each mask, after the last epoch of the search. The filled part is what "
        "the chosen sparsity prunes, unless tickets are structured."
    )
    return [Picture(path, caption)]


def histogram(path: Path, sparsity: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Count the scores of a search, matrix by matrix: those of a BERT-base together would take 342 MB.

    Returns:
        Counts, edges, and the edge below which the share `sparsity` of the scores lies.

    Raises:
        UserError: The file is torn, empty, or a score is not finite.
    """
    try:
        with safetensors.safe_open(path, "numpy") as file:
            names = list(file.keys())
            extremes = [(t.min(), t.max()) for t in map(file.get_tensor, names)]
            if not np.isfinite(extremes).all():
                raise ValueError("not all are finite numbers")
            low, high = min(lo for lo, _ in extremes), max(hi for _, hi in extremes)
            edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
            counts = sum(np.histogram(file.get_tensor(name), edges)[0] for name in names)
    except (safetensors.SafetensorError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not the scores of a search ({error}); delete {path.parents[1]} to redo it") from None
    place = int(np.searchsorted(np.cumsum(counts), sparsity * counts.sum()))
    return counts, edges, float(edges[place + 1 if sparsity else 0])
