"""The half of PyTorch, which these tests have loaded anyway."""

import contextlib
import io

import pytest

from configs.contract.errors import reason_of
from mindspore_rt.formats import huggingface


@pytest.fixture
def torch_half_here(monkeypatch):
    """Convert PyTorch's files in this process; one of its own takes seconds to load PyTorch."""
    from torch_eval.victim import pytorch_weights

    def in_this_process(_module, source, target):
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            status = pytorch_weights.main(source, target)
        return reason_of(errors.getvalue()) if status else None

    monkeypatch.setattr(huggingface, "in_torch_half", in_this_process)
