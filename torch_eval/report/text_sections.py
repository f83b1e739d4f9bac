"""Sections of the report that hold words and tables: the answer, the results, what is missing, how it was run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from configs.contract.basics.files import json_hash
from configs.contract.experiment.methods import METHODS
from configs.contract.run.estimate import duration
from configs.contract.run.run_files import Finished
from torch_eval.report import figures, saturation, tables, wording
from torch_eval.report.captions import bars, made_with, shortened
from torch_eval.report.comparisons import answer, paired_table
from torch_eval.report.figure_sections import file_name
from torch_eval.report.published import reference_notes
from torch_eval.report.render import Block, Bullets, Cell, Details, Heading, Paragraph, Picture, Table, section
from torch_eval.report.run_state import Run, Step
from torch_eval.report.scores import MEASURES, RECIPES, titles

Done = list[tuple[Step, Finished[Any]]]  # finished steps with their manifests

# --- the answer, and what a reader needs for it --------------------------------------------------------------


def answers(runs: list[Run], folder: Path) -> list[Block]:
    """One sentence and one figure for each run; explanations fold away."""
    blocks: list[Block] = [Paragraph(answer(run), lead=True) for run in runs]
    blocks += [picture for run in runs for picture in _overview(run, folder)]
    sources = [(run.named_task, [score.settings.source for score in run.all_attacks()]) for run in runs]
    packaged = [name for name, used in sources if "packaged" in used]
    blocks += [Paragraph(wording.PACKAGED.format(", ".join(packaged)), note=True)] if packaged else []
    blocks += [
        Paragraph(wording.UNFINISHED.format(run.name, len(run.missing()), len(run.steps)), note=True)
        for run in runs
        if run.missing()
    ]
    methods = [m for m in METHODS if any(m in run.config.methods for run in runs)]
    notes = [f"{run.task}: {run.data.note}" for run in runs if run.data and run.data.note]
    return [
        *blocks,
        Details("What a robust ticket is", [Paragraph(wording.IDEA)]),
        Details("How to read the figures", [Bullets(list(wording.MEASURED)), Paragraph(wording.MEANING)]),
        Details("The methods", [Bullets([f"**{METHODS[m].title}**: {METHODS[m].note}" for m in methods])]),
        Details("The experiments", [_experiments(runs), *([Paragraph("Data: " + "; ".join(notes))] if notes else [])]),
    ]


def _overview(run: Run, folder: Path) -> list[Block]:
    rows = []
    for model in run.shown():
        values = {run.attack_title(recipe): run.value(model, recipe, "aua") for recipe in run.recipes}
        auas = {title: value for title, value in values.items() if value}
        clean = run.clean(model)
        if clean or auas:
            reason = run.unlearned(model)
            name = run.title(model) + (f"\n{reason}" if reason else "")
            rows.append((name, clean, auas))
    if not rows:
        return []
    path = folder / file_name("overview", run.name)
    figures.overview(rows, path, run.task)
    caption = (
        f"{run.named_task}: accuracy on unchanged sentences (Clean) and under attack (Aua) of all methods. "
        f"Bars: {bars(run)}."
    )
    return [Picture(path, caption)]


def _experiments(runs: list[Run]) -> Table:
    rows = []
    for run in runs:
        config, train = run.config, run.data and run.data.splits.get("train")
        model = "packaged MiniLM BERT" if config.model == "packaged" else config.model
        done = sum(step.manifest is not None for step in run.steps)
        texts = (
            run.name,
            run.task,
            model + (f", layers 1 to {config.layers}" if config.layers else ""),
            f"{train.count:,}" if train else "not prepared yet",
            ", ".join(f"{100 * sparsity:g}%" for sparsity in config.sparsities) if run.has("draw") else "nothing",
            ", ".join(map(str, config.seeds)),
            ", ".join(made_with(run.attacks())),
            f"{done} of {len(run.steps)} results",
        )
        rows.append([Cell(text) for text in texts])
    header = ["Experiment", "Task", "Model", "Training sentences", "Pruned", "Seeds", "Attacks", "State"]
    return Table(header, rows, text=True)


# --- tables --------------------------------------------------------------------------------------------------


def results(runs: list[Run]) -> list[Block]:
    """Tables 1 and 2 of the paper."""
    blocks: list[Block] = [Heading("Results")]
    blocks += [
        Paragraph(
            wording.MIXED.format(run.name, ". ".join(run.difference(g) for g in range(1, run.groups()))), note=True
        )
        for run in runs
        if run.groups() > 1
    ]
    first = [run for run in runs if run.config.task not in tables.TABLE2]
    second = [run for run in runs if run.config.task in tables.TABLE2]
    every = [(recipe, measure) for recipe in RECIPES for measure in MEASURES]
    few = [("textfooler", "aua"), ("textbugger", "aua")]
    for number, group, columns in ((1, first, every), (2, second, few)):
        if group:
            table = tables.result_table(group, _of_recipes(group, columns))
            blocks += [Heading(f"Methods compared (Table {number} of the paper)", 3), table]
            if number == 2:
                table = tables.result_table(group, _of_recipes(group, every))
                blocks.append(Details("All measures of these data sets", [table]))
    for run in runs:
        both = [score for score in run.all_attacks() if len(score.settings.attacked or []) > 1]
        blocks += [Paragraph(wording.BOTH_TEXTS.format(run.named_task, titles(both)))] if both else []
    blocks += [Paragraph(line, note=True) for run in runs for line in saturation.lines(run)]
    blocks.append(Details("The published figures", reference_notes(runs)))
    for run in runs:
        sparsities = tables.sparsity_table(run)
        blocks += [Details(f"{run.named_task}: every sparsity", [sparsities])] if sparsities else []
    return blocks


def _of_recipes(runs: list[Run], columns: tables.Columns) -> tables.Columns:
    """Return the columns whose attack at least one run has."""
    return [column for column in columns if any(column[0] in run.recipes for run in runs)]


def ablations(runs: list[Run]) -> list[Block]:
    """Tables 3 and 4 of the paper."""
    blocks: list[Block] = []
    for number, title in ((3, "Without a part of the method"), (4, "Initialisation or structure")):
        table = tables.ablation_table(runs, number)
        if table:
            blocks += [Heading(f"{title} (Table {number} of the paper)", 3), table]
    return section("Ablations", blocks)


def paired_tests(runs: list[Run]) -> list[Block]:
    """McNemar's test of the robust ticket against every other method."""
    with_tables = [(run, paired_table(run)) for run in runs]
    blocks = [block for run, table in with_tables if table for block in (Heading(run.named_task, 3), table)]
    return section(
        "Paired tests", [Details("How the test works", [Paragraph(wording.PAIRED)]), *blocks] if blocks else []
    )


# --- what is missing or stale --------------------------------------------------------------------------------


def missing(runs: list[Run]) -> list[Block]:
    """The commands that complete the runs, in order, each once; attacks that were left out; stale results."""
    blocks: list[Block] = []
    for run in runs:
        by_command: dict[str, list[str]] = {}
        for step in run.missing():
            seed = f" (seed {step.seed})" if step.seed is not None and len(run.config.seeds) > 1 else ""
            name = step.title.removeprefix(f"{step.stage} ")  # the command names the stage already
            by_command.setdefault(step.command, []).append(name + seed)
        if by_command:
            note = f"{run.name} is not finished. Run these commands, in this order, to make what is missing:"
            items = [f"`{command}`: {', '.join(shortened(names))}" for command, names in by_command.items()]
            blocks += [Paragraph(note, note=True), Bullets(items)]
        for name, reason in run.left_out().items():
            blocks.append(Paragraph(f"{run.name}: {name} was left out: {reason}", note=True))
        stale = [
            step.title + (f", seed {step.seed}" if step.seed is not None else "") + f" ({'; '.join(step.stale[:3])})"
            for step in run.stale()
        ]
        if stale:
            blocks += [Paragraph(wording.STALE.format(run.name), note=True), Bullets(shortened(stale))]
    return section("Missing and stale results", blocks)


# --- provenance ----------------------------------------------------------------------------------------------


def provenance(runs: list[Run]) -> list[Block]:
    """Versions, inputs and times of the stages of the models that the tables show; results.json has all stages."""
    blocks: list[Block] = []
    for run in runs:
        shown = run.shown()
        done = [
            (step, step.manifest)
            for step in run.steps
            if isinstance(step.manifest, Finished) and (step.stage != "attack" or step.model in shown)
        ]
        if done:
            title = f"{run.named_task}: versions, inputs, times of {len(done)} stages"
            blocks.append(Details(title, [Bullets(_facts(run, done)), _stage_table(done)]))
    return section("How it was run", blocks)


def _facts(run: Run, done: Done) -> list[str]:
    versions = {f"{name} {version}" for _, manifest in done for name, version in manifest.versions.items()}
    seconds = sum(manifest.seconds for _, manifest in done)
    items = [
        f"Versions: {', '.join(sorted(versions))}",
        f"Data split seed {run.config.data.seed}; device {run.config.device}; compat {run.config.compat}",
        f"Experiment: SHA-256 `{json_hash(asdict(run.config))[:16]}` of the settings",
        f"Time of the finished stages together: {duration(seconds)}",
    ]
    for name, split in run.data.splits.items() if run.data else ():
        items.append(f"Split {name}: {split.count} sentences, SHA-256 `{split.sha256[:16]}`")
    resources: dict[str, None] = {}
    for step, _ in done:
        for key, facts in (step.content["settings"].get("resources") or {}).items():
            resources[f"Attack resource, {key}: {_words(facts)}"] = None
    return items + list(resources)


def _words(value: object) -> str:
    """A description as plain words; hashes are cut."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    text = _short(value)
    return f"{text[:12]}…" if len(text) == 64 and " " not in text else text


def _stage_table(done: Done) -> Table:
    rows = []
    for step, manifest in done:
        numbers = [(k, v) for k, v in step.content["results"].items() if isinstance(v, (int, float))]
        texts = (
            step.title,
            "all" if step.seed is None else str(step.seed),
            manifest.finished.replace("T", " ").rstrip("Z"),
            duration(manifest.seconds),
            ", ".join(f"{key} {_short(value)}" for key, value in numbers) or "done",
            ", ".join(f"{name} `{digest[:8]}`" for name, digest in manifest.inputs.items()) or "none",
        )
        rows.append([Cell(text) for text in texts])
    return Table(["Stage", "Seed", "Finished (UTC)", "Time", "Outcome", "Inputs (SHA-256)"], rows, text=True)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
