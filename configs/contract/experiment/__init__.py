"""What an experiment is: methods, names of models, and the configuration with all its options."""
