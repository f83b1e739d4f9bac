"""The choice of the reported ticket, on dev: the candidate that stays right most often under attack.

    seed-1/choice/<model>/   results.jsonl manifest.json: one attack on a sample of dev
    choice.json              the rule, what every candidate reached, and the chosen one

The candidates are robust tickets of several sparsities and search epochs. None of it touches the test set.
"""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path

from tqdm import tqdm

from configs import schema
from configs.errors import UserError
from configs.run_dir import RUNS, Candidate, RunDir, locked, redo_changed, write_json
from torch_eval import metrics, recipes, records, sampling
from torch_eval.attack import Scoring, finished, read_split, resume
from torch_eval.workers import Workers

RULE = "highest mean accuracy under {recipe} on {examples} dev examples, then highest mean dev accuracy"


def main(arguments: list[str], runs: Path = RUNS) -> int:
    if not arguments:
        raise UserError("choose: name a configuration, such as `python -m torch_eval choose demo`")
    run(RunDir(schema.load(arguments[0], arguments[1:]), runs))
    return 0


def run(run_dir: RunDir) -> None:
    """Write `choice.json`. With one candidate nothing is attacked; nor under `compat: official`, where dev is trained
    on (`mindspore_rt.stages`) and would choose by heart."""
    config, candidates = run_dir.config, run_dir.candidates()
    if len(candidates) == 1 or not config.chooses_on_dev:
        rule = "the only candidate" if len(candidates) == 1 else "the first candidate: compat: official trains on dev"
        write_choice(run_dir, rule, [], candidates[0])
        return
    task, dev = read_split(run_dir, "dev")
    rows = []
    with locked(run_dir.root / ".choice.lock"), Workers(config.attack.workers) as workers:
        for candidate in candidates:
            for seed in config.seeds:
                model = run_dir.model(seed, candidate.model)
                victim = partial(Scoring, workers, run_dir, seed, candidate.model, model, task)
                found = redo_changed(config, lambda: score(victim(), dev))
                rows.append({**candidate._asdict(), "seed": seed, **found})
    rule = RULE.format(recipe=config.choice.recipe, examples=min(config.choice.examples, len(dev)))
    write_choice(run_dir, rule, rows, best(candidates, rows))


def score(scoring: Scoring, dev: list[dict]) -> dict:
    """Accuracy of one candidate on dev, attacked (`aua`) and not (`accuracy`), from where it was interrupted."""
    run_dir, choice = scoring.run_dir, scoring.run_dir.config.choice
    indices = sampling.sample([example["label"] for example in dev], choice.examples, run_dir.config.data.seed)
    settings = {
        "seed": scoring.seed, "indices": indices, "temperature": scoring.target.temperature,
        "max_seconds": scoring.options.max_seconds, **recipes.describe(scoring.spec(choice.recipe)),
    }
    stage = scoring.stage(run_dir.seed(scoring.seed) / "choice" / scoring.name, "choice", settings, "dev")
    label = f"seed {scoring.seed}, {scoring.name}: {choice.recipe} on dev"
    expected = scoring.expected(indices, dev)
    if stage.is_done():
        aua = metrics.aua(finished(stage, expected))
        print(f"{label}: already done, Aua {aua:.1%}")
        return {"aua": aua, "accuracy": stage.number("accuracy")}
    done = resume(stage, expected, scoring.options.workers)
    rest = scoring.attack(choice.recipe, scoring.target, dev, indices[len(done) :], "dev")
    for record in tqdm(rest, desc=label, total=len(indices), initial=len(done), unit="text"):
        records.append(stage.directory / "results.jsonl", record)
        done.append(record)
    accuracy = scoring.accuracy(dev, f"seed {scoring.seed}, {scoring.name}: dev accuracy")
    figures = {"aua": metrics.aua(done), "accuracy": accuracy}
    stage.finish(figures)
    return figures


def best(candidates: list[Candidate], rows: list[dict]) -> Candidate:
    """The first of the candidates with the highest mean `aua`, then `accuracy`, over the seeds in `rows`."""

    def mean(candidate: Candidate, key: str) -> float:
        return statistics.fmean(row[key] for row in rows if row["model"] == candidate.model)

    return max(candidates, key=lambda candidate: (mean(candidate, "aua"), mean(candidate, "accuracy")))


def write_choice(run_dir: RunDir, rule: str, rows: list[dict], chosen: Candidate) -> None:
    write_json(run_dir.choice, {"rule": rule, "candidates": rows, "chosen": chosen._asdict()})
    print(f"chosen: {chosen.model} ({rule})")
