"""What tests of attacks share: sentences, workers without processes, the summary of a prepared data set."""

import torch

SENTENCES = [
    "a gripping and thoughtful drama",
    "the jokes are stale and the pace is slow",
    "an honest portrait of grief",
    "loud , silly and far too long",
    "the cast is superb",
    "a dull script ruins a good idea",
]


class WorkersInThisProcess:
    """Workers without processes. They too run on one thread: several threads add in another order."""

    def __init__(self, count, threads=1):
        self.count = count
        torch.set_num_threads(1)

    def map(self, function, *arguments):
        return map(function, *arguments)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass
