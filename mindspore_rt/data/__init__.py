"""Data: what the contract reads, or the hub, to normalised splits; splits to tokenised batches."""
