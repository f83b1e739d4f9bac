"""What decides the outcome of an attack, a calibration, a choice: the settings in their manifests.

The one place that says so: a stage writes these settings, and the report compares a manifest with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from configs.contract.basics.errors import UserError
from configs.contract.experiment import schema
from configs.contract.run.run_files import Summary
from torch_eval.attack import sampling
from torch_eval.attack.sampling import WHOLE, Shard
from torch_eval.recipes import recipes
from torch_eval.victim import calibration

Describe = Callable[[recipes.Spec], dict[str, Any]]
describe = recipes.describe


def spec(config: schema.Experiment, data: Summary, recipe: str) -> recipes.Spec:
    """What a recipe attacks, and with what."""
    options = config.attack
    return recipes.Spec(
        recipe,
        tuple(data.columns),
        tuple(data.attacked),
        options.protocol,
        options.resources,
        options.resources_dir or "",
        options.candidates,
        options.max_queries,
    )


def victim(config: schema.Experiment) -> dict[str, Any]:
    """Settings of how victims compute their logits, except the temperature."""
    return {"max_length": config.attack_length, "device": config.attack.device, "dtype": config.attack.dtype}


def label_order(order: Sequence[int] | None) -> dict[str, Any]:
    """Setting with the victim's label for each label of the data; nothing if the order is the same."""
    return {} if order is None else {"label_order": list(order)}


def clean(config: schema.Experiment, data: Summary) -> dict[str, Any]:
    """Settings of the accuracy on the whole test set."""
    return {**victim(config), "columns": list(data.columns)}


def calibrated(config: schema.Experiment) -> dict[str, Any]:
    """Settings of a temperature that is fitted on dev."""
    return {**victim(config), "range": list(calibration.RANGE)}


def sample(config: schema.Experiment, labels: list[int]) -> list[int]:
    """Indices of the test sentences that are attacked; `labels` are those of all test sentences."""
    options = config.attack
    return sampling.sample(labels, options.examples, config.data.seed, options.protocol, options.stratified)


def attack(
    config: schema.Experiment,
    data: Summary,
    seed: int,
    recipe: str,
    labels: list[int],
    temperature: float | str,
    shard: Shard = WHOLE,
    describe: Describe = describe,
) -> dict[str, Any]:
    """Settings of one recipe's attack on the test set.

    Args:
        config: The experiment.
        data: What `prepare` states about its data.
        seed: Seed of the run.
        recipe: Name of the attack.
        labels: Of all test sentences.
        temperature: Divides the victim's logits.
        shard: Part of the sample that is attacked.
        describe: `recipes.describe`, or `describing` where resources may be missing.
    """
    part = {"shard": str(shard)} if shard.count > 1 else {}
    own = {"stratified": config.attack.stratified, **part}
    rest = _recipe(config, data, seed, recipe, sample(config, labels), temperature, describe)
    return {**victim(config), **own, **rest}


def choice(
    config: schema.Experiment,
    data: Summary,
    seed: int,
    labels: list[int],
    temperature: float | str,
    describe: Describe = describe,
) -> dict[str, Any]:
    """Settings of the attack on dev that the choice rests on; arguments as for `attack`, with the labels of dev."""
    indices = sampling.sample(labels, config.choice.examples, config.data.seed)
    return {**victim(config), **_recipe(config, data, seed, config.choice.recipe, indices, temperature, describe)}


def describing(before: dict[str, Any], described: Describe) -> Describe:
    """Return `described`, but with the resources of the settings `before` where they are not on this machine."""

    def describe(spec: recipes.Spec) -> dict[str, Any]:
        try:
            return described(spec)
        except UserError:
            resources = {**(before.get("resources") or {}), "from": spec.resources}
            return {**recipes.describe_parameters(spec), "resources": resources}

    return describe


def _recipe(
    config: schema.Experiment,
    data: Summary,
    seed: int,
    recipe: str,
    indices: list[int],
    temperature: float | str,
    describe: Describe,
) -> dict[str, Any]:
    own = {"temperature": temperature, "max_seconds": config.attack.max_seconds, "indices": indices}
    return {"seed": seed, **own, **describe(spec(config, data, recipe))}
