"""Run one job of an experiment: the function of each stage that trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from configs.contract.run.jobs import Job
from configs.contract.run.run_dir import RunDir
from configs.contract.run.stage import redo_changed
from mindspore_rt import parallel
from mindspore_rt.stages.models import train_model
from mindspore_rt.stages.prepare import prepare
from mindspore_rt.stages.prune import prune
from mindspore_rt.stages.search import search
from mindspore_rt.stages.tickets import draw

STAGES: dict[str, Callable[[RunDir, Any], None]] = {  # each takes the kind of job that `jobs` makes for it
    "prepare": prepare,
    "finetune": train_model,
    "search": search,
    "prune": prune,
    "draw": draw,
    "retrain": train_model,
    "control": train_model,
}


def run_job(run: RunDir, job: Job) -> None:
    """Run a job unless it is done already.

    Raises:
        Changed: It was made with something else, and `on_change` is `refuse`. With `redo` it is made again.
    """
    redo_changed(run.config, lambda: STAGES[job.stage](run, job), leads=not parallel.rank(), wait=parallel.wait)
    parallel.wait()  # no worker leaves while another still writes
