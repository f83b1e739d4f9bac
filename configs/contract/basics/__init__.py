"""What needs no knowledge of experiments: errors, files, processes, the environment."""
