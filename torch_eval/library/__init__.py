"""Any classifier on any data: the command `score`, the function of the same name, and a wrapper for TextAttack."""
