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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from configs.contract.errors import UserError
from configs.contract.files import append_line, atomic_write
from configs.contract.options import read_options
from configs.contract.run_dir import RUNS
from configs.contract.schema import option
from configs.contract.stage import versions
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
        options: Of the command line, which name the groups.

    Attributes:
        remaining: Seconds of every group that is not finished.
    """

    def __init__(self, options: Options) -> None:
        self.remaining, self._last = {name: GROUPS[name].seconds for name in options.only}, -math.inf

    def say(self, name: str, text: str, share_done: float = 0.0) -> None:
        """Print `text` and the time left, at most once in five seconds. `share_done` of the group `name`, 0 to 1."""
        if time.monotonic() - self._last >= 5:
            self._last = time.monotonic()
            seconds = int(sum(self.remaining.values()) - self.remaining[name] * min(1.0, share_done))
            print(f"[{name}] {text}; about {seconds // 60} min {seconds % 60:02d} s left", flush=True)


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
    group, started = GROUPS[name], time.monotonic()
    at_once = int(available_memory() // group.memory)
    if at_once < 2:
        raise UserError(f"needs {2 * group.memory:.0f} GB of free memory, {available_memory():.0f} GB are there")
    keys = [key for key in group.others if CONTENDERS[key].is_possible()]
    for key in group.others.keys() - keys:
        print(
            f"[{name}] left out: {CONTENDERS[key].title}; it needs {' '.join(CONTENDERS[key].needs or ())}", flush=True
        )
    turns = [keys[i : i + at_once - 1] for i in range(0, len(keys), at_once - 1)]
    with contextlib.ExitStack() as stack:

        def begin(key: str) -> Worker:
            contender = CONTENDERS[key]
            clock.say(name, f"starting {contender.title}", (time.monotonic() - started) / group.seconds)
            worker = Worker(contender, contender.command(group.case, checkout))
            stack.callback(worker.close)
            return worker

        reference, measured = begin(group.reference), {}
        if checkout and group.reference in OFFICIAL:
            reference.answers["title"] += " (the checkout itself)"
        for number, keys in enumerate(turns, 1):
            workers = {}
            for key in keys:
                try:
                    workers[key] = begin(key)
                except UserError as error:
                    failed.append(f"{name}: {error}")
            if not workers:
                continue
            until = started + group.seconds * number / len(turns)
            least, most = (rounds,) * 2 if rounds else (LEAST_ROUNDS, MOST_ROUNDS)
            done = 0
            while done < least or (done < most and time.monotonic() < until):
                for worker in (reference, *workers.values()):
                    worker.step()
                done += 1
                clock.say(name, f"round {done}", (time.monotonic() - started) / group.seconds)
            for key, worker in workers.items():
                yield figure(name, group, key, worker.answers, reference.answers, done)
                worker.close()
            measured.update(workers)
        if group.first_step and "fused" in measured:
            yield first_step(name, group, "fused", measured["fused"].answers)


def main(arguments: list[str], runs: Path = RUNS) -> int:
    """Run the bench.

    Returns:
        0 if everything could be measured, 1 otherwise. A missed target is shown, and is not an error.
    """
    options = read_options(Options, arguments, "bench")
    checkout = options.checkout()
    clock = Clock(options)
    records: list[dict] = []
    failed: list[str] = []
    about = {
        "versions": versions(*filter(installed, PACKAGES)),
        "machine": machine(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    for name in options.only:
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
