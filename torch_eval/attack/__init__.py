"""Running attacks: examples, workers, records, metrics, and the choice of the reported ticket."""
