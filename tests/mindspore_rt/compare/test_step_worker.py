"""The MindSpore workers compute the step that the references compute: the same losses from the same case."""

import os
import subprocess

import numpy as np
import pytest

from configs.contract.basics.bench_case import StepCase
from configs.contract.basics.processes import with_project
from mindspore_rt.compare import step_worker
from torch_eval.bench import torch_step_worker as reference
from torch_eval.bench.step_groups import CONTENDERS

TINY = {"layers": 2, "hidden": 24, "batch": 4, "length": 8, "vocabulary": 60, "dropout": 0.0}


@pytest.mark.parametrize("task", ["finetune", "retrain"])
def test_same_losses_as_the_torch_worker(task, monkeypatch):
    """Three steps without dropout, the first with rate 0 and the second with the whole rate. Clipping does not bite."""
    for module in (step_worker, reference):
        monkeypatch.setattr(module, "TOTAL_STEPS", 10)
    case = StepCase(task, **TINY)
    step, about = step_worker.ours(case)
    other = reference.transformers_step(case) if task == "finetune" else reference.restated_step(case, False)
    ours, theirs = [step() for _ in range(3)], [other() for _ in range(3)]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert abs(ours[2] - ours[0]) > 2e-5  # the update shows
    assert about["kernels"] in ("fused", "plain") and about["versions"]["mindspore"]


def test_same_evaluation_as_the_torch_worker():
    case = StepCase("evaluate", **TINY)
    assert step_worker.ours(case)[0]() == pytest.approx(reference.transformers_step(case)(), abs=1e-5)


def test_the_worker_process_says_which_kernels_it_uses():
    """As the bench starts it where the environment switches kernels off."""
    environment = with_project({**os.environ, "ROBUST_TICKETS_KERNELS": "plain"})
    command = CONTENDERS["plain"].command(StepCase("evaluate", **TINY), None)
    process = subprocess.run(command, env=environment, input="\n", capture_output=True, text=True, check=True)
    first, second = process.stdout.splitlines()
    assert '"kernels": "plain"' in first and '"wall"' in second


def test_mindnlp_has_no_search():
    """Its fine-tuning step: test_mindnlp.py."""
    with pytest.raises(ValueError, match="no search step"):
        step_worker.mindnlp(StepCase("search", **TINY))
