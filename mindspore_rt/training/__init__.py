"""The training loop, its objectives (fine-tuning, FreeLB, InfoBERT, mask search) and the optimizer."""
