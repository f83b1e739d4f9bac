"""The stages of an experiment that train: what each reads, does and leaves in the run directory."""
