"""Tickets to reuse: each with the experiment that trains and attacks it, and with what was measured.

configs/zoo/<name>/
  experiment.yaml       the configuration; `./run.sh zoo/<name>` trains the ticket again and attacks it
  ticket.safetensors    one bit a weight
  results.json          `Entry`: figures with intervals, resources, versions, hashes; what makes a figure unreliable
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from configs.contract import VERSION
from configs.contract.basics.errors import UserError
from configs.contract.basics.files import atomic_write, file_hash, json_hash, read_json, whole_directory, write_json
from configs.contract.experiment import schema
from configs.contract.experiment.model_id import ModelId
from configs.contract.experiment.read_values import ENTRY, ZOO, find, yaml_text
from configs.contract.run.jobs import CLEAN
from configs.contract.run.model_card import base_model
from configs.contract.run.run_files import Count, Share, TicketReport
from torch_eval.attack.metrics import Estimate
from torch_eval.report import saturation
from torch_eval.report.comparisons import Comparison, comparisons
from torch_eval.report.run_state import Run
from torch_eval.report.scores import RECIPES, Score, differences

FEW = 200  # an attack on fewer sentences says little
# Keys that depend on the machine, by section: an entry does not state them.
OF_MACHINE = {
    "": ("device", "device_id", "device_memory", "workers", "nodes", "node_rank", "master_addr", "master_port"),
    "attack": ("device", "workers", "resources_dir", "victims", "shard"),
    "data": ("train", "dev", "test"),
}
# What a letter of `Outcomes.outcomes` says of one sentence: withstood, broken, timed out, misclassified.
LETTERS = {"w": "failure", "b": "success", "t": "timeout", "m": "skipped"}


@dataclass(frozen=True)
class Figure(Estimate):
    """A share that was measured, with its 95% interval."""

    value: Share
    low: Share
    high: Share


class Outcomes(msgspec.Struct):
    """Accuracy under attack, and the outcome of each sentence as a letter (`LETTERS`), in the order of the indices."""

    aua: Figure
    outcomes: str


class Attacked(Outcomes):
    """One attack on one model, the settings and resources that it was made with, and why it is not to be trusted.

    Attributes:
        calibrated: The same attack with a temperature fitted on dev; None if it was not made.
    """

    examples: Count
    made_with: dict[str, Any]
    unreliable: list[str]
    calibrated: Outcomes | None


class MeasuredModel(msgspec.Struct):
    """One model: its accuracy on the whole test set, and its attacks."""

    title: str
    clean: Figure
    attacks: dict[str, Attacked]


class Paired(msgspec.Struct):
    """Sentences that only the ticket, or only the other model, withstands; p of the exact test."""

    other: str
    attack: str
    only_ticket: Count
    only_other: Count
    p: Share


class Entry(msgspec.Struct):
    """`results.json`."""

    experiment: str
    seed: Count
    ticket: dict[str, Any]
    models: dict[str, MeasuredModel]
    paired: list[Paired]


# --- an entry from a run -------------------------------------------------------------------------------------


def add(run: Run, name: str) -> Path:
    """Make an entry from a finished run of one seed; returns its folder.

    Raises:
        UserError: The run has several seeds, no robust ticket, fitted temperatures, a model that others cannot get, or
            results that are missing or stale; or `name` cannot be a folder's, or is another entry's.
    """
    if len(run.config.seeds) != 1 or not (ticket := run.model_of("robust")):
        raise UserError("zoo-add: an entry is one robust ticket of one seed; add seeds=[N], or methods with robust")
    if run.config.attack.calibrate:
        raise UserError(
            "zoo-add: attack.calibrate=true: an entry states the attacks as they are, and takes those with fitted "
            "temperatures from the same run; leave the key out"
        )
    if run.config.model != "packaged" and not base_model(run.config.model):
        raise UserError(
            f"zoo-add: model={run.config.model} is a directory of this machine; give model=OWNER/NAME, the same model "
            "on the hub"
        )
    unfinished = [step.title for step in (*run.missing(), *run.stale())]
    if unfinished:
        raise UserError(f"zoo-add: {run.paths.root}: {unfinished[0]} is missing or stale; finish the run first")
    if not name or not name.isprintable() or set(name) & set("/\\:. "):
        raise UserError(f"zoo-add: {name!r:.80} cannot be a folder name")
    seed, folder = run.config.seeds[0], ZOO / name
    if folder.exists():
        raise UserError(f"zoo-add: {folder} is there already; delete it, or choose another name")
    file = run.paths.ticket(seed, ticket)
    report = read_json(file.with_name("report.json"), TicketReport)
    data = read_json(run.paths.data / "summary.json")
    shown = [model for model in run.shown() if model not in run.paths.own_victims()]  # which others do not have
    entry = {
        "experiment": run.name,
        "seed": seed,
        "ticket": {"pruned": report.pruned, "weights": report.weights, "sha256": file_hash(file)},
        "project": VERSION,
        "data": {key: data[key] for key in ("columns", "labels", "splits")},
        "models": {_plain(model): _model(run, seed, model) for model in shown},
        "paired": [
            Paired(_plain(other), recipe, compared.test.only_first, compared.test.only_second, compared.test.p)
            for other in shown
            for recipe in run.recipes
            for compared in comparisons(run, ticket, other, recipe)
            if other != ticket
        ],
    }
    with whole_directory(folder) as new:
        shutil.copyfile(file, new / "ticket.safetensors")
        write_json(new / "results.json", msgspec.to_builtins(entry))
        atomic_write(new / ENTRY, _experiment(run, name))
    return folder


def _plain(model: str) -> str:
    """Return the name of a model without the epoch of its search: a run with a given ticket has no search."""
    return str(replace(ModelId.parse(model), epochs_back=0))


def _model(run: Run, seed: int, model: str) -> dict[str, Any]:
    clean, attacks = run.scores[seed, model, CLEAN], {}
    for recipe in run.recipes:
        score = run.scores.get((seed, model, recipe))
        if score:  # others could not run here
            calibrated = saturation.check(run, model, recipe)
            attacks[recipe] = {
                **score.summary.to_dict(),
                "outcomes": _outcomes(score),
                "made_with": _made_with(score),
                "finished": score.manifest.finished,
                "unreliable": _unreliable(run, model, score, calibrated),
                "calibrated": _outcomes_with_aua(calibrated.pairs[seed][1]) if calibrated else None,
            }
    return {
        "title": run.title(model),
        "sha256": clean.manifest.inputs["model"],
        "clean": {**asdict(clean.accuracy), "n": clean.manifest.results.n},
        "attacks": attacks,
    }


def _outcomes(score: Score) -> str:
    letters = {outcome: letter for letter, outcome in LETTERS.items()}
    return "".join(letters[record["outcome"]] for record in score.records)


def _outcomes_with_aua(score: Score) -> dict[str, Any]:
    return {"aua": msgspec.to_builtins(score.summary.aua), "outcomes": _outcomes(score)}


def _made_with(score: Score) -> dict[str, Any]:
    """What must be the same where a figure is measured again; the list of sentences as its hash."""
    signature = dict(score.signature)
    signature["sentences"] = json_hash(signature.pop("indices"))
    return signature


def _unreliable(run: Run, model: str, score: Score, calibrated: Comparison | None) -> list[str]:
    reasons = [run.unlearned(model)] if run.unlearned(model) else []
    if score.summary.timeouts:
        reasons.append(f"{score.summary.timeouts} attacks timed out")
    if score.settings.examples < FEW:
        reasons.append(f"{score.settings.examples} sentences only")
    if calibrated and calibrated.differs:
        reasons.append(f"Aua {calibrated.mean_aua(1):.1f}% {saturation.other_way(run)}")
    return reasons


def _experiment(run: Run, name: str) -> str:
    """Write the configuration that trains and attacks the given ticket, without what belongs to this machine."""
    config, default = asdict(run.config), asdict(schema.Experiment())
    config |= {
        "name": f"zoo-{name}",
        "methods": ["robust"],
        "sparsities": [run.sparsity],
        "tickets_from": "ticket.safetensors",
        "lengths": None,
    }
    config["choice"]["epochs"] = 1
    for section, keys in OF_MACHINE.items():
        values, defaults = (config[section], default[section]) if section else (config, default)
        values.update({key: defaults[key] for key in keys})
    changed = {
        key: {k: v for k, v in value.items() if v != default[key][k]} if isinstance(value, dict) else value
        for key, value in config.items()
        if value != default[key]
    }
    head = f"# The ticket of {run.name}, seed {run.config.seeds[0]}; made by `python -m torch_eval zoo-add`.\n"
    return head + yaml_text(changed)


# --- an entry measured again ---------------------------------------------------------------------------------


def check(run: Run, source: str) -> bool:
    """Print for each stated figure whether a new run meets it; returns whether it meets all.

    A figure is met if it lies within the 95% interval of the stated one and was made in the same way. Models that the
    run has not trained are left out: an entry trains the ticket alone, `methods=[finetune,robust]` compares both.

    Args:
        run: Run of the entry's configuration.
        source: Configuration of the entry, such as `zoo/demo`.

    Raises:
        UserError: This is no entry, or the run has measured nothing yet.
    """
    stated_figures = find(source).with_name("results.json")
    if not stated_figures.is_file():
        raise UserError(f"zoo-check: {source}: no entry of the zoo, which has a results.json; give zoo/NAME")
    entry, seed, met = read_json(stated_figures, Entry), run.config.seeds[0], []
    for name, stated in entry.models.items():
        clean = run.scores.get((seed, name, CLEAN))
        if clean:
            met.append(_compare(name, CLEAN, stated.clean, clean.accuracy.value, []))
        for recipe, attacked in stated.attacks.items():
            score = run.scores.get((seed, name, recipe))
            if score:
                before, now = attacked.made_with, msgspec.to_builtins(_made_with(score))
                other = differences({**before, "versions": None}, {**now, "versions": None})
                met.append(_compare(name, RECIPES[recipe], attacked.aua, score.summary.aua.value, other))
    if not met:
        raise UserError(f"zoo-check: {source}: nothing is measured yet; `./run.sh {source}` does it")
    print(f"{source}: {sum(met)} of {len(met)} stated figures are met within their 95% intervals")
    return all(met)


def _compare(model: str, attack: str, stated: Figure, value: float | None, other: list[str]) -> bool:
    """Print a stated figure and what is measured now, and return whether it is met."""
    inside = not other and value is not None and stated.low <= value <= stated.high
    verdict = f"cannot be compared ({'; '.join(other[:3])})" if other else "met" if inside else "NOT met"
    now = "unknown" if value is None else f"{100 * value:.1f}"
    print(f"  {model:16s} {attack:12s} stated {stated.text():20s} now {now:6s} {verdict}")
    return inside
