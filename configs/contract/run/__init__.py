"""What running an experiment means: jobs, stages, the run directory and its files, the plan, the command line."""
