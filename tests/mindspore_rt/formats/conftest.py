"""The half of PyTorch, which these tests have loaded anyway."""

import pytest

from mindspore_rt.formats import huggingface
from tests.helpers.commands import modules_here


@pytest.fixture
def torch_half_here(monkeypatch):
    """Convert PyTorch's files in this process; one of its own takes seconds to load PyTorch."""
    from torch_eval.victim import pytorch_weights

    mains = {"torch_eval.victim.pytorch_weights": lambda arguments: pytorch_weights.main(*arguments)}
    monkeypatch.setattr(huggingface, "run_module", modules_here(mains))
