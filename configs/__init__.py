"""Experiments, one YAML file each; `zoo/`: tickets to take away; `contract/`: what both halves of the project read."""
