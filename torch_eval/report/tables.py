"""The paper's Tables 1 to 4, from one experiment or several."""

from __future__ import annotations

import dataclasses
import operator
import statistics

from configs.contract.experiment.methods import METHODS, in_table
from configs.contract.run.jobs import CLEAN
from torch_eval.attack import metrics, records
from torch_eval.report import saturation
from torch_eval.report.captions import heading
from torch_eval.report.published import published
from torch_eval.report.render import Cell, Row, Table
from torch_eval.report.run_state import Run
from torch_eval.report.scores import MEASURES, Value, titles

TABLE2 = ("qnli", "mnli", "qqp")  # tasks of Table 2; Table 1 has the others
NONE = "–"  # a cell that has no result, and needs none
Columns = list[tuple[str, str]]  # (attack, measure)

# --- cells ---------------------------------------------------------------------------------------------------


def cell(value: Value, reference: str = "") -> Cell:
    """Mean over seeds with the standard deviation below it, and each seed's 95% interval on demand."""
    if not value:
        return Cell("missing", missing=True, published=reference)
    spread = f"± {value.deviation:.1f}" if value.deviation is not None else ""
    count = f"{len(value.values)} of {value.asked} seeds" if len(value.values) < value.asked else ""
    several = len(value.seeds) > 1
    intervals = [(f"seed {seed}: " if several else "") + f"{low:.1f}–{high:.1f}" for seed, _, low, high in value.seeds]
    small, shown = "\n".join(filter(None, (spread, count))), round(value.mean, 1)
    return Cell(f"{shown:.1f}", small, published=reference, interval="\n".join(intervals), ends=(shown, shown))


def clean_cell(run: Run, model: str, group: int, tables: tuple[int, ...]) -> Cell:
    """Accuracy on the whole test set.

    Args:
        run: The run.
        model: Name of the model.
        group: Comparison group.
        tables: Numbers of the paper's tables whose figures stand beside it.
    """
    value = run.clean(model, group)
    if group and not value:
        return Cell(NONE)
    result = cell(value, published(run, model, None, "clean", tables, group))
    return with_small(result, "stale" if is_stale(run, model, CLEAN, group) else "")


def attack_cell(run: Run, model: str, recipe: str, measure: str, group: int, tables: tuple[int, ...] = (1, 2)) -> Cell:
    """One measure of an attack. A missing one says how far the attack got.

    Args:
        run: The run.
        model: Name of the model.
        recipe: The attack.
        measure: A key of `MEASURES`.
        group: Comparison group.
        tables: Numbers of the paper's tables whose figures stand beside it.
    """
    if recipe not in run.recipes:
        return Cell("not asked")
    value = run.value(model, recipe, measure, group)
    if group and not value:
        return Cell(NONE)
    result = cell(value, published(run, model, recipe, measure, tables, group))
    if result.missing:
        finished = any((seed, model, recipe) in run.scores for seed in run.config.seeds)
        return with_small(result, progress(run, model, recipe) if measure == "aua" and not finished else "")
    result = with_small(result, "stale" if is_stale(run, model, recipe, group) else "")
    summaries = [score.summary for _, score in run.scores_of(model, recipe, group)]
    known = [summary for summary in summaries if getattr(summary, measure).value is not None]
    if measure == "aua" and not group and (check := saturation.check(run, model, recipe)) and check.differs:
        result = with_small(result, f"† {check.mean_aua(1):.1f} {saturation.other_way(run)}")
    return with_timeouts(result, measure, value.mean, known)


def with_timeouts(result: Cell, measure: str, mean: float, summaries: list[metrics.Metrics]) -> Cell:
    """Aua or Suc as a range where attacks timed out: from "all of these broken" to "all survived", means over seeds.

    Args:
        result: The cell without a range.
        measure: A key of `MEASURES`.
        mean: Mean over seeds, in per cent, with timeouts counted as broken.
        summaries: Metrics of each seed.
    """
    if measure == "queries" or not any(summary.timeouts for summary in summaries):
        return result
    timeouts = [summary.timeouts for summary in summaries]
    of = [summary.examples if measure == "aua" else summary.attacked for summary in summaries]
    undecided = 100 * statistics.mean(map(operator.truediv, timeouts, of))
    low, high = (mean, mean + undecided) if measure == "aua" else (mean - undecided, mean)
    result = dataclasses.replace(result, text=f"{low:.1f}–{high:.1f}", ends=(round(low, 1), round(high, 1)))
    return with_small(result, f"{sum(timeouts)} of {sum(of)} timed out")


def is_stale(run: Run, model: str, recipe: str, group: int) -> bool:
    """True if a score was made with something else than the configuration's."""
    return any(score.stale for _, score in run.scores_of(model, recipe, group))


def progress(run: Run, model: str, recipe: str) -> str:
    """How far an unfinished attack got, all its shards together."""
    folders = [run.paths.attack(seed, model) / recipe for seed in run.config.seeds]
    done = sum(len(records.read(file)) for folder in folders for file in folder.glob("**/results.jsonl"))
    return f"{done} of {run.staleness.sentences() * len(run.seeds(model))} done" if done else ""


def with_small(result: Cell, line: str) -> Cell:
    """Return the cell with one more line of small print."""
    return dataclasses.replace(result, small=f"{result.small}\n{line}".strip())


def mark_best(column: list[Cell], lowest: bool = False) -> None:
    """Mark the best cells of a column; a range is the best only if no other value can be better.

    Values that look the same are equally good. A value that is alone, or equals all others, is not marked.
    """
    numbers = [(c, c.ends) for c in column if c.ends]
    if len({ends for _, ends in numbers}) > 1:
        for c, (low, high) in numbers:
            others = [ends for other, ends in numbers if other is not c]
            c.best = all(high <= least if lowest else low >= most for least, most in others)


# --- tables --------------------------------------------------------------------------------------------------


def result_table(runs: list[Run], columns: Columns) -> Table:
    """Tables 1 and 2: a row for each method, under a line for each run and comparison group."""
    groups = [("Clean%", 2)]
    for recipe in dict.fromkeys(recipe for recipe, _ in columns):
        attacks = [score for run in runs if recipe in run.recipes for score in run.all_attacks(recipe)]
        groups.append((titles(attacks), sum(r == recipe for r, _ in columns)))
    header = ["Method", "test set", "sample", *(MEASURES[measure] for _, measure in columns)]
    rows: list[Row] = []
    for run in runs:
        models = [model for method in in_table(1) for model in run.models_of(method)] + list(run.paths.own_victims())
        for group in range(run.groups()):
            rows.append(heading(run, group))
            # The rows of group 0 also say what is missing; other groups show only the models that they have.
            made = [m for m in models if any(run.scores_of(m, recipe, group) for recipe in (CLEAN, *run.recipes))]
            rows += rows_of(run, made if group else models, columns, group)
    return Table(header, rows, groups)


def rows_of(
    run: Run, models: list[str], columns: Columns, group: int = 0, tables: tuple[int, ...] = (1, 2)
) -> list[list[Cell]]:
    """Rows of models: title, accuracy on the test set and on the sample, measures of attacks."""
    cells = [[clean_cell(run, model, group, tables) for model in models]]
    samples = [sample_clean(run, model, group) for model in models]
    cells.append([cell(value) if value or not group else Cell(NONE) for value in samples])
    for recipe, measure in columns:
        cells.append([attack_cell(run, model, recipe, measure, group, tables) for model in models])
    for (_, measure), column in zip([("", "clean"), ("", "clean"), *columns], cells):
        mark_best([c for c, model in zip(column, models) if not run.unlearned(model)], lowest=measure == "suc")
    names = [Cell(run.title(model), run.unlearned(model)) for model in models]
    return [[name, *row] for name, row in zip(names, zip(*cells))]


def sample_clean(run: Run, model: str, group: int = 0) -> Value:
    """Accuracy on the attacked sentences, from one attack that is the same for all models.

    Attacks that were made at different times may have attacked different sentences.
    """

    def results(recipe: str) -> tuple[int, int]:
        scores = [score for key, score in run.scores.items() if key[2] == recipe and score.group == group]
        return sum(not score.stale for score in scores), len(scores)

    return run.value(model, max(run.recipes, key=results, default=""), "clean", group)


def ablation_table(runs: list[Run], number: int) -> Table | None:
    """Tables 3 and 4: Clean, and Aua under TextFooler, of the robust ticket and of its ablations."""
    asked = [run for run in runs if any(run.model_of(method) for method in in_table(number)[1:])]
    rows: list[Row] = []
    for run in asked:
        models = [model for method in in_table(number) for model in run.models_of(method)]
        whole = rows_of(run, models, [("textfooler", "aua")], 0, (number,))
        rows += [heading(run), *([name, clean, aua] for name, clean, _, aua in whole)]
    return Table(["Method", "Clean% (test set)", "Aua% (TextFooler)"], rows) if rows else None


def sparsity_table(run: Run) -> Table | None:
    """Every sparsity of the methods that have several."""
    models = [model for model, method in run.models.items() if METHODS[method].kind == "ticket"]
    if len(run.config.sparsities) < 2 or not models:
        return None
    columns = [(recipe, "aua") for recipe in run.recipes]
    groups = [("Clean%", 2), *((run.attack_title(recipe), 1) for recipe in run.recipes)]
    rows: list[Row] = [heading(run), *rows_of(run, models, columns, 0, ())]
    return Table(["Method", "test set", "sample", *("Aua%" for _ in columns)], rows, groups)
