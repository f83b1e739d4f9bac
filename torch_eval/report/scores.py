"""The scores of one model: results of one attack, or the accuracy on the test set.

Scores are compared only within a *comparison group*: same settings, test sentences and versions. Groups are numbered
for each attack. Group 0 is the one that fits the configuration, or else has most results.
"""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from configs.contract import schema
from configs.contract.errors import UserError
from configs.contract.run_files import Manifest
from configs.contract.stage import changes, short
from torch_eval.attack import metrics
from torch_eval.attack import records as attack_records
from torch_eval.attack.records import Calibration, DtypeEffect
from torch_eval.report.manifests import read

# The paper's attacks in its order, then the others.
RECIPES = {
    "bertattack": "BERT-Attack",
    "textfooler": "TextFooler",
    "textbugger": "TextBugger",
    **{name: name for name in schema.RECIPES if name not in ("bertattack", "textfooler", "textbugger")},
}
CLEAN = "clean"  # stands where an attack's name does: unchanged sentences, the whole test set
MEASURES = {"aua": "Aua%", "suc": "Suc%", "queries": "#Query"}


@dataclass
class Score:
    """Results of one attack on one model, or its accuracy on the test set.

    Attributes:
        directory: Where the stage left its files.
        manifest: What the stage left in `manifest.json`.
        group: Number of the comparison group.
        stale: What differs from the configuration now.
    """

    directory: Path
    manifest: dict
    group: int = 0
    stale: tuple[str, ...] = ()

    @functools.cached_property
    def signature(self) -> dict:
        """How the score was made, model and seed apart. A temperature fitted on dev is each model's own."""
        settings = {k: v for k, v in self.manifest["settings"].items() if k not in ("seed", "shard")}
        fitted = fitted_temperature(self.directory.parent)
        if fitted and settings.get("temperature") == fitted:
            settings["temperature"] = "fitted on dev"
        test = self.manifest["inputs"].get("test")
        return {**settings, "test sentences": test, "versions": self.manifest["versions"]}

    @property
    def title(self) -> str:
        """Name of the attack."""
        return recipe_title(self.directory.name, self.protocol)

    @property
    def changes_both_texts(self) -> bool:
        """True for an attack that may change both texts of a pair."""
        return len(self.manifest["settings"].get("attacked") or []) > 1

    @property
    def resources(self) -> str:
        """Resources of the attack: packaged, original, or those that a recipe of TextAttack brings itself."""
        return attack_records.source_of(self.manifest["settings"].get("resources") or {})

    @property
    def protocol(self) -> str | None:
        """Protocol of the attack: paper or official."""
        return self.manifest["settings"].get("protocol")

    @property
    def has_budget(self) -> bool:
        """True if attacks may have ended as timeouts."""
        return any(self.manifest["settings"].get(key) is not None for key in ("max_queries", "max_seconds"))

    @property
    def temperature(self) -> float:
        """Divisor of the victim's logits."""
        return self.manifest["settings"].get("temperature") or 1.0

    @property
    def dtype(self) -> str:
        """Number type of the victim."""
        return self.manifest["settings"].get("dtype") or "float32"

    @functools.cached_property
    def dtype_effect(self) -> tuple[int, int] | None:
        """(outcomes that float32 changes, outcomes tried) for a victim of another number type."""
        effect = read(self.directory / "dtype.json", DtypeEffect) if self.dtype != "float32" else None
        return (effect["outcomes_that_float32_changes"], effect["of"]) if effect else None

    @property
    def examples(self) -> int:
        """Number of sentences in the attacked sample."""
        return len(self.manifest["settings"]["indices"])

    @property
    def candidates(self) -> int | None:
        """K of BERT-Attack; None for other attacks."""
        settings = self.manifest["settings"]
        parameters = settings.get("parameters") if settings.get("recipe") == "bertattack" else None
        return parameters.get("masked words", {}).get("max_candidates") if isinstance(parameters, dict) else None

    @functools.cached_property
    def records(self) -> list[dict]:
        """Records of the attack, kept in memory."""
        return self.read_records()

    def read_records(self) -> list[dict]:
        """Read the records of the attack.

        Raises:
            UserError: They are not those of all examples, in order.
        """
        path, indices = self.directory / "results.jsonl", self.manifest["settings"]["indices"]
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
        stated, summary = self.manifest["results"], metrics.summarise(self.read_records())
        wrong = [key for key in ("examples", "attacked", "timeouts") if stated[key] != getattr(summary, key)]
        wrong += [key for key in ("clean", *MEASURES) if stated[key]["value"] != getattr(summary, key).value]
        if wrong:
            raise UserError(
                f"{self.directory / 'manifest.json'}: its {wrong[0]} is not what results.jsonl gives; "
                f"delete {self.directory} to redo the attack"
            )
        return summary

    @functools.cached_property
    def accuracy(self) -> metrics.Estimate:
        """Accuracy on the whole test set; of `CLEAN` scores alone."""
        results = self.manifest["results"]
        return metrics.wilson(round(results["accuracy"] * results["n"]), results["n"])

    @property
    def unlearned(self) -> str:
        """Why the model has learned nothing, or an empty text; of `CLEAN` scores alone."""
        return msgspec.convert(self.manifest["results"], attack_records.CleanResults).unlearned


class Value:
    """A measure of one model over seeds, in the unit of the tables (per cent, or queries).

    Args:
        estimates: Seed and value of the seeds that have a result.
        asked: Seeds that should have one.
        scale: Factor of the values: 100 for shares.

    Attributes:
        seeds: (seed, value, low, high) of the seeds that have a result.
        asked: Number of seeds that should have one.
    """

    def __init__(
        self, estimates: list[tuple[int, metrics.Estimate]], asked: Sequence[int] = (), scale: float = 1.0
    ) -> None:
        self.asked = len(asked)
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
    def span(self) -> tuple[float, float]:
        """Mean minus and plus one standard deviation; for one seed its 95% interval."""
        if self.deviation is None:
            return self.seeds[0][2:]
        return self.mean - self.deviation, self.mean + self.deviation


def recipe_title(recipe: str, protocol: str | None) -> str:
    """Name of an attack. What the official code calls BERT-Attack is another attack."""
    return RECIPES[recipe] + (" (official code's)" if protocol == "official" and recipe == "bertattack" else "")


def titles(attacks: list[Score]) -> str:
    """Names of attacks, each once."""
    return " / ".join(dict.fromkeys(score.title for score in attacks))


def fitted_temperature(directory: Path) -> float | None:
    """Temperature that was fitted on dev for the victim of a directory of attacks; None if none was."""
    manifest = read(directory / "calibration" / "manifest.json", Manifest[Calibration])
    return manifest["results"].get("temperature") if manifest else None


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
