"""From a user's files or the hub to normalised splits, and from splits to batches."""
