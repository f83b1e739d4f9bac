"""Experiments, one YAML file each, and `contract/`: what both halves of the project read."""
