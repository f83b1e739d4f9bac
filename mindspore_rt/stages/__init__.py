"""The stages of the training half: what each reads, does and leaves in the run directory."""
