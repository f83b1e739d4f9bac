"""Model files: Hugging Face directories, the hub, and conversion between formats."""
