"""What results were made with and is otherwise now: settings, models and sentences."""

from __future__ import annotations

import functools
from pathlib import Path

from configs.contract import schema
from configs.contract.files import file_hash
from configs.contract.model_id import ModelId
from configs.contract.run_dir import RunDir
from torch_eval.report.manifests import CHOICE_MANIFEST, MANIFEST, read
from torch_eval.report.scores import bertattack_parameters, fitted_temperature, short


class Staleness:
    """Compares the results of a run with its configuration, its models and its sentences as they are now.

    Each method returns what differs, in words; nothing if the result is up to date.
    """

    def __init__(self, paths: RunDir, data: dict):
        self.paths, self.config, self.data = paths, paths.config, data
        self.now = schema.to_dict(paths.config)

    def of_training(self, stage: str, seed: int | None, sparsity: float | None, manifest: dict) -> tuple[str, ...]:
        """Compare a stage of the training half."""
        return tuple(changed(manifest["settings"], {**self.expected(seed, stage), "sparsity": sparsity}))

    def of_attack(self, seed: int, model: str, manifest: dict, split: str = "test", **more: str) -> tuple[str, ...]:
        """Compare an attack on a split, or the clean accuracy; `more` are settings that differ from `attack`'s."""
        expected = {**self.expected(seed, "attack"), **more}
        if self.config.attack.calibrate:
            expected["temperature"] = fitted_temperature(self.paths.attack(seed, model)) or "fitted on dev"
        return (*self._inputs(seed, model, manifest, split), *changed(manifest["settings"], expected))

    def _inputs(self, seed: int, model: str, manifest: dict, split: str) -> list[str]:
        """Compare the attacked model and the split."""
        inputs, facts = manifest["inputs"], self.data.get("splits", {}).get(split, {})
        told = [
            f"{name}: was made again since, {inputs[name][:8]} is {now[:8]} now"
            for name, now in (("model", self.model_hash(seed, model)), (split, facts.get("sha256")))
            if now and inputs.get(name, now) != now
        ]
        indices, now = manifest["settings"].get("indices"), self.sentences(split)
        if indices is not None and len(indices) != now:
            told.append(f"examples: {len(indices)}, now {now}")
        return told

    def of_choice(self, choice: dict) -> tuple[str, ...]:
        """Compare what a choice rests on: the candidates of all seeds, and the attacks on each."""
        candidates, options = self.paths.candidates(), self.config.choice
        if len(candidates) == 1 or not self.config.chooses_on_dev:
            return ()
        asked = {(str(c), seed) for c in candidates for seed in self.config.seeds}
        attacked = {(row["model"], row["seed"]) for row in choice["candidates"]}
        if attacked != asked:
            return (f"candidates of all seeds: {len(attacked)}, now {len(asked)}",)
        stale = []
        for model, seed in sorted(asked):
            manifest = read(self.paths.seed(seed) / "choice" / model / "manifest.json", CHOICE_MANIFEST)
            differs = self.of_attack(seed, model, manifest, "dev", recipe=options.recipe) if manifest else ()
            stale += [f"{model}, seed {seed}: {what}" for what in differs]
        return tuple(stale)

    def sentences(self, split: str = "test") -> int:
        """Number of sentences that an attack on a split has now: the asked number, if there are so many."""
        asked = self.config.attack.examples if split == "test" else self.config.choice.examples
        return min(self.data.get("splits", {}).get(split, {}).get("count", asked), asked)

    def model_hash(self, seed: int, model: str) -> str | None:
        """Hash of a model now, or None if it is not finished.

        The manifest of its training states it. For a snapshot and a model of the user's own it is computed.
        """
        own = self.paths.own_victims().get(model)
        if own or ModelId.parse(model).snapshot is not None:
            folder = own or self.paths.victims(seed).get(model)
            return _hash(folder) if folder and folder.is_dir() else None
        manifest = read(self.paths.stage(seed, model) / "manifest.json", MANIFEST)
        return manifest["results"].get("model_sha256") if manifest else None

    def expected(self, seed: int | None, stage: str) -> dict:
        """Settings that a manifest would state now, and more that no stage writes."""
        if stage == "prepare":
            return {**self.now, **self.now["data"]}
        if stage == "attack":
            options = self.config.attack
            length = 512 if options.protocol == "official" else self.config.data.max_length
            parameters = bertattack_parameters(options.candidates)
            own = {"resources": {"from": options.resources}, "parameters": parameters}
            return {**self.now["attack"], "seed": seed, "max_length": length, **own}
        return {**self.now, "seed": seed, "max_length": self.config.data.max_length, "amp": self.config.amp}


def changed(settings: dict, expected: dict, prefix: str = "") -> list[str]:
    """`key: old, now new` for every setting that stands in both and differs; a group and a value are not compared."""
    told = []
    for key, old in settings.items():
        now = expected.get(key)
        if isinstance(old, dict) and isinstance(now, dict):
            told += changed(old, now, f"{prefix}{key}.")
        elif key in expected and not isinstance(old, dict) and not isinstance(now, dict) and old != now:
            told.append(f"{prefix}{key}: {short(old)}, now {short(now)}")
    return told


@functools.cache
def _hash(folder: Path) -> str:
    """Hash of a model, kept because every attack on it asks."""
    return file_hash(folder)
