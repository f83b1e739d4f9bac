"""The checks of victims, before the first attack: a run of hours must not fail at a broken folder."""

from __future__ import annotations

import random
from pathlib import Path

from configs.contract.basics.errors import Missing, UserError
from configs.contract.inputs import classifiers
from configs.contract.run.run_dir import RunDir
from configs.contract.run.run_files import Summary
from configs.contract.run.stage import verified
from torch_eval.attack import settings
from torch_eval.attack.workers import Target, Workers, inspect
from torch_eval.victim.token_ids import check_token_ids

SAMPLE = 16  # texts on which a faster forward pass must give the logits of the padded one


def _sample(examples: list[dict], columns: list[str]) -> list[tuple[str, ...]]:
    """Return texts to try a victim on: some at random, and the longest."""
    texts = [tuple(example[column] for column in columns) for example in examples]
    return [*random.Random(0).sample(texts, min(SAMPLE, len(texts))), max(texts, key=lambda text: sum(map(len, text)))]


def check(
    run_dir: RunDir, victims: list[tuple[int, str, Path]], task: Summary, examples: list[dict], workers: Workers
) -> dict[Path, str]:
    """Check the files of victims, and load those that are not attacked yet.

    Args:
        run_dir: Run directory.
        victims: Seed, name and Hugging Face directory of each.
        task: What `prepare` states of the data.
        examples: The test set; every victim must be able to classify a sample of it.
        workers: Processes that load the models.

    Returns:
        The fastest batching of each loaded model; see `workers.inspect`.

    Raises:
        UserError: A victim cannot be attacked.
    """
    config, targets = run_dir.config, []
    stages = ("clean", *config.attack.recipes)
    for seed, name, model in victims:
        order = check_files(run_dir, name, model, task.labels)
        if not all((run_dir.attack(seed, name) / stage / "manifest.json").is_file() for stage in stages):
            targets.append((name, Target(model, label_order=order, **settings.victim(config))))
    list(workers.map(check_token_ids, [target.model for _, target in targets]))
    texts = _sample(examples, task.columns)
    inspections = workers.map(inspect, [target for _, target in targets], [texts] * len(targets))
    batchings = {}
    for (name, target), inspection in zip(targets, inspections):
        if inspection.refusal:
            own = name in run_dir.own_victims()
            remedy = "" if own else f"; delete {target.model.parent} and run the training again"
            raise UserError(f"{inspection.refusal}{remedy}")
        for note in inspection.notes:
            print(note)
        batchings[target.model] = inspection.batching
    return batchings


def check_files(run_dir: RunDir, name: str, model: Path, labels: list[str]) -> tuple[int, ...] | None:
    """Check the files of one victim without loading it.

    Returns:
        As `classifiers.match_labels`.

    Raises:
        UserError: The victim cannot be attacked, or is not the model that its training left.
    """
    own = name in run_dir.own_victims()
    if not own and not (model / "config.json").is_file():
        raise Missing(model)
    try:
        order = classifiers.check(model, labels, run_dir.config.attack_length)
    except UserError as error:
        raise UserError(f"attack.victims: {name}: {error}" if own else str(error)) from None
    if not own:
        verified(model)
    return order
