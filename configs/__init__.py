"""The contract both halves read: experiments, tasks, packaged assets, the run directory.

Importing this package loads nothing heavy: no mindspore, no torch.
"""
