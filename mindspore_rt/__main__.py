"""python -m mindspore_rt STAGE CONFIG [key=value ...]"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

os.environ.setdefault("GLOG_v", "3")  # MindSpore's own warnings say nothing a user can act on
# MindSpore's and OpenMP's threads share the cores; one that spins while it waits takes its core from one that works.
# OpenMP reads this once, when it is loaded: it must stand before the first import that does.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from configs.contract import jobs as plan
from configs.contract import schema
from configs.contract.errors import StopRequest, UserError, command
from configs.contract.files import OWNER
from configs.contract.run_dir import RunDir, only_one
from mindspore_rt.device import use_device

STAGES = {
    "prepare": "write normalised train, dev and test splits",
    "finetune": "train the models that keep all weights: finetune, finetune_long, freelb, infobert",
    "search": "learn the masks of the fine-tuned model on the adversarial loss",
    "prune": "prune by magnitude, round by round (lth, robust_no_mask_learning)",
    "draw": "draw tickets at the asked sparsities",
    "retrain": "fine-tune every ticket from the pre-trained weights",
    "control": "train the controls of the chosen ticket (random, robust_no_initialization ...)",
    "convert": "from one format of models and tickets to another; see convert --help",
}


def parser() -> argparse.ArgumentParser:
    stages = "\n".join(f"  {name:10s} {text}" for name, text in STAGES.items())
    result = argparse.ArgumentParser(
        prog="python -m mindspore_rt",
        description="Find and train robust lottery tickets with MindSpore.",
        epilog=f"stages:\n{stages}\n\nkeys of a configuration, with their defaults:\n{schema.help_text()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("stage", choices=STAGES, metavar="STAGE", help="one of the stages below")
    result.add_argument("config", metavar="CONFIG", help="name of a file in configs/ (demo, sst2 ...), or a YAML file")
    result.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the configuration")
    result.add_argument("--only", metavar="JOB", help="one job of the stage, such as seed-1/freelb")
    return result


@command
def main() -> int:
    if sys.argv[1:2] == ["convert"]:
        from mindspore_rt.formats import convert

        return convert.main(sys.argv[2:])
    arguments = parser().parse_args()
    config = schema.load(arguments.config, arguments.overrides)
    run = RunDir(config)
    jobs = [job for job in plan.jobs(run) if job.stage == arguments.stage]
    if arguments.only:
        jobs = [job for job in jobs if job.name == arguments.only]
        if not jobs:
            raise UserError(f"--only {arguments.only}: the stage {arguments.stage} of {config.name} has no such job")
    with only_one(run) if leads() else contextlib.nullcontext() as lock:
        left = [job for job in jobs if not job.done or config.on_change == "redo"]
        trains = arguments.stage not in ("prepare", "draw")
        apart = trains and not arguments.only and (len(left) > 1 or (left and config.workers > 1))
        status = run_here(config, run, [job for job in jobs if job not in left] if apart else jobs)
        status = run_apart(config, left, arguments, lock) if apart else status
        if not status:  # settings that were refused are not those of the run
            run.save_config()
        return status


def leads() -> bool:
    """True for rank 0 of data-parallel processes, and without any."""
    return os.environ.get("RANK_ID", "0") == "0"


def follow(owner: int) -> None:
    """Stop at a safe point, as after SIGTERM, when the process that started this one is gone."""

    def watch():
        while os.getppid() == owner:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def run_here(config: schema.Experiment, run: RunDir, jobs: list[plan.Job]) -> int:
    """Run jobs in this process; those that are done are checked against the configuration and skipped."""
    if not jobs:
        return 0
    if os.environ.get(OWNER) == str(os.getppid()):
        follow(os.getppid())
    use_device(config.device, config.jit_level)
    from mindspore_rt.stages import runner

    for job in jobs:
        runner.do(run, job)
    return 0


def run_apart(config: schema.Experiment, jobs: list[plan.Job], arguments, lock) -> int:
    """A process for each job: MindSpore gives the memory of its graphs back only when one ends."""
    environment = {**os.environ, OWNER: str(os.getpid())}
    python = [sys.executable]
    if config.workers > 1:
        # msrun starts "python": the one beside it.
        here, count = Path(sys.executable).parent, config.workers
        environment["PATH"] = os.pathsep.join([str(here), os.environ.get("PATH", "")])
        python = [
            str(here / "msrun"),
            f"--worker_num={count}",
            f"--local_worker_num={count}",
            "--join=True",
            f"--log_dir={RunDir(config).root / 'workers'}",
            "python",
        ]
    for job in jobs:
        command = [*python, "-m", "mindspore_rt", job.stage, arguments.config, *arguments.overrides, "--only", job.name]
        with StopRequest() as request, subprocess.Popen(command, env=environment, pass_fds=[lock.fileno()]) as child:
            status = _wait(child, request)
        if status:
            return status
        if request.made:  # too late for that job
            request.obey(f"{job.name}: finished")
    return 0


def _wait(child: subprocess.Popen, request: StopRequest) -> int:
    """Exit status of a child that is told of a stop request: as SIGTERM, for a second Ctrl-C would stop it at once."""
    told = False
    while True:
        try:
            return child.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            if request.made and not told:
                child.terminate()
                told = True


if __name__ == "__main__":
    sys.exit(main())
