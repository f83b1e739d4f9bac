"""Data: files or the hub to normalised splits, and splits to tokenised batches."""
