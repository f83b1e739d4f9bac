"""The paper's tables, from one experiment or several, and the figures that were published beside them."""

from __future__ import annotations

import dataclasses
import json
import operator
import statistics
from pathlib import Path

from configs.contract.methods import METHODS, in_table
from configs.contract.model_id import ModelId
from torch_eval.attack import metrics, records
from torch_eval.report.render import Bullets, Cell, Heading, Table, Text
from torch_eval.report.run_state import CHOICE, CLEAN, MANIFEST, MEASURES, Run, Score, Value, read, titles

PUBLISHED = json.loads(Path(__file__).with_name("paper.json").read_text(encoding="utf-8"))
TABLE2 = ("qnli", "mnli", "qqp")
NONE = "–"  # a cell that has no result, and needs none
DIFFERENT = "†"  # marks published figures of another setting than the run's


# --- published figures ---------------------------------------------------------------------------------------


def departures(run: Run, way: int = 0) -> list[str]:
    """Where a run's setting is not that of the published figures; empty if they may be compared."""
    config, setting, attacks = run.config, PUBLISHED["setting"], run.attacks(way)
    examples = setting["examples"].get(config.task)
    found = [] if config.model == setting["model"] else [f"model {config.model} instead of {setting['model']}"]
    if config.layers:
        found.append(f"only the first {config.layers} layers")
    if any(score.resources == "packaged" for score in attacks):
        found.append("packaged instead of original attack resources")
    if any(score.protocol == "official" for score in attacks):
        found.append("the protocol of the official code, which pads to 512 and attacks the first sentences")
    counts = dict.fromkeys(score.examples for score in attacks if examples and score.examples != examples)
    found += [f"{count} instead of {examples} attacked sentences" for count in counts]
    if config.data.train_size or config.data.test_size:
        found.append("a part of the data")
    for key, published in PUBLISHED["table6"].get(config.task, {}).items():
        if getattr(config.search, key) != published:
            found.append(f"search.{key} {getattr(config.search, key):g} instead of {published:g}")
    own = {"epochs": (config.retrain.epochs, 3), "learning rate": (config.retrain.learning_rate, 2e-5)}
    found += [f"retraining {name} {now:g} instead of {then:g}" for name, (now, then) in own.items() if now != then]
    return found


def published(run: Run, model: str, recipe: str | None, measure: str, tables=(1, 2), way: int = 0) -> str:
    """`paper 26.7` and `re-run 28.9`, a line each, for the same task and method."""
    told, apart = [], bool(departures(run, way))
    for row in PUBLISHED["results"]:
        if (row["task"], row["method"]) != (run.config.task, run.models.get(model)) or row["table"] not in tables:
            continue
        if row["source"] == "rerun" and row["sparsity"] not in (None, 0.3):
            continue
        value = row["clean"] if recipe is None else row.get(recipe, {}).get(measure)
        if value is not None:
            ours = ModelId.parse(model).sparsity
            other = row["sparsity"] is not None and ours is not None and row["sparsity"] != ours
            sign = DIFFERENT if other or apart else ""
            told.append(f"{PUBLISHED['sources'][row['source']]['short']} {value:.1f}{sign}")
    return "\n".join(told)


def reference_notes(runs: list[Run]) -> list:
    """What the published figures are, and where they belong to another setting than a run's."""
    known = [run for run in runs if run.config.task in PUBLISHED["setting"]["examples"]]
    if not known:
        return [Text("The paper has no figures for this task.")]
    sources = "; ".join(f"**{source['short']}**: {source['long']}" for source in PUBLISHED["sources"].values())
    blocks = [
        Text(
            f"Small print beside our figures, where there are any: {sources}. A {DIFFERENT} says that such a "
            "figure belongs to another setting than the run's, and must not be read as its target:"
        )
    ]
    unlike = []
    for run in known:
        here = departures(run)
        shares = {
            row["sparsity"]
            for row in PUBLISHED["results"]
            if (row["task"], row["method"], row["source"]) == (run.config.task, "robust", "paper")
        }
        if shares and run.chosen.sparsity not in shares:
            here.append(f"robust ticket of {100 * run.chosen.sparsity:g}% instead of {100 * min(shares):g}%")
        unlike += [f"{heading(run)}: {'; '.join(here)}"] if here else []
    return [*blocks, Bullets(unlike or ["none of these runs differs"])]


# --- cells ---------------------------------------------------------------------------------------------------


def cell(value: Value, reference: str = "", digits: int = 1) -> Cell:
    """Mean over seeds with the standard deviation below it; each seed's 95% interval on demand."""
    if not value:
        return Cell("missing", missing=True, published=reference)
    spread = f"± {value.deviation:.{digits}f}" if value.deviation is not None else ""
    count = f"{len(value.values)} of {value.asked} seeds" if len(value.values) < value.asked else ""
    several = len(value.seeds) > 1
    intervals = [
        (f"seed {seed}: " if several else "") + f"{low:.{digits}f}–{high:.{digits}f}"
        for seed, _, low, high in value.seeds
    ]
    return Cell(
        f"{value.mean:.{digits}f}",
        "\n".join(filter(None, (spread, count))),
        published=reference,
        interval="\n".join(intervals),
    )


def clean_cell(run: Run, model: str, tables: tuple[int, ...], way: int = 0) -> Cell:
    """Accuracy on the whole test set."""
    value = run.clean(model, way)
    if way and not value:
        return Cell(NONE)
    result = cell(value, published(run, model, None, "clean", tables, way))
    return with_small(result, "stale" if is_stale(run, model, CLEAN, way) else "")


def measured(run: Run, model: str, recipe: str, measure: str, way: int, tables=(1, 2)) -> Cell:
    """One attack measure. A missing one says how far it got; one made under other settings is marked stale."""
    if recipe not in run.recipes:
        return Cell("not asked")
    value = run.value(model, recipe, measure, way)
    if way and not value:
        return Cell(NONE)
    result = cell(value, published(run, model, recipe, measure, tables, way))
    if result.missing:
        begun = measure == "aua" and not any((seed, model, recipe) in run.scores for seed in run.config.seeds)
        return with_small(result, progress(run, model, recipe) if begun else "")
    result = with_small(result, "stale" if is_stale(run, model, recipe, way) else "")
    made = [score.summary for _, score in run.made(model, recipe, way)]
    known = [summary for summary in made if getattr(summary, measure).value is not None]
    return reaching(result, measure, value.mean, known)


def reaching(result: Cell, measure: str, mean: float, made: list[metrics.Metrics]) -> Cell:
    """Aua and Suc of attacks some of which timed out: from all of these broken to all survived, means over seeds."""
    if measure == "queries" or not any(summary.timeouts for summary in made):
        return result
    timeouts = [summary.timeouts for summary in made]
    of = [summary.examples if measure == "aua" else summary.attacked for summary in made]
    open_share = 100 * statistics.mean(map(operator.truediv, timeouts, of))
    low, high = (mean, mean + open_share) if measure == "aua" else (mean - open_share, mean)
    result = dataclasses.replace(result, text=f"{low:.1f}–{high:.1f}")
    return with_small(result, f"{sum(timeouts)} of {sum(of)} timed out")


def is_stale(run: Run, model: str, recipe: str, way: int) -> bool:
    return any(score.stale for _, score in run.made(model, recipe, way))


def progress(run: Run, model: str, recipe: str) -> str:
    """How far an unfinished attack got."""
    files = [run.paths.attack(seed, model) / recipe / "results.jsonl" for seed in run.config.seeds]
    done = sum(len(records.read(file)) for file in files if file.is_file())
    return f"{done} of {run.sentences() * len(run.seeds(model))} done" if done else ""


def with_small(result: Cell, line: str) -> Cell:
    return dataclasses.replace(result, small=f"{result.small}\n{line}".strip())


def mark_best(column: list[Cell], lowest: bool = False) -> None:
    """Values that look the same in the table are equally good; a lone value is the best of nothing. One of two ends is
    the best only if no other can be better."""
    found = [(c, ends) for c in column if (ends := _ends(c))]
    if len({ends for _, ends in found}) > 1:
        for c, (low, high) in found:
            others = [ends for other, ends in found if other is not c]
            c.best = all(high <= least if lowest else low >= most for least, most in others)


def _ends(c: Cell) -> tuple[float, float] | None:
    try:
        numbers = [] if c.missing else [float(number) for number in c.text.split("–")]
    except ValueError:
        return None
    return (numbers[0], numbers[-1]) if numbers else None


# --- Tables 1 to 4 -------------------------------------------------------------------------------------------


def heading(run: Run, way: int = 0) -> str:
    """The line above a run's rows: data set, experiment, and what decides whether figures may be compared."""
    return band(run, run.attacks(way)) + (" · **made in another way**" if way else "")


def band(run: Run, attacks: list[Score]) -> str:
    seeds = f"seed{'s' * (len(run.config.seeds) > 1)} {', '.join(map(str, run.config.seeds))}"
    return f"**{run.task}** ({run.name}) · {', '.join([*made_with(attacks), seeds])}"


def made_with(attacks: list[Score]) -> list[str]:
    """As the results have it, not the configuration, which may be another one by now."""
    told = []
    for words, values in (
        ("{} resources", [score.resources for score in attacks]),
        ("{} protocol", [score.protocol for score in attacks]),
        ("{} attacked", [score.examples for score in attacks]),
        ("K={}", [score.candidates for score in attacks]),
    ):
        distinct = dict.fromkeys(str(value) for value in values if value is not None)
        told += [words.format(" and ".join(distinct))] if distinct else []
    return told + victims_with(attacks)


def victims_with(attacks: list[Score]) -> list[str]:
    """Temperature and dtype of the attacked models, where they are not the usual ones."""
    told, temperatures = [], sorted({score.temperature for score in attacks})
    if set(temperatures) - {1.0}:
        ends = dict.fromkeys((temperatures[0], temperatures[-1]))
        told.append(f"temperature {' to '.join(f'{end:g}' for end in ends)}")
    dtypes = dict.fromkeys(score.dtype for score in attacks if score.dtype != "float32")
    changed = [score.dtype_effect for score in attacks if score.dtype_effect]
    if dtypes:
        told.append(f"victims in {' and '.join(dtypes)}")
    if changed:
        told.append(f"float32 changes {sum(n for n, _ in changed)} of {sum(of for _, of in changed)} outcomes")
    return told


def result_table(runs: list[Run], columns: list[tuple[str, str]], tables=(1, 2)) -> Table:
    """Tables 1 and 2: a row a method under a line for each data set; `columns` are (attack, measure)."""
    groups = [("Clean%", 2)]
    for recipe in dict.fromkeys(recipe for recipe, _ in columns):
        asked = [run for run in runs if recipe in run.recipes]
        attacks = [score for run in asked for way in range(run.ways()) for score in run.attacks(way, recipe)]
        groups.append((titles(attacks), sum(r == recipe for r, _ in columns)))
    header = ["Method", "test set", "sample", *(MEASURES[measure] for _, measure in columns)]
    rows = []
    for run in runs:
        models = [model for method in in_table(1) if (model := run.pick(method))] + list(run.paths.own_victims())
        for way in range(run.ways()):
            rows.append(heading(run, way))
            # The first way's rows also say what is missing; the others have those models alone that were so made.
            so_made = [m for m in models if any(run.made(m, recipe, way) for recipe in (CLEAN, *run.recipes))]
            rows += rows_of(run, so_made if way else models, columns, way, tables)
    return Table(header, rows, groups)


def rows_of(run: Run, models: list[str], columns, way: int = 0, tables=(1, 2)) -> list[list[Cell]]:
    cells = [[clean_cell(run, model, tables, way) for model in models]]
    samples = [sample_clean(run, model, way) for model in models]
    cells.append([cell(value) if value or not way else Cell(NONE) for value in samples])
    for recipe, measure in columns:
        cells.append([measured(run, model, recipe, measure, way, tables) for model in models])
    for (_, measure), column in zip([("", "clean"), ("", "clean"), *columns], cells):
        mark_best(column, lowest=measure == "suc")
    return [[Cell(run.title(model)), *row] for model, row in zip(models, zip(*cells))]


def sample_clean(run: Run, model: str, way: int = 0) -> Value:
    """Accuracy on the attacked sentences, as one attack tells it: the same for all models, since attacks that were made
    at different times may have started from different sentences."""

    def results(recipe: str) -> tuple[int, int]:
        scores = [score for key, score in run.scores.items() if key[2] == recipe and score.way == way]
        return sum(not score.stale for score in scores), len(scores)

    return run.value(model, max(run.recipes, key=results, default=""), "clean", way)


def ablation_table(runs: list[Run], number: int) -> Table | None:
    """Tables 3 and 4: Clean, and Aua under TextFooler, of the robust ticket and of what it becomes without a part."""
    asked = [run for run in runs if any(run.pick(method) for method in in_table(number)[1:])]
    if not asked:
        return None
    rows = []
    for run in asked:
        models = [model for method in in_table(number) if (model := run.pick(method))]
        cleans = [clean_cell(run, model, (number,)) for model in models]
        auas = [measured(run, model, "textfooler", "aua", 0, (number,)) for model in models]
        mark_best(cleans), mark_best(auas)
        rows += [heading(run), *([Cell(run.title(model)), *f] for model, *f in zip(models, cleans, auas))]
    return Table(["Method", "Clean% (test set)", "Aua% (TextFooler)"], rows)


def sparsity_table(run: Run) -> Table | None:
    """Every sparsity of the methods that have several."""
    several = [model for model, method in run.models.items() if METHODS[method].kind == "ticket"]
    if len(run.config.sparsities) < 2 or not several:
        return None
    columns = [(recipe, "aua") for recipe in run.recipes]
    groups = [("Clean%", 2), *((run.attack_title(recipe), 1) for recipe in run.recipes)]
    rows = [heading(run), *rows_of(run, several, columns, 0, ())]
    return Table(["Method", "test set", "sample", *("Aua%" for _ in columns)], rows, groups)


# --- the choice on dev, and paired tests ---------------------------------------------------------------------


def choice(run: Run) -> list:
    """The candidates on dev, means over seeds, and the rule that chose one of them."""
    left = read(run.paths.choice, CHOICE)
    if left is None:
        return [
            Text(
                f"{run.task}: no choice yet; `{run.command('choose')}` makes it. Until then the tables show the "
                f"first asked sparsity, {100 * run.chosen.sparsity:g}%.",
                note=True,
            )
        ]
    blocks = [Text(f"{run.task}: **{run.title(str(run.chosen))}** was chosen. Rule: {left['rule']}.")]
    rows, attacks = [], []
    for candidate in run.paths.candidates():
        found = [row for row in left["candidates"] if row["model"] == str(candidate)]
        if found:
            own = run.chosen_by(str(candidate))
            attacks += own
            aua = _over_rows([100 * row["aua"] for row in found])
            limited = [score for score in own if score.has_budget]
            made = [metrics.summarise(score.records) for score in limited]
            aua = reaching(aua, "aua", 100 * statistics.mean(row["aua"] for row in found), made)
            back = f", {candidate.epochs_back} epochs before the last" if candidate.epochs_back else ""
            rows.append(
                [
                    Cell(run.title(str(candidate)) + back, best=candidate == run.chosen),
                    aua,
                    _over_rows([100 * row["accuracy"] for row in found]),
                ]
            )
    header = ["Candidate (the chosen one is bold)", "Aua% on dev", "Clean% on dev"]
    return [*blocks, Table(header, [band(run, attacks), *rows])] if rows else blocks


def _over_rows(values: list[float]) -> Cell:
    spread = f"± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return Cell(f"{statistics.fmean(values):.1f}", spread)


def paired_table(run: Run) -> Table | None:
    """McNemar's test of the robust ticket (or else of the first method) against all others, on the same sentences,
    attacked in the same way."""
    ours = run.pick("robust") or run.pick(run.config.methods[0])
    rivals = [run.pick(method) for method in run.config.methods]
    rivals = [rival for rival in rivals if ours and rival and rival != ours]
    rows = [row for rival in rivals for row in paired_rows(run, ours, rival)]
    attacks = [
        run.scores[seed, model, recipe]
        for seed in run.config.seeds
        for recipe in run.recipes
        for rival in rivals
        for model in (ours, rival)
        if comparable(run, seed, recipe, ours, rival)
    ]
    rows = [band(run, attacks), *rows] if rows else []
    return Table(["Attack", "Pairs", "Only the first right", "Only the second right", "p"], rows) if rows else None


def paired_rows(run: Run, ours: str, rival: str) -> list:
    """A band that names the two, and a row for each attack, and for each way in which it was made."""
    rows = []
    for recipe in run.recipes:
        ways: dict[int, dict[int, list]] = {}
        for seed in run.config.seeds:
            if comparable(run, seed, recipe, ours, rival):
                pair = [run.scores[seed, model, recipe] for model in (ours, rival)]
                ways.setdefault(pair[0].way, {})[seed] = pair
        rows += [paired_row(pairs) for _, pairs in sorted(ways.items())]
    return [f"**{run.title(ours)}** against **{run.title(rival)}**", *rows] if rows else []


def paired_row(pairs: dict[int, list]) -> list[Cell]:
    """Two models' scores under one attack, seed by seed, made in one way."""
    scores = [score for pair in pairs.values() for score in pair]
    by_seed = {seed: [score.records for score in pair] for seed, pair in pairs.items()}
    pooled = metrics.paired(list(by_seed.values()))
    each = [f"seed {seed}: {p_text(metrics.paired([pair]).p)}" for seed, pair in by_seed.items()]
    name = Cell(titles(scores), "stale" if any(score.stale for score in scores) else "")
    counts = [Cell(str(count)) for count in pooled[:3]]
    return [name, *counts, Cell(p_text(pooled.p), "\n".join(each) if len(each) > 1 else "")]


def comparable(run: Run, seed: int, recipe: str, ours: str, rival: str) -> bool:
    """True if both models were attacked, and in the same way."""
    scores = [run.scores.get((seed, model, recipe)) for model in (ours, rival)]
    return all(scores) and scores[0].way == scores[1].way


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


# --- Tables 5 and 6 ------------------------------------------------------------------------------------------

TABLE5 = ("learning_rate", "dropout", "weight_decay", "batch_size", "clip_norm", "epochs", "warmup")
TABLE6 = {
    "ascent_rate": "η",
    "learning_rate": "mask lr",
    "l0_weight": "λ",
    "initial_norm": "ε₀",
    "ascent_steps": "s",
    "weight_decay": "wd",
    "epochs": "epochs",
    "batch_size": "batch",
}


def ran_with(run: Run, section: str, model: str) -> tuple[dict, bool]:
    """Settings of a section as a finished stage recorded them (True), or as the configuration asks for (False)."""
    for seed in run.config.seeds:
        manifest = read(run.paths.stage(seed, model) / "manifest.json", MANIFEST)
        if manifest and manifest["settings"].get(section):
            return manifest["settings"][section], True
    return dataclasses.asdict(getattr(run.config, section)), False


def hyperparameters(runs: list[Run]) -> list:
    """Tables 5 and 6 as they were run, beside the paper's."""
    rows5, rows6 = [], []
    paper = PUBLISHED["table5"]
    rows5.append([Cell("paper"), *(Cell(_told_plain(paper.get(key))) for key in TABLE5)])
    for run in runs:
        ticket = run.pick("robust") or ""
        for section, model in (("finetune", "finetune"), ("retrain", ticket)):
            values, ran = ran_with(run, section, model)
            name = f"{run.task} ({run.name}), {section}"
            rows5.append(
                [Cell(name, "" if ran else "not run yet"), *(Cell(_told_plain(values.get(key))) for key in TABLE5)]
            )
        values, ran = ran_with(run, "search", "search")
        then = PUBLISHED["table6"].get(run.config.task, {})
        rows6.append(
            [
                Cell(f"{run.task} ({run.name})", "" if ran else "not run yet"),
                *(
                    Cell(_told_plain(values.get(key)), published=f"paper {then[key]:g}" if key in then else "")
                    for key in TABLE6
                ),
            ]
        )
    return [
        Heading("Hyper-parameters"),
        Text("Fine-tuning and retraining (Table 5 of the paper); AdamW with bias correction throughout."),
        Table(["Run", *(key.replace("_", " ") for key in TABLE5)], rows5),
        Text(
            "Learning the masks (Table 6): η is the length of an ascent step, λ the weight of the L0 penalty, ε₀ the "
            "size of the random start, s the number of ascent steps, wd the weight decay of the mask scores."
        ),
        Table(["Run", *TABLE6.values()], rows6),
    ]


def _told_plain(value) -> str:
    return NONE if value is None else f"{value:g}" if isinstance(value, float) else str(value)
