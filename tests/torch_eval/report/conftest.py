"""What the tests of the report share."""

import pytest

from configs.contract.basics.files import atomic_write
from torch_eval.report import figure_style


@pytest.fixture
def quick(monkeypatch):
    """Figures are laid out but not painted; painting takes most of a report's time."""
    monkeypatch.setattr(figure_style, "save", lambda _, path: atomic_write(path.with_suffix(".svg"), b"<svg />"))
