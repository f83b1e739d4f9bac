"""The scoring half: attacks exported models with TextAttack and reports the results. It never imports MindSpore."""
