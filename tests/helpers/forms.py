"""The forms in which the cells are built: of kernels, or of primitives for CPUs or for devices."""

import pytest

from mindspore_rt.cells import backend
from mindspore_rt.cells.backend import Backend


def use(form: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the cells of a test in one form, and skip the test if the form needs kernels that are not there."""
    if form is not Backend.KERNELS:
        monkeypatch.setattr(backend, "current", lambda: form)
    elif backend.current() is not Backend.KERNELS:
        pytest.skip("no kernels here")
