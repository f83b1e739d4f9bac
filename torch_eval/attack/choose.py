"""The choice of the reported ticket: the candidate with the highest accuracy under attack.

    seed-1/choice/<model>/   results.jsonl manifest.json: an attack on a sample of dev, or of half of test
    choice.json              the rule, the accuracies of every candidate, and the chosen one

The candidates are robust tickets of several sparsities and search epochs. The choice uses none of the sentences that
are reported.
"""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from functools import partial

from configs.contract.basics.errors import Missing
from configs.contract.basics.files import locked, write_json
from configs.contract.experiment.model_id import ModelId
from configs.contract.run.run_dir import RunDir
from configs.contract.run.run_files import Summary
from configs.contract.run.stage import Stage, redo_changed
from torch_eval.attack import metrics, records, settings
from torch_eval.attack.scoring import Scoring, read_split
from torch_eval.attack.workers import Workers

RULE = "highest mean accuracy under {recipe} on {examples} {split} examples, then highest mean {split} accuracy"
SPLITS = {"dev": "dev", "test_half": "held-out test"}  # `choice.split` in words


def run(run_dir: RunDir) -> None:
    """Write `choice.json`.

    Nothing is attacked where there is one candidate, or where the models are trained on the sentences of the choice
    (`Experiment.chooses`), which then say nothing about them.

    Raises:
        Missing: A candidate is not trained.
    """
    config, candidates = run_dir.config, run_dir.candidates()
    if len(candidates) == 1 or not config.chooses:
        rule = "the only candidate" if len(candidates) == 1 else "the first candidate: compat: official trains on dev"
        write_choice(run_dir, rule, [], candidates[0])
        return
    task, dev = read_split(run_dir, config.choice_split)
    trained = list(itertools.product(candidates, config.seeds))
    for candidate, seed in trained:  # attacks take long: refuse before the first
        model = run_dir.model(seed, str(candidate)) / "config.json"
        if not model.is_file():
            raise Missing(model)
    rows = []
    with locked(run_dir.root / ".choice.lock"), Workers(config.attack.workers) as workers:
        for candidate, seed in trained:
            work = partial(score, workers, run_dir, seed, str(candidate), task, dev)
            rows.append({**candidate.record(), "seed": seed, **redo_changed(config, work)})
    split = SPLITS[config.choice.split]
    rule = RULE.format(recipe=config.choice.recipe, examples=min(config.choice.examples, len(dev)), split=split)
    majority = max(Counter(example["label"] for example in dev).values()) / len(dev)
    write_choice(run_dir, rule, rows, best(candidates, rows, majority))


def score(workers: Workers, run_dir: RunDir, seed: int, name: str, task: Summary, dev: list[dict]) -> dict:
    """Attack one candidate on dev, unless that is done already.

    Args:
        workers: Processes that attack.
        run_dir: Run directory of the experiment.
        seed: Seed of the candidate's training.
        name: Name of the candidate.
        task: What `prepare` states of the data.
        dev: Examples of the split of the choice.

    Returns:
        Its accuracy under attack (`aua`) and without (`accuracy`), 0 to 1.
    """
    scoring = Scoring(workers, run_dir, seed, name, run_dir.model(seed, name), task)
    stage, recipe, split = stage_of(scoring, dev), run_dir.config.choice.recipe, run_dir.config.choice_split
    done = scoring.complete(stage, recipe, dev, stage.settings["indices"], f"{scoring.who}: {recipe} on {split}", split)
    aua = metrics.summarise(done).aua.value
    if not stage.manifest.is_file():
        stage.finish({"aua": aua, "accuracy": scoring.clean_results(dev, f"{scoring.who}: {split} accuracy").accuracy})
    return {"aua": aua, "accuracy": stage.results(records.ChoiceResults).accuracy}


def stage_of(scoring: Scoring, dev: list[dict]) -> Stage:
    """Return the stage of one candidate's attack on dev."""
    run_dir, labels = scoring.run_dir, [example["label"] for example in dev]
    values = settings.choice(run_dir.config, scoring.task, scoring.seed, labels, scoring.target.temperature)
    return scoring.stage(
        run_dir.choice_attack(scoring.seed, scoring.name), "choice", values, run_dir.config.choice_split
    )


def best(candidates: list[ModelId], rows: list[dict], majority: float) -> ModelId:
    """Return the first of the candidates with the highest mean `aua`, then `accuracy`, over the seeds in `rows`.

    A candidate whose accuracy is not above `majority`, the share of the commonest label, has learned nothing. It is
    chosen only if no candidate has learned anything: a model that always predicts one class withstands every attack.
    """

    def mean(candidate: ModelId, key: str) -> float:
        return statistics.fmean(row[key] for row in rows if row["model"] == str(candidate))

    def rank(candidate: ModelId) -> tuple[bool, float, float]:
        accuracy = mean(candidate, "accuracy")
        return accuracy > majority, mean(candidate, "aua"), accuracy

    return max(candidates, key=rank)


def write_choice(run_dir: RunDir, rule: str, rows: list[dict], chosen: ModelId) -> None:
    """Write `choice.json`."""
    write_json(run_dir.choice, {"rule": rule, "candidates": rows, "chosen": chosen.record()})
    print(f"chosen: {chosen} ({rule})")
