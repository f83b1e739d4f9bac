"""What tests of the scoring half share. They may import TextAttack at their top: this makes that possible offline."""

import pytest
import torch

from torch_eval.recipes import textattack_offline

textattack_offline.set_environment()


@pytest.fixture
def one_thread():
    """As in a worker; many threads on busy cores make these small models ten times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
