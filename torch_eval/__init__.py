"""The scoring half: attacks the models of an experiment, or any other classifier, and reports what they withstand.

    from torch_eval import score, FastClassifier

Both are loaded when they are asked for: importing this package loads no library.
"""

from importlib import import_module

LAZY = {"score": "torch_eval.library.api", "FastClassifier": "torch_eval.library.fast_classifier"}


def __getattr__(name: str) -> object:
    """Load a public name."""
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(LAZY[name]), name)
