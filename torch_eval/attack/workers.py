"""The processes that attack, and what they run: an example, a batch of logits, the loading of a victim."""

from __future__ import annotations

import functools
import math
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from configs.contract.basics.errors import UserError, in_short, listed
from torch_eval.attack import example as one_example
from torch_eval.recipes import recipes

if TYPE_CHECKING:
    from textattack import Attack

    from torch_eval.victim.classifier import Victim

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


@dataclass(frozen=True)
class Target:
    """A victim and how it is run; the attributes are the arguments of `classifier.Victim`."""

    model: Path
    max_length: int
    temperature: float = 1.0
    device: str = "cpu"
    dtype: str = "float32"
    label_order: tuple[int, ...] | None = None
    batching: str | None = None


class Workers:
    """Processes that start at the first use and stay for all victims and recipes, because starting takes seconds.

    Args:
        count: Number of processes.
        threads: Threads of each.
    """

    def __init__(self, count: int, threads: int = 1) -> None:
        self.count, self.threads = count, threads
        self._pool: ProcessPoolExecutor | None = None
        self._alive: Connection | None = None  # workers exit when its end is closed, by us or by our death

    def map(self, function: Callable, *arguments: Iterable) -> Iterator:
        """Yield results in the order of the arguments.

        Raises:
            UserError: A worker died, or `function` raised one.
        """
        if self._pool is None:
            # Libraries read these when they load: the processes inherit them.
            os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(self.threads)))
            context = get_context("spawn")
            until_closed, self._alive = context.Pipe(duplex=False)
            self._pool = ProcessPoolExecutor(self.count, context, _start_worker, (self.threads, until_closed))
        try:
            yield from self._pool.map(function, *arguments)
        except BrokenProcessPool:
            raise UserError(
                "an attack process died (was it killed, or out of memory?): the same command resumes from "
                "the last example; attack.workers=1 needs the least memory"
            ) from None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """End the processes: after an error or Ctrl-C at once, because nobody reads what they compute."""
        if self._pool is not None and self._alive is not None:
            if error is not None:
                self._alive.close()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._alive.close()


def _start_worker(threads: int, until_closed: Connection) -> None:
    """Ignore SIGINT, which the parent handles, and exit when the parent closes its end of the pipe, or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_when_closed, args=(until_closed,), daemon=True).start()
    import torch

    torch.set_num_threads(threads)


def _exit_when_closed(until_closed: Connection) -> None:
    until_closed.poll(None)  # nothing is ever sent: it returns at the end of the file
    os._exit(1)


# --- in the workers ---------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def load_victim(target: Target) -> Victim:
    """Load a victim; the last one stays loaded."""
    from torch_eval.victim.classifier import Victim

    return Victim(*(getattr(target, field.name) for field in fields(target)))


@functools.lru_cache(maxsize=1)
def load_attack(victim: Victim, spec: recipes.Spec) -> Attack:
    """Build an attack on a loaded victim; the last one stays loaded."""
    attack = recipes.build(spec, victim)
    from torch_eval.recipes.fast_classes import remember_word_splits

    remember_word_splits()
    return attack


class Inspection(NamedTuple):
    """What the loading of a victim has shown.

    Attributes:
        refusal: Error message, to which the caller adds the remedy; None if the victim classifies the texts.
        batching: The fastest one that computes what padded batches compute; see `classifier.BATCHINGS`.
        notes: Lines for the user: that faster batches change the logits, or which of several labels of a text counts.
    """

    refusal: str | None = None
    batching: str | None = None
    notes: tuple[str, ...] = ()


def inspect(target: Target, texts: list[tuple[str, ...]]) -> Inspection:
    """Load a victim, classify texts, and find the fastest batching that gives the logits of padded batches."""
    try:
        victim = load_victim(target)
        off = victim.use_fastest(texts)
    except UserError as error:
        return Inspection(str(error))
    except Exception as error:  # of any kind: weights and tokenizer do not fit together, or the text is too long
        return Inspection(
            f"{target.model}: cannot classify a text of up to {target.max_length} pieces ({in_short(error)}); is the "
            f"tokenizer the model's own? a smaller data.max_length helps where the model has fewer positions"
        )
    notes, fastest = [], victim.batchings()[0]
    if victim.batching != fastest:
        effect = f"change its logits by {off:.0f} times what rounding may" if math.isfinite(off) else "stop the model"
        notes.append(
            f"{target.model}: {fastest} batches {effect}; {victim.batching} ones are used, which are slower and "
            f"compute what TextAttack computes"
        )
    if victim.model.config.problem_type == "multi_label_classification":
        notes.append(f"{target.model}: made for several labels of a text; the highest score counts, as in TextAttack")
    return Inspection(batching=victim.batching, notes=tuple(notes))


def logits_of(target: Target, texts: list[tuple[str, ...]]) -> list[list[float]]:
    """Return logits of texts, each a tuple of columns.

    Raises:
        UserError: The victim cannot classify them. BART's takes no two texts with different numbers of its end token.
    """
    victim = load_victim(target)
    try:
        return victim(texts).tolist()
    except (ValueError, IndexError) as error:
        special = victim.tokenizer.all_special_tokens
        spelt = [" | ".join(text) for text in texts if any(token in column for column in text for token in special)]
        remedy = f"take out those that spell a special token of it: {listed(map(repr, spelt), 3, 80)}"
        raise UserError(
            f"{target.model}: cannot classify some texts of the data ({in_short(error)}); "
            f"{remedy if spelt else 'is the tokenizer its own?'}"
        ) from error


def attack_example(
    target: Target,
    spec: recipes.Spec,
    seed: int,
    index: int,
    example: dict,
    max_seconds: float | None = None,
    source: str = "the texts",
) -> dict:
    """Attack one example with the victim `target`, and verify the record; see `example.attack_text`."""
    victim = load_victim(target)
    victim.forget()
    record = one_example.attack_text(load_attack(victim, spec), spec, seed, index, example, max_seconds, source)
    victim.forget()  # the texts are classified once more to verify the record
    texts = [tuple(record[when][column] for column in record[when]) for when in ("original", "perturbed")]
    one_example.verify(record, spec, example, victim(texts).softmax(1).tolist(), target.dtype)
    return record
