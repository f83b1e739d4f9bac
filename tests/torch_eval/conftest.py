"""Tests of the scoring half may import TextAttack at their top: this makes that possible offline."""

from torch_eval.recipes import textattack_offline

textattack_offline.set_environment()
