"""Command line of the training half: `python -m mindspore_rt STAGE CONFIG [key=value ...]`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

# MindSpore's and OpenMP's threads share the cores; one that spins while it waits takes its core from one that works.
# OpenMP reads this once, when it is loaded: it must stand before the first import that does.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from configs.contract.basics.errors import STARTER, UserError, command, listed, stop_with_starter
from configs.contract.basics.processes import run_module
from configs.contract.experiment.methods import METHODS, SOURCES, TRAINED_BY
from configs.contract.run import cli
from configs.contract.run.jobs import Job, jobs
from configs.contract.run.receipts import Receipt
from configs.contract.run.run_dir import RunDir, only_one
from mindspore_rt import launch
from mindspore_rt.device import use_device

STAGES = {
    "prepare": "Write normalised train, dev and test splits",
    "finetune": "Train the models that keep all weights",
    "search": "Learn the mask scores of the fine-tuned model on the adversarial loss",
    "prune": "Prune by magnitude, round by round",
    "draw": "Draw tickets at the requested sparsities",
    "retrain": "Train every ticket from the pre-trained weights",
    "control": "Train the controls, which change one thing about the chosen ticket",
}


def parser() -> cli.Parser:
    """Create the parser of all stages."""
    top, commands = cli.program("mindspore_rt", "Find and train robust lottery tickets with MindSpore.")
    for stage, text in STAGES.items():
        sections = ["data"] if stage == "prepare" else []
        sections += [method.section for method in METHODS.values() if TRAINED_BY[method.kind] == stage]
        sections += [source.section for source in SOURCES.values() if source.stage == stage]
        one = cli.add_command(
            commands,
            run_stage,
            stage,
            f"{text}.\n\nFinished jobs are skipped; an interrupted one resumes.",
            sections=list(dict.fromkeys(sections)),
        )
        one.add_argument("--only", metavar="JOB", help="one job of the stage, such as seed-1/freelb")
    cli.add_command(commands, convert, config=False, delegates=True)
    return top


def convert(options: argparse.Namespace) -> int:
    """Convert models, scores and tickets from one format to another; see convert --help."""
    from mindspore_rt.formats import convert

    return convert.main(options.arguments)


def run_stage(options: argparse.Namespace) -> int:
    """Run the jobs of one stage, here or each in a process of its own; returns the exit status."""
    # `msrun` starts workers without naming itself, and leaves them behind when it is stopped.
    stop_with_starter(os.getppid() if launch.ranks() > 1 and STARTER not in os.environ else None)
    run, stage = cli.run_dir(options), options.command
    of_stage = [job for job in jobs(run) if job.stage == stage]
    if options.only:
        names = [job.name for job in of_stage]
        of_stage = [job for job in of_stage if job.name == options.only]
        if not of_stage:
            remedy = f"choose one of {listed(names)}" if names else "it has none"
            raise UserError(f"--only {options.only}: the stage {stage} of {run.config.name} has no such job; {remedy}")
    leads, starts_workers = not launch.rank() and not run.config.node_rank, launch.needs_workers(run)
    receipt = Receipt(run, stage) if leads and not options.only else None
    with only_one(run) if leads else contextlib.nullcontext() as lock:
        unfinished = [job for job in of_stage if not job.done or run.config.on_change == "redo"]
        status = 0
        if stage in ("prepare", "draw") or not starts_workers and (options.only or len(unfinished) <= 1):
            run_jobs(run, of_stage)
        else:
            run_jobs(run, [job for job in of_stage if job not in unfinished])
            status = launch.launch(run, unfinished, [options.config, *options.overrides], lock)
        if stage == "prepare" and find_spec("textattack"):  # where only training is installed, attacks run elsewhere
            run_module("torch_eval.attack.ready", [options.config, *options.overrides])
        if leads and not status:  # refused settings are not written as those of the run
            run.save_config()
            if receipt:
                receipt.write()
    return status


def run_jobs(run: RunDir, of_stage: list[Job]) -> None:
    """Run jobs in this process. Finished ones are compared with the configuration and skipped."""
    if not of_stage:
        return
    with launch.stop_requests():
        use_device(run.config)
        from mindspore_rt.stages import runner

        for job in of_stage:
            runner.run_job(run, job)


@command
def main(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit status."""
    options = cli.parse(parser(), arguments)
    return options.function(options)


if __name__ == "__main__":
    launch.end(main(sys.argv[1:]))
