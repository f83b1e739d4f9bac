"""What tests of the scoring half share. They may import TextAttack at their top: this makes that possible offline."""

import pytest

from tests.helpers import attacked_runs
from torch_eval.recipes import textattack_offline

textattack_offline.set_environment()


@pytest.fixture
def one_thread():
    """Compute on one thread, as a worker does."""
    with attacked_runs.one_thread():
        yield


@pytest.fixture
def attacks_here(monkeypatch):
    """Attack in this process."""
    with attacked_runs.attacks_here(monkeypatch):
        yield
