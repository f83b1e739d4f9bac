"""The command line of the plan: what will run, what is done, how long it may take."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from configs.contract.basics.errors import command
from configs.contract.basics.processes import run_module
from configs.contract.experiment.check_config import refuse_missing
from configs.contract.run import cli, jobs, receipts
from configs.contract.run.estimate import Estimator, duration
from configs.contract.run.jobs import HALVES
from configs.contract.run.run_dir import RunDir


def overview(run: RunDir) -> str:
    """Return the plan of an experiment as text: a line for each job and for each stage of attacks."""
    counts = [
        f"{len(items)} {name}{'s' * (len(items) > 1)}"
        for items, name in ((run.config.methods, "method"), (run.config.seeds, "seed"))
    ]
    guess = Estimator(run)
    rows = [(job.stage, job.name, 0.0 if job.done else guess.seconds(job)) for job in jobs.jobs(run)] + guess.attacks()
    lines = [
        f"  {stage:9s} {what:44s} {f'about {duration(seconds)}' if seconds else 'done'}"
        for stage, what, seconds in rows
    ]
    total = duration(sum(seconds for _, _, seconds in rows))
    return "\n".join(
        [
            f"{run.config.name}: {', '.join(counts)}, {run.root}",
            "",
            *lines,
            "",
            f"  left: about {total} on this machine ({guess.basis})",
            *guess.space(),
        ]
    )


def show(options: argparse.Namespace) -> None:
    """Show every job, what is done, and how long the rest may take."""
    run = _planned(options)
    if not _is_prepared(run) and find_spec("mindspore"):
        run_module("mindspore_rt.stages.prepare", [options.config, *options.overrides])
    print(overview(run))


def pending(options: argparse.Namespace) -> None:
    """Print the commands of the stages that may have something to do, one a line.

    Stages that are finished, with the configuration and all that they read as it is now, are left out.
    """
    run = _planned(options)
    waiting, page = receipts.pending(run), run.report / "report.html"
    done = [stage for stage in jobs.stages(run) if stage not in waiting]
    if done:
        what = ", ".join(done) if waiting else f"everything, up to the report {page}"
        print(f"{run.config.name}: already done: {what}", file=sys.stderr)
    print("".join(f"{HALVES[stage]} {stage}\n" for stage in waiting), end="")


def _planned(options: argparse.Namespace) -> RunDir:
    """Return the run of a configuration; until its data are prepared, the files that it names must be there."""
    run = cli.run_dir(options)
    if not _is_prepared(run):
        refuse_missing(run.config)
    return run


def _is_prepared(run: RunDir) -> bool:
    """Tell whether the stage `prepare`, which checks what it is given, has finished."""
    return all(job.done for job in jobs.jobs(run) if job.stage == "prepare")


@command
def main(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit status."""
    parser, commands = cli.program("configs.contract.run.plan", "What an experiment consists of.")
    for function in (show, pending):
        cli.add_command(commands, function)
    options = cli.parse(parser, arguments)
    options.function(options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
