"""Command line of the training half: `python -m mindspore_rt STAGE CONFIG [key=value ...]`."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

os.environ.setdefault("GLOG_v", "3")  # MindSpore's own warnings say nothing a user can act on
# MindSpore's and OpenMP's threads share the cores; one that spins while it waits takes its core from one that works.
# OpenMP reads this once, when it is loaded: it must stand before the first import that does.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from configs.contract import cli
from configs.contract.errors import StopRequest, UserError, command
from configs.contract.files import OWNER
from configs.contract.jobs import Job, jobs
from configs.contract.methods import METHODS, SOURCES, of_kind
from configs.contract.receipts import Receipt
from configs.contract.run_dir import RunDir, only_one
from mindspore_rt.device import use_device

STAGES = {
    "prepare": "Write normalised train, dev and test splits",
    "finetune": "Train the models that keep all weights",
    "search": "Learn the masks of the fine-tuned model on the adversarial loss",
    "prune": "Prune by magnitude, round by round",
    "draw": "Draw tickets at the asked sparsities",
    "retrain": "Fine-tune every ticket from the pre-trained weights",
    "control": "Train the controls, which change one thing about the chosen ticket",
}


def parser() -> cli.Parser:
    """Create the parser of all stages."""
    top, commands = cli.program("mindspore_rt", "Find and train robust lottery tickets with MindSpore.")
    kinds = {"finetune": "dense", "retrain": "ticket", "control": "control"}
    for stage, text in STAGES.items():
        sections = ["data"] if stage == "prepare" else []
        sections += [METHODS[name].section for name in of_kind(list(METHODS), kinds.get(stage, ""))]
        sections += [source.section for source in SOURCES.values() if source.stage == stage]
        one = cli.add_command(
            commands,
            train,
            stage,
            f"{text}.\n\nFinished jobs are skipped; an interrupted one goes on.",
            sections=list(dict.fromkeys(sections)),
        )
        one.add_argument("--only", metavar="JOB", help="one job of the stage, such as seed-1/freelb")
    cli.add_command(commands, convert, config=False, delegates=True)
    return top


def convert(options: argparse.Namespace) -> int:
    """Convert models, scores and tickets from one format to another; see convert --help."""
    from mindspore_rt.formats import convert

    return convert.main(options.arguments)


def train(options: argparse.Namespace) -> int:
    """Run the jobs of one stage, here or each in a process of its own; returns the exit status."""
    run, stage = cli.run_dir(options), options.command
    of_stage = [job for job in jobs(run) if job.stage == stage]
    if options.only:
        of_stage = [job for job in of_stage if job.name == options.only]
        if not of_stage:
            raise UserError(f"--only {options.only}: the stage {stage} of {run.config.name} has no such job")
    receipt = None if options.only else Receipt(run, stage)
    with only_one(run) if leads() else contextlib.nullcontext() as lock:
        unfinished = [job for job in of_stage if not job.done or run.config.on_change == "redo"]
        status = 0
        if options.only or stage in ("prepare", "draw") or len(unfinished) * run.config.workers <= 1:
            work(run, of_stage)
        else:
            work(run, [job for job in of_stage if job not in unfinished])
            status = launch(run, unfinished, [options.config, *options.overrides], lock)
        if not status:  # settings that were refused are not those of the run
            run.save_config()
            if receipt:
                receipt.write()
    return status


def leads() -> bool:
    """Return True for rank 0 of data-parallel processes, and for a process that has no rank."""
    return os.environ.get("RANK_ID", "0") == "0"


def work(run: RunDir, of_stage: list[Job]) -> None:
    """Do jobs in this process. Finished ones are compared with the configuration and skipped."""
    if not of_stage:
        return
    if os.environ.get(OWNER) == str(os.getppid()):
        stop_without(os.getppid())
    use_device(run.config.device, run.config.jit_level)
    from mindspore_rt.stages import runner

    for job in of_stage:
        runner.do(run, job)


def stop_without(owner: int) -> None:
    """Stop at a safe point, as after SIGTERM, once the process that started this one is gone."""

    def watch() -> None:
        while os.getppid() == owner:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def launch(run: RunDir, of_stage: list[Job], settings: Sequence[str], lock: IO | None) -> int:
    """Start a process for each job: MindSpore gives the memory of its graphs back only when a process ends.

    Args:
        run: The experiment.
        of_stage: Jobs of one stage.
        settings: CONFIG and the overrides of the command line.
        lock: Open lock file of the run, which the processes inherit.

    Returns:
        Exit status of the first process that fails, or 0.

    Raises:
        Stopped: A stop was asked for too late for the job at work, which has finished.
    """
    environment, python = {**os.environ, OWNER: str(os.getpid())}, [sys.executable]
    if run.config.workers > 1:
        # msrun starts "python": the one beside it.
        here, count = Path(sys.executable).parent, run.config.workers
        environment["PATH"] = os.pathsep.join([str(here), os.environ.get("PATH", "")])
        workers = [f"--worker_num={count}", f"--local_worker_num={count}"]
        python = [str(here / "msrun"), *workers, "--join=True", f"--log_dir={run.root / 'workers'}", "python"]
    held = [lock.fileno()] if lock else []
    for job in of_stage:
        line = [*python, "-m", "mindspore_rt", job.stage, *settings, "--only", job.name]
        with StopRequest() as request, subprocess.Popen(line, env=environment, pass_fds=held) as child:
            status = _wait(child, request)
        if status:
            return status
        if request.made:
            request.obey(f"{job.name}: finished")
    return 0


def _wait(child: subprocess.Popen, request: StopRequest) -> int:
    """Wait for a child and return its exit status.

    A stop request is handed on once, as SIGTERM: a second Ctrl-C would stop the child at once.
    """
    handed_on = False
    while True:
        try:
            return child.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            if request.made and not handed_on:
                child.terminate()
                handed_on = True


@command
def main(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit status."""
    options = cli.parse(parser(), arguments)
    return options.function(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
