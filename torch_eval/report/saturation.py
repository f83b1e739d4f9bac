"""Accuracy under attack that is due to saturated scores, found by attacking a second time with a fitted temperature.

Softmax probabilities in float32 round to exactly 1 for an over-confident model. An attack that is guided by them then
sees no difference between words, and fails (Raina et al., ACL 2024). A temperature fitted on dev (`attack.calibrate`)
takes the rounding away; with two classes it changes nothing else. Both attacks of a model stand side by side in a run.
"""

from __future__ import annotations

from torch_eval.attack.metrics import Metrics
from torch_eval.report.comparisons import Comparison
from torch_eval.report.run_state import Run
from torch_eval.report.scores import Score

ROUNDING = (
    "Softmax probabilities in float32 round to exactly 1 for an over-confident model and hide from the attack which "
    "words matter."
)
REASON = f"{ROUNDING} A temperature fitted on dev takes the rounding away."


def other_way(run: Run) -> str:
    """How attacks were made in the way that the report does not show."""
    return f"with{'out' if run.config.attack.calibrate else ''} a fitted temperature"


def check(run: Run, model: str, recipe: str) -> Comparison | None:
    """Compare an attack as the report shows it with the same attack made the other way; None if that was not made."""
    pairs = {}
    for seed, shown in run.scores_of(model, recipe, 0):
        other = Score.read(run.paths.attacks(seed, not run.config.attack.calibrate) / model / recipe, Metrics)
        if other and _apart_from_temperature(other) == _apart_from_temperature(shown):
            pairs[seed] = shown, other
    return Comparison(pairs) if pairs else None


def _apart_from_temperature(score: Score) -> dict:
    """How a score was made, with the model that was attacked."""
    signature = {key: value for key, value in score.signature.items() if key != "temperature"}
    return {**signature, "model": score.manifest.inputs.get("model")}


def lines(run: Run) -> list[str]:
    """Sentences of the report: figures that another temperature changes, or how to find them where scores saturate."""
    checks = {(m, recipe): c for m in run.shown() for recipe in run.recipes if (c := check(run, m, recipe))}
    other = other_way(run)
    cases = [
        f"{run.title(model)}, {run.attack_title(recipe)}: Aua {c.mean_aua(0):.1f}% as shown, "
        f"{c.mean_aua(1):.1f}% {other} ({c.test.only_first} : {c.test.only_second} sentences, p {c.test.p:.2g})"
        for (model, recipe), c in checks.items()
        if c.differs
    ]
    if cases:
        return [f"**Saturated scores (†), {run.name}:** {'; '.join(cases)}. {REASON} Trust the lower of both figures."]
    if checks:
        count = f"{len(checks)} attack{'s' * (len(checks) > 1)}"
        return [f"{run.name}: no figure of {count} depends on saturated scores: made again {other}, none differs."]
    certain, survived = _certain(run)
    if not certain:
        return []
    sentence = f"{run.name}: in {certain} of {survived} withstood attacks the model is certain"
    meaning = "its answer has probability 1 to six digits"
    if run.config.attack.calibrate:
        return [f"{sentence}, although its temperature was fitted on dev: {meaning}. {ROUNDING}"]
    command = f"`{run.command('attack')} attack.calibrate=true`"
    return [f"{sentence}: {meaning}. {REASON} {command} shows what it changes."]


def _certain(run: Run) -> tuple[int, int]:
    """Count the withstood attacks on sentences that a model classifies with certainty, and all."""
    records = [
        record
        for model in run.shown()
        for recipe in run.recipes
        for _, score in run.scores_of(model, recipe, 0)
        for record in score.records
        if record["outcome"] == "failure"
    ]
    return sum(record["original_score"] == 1.0 for record in records), len(records)
