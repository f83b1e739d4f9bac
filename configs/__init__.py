"""Experiments, one YAML file each; `zoo/`: tickets to reuse; `contract/`: what both halves of the project read."""
