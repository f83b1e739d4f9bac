"""results.json and results.csv: the figures of the report as data, unrounded."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict

from configs.contract.basics.files import read_json
from configs.contract.experiment.methods import METHODS
from configs.contract.experiment.model_id import ModelId
from configs.contract.run.jobs import CLEAN
from torch_eval.report.run_state import Run
from torch_eval.report.scores import MEASURES, Score

HEADER = "experiment task seed model method attack measure value low high examples attacked comparison_group"


def numbers(run: Run) -> dict:
    """Everything in the tables of one run, with what is missing and stale."""
    return {
        "experiment": run.name,
        "config": asdict(run.config),
        "data": read_json(run.paths.data / "summary.json") if run.data else {},
        "chosen": run.chosen.record() if run.choice else None,
        "models": [_model(run, seed, model) for seed, model, _ in run.paths.all_victims()],
        "comparison_groups": {group: run.difference(group) for group in range(1, run.groups())},
        "missing": [{"seed": s.seed, "title": s.title, "command": s.command} for s in run.missing()],
        "stale": [{"seed": s.seed, "title": s.title, "differences": s.stale} for s in run.stale()],
        "stages": [
            {"seed": s.seed, "title": s.title, "manifest": _without_indices(s.content)} for s in run.steps if s.manifest
        ],
    }


def _model(run: Run, seed: int, model: str) -> dict:
    method = ModelId.parse(model).method
    clean = run.scores.get((seed, model, CLEAN))
    attacks = {recipe: run.scores.get((seed, model, recipe)) for recipe in run.recipes}
    return {
        "seed": seed,
        "model": model,
        "method": method if method in METHODS else None,
        "clean": _with_state(clean, read_json(clean.directory / "manifest.json")["results"]) if clean else None,
        "attacks": {
            recipe: _with_state(score, score.summary.to_dict()) if score else None for recipe, score in attacks.items()
        },
    }


def _with_state(score: Score, results: dict) -> dict:
    return {**results, "comparison_group": score.group, "stale": list(score.stale)}


def _without_indices(manifest: dict) -> dict:
    """The manifest without the attacked indices, which every attack repeats; results.jsonl has them."""
    settings = {key: value for key, value in manifest.get("settings", {}).items() if key != "indices"}
    return {**manifest, "settings": settings}


def as_csv(runs: list[dict]) -> str:
    """One line for each measure of the `numbers` of runs; an empty value is a missing one.

    Shares are from 0 to 1. Values of different comparison groups must not be compared.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEADER.split())
    for run in runs:
        for row in run["models"]:
            start = [run["experiment"], run["config"]["task"], row["seed"], row["model"], row["method"]]
            clean = row["clean"] or {}
            accuracy, n, group = (clean.get(key, "") for key in ("accuracy", "n", "comparison_group"))
            writer.writerow([*start, "none", "clean", accuracy, "", "", n, "", group])
            for recipe, summary in row["attacks"].items():
                for measure in ("clean", *MEASURES):
                    three = [summary[measure][key] for key in ("value", "low", "high")] if summary else [""] * 3
                    rest = [summary[k] for k in ("examples", "attacked", "comparison_group")] if summary else [""] * 3
                    writer.writerow([*start, recipe, measure, *three, *rest])
    return file.getvalue()
