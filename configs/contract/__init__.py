"""What both halves read: settings, tasks, methods, the plan of an experiment, and the layout of its run directory.

Importing this package loads neither MindSpore nor PyTorch.
"""

VERSION = "0.3.0"  # of this project; pyproject.toml reads it here, and every manifest states it
