"""The run: every recipe against every victim of an experiment, one JSON line an example.

An example is attacked by itself: seeded by the run's seed and its own index, with all of TextAttack's
caches empty. Its result therefore depends neither on the number of workers nor on where a run resumed.

    seed-1/attacks/<model>/clean/                 manifest.json (accuracy on the whole test set)
    seed-1/attacks/<model>/<recipe>/              results.jsonl manifest.json
                                                  or missing.json, why there are no results
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import random
import signal
import threading
import time
from collections import OrderedDict
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path

from tqdm import tqdm

from configs import schema
from configs.errors import UserError
from configs.run_dir import RUNS, RunDir, Stage, append_line, read_json, read_lines, write_json, write_lines
from torch_eval import metrics, recipes

PACKAGES = ("torch", "textattack", "transformers", "numpy")
CHUNK = 128  # clean test sentences handed to a worker at once


@dataclass(frozen=True)
class Target:
    """A victim and the text columns it reads."""

    model: Path
    max_length: int
    columns: tuple[str, ...]
    attacked: tuple[str, ...]


# --- in the workers ---------------------------------------------------------------------------------------


def _start_worker() -> None:
    """One thread, deaf to Ctrl-C (the parent stops the work), gone when the parent is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    import torch

    torch.set_num_threads(1)


def _follow_parent() -> None:
    parent_process().join()
    os._exit(1)


@functools.lru_cache(maxsize=1)
def load_victim(model: Path, max_length: int):
    from torch_eval.victim import Victim

    return Victim(model, max_length)


@functools.lru_cache(maxsize=1)
def load_attack(target: Target, recipe: str, candidates: int):
    victim = load_victim(target.model, target.max_length)
    return recipes.build(recipe, victim, target.columns, target.attacked, candidates)


def count_correct(target: Target, examples: list[dict]) -> int:
    """Number of examples that the victim classifies rightly."""
    texts = [tuple(example[column] for column in target.columns) for example in examples]
    predicted = load_victim(target.model, target.max_length)(texts).argmax(1).tolist()
    return sum(label == example["label"] for label, example in zip(predicted, examples))


def attack_example(target: Target, recipe: str, candidates: int, seed: int, index: int, example: dict) -> dict:
    """Attack one test example and return its record."""
    attack = load_attack(target, recipe, candidates)
    # After the line above: building an attack sets the environment in which TextAttack can be imported.
    from textattack.shared.utils import set_seed

    started = time.perf_counter()
    attack.clear_cache()
    set_seed(example_seed(seed, index))
    result = attack.attack(OrderedDict((column, example[column]) for column in target.columns), example["label"])
    return {**as_record(index, result), "seconds": round(time.perf_counter() - started, 3)}


def example_seed(seed: int, index: int) -> int:
    """32 bits that differ for every example of every run, however near their numbers are."""
    return int.from_bytes(hashlib.sha256(f"{seed} {index}".encode()).digest()[:4], "big")


def as_record(index: int, result) -> dict:
    """A `textattack.AttackResult` as JSON values; scores are probabilities of the true label."""
    before, after = result.original_result, result.perturbed_result
    label = before.ground_truth_output
    outcomes = {"SuccessfulAttackResult": "success", "FailedAttackResult": "failure", "SkippedAttackResult": "skipped"}
    return {
        "index": index,
        "label": label,
        "outcome": outcomes[type(result).__name__],
        "queries": result.num_queries,
        "original": columns_of(before.attacked_text),
        "perturbed": columns_of(after.attacked_text),
        "original_prediction": before.output,
        "perturbed_prediction": after.output,
        "original_score": round(float(before.raw_output[label]), 6),
        "perturbed_score": round(float(after.raw_output[label]), 6),
        "words_changed": len(after.attacked_text.attack_attrs["modified_indices"]),
        "words": len(before.attacked_text.words),
    }


def columns_of(text) -> dict[str, str]:
    """Columns of an `AttackedText`."""
    values = text.tokenizer_input
    return dict(zip(text.column_labels, (values,) if isinstance(values, str) else values))


# --- in the parent ----------------------------------------------------------------------------------------


class Workers:
    """Processes started at the first use and kept for all victims and recipes, since starting takes seconds."""

    def __init__(self, count: int):
        self.count = count
        self._pool = None

    def map(self, function, *arguments):
        """Results in the order of the arguments. Raises `UserError` when a worker dies."""
        if self._pool is None:
            for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
                os.environ[name] = "1"  # read by libraries when they load: inherited by the processes
            self._pool = ProcessPoolExecutor(self.count, get_context("spawn"), _start_worker)
        try:
            yield from self._pool.map(function, *arguments)
        except BrokenProcessPool:
            raise UserError(
                "an attack process died (was it killed, or out of memory?): the same command goes on from "
                "the last example; attack.workers=1 needs the least memory"
            ) from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def main(arguments: list[str], runs: Path = RUNS) -> int:
    if not arguments:
        raise UserError("attack: name a configuration, such as `python -m torch_eval attack demo`")
    run(RunDir(schema.load(arguments[0], arguments[1:]), runs))
    return 0


def run(run_dir: RunDir) -> None:
    """Attack all victims of an experiment with all its recipes; finished stages are skipped."""
    config = run_dir.config
    task = read_json(run_dir.data / "summary.json")
    examples = read_examples(run_dir.split("test"), task["columns"])
    with only_one(run_dir.root / ".attack.lock"), Workers(config.attack.workers) as workers:
        for seed in config.seeds:
            for name, model in run_dir.victims(seed).items():
                if not (model / "config.json").is_file():
                    raise UserError(f"{model} is missing: run the stage that writes it first")
                target = Target(model, config.data.max_length, tuple(task["columns"]), tuple(task["attacked"]))
                score_clean(workers, run_dir, seed, name, target, examples)
                for recipe in config.attack.recipes:
                    score_recipe(workers, run_dir, seed, name, target, recipe, examples)


def read_examples(path: Path, columns: list[str]) -> list[dict]:
    """Test examples. Raises `UserError` naming the first that lacks a text or a label."""
    examples = read_lines(path)
    if not examples:
        raise UserError(f"{path} holds no sentence")
    for number, example in enumerate(examples, 1):
        if not all(isinstance(example.get(column), str) for column in columns):
            raise UserError(f"{path}, line {number}: needs text in {', '.join(columns)}")
        if type(example.get("label")) is not int:
            raise UserError(f"{path}, line {number}: its label must be a whole number")
    return examples


@contextlib.contextmanager
def only_one(path: Path):
    """Hold a lock file. Raises `UserError` if another process holds it; it falls open when that one ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{path.parent}: another process is attacking this experiment; wait for it") from None
        yield


def score_clean(workers, run_dir: RunDir, seed: int, name: str, target: Target, examples: list[dict]) -> None:
    """Accuracy on the whole test set."""
    stage = Stage(
        run_dir.attack(seed, name) / "clean",
        "clean",
        {"max_length": target.max_length, "columns": list(target.columns)},
        {"model": target.model, "test": run_dir.split("test")},
        PACKAGES,
    )
    label = f"seed {seed}, {name}: clean accuracy"
    if stage.is_done():
        print(f"{label}: already done, {stage.results()['accuracy']:.1%}")
        return
    chunks = [examples[start : start + CHUNK] for start in range(0, len(examples), CHUNK)]
    counts = workers.map(count_correct, [target] * len(chunks), chunks)
    correct = sum(tqdm(counts, desc=label, total=len(chunks), unit="batch"))
    stage.finish({"accuracy": correct / len(examples), "n": len(examples)})


def score_recipe(workers, run_dir: RunDir, seed: int, name: str, target: Target, recipe: str, examples) -> None:
    """Attack the sample with one recipe, from the first example that has no result."""
    options = run_dir.config.attack
    directory, label = run_dir.attack(seed, name) / recipe, f"seed {seed}, {name}: {recipe}"
    try:
        description = recipes.describe(recipe, target.columns, target.attacked, options.candidates)
    except recipes.TooPoor as error:
        write_json(directory / "missing.json", {"reason": str(error)})
        print(f"{label}: left out; {error}")
        return
    (directory / "missing.json").unlink(missing_ok=True)
    indices = sample(len(examples), options.examples, run_dir.config.data.seed)
    stage = Stage(
        directory,
        "attack",
        {"protocol": "paper", "seed": seed, "max_length": target.max_length, "indices": indices, **description},
        {"model": target.model, "test": run_dir.split("test")},
        PACKAGES,
    )
    if stage.is_done():
        print(f"{label}: already done, Aua {percent(stage.results()['aua']['value'])}")
        return
    records = resume(stage, indices)
    rest = indices[len(records) :]
    progress = tqdm(total=len(indices), initial=len(records), desc=label, unit="text")
    tasks = zip(*[(target, recipe, options.candidates, seed, index, examples[index]) for index in rest])
    for record in workers.map(attack_example, *tasks) if rest else ():
        append_line(directory / "results.jsonl", record)
        records.append(record)
        progress.set_postfix_str(f"Aua {percent(metrics.summarise(records).aua.value)}", refresh=False)
        progress.update()
    progress.close()
    stage.finish(metrics.summarise(records).to_dict())


def sample(population: int, size: int, seed: int) -> list[int]:
    """Indices of the attacked test examples: the same for every model and every seed of an experiment."""
    return sorted(random.Random(seed).sample(range(population), min(size, population)))


def resume(stage: Stage, indices: list[int]) -> list[dict]:
    """Records that an interrupted run left. Raises `UserError` if they are not the beginning of this one's."""
    results = stage.directory / "results.jsonl"
    stage.begin(results)
    if not results.is_file():
        return []
    records = read_lines(results)
    if [record.get("index") for record in records] != indices[: len(records)]:
        raise UserError(f"{results} holds other examples than this run's: delete {stage.directory} to redo it")
    write_lines(results, records)  # without the torn last line, if there is one
    return records


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
