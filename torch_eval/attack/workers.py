"""The processes that attack, and what they do: one example, one batch of logits.

An example is attacked by itself: seeded by the run's seed and its own index, with all of TextAttack's
caches empty. Its result therefore depends neither on the number of workers nor on where a run resumed.
"""

from __future__ import annotations

import functools
import hashlib
import os
import signal
import threading
import time
from collections import OrderedDict
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path

from configs.contract.errors import UserError
from torch_eval.recipes import recipes


@dataclass(frozen=True)
class Target:
    """A victim as it is attacked; see `victim.Victim`. `stock` asks for TextAttack's own wrapper and classes."""

    model: Path
    max_length: int
    temperature: float = 1.0
    device: str = "cpu"
    dtype: str = "float32"
    stock: bool = False


class Workers:
    """Processes started at the first use and kept for all victims and recipes, since starting takes seconds."""

    def __init__(self, count: int, threads: int = 1):
        self.count, self.threads = count, threads
        self._pool = None

    def map(self, function, *arguments):
        """Results in the order of the arguments. Raises `UserError` when a worker dies."""
        if self._pool is None:
            for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
                os.environ[name] = str(self.threads)  # read by libraries when they load: inherited by the processes
            context = get_context("spawn")
            self._pool = ProcessPoolExecutor(self.count, context, _start_worker, (self.threads,))
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


def _start_worker(threads: int) -> None:
    """Deaf to Ctrl-C (the parent stops the work), gone when the parent is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)


def _follow_parent() -> None:
    parent_process().join()
    os._exit(1)


# --- in the workers ---------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def load_victim(target: Target):
    if target.stock:
        from torch_eval.bench import stock_textattack

        return stock_textattack.victim(target.model, target.max_length)
    from torch_eval.victim.classifier import Victim

    return Victim(target.model, target.max_length, target.temperature, target.device, target.dtype)


@functools.lru_cache(maxsize=1)
def load_attack(target: Target, spec: recipes.Spec):
    if target.stock:
        from torch_eval.bench import stock_textattack

        return stock_textattack.build(spec, load_victim(target))
    attack = recipes.build(spec, load_victim(target))
    _count_answers_only(attack.goal_function)
    return attack


def _count_answers_only(goal) -> None:
    """TextAttack counts queries before it asks: those that the deadline cut off are taken back."""
    from torch_eval.victim.classifier import OutOfTime

    ask = goal._call_model

    def answered(texts):
        try:
            return ask(texts)
        except OutOfTime:
            goal.num_queries -= len(texts)
            raise

    goal._call_model = answered


def logits_of(target: Target, texts: list[tuple[str, ...]]) -> list[list[float]]:
    """Logits of texts, a tuple of columns each."""
    return load_victim(target)(texts).tolist()


def attack_example(
    target: Target,
    spec: recipes.Spec,
    seed: int,
    index: int,
    example: dict,
    max_seconds: float | None = None,
    source: str = "the texts",
) -> dict:
    """Attack one example and return its record. `max_seconds` ends it between two calls of the victim.

    Raises `UserError` naming the example, by its line of the file `source`, where the attack itself fails.
    """
    attack = load_attack(target, spec)
    # After the line above: building an attack sets the environment in which TextAttack can be imported.
    from textattack.shared.utils import set_seed

    from torch_eval.victim.classifier import OutOfTime

    started, processor = time.perf_counter(), time.process_time()
    attack.clear_cache()
    set_seed(example_seed(seed, index))
    text = OrderedDict((column, example[column]) for column in spec.columns)
    try:
        with _deadline(attack.goal_function.model, max_seconds):
            result = attack.attack(text, example["label"])
        record = as_record(index, result, spec.max_queries)
    except OutOfTime:
        record = _out_of_time(attack, index, text, example["label"])
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if spec.recipe in recipes.NEEDS and (isinstance(error, (ImportError, OSError)) or type(error) is LookupError):
            raise recipes.cannot_run(spec.recipe, error) from error  # NLTK raises a bare LookupError
        raise UserError(
            f"{source}, line {index + 1}: {spec.recipe} fails on this example, index {index} "
            f"({type(error).__name__}: {error}); take it out of the data and run prepare again under another name=..., "
            f"or leave {spec.recipe} out of attack.recipes"
        ) from error
    seconds = {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time() - processor}
    return {**record, **{name: round(value, 3) for name, value in seconds.items()}}


class _deadline:
    """Set the victim's deadline for the length of a `with`."""

    def __init__(self, victim, seconds: float | None):
        self.victim, self.seconds = victim, seconds

    def __enter__(self):
        if self.seconds is not None:
            self.victim.deadline = time.monotonic() + self.seconds

    def __exit__(self, *_):
        self.victim.deadline = float("inf")


def example_seed(seed: int, index: int) -> int:
    """32 bits that differ for every example of every run, however near their numbers are."""
    return int.from_bytes(hashlib.sha256(f"{seed} {index}".encode()).digest()[:4], "big")


def as_record(index: int, result, max_queries: int | None = None) -> dict:
    """A `textattack.AttackResult` as JSON values; scores are probabilities of the true label.

    A failure that has used up all its queries is a timeout: the attack might have succeeded with more.
    """
    outcomes = {"SuccessfulAttackResult": "success", "FailedAttackResult": "failure", "SkippedAttackResult": "skipped"}
    outcome = outcomes[type(result).__name__]
    if outcome == "failure" and max_queries is not None and result.num_queries >= max_queries:
        outcome = "timeout"
    return _record(index, outcome, result.num_queries, result.original_result, result.perturbed_result)


def _out_of_time(attack, index: int, text: OrderedDict, label: int) -> dict:
    """The record of an attack that was stopped: what it had found by then is lost, the text counts as unchanged.

    A text that is misclassified from the start is skipped as without a deadline, however soon that came.
    """
    goal = attack.goal_function
    queries = goal.num_queries
    from textattack.shared import AttackedText

    before, _ = goal.init_attack_example(AttackedText(text), label)
    outcome = "timeout" if before.output == label else "skipped"
    return _record(index, outcome, max(queries, goal.num_queries), before, before)


def _record(index: int, outcome: str, queries: int, before, after) -> dict:
    label = before.ground_truth_output
    return {
        "index": index,
        "label": label,
        "outcome": outcome,
        "queries": queries,
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
