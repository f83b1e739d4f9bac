"""The MindSpore workers compute the step that the references compute: the same losses from the same case."""

import os
import subprocess
import sys

import numpy as np
import pytest

from configs.contract.bench_case import Case
from configs.contract.files import ROOT
from mindspore_rt.compare import step_worker
from tests.helpers.needs import needs_mindnlp
from torch_eval.bench import torch_step_worker as reference
from torch_eval.bench.step_groups import CONTENDERS

TINY = {"layers": 2, "hidden": 24, "batch": 4, "length": 8, "vocabulary": 60, "dropout": 0.0}


@pytest.mark.parametrize("task", ["finetune", "retrain"])
def test_same_losses_as_the_torch_worker(task):
    """Three steps without dropout; the learning rate is 0 at first, and clipping does not bite."""
    case = Case(task, **TINY)
    step, about = step_worker.ours(case)
    other = reference.transformers_step(case) if task == "finetune" else reference.official_step(case, False)
    ours, theirs = [step() for _ in range(3)], [other() for _ in range(3)]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert about["kernels"] in ("fused", "plain") and about["versions"]["mindspore"]


def test_same_evaluation_as_the_torch_worker():
    case = Case("evaluate", **TINY)
    assert step_worker.ours(case)[0]() == pytest.approx(reference.transformers_step(case)(), abs=1e-5)


def test_search_starts_near_the_torch_worker():
    """Noise differs, so only to what masks of random weights leave: at log 2, far from 0."""
    case = Case("search", **TINY, passes=2)
    assert step_worker.ours(case)[0]() == pytest.approx(reference.official_step(case, True)(), abs=0.05)


@pytest.mark.parametrize("kernels", ["plain", None])
def test_the_worker_process_says_which_kernels_it_uses(kernels):
    """As the bench starts it; without kernels where the environment says so."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **({"ROBUST_TICKETS_KERNELS": kernels} if kernels else {})}
    contender = CONTENDERS["plain" if kernels else "fused"]
    command = contender.command(Case("evaluate", **TINY), None)
    process = subprocess.run(command, env=environment, input="\n", capture_output=True, text=True, cwd=ROOT, check=True)
    lines = process.stdout.splitlines()
    assert len(lines) == 2 and '"wall"' in lines[1]
    if kernels:
        assert '"kernels": "plain"' in lines[0]
    else:
        assert '"kernels": ' in lines[0]


MINDNLP = """
import json, sys
from configs.contract.bench_case import Case
from mindspore_rt.compare.step_worker import mindnlp
step, about = mindnlp(Case(**json.loads(sys.argv[1])))
print(*(step() for _ in range(3)))
"""


@needs_mindnlp
def test_mindnlp_trains_with_the_same_losses():
    """In a process of its own, as it replaces torch. The learning rate is 0 at the first step: the second and third
    losses differ only if its parameters were updated."""
    case = Case("finetune", **TINY)
    process = subprocess.run(
        [sys.executable, "-c", MINDNLP, case.to_json()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr[-2000:]
    losses = [float(x) for x in process.stdout.split()[-3:]]
    step = reference.transformers_step(case)
    expected = [step() for _ in range(3)]
    np.testing.assert_allclose(losses, expected, atol=1e-5)
    assert losses[2] != losses[0]
    with pytest.raises(ValueError, match="no search step"):
        step_worker.mindnlp(Case("search", **TINY))
