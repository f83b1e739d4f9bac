"""Formats: Hugging Face directories, the hub, and conversion between formats of models, scores and tickets."""
