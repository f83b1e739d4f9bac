"""Data parallel training: two processes on halves of a batch make the update of one process on the whole."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from configs.contract.basics.processes import with_project
from mindspore_rt import parallel
from mindspore_rt.cells import backend
from mindspore_rt.cells.backend import Backend
from tests.helpers import two_workers
from tests.helpers.processes import reserved_port

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # msrun starts plain "python"
ENVIRONMENT = with_project({**os.environ, "PATH": PATH, "ROBUST_TICKETS_KERNELS": "plain", "GLOG_v": "3"})


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "current", lambda: Backend.GPU)
        for kind in two_workers.KINDS:
            two_workers.train(folder / "one", kind)
    command = [Path(sys.executable).with_name("msrun"), "--worker_num=2", "--local_worker_num=2", "--join=True"]
    command += [f"--log_dir={folder / 'logs'}"]
    with reserved_port() as port:
        command += [f"--master_port={port}", two_workers.__file__, folder / "two"]
        result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.mark.parametrize("kind", two_workers.KINDS)
def test_two_workers_equal_one(results, kind):
    """Weights or scores and both moments after two updates, with dropout and mask noise given. The official search
    keeps gradients from one update to the next, too; test_platforms.py counts what the other one adds up."""
    one, first, second = (
        load_file(results / f"{name}.safetensors") for name in (f"one-{kind}-0", f"two-{kind}-0", f"two-{kind}-1")
    )
    assert one.keys() == first.keys() and len(one) > 20
    for name, value in one.items():
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)  # the ranks agree to the bit
        scale = np.abs(value).max()
        np.testing.assert_allclose(first[name], value, rtol=1e-4, atol=2e-5 * scale + 1e-9, err_msg=name)


def test_one_process_has_no_others():
    assert (parallel.rank(), parallel.ranks()) == (0, 1)
