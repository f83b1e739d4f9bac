"""Figures and hyper-parameters that papers published, and where a run departs from their setting."""

from __future__ import annotations

import json
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path

from configs.contract.experiment import schema
from configs.contract.experiment.model_id import ModelId
from configs.contract.experiment.options import as_typed
from configs.contract.run.jobs import ModelJob, TrainingJob, jobs
from configs.contract.run.run_files import TrainingManifest
from torch_eval.report.captions import heading
from torch_eval.report.manifests import read_optional
from torch_eval.report.render import Block, Bullets, Cell, Heading, Paragraph, Table
from torch_eval.report.run_state import Run

PUBLISHED = json.loads(Path(__file__).with_name("paper.json").read_text(encoding="utf-8"))
DIFFERENT = "‡"  # marks published figures of another setting than the run's
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


def departures(run: Run, group: int = 0) -> list[str]:
    """Where a run's setting differs from that of the published figures; empty if they may be compared."""
    config, setting, attacks = run.config, PUBLISHED["setting"], run.attacks(group)
    examples = setting["examples"].get(config.task)
    differences = [] if config.model == setting["model"] else [f"model {config.model} instead of {setting['model']}"]
    if config.layers:
        differences.append(f"only the first {config.layers} layers")
    if any(score.settings.source == "packaged" for score in attacks):
        differences.append("packaged instead of original attack resources")
    if any(score.settings.protocol == "official" for score in attacks):
        differences.append("the protocol of the official code, which pads to 512 and attacks the first sentences")
    counts = dict.fromkeys(s.settings.examples for s in attacks if examples and s.settings.examples != examples)
    differences += [f"{count} instead of {examples} attacked sentences" for count in counts]
    if config.data.train_size or config.data.test_size:
        differences.append("a part of the data")
    return differences + (_other_options(run) if examples else [])


def _other_options(run: Run) -> list[str]:
    """Say which options that decide a result have another value than in the task's configuration, the paper's setting.

    Each length has published figures of its own, so it is no difference.
    """
    trainings = [job for job in jobs(run.paths) if isinstance(job, TrainingJob)]
    read = {"compat", "structured", "data.max_length", "choice.split", *(job.section for job in trainings)}
    if len(run.paths.candidates()) > 1:
        read.add("choice")
    ignored = {"search.keep_epochs"}
    if run.config.lengths:
        ignored |= {f"{job.section}.epochs" for job in trainings if isinstance(job, ModelJob)}
    paper, differences = schema.load(run.config.task), []
    for key in schema.keys().keys() - ignored:
        ours, theirs = attrgetter(key)(run.config), attrgetter(key)(paper)
        if ours != theirs and read & {key, key.partition(".")[0]}:
            differences.append(f"{key} {as_typed(ours)} instead of {as_typed(theirs)}")
    return sorted(differences)


def published(
    run: Run, model: str, recipe: str | None, measure: str, tables: tuple[int, ...] = (1, 2), group: int = 0
) -> str:
    """Published figures of the same task and method, a line each: `paper 26.7`, `re-run 28.9`.

    Args:
        run: The run.
        model: Name of the model.
        recipe: The attack; None for the accuracy on unchanged sentences.
        measure: `aua`, `suc` or `queries`.
        tables: Numbers of the paper's tables to look into.
        group: Comparison group that the figures stand beside.
    """
    lines = []
    for row in PUBLISHED["results"]:
        if (row["task"], row["method"]) != (run.config.task, run.models.get(model)) or row["table"] not in tables:
            continue
        if row.get("epochs", 3) != (run.epochs(model) if run.config.lengths else 3):  # the rows "+ Longer" have 10
            continue
        if row["source"] == "rerun" and row["sparsity"] not in (None, 0.3):
            continue
        value = row["clean"] if recipe is None else row.get(recipe, {}).get(measure)
        if value is not None:
            ours = ModelId.parse(model).sparsity
            other_sparsity = None not in (row["sparsity"], ours) and row["sparsity"] != ours
            sign = DIFFERENT if other_sparsity or departures(run, group) else ""
            lines.append(f"{PUBLISHED['sources'][row['source']]['short']} {value:.1f}{sign}")
    return "\n".join(lines)


def reference_notes(runs: list[Run]) -> list[Block]:
    """Say where the published figures come from, and how each run's setting differs from theirs."""
    known = [run for run in runs if run.config.task in PUBLISHED["setting"]["examples"]]
    if not known:
        return [Paragraph("The paper has no figures for this task.")]
    sources = "; ".join(f"**{source['short']}**: {source['long']}" for source in PUBLISHED["sources"].values())
    legend = (
        f"The small print beside our figures shows published figures. {sources}. A {DIFFERENT} marks a figure of "
        "another setting than the run's: do not read it as a target. These are the differences:"
    )
    differing = []
    for run in known:
        differences = departures(run)
        sparsities = {
            row["sparsity"]
            for row in PUBLISHED["results"]
            if (row["task"], row["method"], row["source"]) == (run.config.task, "robust", "paper")
        }
        if run.model_of("robust") and sparsities and run.sparsity not in sparsities:
            differences.append(f"robust ticket of {100 * run.sparsity:g}% instead of {100 * min(sparsities):g}%")
        differing += [f"{heading(run)}: {'; '.join(differences)}"] if differences else []
    return [Paragraph(legend), Bullets(differing or ["none of these runs differs"])]


# --- Tables 5 and 6 ------------------------------------------------------------------------------------------


def hyperparameters(runs: list[Run]) -> list[Block]:
    """Tables 5 and 6 as they were run, beside the paper's."""
    rows5 = [[Cell("paper"), *(Cell(_plain(PUBLISHED["table5"].get(key))) for key in TABLE5)]]
    rows6 = []
    for run in runs:
        for section in ("finetune", "retrain"):
            rows5 += _settings(run, section, f"{run.named_task}, {section}", dict.fromkeys(TABLE5, ""))
        theirs = PUBLISHED["table6"].get(run.config.task, {})
        beside = {key: f"paper {theirs[key]:g}" if key in theirs else "" for key in TABLE6}
        rows6 += _settings(run, "search", run.named_task, beside)
    blocks: list[Block] = [
        Heading("Hyper-parameters"),
        Paragraph("Fine-tuning and retraining (Table 5 of the paper). AdamW with bias correction throughout."),
        Table(["Run", *(key.replace("_", " ") for key in TABLE5)], rows5),
    ]
    explanation = (
        "Learning the masks (Table 6). η is the length of an ascent step, λ the weight of the L0 penalty, ε₀ the "
        "size of the random start, s the number of ascent steps, wd the weight decay of the mask scores."
    )
    return blocks + ([Paragraph(explanation), Table(["Run", *TABLE6.values()], rows6)] if rows6 else [])


def _settings(run: Run, section: str, title: str, beside: dict[str, str]) -> list[list[Cell]]:
    """Row of a section's settings, as a finished training states them; none if the run has no training of the section.

    Args:
        run: The run.
        section: Of the configuration. If it is of several trainings, those that are configured as the first one count.
        title: First cell of the row.
        beside: Published figure of each setting, in the order of the columns.
    """
    trainings = [job for job in jobs(run.paths) if isinstance(job, TrainingJob) and job.section == section]
    if not trainings:
        return []
    values, state = asdict(trainings[0].settings), "not run yet"
    for job in (job for job in trainings if job.settings == trainings[0].settings):
        manifest = read_optional(job.directory / "manifest.json", TrainingManifest)
        if manifest and (stated := getattr(manifest.settings, section)):
            values, state = stated, ""
            break
    return [[Cell(title, state), *(Cell(_plain(values.get(key)), published=text) for key, text in beside.items())]]


def _plain(value: object) -> str:
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
