"""The half of PyTorch, which these tests have loaded anyway."""

import contextlib
import io

import pytest

from configs.contract.errors import UserError, reason_of
from mindspore_rt.formats import huggingface


@pytest.fixture
def torch_half_here(monkeypatch):
    """Convert PyTorch's files in this process; one of its own takes seconds to load PyTorch."""
    from torch_eval.victim import pytorch_weights

    def in_this_process(_module, arguments):
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            status = pytorch_weights.main(*arguments)
        if status:
            raise UserError(reason_of(errors.getvalue()))

    monkeypatch.setattr(huggingface, "run_module", in_this_process)
