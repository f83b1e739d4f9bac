"""How a result differs from what its stage would make now: settings, models and sentences.

The settings now are those that a stage itself would write (`configs.contract.run.settings` and
`torch_eval.attack.settings`): what counts as stale here is what the stage refuses to take for its own. Resources,
pre-trained models and given tickets that are not on this machine cannot be compared.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import read_lines
from configs.contract.inputs import classifiers
from configs.contract.run import settings
from configs.contract.run.jobs import CLEAN, Job
from configs.contract.run.run_dir import RunDir
from configs.contract.run.run_files import ChoiceOnDev, Results, Summary
from configs.contract.run.stage import changed_inputs, current_hash, differences
from torch_eval.attack import settings as attack_settings
from torch_eval.report.scores import Score, fitted_temperature


class Staleness:
    """Compares the manifests of one run with what its stages would write now.

    Each method returns what differs, in words; nothing if the result is up to date.

    Args:
        run: Run directory of the experiment.
    """

    def __init__(self, run: RunDir) -> None:
        self.run, self.config = run, run.config
        self.victims = {(seed, name): path for seed, name, path in run.all_victims()}
        self.data: Summary | None = run.summary() if (run.data / "summary.json").is_file() else None
        self.describe = functools.cache(attack_settings.describe)  # hashes resources: each recipe is described once

    def of_training(self, job: Job, manifest: dict) -> tuple[str, ...]:
        """Compare a stage of the training half."""
        before = manifest["settings"]
        changed = differences(before, settings.of_job(self.run, job, before.get("noise")))
        model = settings.local_model(self.config.model)
        try:
            paths = settings.inputs_of(self.run, job, model or self.run.root / "a model that is not here")
        except UserError:  # a search or a choice that will be made again, or a given ticket that is not here
            return tuple(changed)
        return (*changed_inputs(manifest["inputs"], paths), *changed)

    def of_scoring(self, seed: int, model: str, recipe: str, score: Score) -> tuple[str, ...]:
        """Compare an attack on the test set, or the accuracy on it (`CLEAN`)."""
        before = now = score.all_settings
        if self.data and recipe == CLEAN:
            now = attack_settings.clean(self.config, self.data)
        elif self.data:
            describe = attack_settings.describing(before, self.describe)
            temperature = self._temperature(seed, model)
            labels = self._labels or [0] * self.data.splits["test"].count
            now = attack_settings.attack(self.config, self.data, seed, recipe, labels, temperature, describe=describe)
            if not self._labels and len(now["indices"]) == score.settings.examples:
                now["indices"] = score.settings.indices  # a stratified sample of a test set that is not here
        return self._scored(seed, model, "test", score, now)

    def of_candidate(self, seed: int, model: str, score: Score) -> tuple[str, ...]:
        """Compare the attack on dev that a candidate for the choice faced."""
        before = now = score.all_settings
        if self.data:
            stated = self.data.splits.get(self.config.choice_split)
            labels, temperature = [0] * (stated.count if stated else 0), self._temperature(seed, model)
            describe = attack_settings.describing(before, self.describe)
            now = attack_settings.choice(self.config, self.data, seed, labels, temperature, describe)
        return self._scored(seed, model, self.config.choice_split, score, now)

    def of_choice(self, choice: ChoiceOnDev) -> tuple[str, ...]:
        """Compare what a choice rests on: the candidates of all seeds, and the attacks on each."""
        tickets = self.run.candidates()
        if len(tickets) == 1 or not self.config.chooses:
            return ()
        candidates = {(str(ticket), seed) for ticket in tickets for seed in self.config.seeds}
        attacked = {(row.model, row.seed) for row in choice.candidates}
        if attacked != candidates:
            return (f"candidates of all seeds: {len(attacked)}, now {len(candidates)}",)
        stale = []
        for model, seed in sorted(candidates):
            score = Score.read(self.run.choice_attack(seed, model), Results)
            differs = self.of_candidate(seed, model, score) if score else ()
            stale += [f"{model}, seed {seed}: {what}" for what in differs]
        return tuple(stale)

    def sentences(self) -> int:
        """Number of test sentences that an attack has now: the requested number, if the test set has so many."""
        requested = self.config.attack.examples
        return min(self.data.splits["test"].count, requested) if self.data else requested

    def model_hash(self, seed: int, model: str) -> str | None:
        """Hash of a model now, or None if it is not finished."""
        return current_hash(self._victim(seed, model))

    def _victim(self, seed: int, model: str) -> Path:
        """Directory of a victim, or of a candidate for the choice."""
        return self.victims.get((seed, model), self.run.model(seed, model))

    def _temperature(self, seed: int, model: str) -> float | str:
        """By which the logits of a victim are divided now."""
        if not self.config.attack.calibrate:
            return self.config.attack.temperature
        return fitted_temperature(self.run.attack(seed, model)) or "fitted on dev"

    def _scored(self, seed: int, model: str, split: str, score: Score, now: dict[str, Any]) -> tuple[str, ...]:
        paths = {"model": self._victim(seed, model), split: self.run.split(split)}
        before = dict(score.all_settings)
        now = {**now, **self._label_order(model, before)}
        then, asked = before.pop("indices", []), now.pop("indices", [])
        changed = list(changed_inputs(score.manifest.inputs, paths))
        if then != asked:
            same = "others are drawn now" if len(then) == len(asked) else f"{len(then)}, now {len(asked)}"
            changed.append(f"examples: {same}")
        return (*changed, *differences(before, now))

    def _label_order(self, model: str, before: dict[str, Any]) -> dict[str, Any]:
        """Return the setting of this name now; that of before if the victim is not here or its labels do not match."""
        folder, key = self.run.own_victims().get(model), "label_order"
        try:
            if folder and self.data:
                order = classifiers.match_labels(classifiers.label_names(folder), self.data.labels, folder)
                return attack_settings.label_order(order)
        except UserError:
            pass
        return {key: before[key]} if key in before else {}

    @functools.cached_property
    def _labels(self) -> list[int] | None:
        """Labels of the test sentences. Only a stratified sample depends on more than their number."""
        test = self.run.split("test")
        if self.data and not self.config.attack.stratified:
            return [0] * self.data.splits["test"].count
        records: list[dict] = read_lines(test) if test.is_file() else []
        return [record["label"] for record in records] or None
