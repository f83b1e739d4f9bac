"""Speed against the references: ratios of one run, measured turn by turn.

    python -m torch_eval bench [official=PATH] [only=[GROUP,...]] [rounds=N] [markdown=yes]

Every contender keeps one step ready in a process of its own, with the same inputs and two processors, or the only one
that there is. The bench asks for steps in turns, so that a busy machine slows all of them alike. A ratio is the median
over the rounds of ours / reference. With `official=` the reference of search and retraining is that checkout of the
official repository, otherwise our restatement of it (`reference/restatement.py`).
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import append_line, atomic_write
from configs.contract.experiment.options import read_options
from configs.contract.experiment.sections import option
from configs.contract.run.run_dir import RUNS
from configs.contract.run.stage import versions
from torch_eval.bench.step_groups import CONTENDERS, GROUPS, OFFICIAL, REPOSITORY, installed
from torch_eval.bench.step_process import Worker
from torch_eval.bench.step_results import available_memory, figure, first_step, machine, markdown, table

LEAST_ROUNDS, MOST_ROUNDS = 3, 30
PACKAGES = ("torch", "transformers", "mindspore", "mindnlp", "numpy")


@dataclass
class Options:
    """What the command line asks for."""

    official: str | None = option(None, "a checkout of the official repository")
    only: list[str] = option([*GROUPS], "groups to run", choices=GROUPS)
    rounds: int | None = option(None, "steps of each contender; unset: as many as fit into each group's time", low=1)
    markdown: bool = option(False, "write the table for a document too")

    def checkout(self) -> Path | None:
        """Return the checkout of the official repository, if one is named.

        Raises:
            UserError: It is none.
        """
        path = Path(self.official).resolve() if self.official else None
        if path and not (path / "masked_bert.py").is_file():
            raise UserError(f"official={self.official}: no masked_bert.py there; give a checkout of {REPOSITORY}")
        return path


class Clock:
    """Prints how far the bench is, and how long the groups to come still take.

    Args:
        names: Groups to run.

    Attributes:
        remaining: Seconds that each group still takes, without what has passed of the present one.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.remaining, self._last = {name: GROUPS[name].seconds for name in names}, -math.inf

    def begin(self, name: str) -> None:
        """Begin a group."""
        self.name, self.started = name, time.monotonic()

    @property
    def share(self) -> float:
        """Share of the present group's time that has passed; above 1 if it takes longer."""
        return (time.monotonic() - self.started) / GROUPS[self.name].seconds

    def say(self, text: str) -> None:
        """Print `text` and the time left, at most once in five seconds."""
        if time.monotonic() - self._last >= 5:
            self._last = time.monotonic()
            seconds = int(sum(self.remaining.values()) - self.remaining[self.name] * min(1.0, self.share))
            print(f"[{self.name}] {text}; about {seconds // 60} min {seconds % 60:02d} s left", flush=True)


def run_group(name: str, rounds: int | None, checkout: Path | None, clock: Clock, failed: list[str]) -> Iterator[dict]:
    """Measure one group. As many workers run at once as memory allows, the reference always one of them.

    Args:
        name: Name of the group.
        rounds: Steps of each contender; None for as many as fit into the group's time.
        checkout: Of the official repository, the reference of search and retraining; None for our restatement.
        clock: Prints the progress.
        failed: Takes the reason for every contender that cannot be started; it is left out.

    Yields:
        Lines of the results.

    Raises:
        UserError: Memory does not suffice for two workers, or the reference cannot be started.
    """
    group, turns = GROUPS[name], turns_of(name)
    with contextlib.ExitStack() as stack:

        def begin(key: str) -> Worker:
            contender = CONTENDERS[key]
            clock.say(f"starting {contender.title}")
            worker = Worker(contender, contender.command(group.case, checkout))
            stack.callback(worker.close)
            return worker

        reference = begin(group.reference)
        if checkout and group.reference in OFFICIAL:
            reference.answers["title"] += " (the checkout itself)"
        fused = None
        for number, keys in enumerate(turns, 1):
            workers = {}
            for key in keys:
                try:
                    workers[key] = begin(key)
                except UserError as error:
                    failed.append(f"{name}: {error}")
            done = take_turns([reference, *workers.values()], rounds, clock, number / len(turns)) if workers else 0
            for key, worker in workers.items():
                yield figure(name, group, key, worker.answers, reference.answers, done)
                worker.close()
            fused = workers.get("fused", fused)
        if group.first_step and fused:
            yield first_step(name, group, "fused", fused.answers)


def turns_of(name: str) -> list[list[str]]:
    """Divide the contenders of a group that can run here into those that run beside the reference at once.

    Raises:
        UserError: Memory does not suffice for two workers.
    """
    group = GROUPS[name]
    at_once = int(available_memory() // group.memory)
    if at_once < 2:
        raise UserError(f"needs {2 * group.memory:.0f} GB of free memory, {available_memory():.0f} GB are there")
    keys = [key for key in group.others if CONTENDERS[key].is_possible()]
    for key in group.others.keys() - keys:
        needs = " ".join(CONTENDERS[key].needs or ())
        print(f"[{name}] left out: {CONTENDERS[key].title}; it needs {needs}", flush=True)
    return [keys[i : i + at_once - 1] for i in range(0, len(keys), at_once - 1)]


def take_turns(workers: Sequence[Worker], rounds: int | None, clock: Clock, share: float) -> int:
    """Let workers make steps in turn, and return the number of rounds.

    Args:
        workers: Processes with a step ready.
        rounds: Number of rounds; None for as many as fit until `share` of the group's time has passed.
        clock: Tells that time, and prints the progress.
        share: Share of the group's time.
    """
    least, most = (rounds,) * 2 if rounds else (LEAST_ROUNDS, MOST_ROUNDS)
    done = 0
    while done < least or (done < most and clock.share < share):
        for worker in workers:
            worker.step()
        done += 1
        clock.say(f"round {done}")
    return done


def main(arguments: list[str], runs: Path = RUNS) -> int:
    """Run the bench.

    Returns:
        0 if everything could be measured, 1 otherwise. A missed target is shown, and is not an error.
    """
    options = read_options(Options, arguments, "bench")
    checkout = options.checkout()
    clock = Clock(options.only)
    records: list[dict] = []
    failed: list[str] = []
    about = {
        "versions": versions(*filter(installed, PACKAGES)),
        "machine": machine(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    for name in options.only:
        clock.begin(name)
        try:
            for record in run_group(name, options.rounds, checkout, clock, failed):
                records.append({**record, **about})
                append_line(runs / "bench.jsonl", records[-1])
        except UserError as error:
            failed.append(f"{name}: {error}")
        clock.remaining[name] = 0
    if records:
        print("\n" + table(records) + f"\n\nAdded to {runs / 'bench.jsonl'}")
        if options.markdown:
            atomic_write(runs / "bench.md", markdown(records))
            print(f"Written: {runs / 'bench.md'}")
    for text in failed:
        print(f"error: {text}", file=sys.stderr)
    return 1 if failed else 0
