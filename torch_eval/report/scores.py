"""The scores of one model: results of one attack, or the accuracy on the test set.

Scores are compared only within a *comparison group*: same settings, test sentences and versions. Groups are numbered
for each attack. Group 0 is the one that fits the configuration, or else has most results.
"""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import read_json
from configs.contract.experiment import sections
from configs.contract.run.run_files import Manifest
from configs.contract.run.stage import changes, short
from torch_eval.attack import metrics
from torch_eval.attack import records as attack_records
from torch_eval.attack.records import Calibration, DtypeEffect
from torch_eval.report.manifests import AttackSettings, Scored, read_optional

# The paper's attacks in its order, then the others.
RECIPES = {
    "bertattack": "BERT-Attack",
    "textfooler": "TextFooler",
    "textbugger": "TextBugger",
    **{name: name for name in sections.OTHER_RECIPES},
}
MEASURES = {"aua": "Aua%", "suc": "Suc%", "queries": "#Query"}


@dataclass
class Score:
    """Results of one attack on one model, or its accuracy on the test set.

    Attributes:
        directory: Where the stage left its files.
        settings: How the model was attacked.
        manifest: What the stage left in `manifest.json`, a `Scored`; None for an attack that is not made yet.
        group: Number of the comparison group.
        stale: What differs from the configuration now.
    """

    directory: Path
    settings: AttackSettings
    manifest: Any = None
    group: int = 0
    stale: tuple[str, ...] = ()

    @classmethod
    def read(cls, directory: Path, results: type) -> Score | None:
        """Return the score of a directory, whose manifest has results of this kind; None if it is not finished."""
        manifest = read_optional(directory / "manifest.json", Scored[results])  # type: ignore[valid-type]  # made here
        return cls(directory, manifest.settings, manifest) if manifest else None

    @functools.cached_property
    def all_settings(self) -> dict[str, Any]:
        """The settings in the manifest, with those that `settings` does not name."""
        return read_json(self.directory / "manifest.json")["settings"]

    @functools.cached_property
    def signature(self) -> dict:
        """How the score was made, model and seed apart. A temperature fitted on dev is each model's own."""
        settings = {k: v for k, v in self.all_settings.items() if k not in ("seed", "shard", "label_order")}
        fitted = fitted_temperature(self.directory.parent)
        if fitted and settings.get("temperature") == fitted:
            settings["temperature"] = "fitted on dev"
        return {**settings, "test sentences": self.manifest.inputs.get("test"), "versions": self.manifest.versions}

    @property
    def title(self) -> str:
        """Name of the attack."""
        return recipe_title(self.directory.name, self.settings.protocol)

    @functools.cached_property
    def dtype_effect(self) -> tuple[int, int] | None:
        """(outcomes that float32 changes, outcomes tried) for a victim of another number type."""
        effect = read_optional(self.directory / "dtype.json", DtypeEffect) if self.settings.dtype != "float32" else None
        return (effect.outcomes_that_float32_changes, effect.of) if effect else None

    @functools.cached_property
    def records(self) -> list[dict]:
        """Records of the attack, kept in memory."""
        return self.read_records()

    def read_records(self) -> list[dict]:
        """Read the records of the attack.

        Raises:
            UserError: They are not those of all examples, in order.
        """
        path, indices = self.directory / "results.jsonl", self.settings.indices
        records = attack_records.read(path) if path.is_file() else []
        if [record["index"] for record in records] != indices:
            raise UserError(
                f"{path}: holds {len(records)} examples, not the {len(indices)} of its manifest in their order; "
                f"delete {self.directory} to redo the attack"
            )
        return records

    @functools.cached_property
    def summary(self) -> metrics.Metrics:
        """Metrics of the attack, counted from the records.

        Raises:
            UserError: The manifest states other values.
        """
        stated, summary = self.manifest.results, metrics.summarise(self.read_records())
        wrong = [key for key in ("examples", "attacked", "timeouts") if getattr(stated, key) != getattr(summary, key)]
        wrong += [key for key in ("clean", *MEASURES) if getattr(stated, key).value != getattr(summary, key).value]
        if wrong:
            raise UserError(
                f"{self.directory / 'manifest.json'}: its {wrong[0]} is not what results.jsonl gives; "
                f"delete {self.directory} to redo the attack"
            )
        return summary

    @functools.cached_property
    def accuracy(self) -> metrics.Estimate:
        """Accuracy on the whole test set; of `CLEAN` scores alone."""
        results = self.manifest.results
        return metrics.wilson(round(results.accuracy * results.n), results.n)

    @property
    def unlearned(self) -> str:
        """Why the model has learned nothing, or an empty text; of `CLEAN` scores alone."""
        return self.manifest.results.unlearned


class Value:
    """A measure of one model over seeds, in the unit of the tables (per cent, or queries).

    Args:
        estimates: Seed and value of the seeds that have a result.
        asked: Number of seeds that should have one.
        scale: Factor of the values: 100 for shares.

    Attributes:
        seeds: (seed, value, low, high) of the seeds that have a result.
        asked: Number of seeds that should have one.
    """

    def __init__(self, estimates: Iterable[tuple[int, metrics.Estimate]], asked: int = 0, scale: float = 1.0) -> None:
        self.asked = asked
        self.seeds: list[tuple[int, float, float, float]] = [
            (seed, scale * e.value, scale * e.low, scale * e.high)
            for seed, e in estimates
            if e.value is not None and e.low is not None and e.high is not None
        ]
        self.values = [value for _, value, _, _ in self.seeds]

    def __bool__(self) -> bool:
        return bool(self.values)

    @property
    def mean(self) -> float:
        """Mean over seeds, of which one at least has a result."""
        return statistics.mean(self.values)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over seeds; None for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def arms(self) -> list[list[float]]:
        """Both halves of an error bar, as matplotlib takes them: a standard deviation; for one seed its interval."""
        if self.deviation is not None:
            return [[self.deviation], [self.deviation]]
        _, value, low, high = self.seeds[0]
        return [[value - low], [high - value]]


def recipe_title(recipe: str, protocol: str | None) -> str:
    """Name of an attack. What the official code calls BERT-Attack is another attack."""
    return RECIPES[recipe] + (" (official code's)" if protocol == "official" and recipe == "bertattack" else "")


def seeds_text(seeds: list[int]) -> str:
    """Seeds in words: `seed 1`, or `seeds 1, 2`."""
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def titles(attacks: list[Score]) -> str:
    """Names of attacks, each once."""
    return " / ".join(dict.fromkeys(score.title for score in attacks))


def fitted_temperature(directory: Path) -> float | None:
    """Temperature that was fitted on dev for the victim of a directory of attacks; None if none was."""
    manifest = read_optional(directory / "calibration" / "manifest.json", Manifest[Calibration])
    return manifest.results.temperature if manifest else None


def number_groups(scores: list[Score]) -> None:
    """Number the comparison groups of one attack's scores: groups without stale scores first, then large ones."""
    groups: dict[str, list[Score]] = {}
    for score in scores:
        groups.setdefault(json.dumps(score.signature, sort_keys=True), []).append(score)
    order = sorted(groups.values(), key=lambda group: (min(len(score.stale) for score in group), -len(group)))
    for number, group in enumerate(order):
        for score in group:
            score.group = number


def differences(first: dict, other: dict) -> list[str]:
    """What sets the signature of one group apart from the first group's: `protocol official, elsewhere paper`."""
    return [f"{key} {short(new, '…')}, elsewhere {short(old, '…')}" for key, old, new in changes(first, other, None)]
