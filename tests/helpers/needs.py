"""What a test needs that not every environment has."""

from importlib.util import find_spec

import pytest

needs_mindnlp = pytest.mark.skipif(
    not find_spec("mindnlp"), reason="mindnlp is not installed: it takes no MindSpore above 2.7.0"
)
