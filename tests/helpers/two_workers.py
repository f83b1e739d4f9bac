"""Make a few updates on this rank's part of each batch and save the state; test_parallel.py runs this under msrun.

The cells are those of a GPU, on the CPU.

python two_workers.py TARGET
"""

import sys
import time
from pathlib import Path

import numpy as np
from mindspore import Tensor, mutable
from safetensors.numpy import save_file

from configs.contract.experiment import schema
from mindspore_rt import launch, parallel
from mindspore_rt.cells import backend
from mindspore_rt.cells.encoder import EncoderClassifier
from mindspore_rt.cells.encoder_config import EncoderConfig
from mindspore_rt.data.batches import Batches
from mindspore_rt.device import use_device
from mindspore_rt.training.objectives import FineTuning, RobustSearch
from tests.helpers.models import normal_arrays
from tests.helpers.objectives import fetches

CONFIG, ROWS = EncoderConfig(40, 16, 1, 2, 32, 32, 2), 6
KINDS = ("finetune", "search")


class Encoding:
    def __init__(self, ids):
        self.ids, self.type_ids = ids, [0] * len(ids)


class Tokenizer:
    """Reads a text that is a list of ids."""

    def encode_batch(self, texts):
        return [Encoding([int(word) for word in text.split()]) for text in texts]


def batches():
    random = np.random.default_rng(0)
    texts = [(" ".join(map(str, random.integers(1, 40, 8))),) for _ in range(11)]
    return Batches(texts, random.integers(0, 2, 11), 2, Tokenizer(), 8, ROWS, seed=3)


class GivenNoise:
    """The same uniform numbers for one worker and for two; a worker takes the rows of its own sentences."""

    def __init__(self, model, rank, ranks):
        self.model, self.rank, self.ranks = model, rank, ranks

    def draw(self, shapes, step, ascent=0):
        masks, whole = {p.shape for p in self.model.log_alpha()}, self.model.noise_shapes(ROWS, 8)
        random = np.random.default_rng([step, ascent])
        arrays = [random.random(shape, dtype=np.float32) for shape in whole]
        own = [
            a if a.shape in masks else a.reshape(ROWS, -1)[self.rank :: self.ranks].reshape(shape)
            for a, shape in zip(arrays, shapes, strict=True)
        ]
        return mutable(tuple(Tensor(np.ascontiguousarray(a)) for a in own))


def train(target, kind):
    rank, ranks = parallel.rank(), parallel.ranks()
    model = EncoderClassifier(CONFIG, 2, dropout=0.1, masked=kind == "search")
    model.load(normal_arrays(CONFIG.parameters(2), 0.2, random=1))
    if kind == "search":
        # A clip that every update meets: its factor must be that of all ranks.
        settings = schema.MaskSearch(ascent_steps=2, initial_norm=0.0, warmup=0.0, clip_norm=0.01, l0_start=0.0)
        # The official search averages the gradients of the weights beside those of the scores.
        objective = RobustSearch(model, settings, 10, seed=5, compat="official")
    else:
        objective = FineTuning(model, schema.Training(learning_rate=1e-3, warmup=0.0), 10, seed=5)
    objective.noise = GivenNoise(model, rank, ranks)
    source = batches()
    for index, indices in enumerate(source.epoch(0)):  # the second one has a sentence less
        own = source.batch(indices, rank, ranks)
        with fetches() as copied:
            figures = objective.step(own, index, asked=index == 1 and rank == 1)
        # The first update compiles the graphs, and looks at their constants.
        assert index == 0 or len(copied) == 1, copied
        assert figures.get("stop_requests") == (None if ranks == 1 else index)  # on both ranks
    save_file({n: p.asnumpy() for n, p in objective.state().items()}, f"{target}-{kind}-{rank}.safetensors")


def read_what_rank_0_wrote(target):
    """Rank 0 writes late and the others wait for it; a rank that sees no file fails the run."""
    file = Path(f"{target}-late")
    if parallel.rank() == 0:
        time.sleep(1)
        file.write_text("here")
    parallel.wait()
    assert file.is_file()


if __name__ == "__main__":
    use_device()
    backend.current = lambda: backend.Backend.GPU
    for kind in KINDS:
        train(sys.argv[1], kind)
    read_what_rank_0_wrote(sys.argv[1])
    launch.end(0)  # as the program's own workers end
