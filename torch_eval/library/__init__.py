"""For others: scores of any classifier on any data, a wrapper for TextAttack, models on the hub, the zoo of tickets."""
