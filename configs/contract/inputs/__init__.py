"""What users bring or download: labelled text, models and their tokenizers, packaged assets, the hub."""
