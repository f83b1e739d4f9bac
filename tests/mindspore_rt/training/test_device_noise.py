"""On a device, FreeLB draws the noise of its key: of the seed, the worker and the update."""

import dataclasses

import numpy as np

from configs.contract.experiment import schema
from mindspore_rt.cells import backend, noise
from mindspore_rt.cells.backend import Backend
from mindspore_rt.cells.encoder import EncoderClassifier
from mindspore_rt.cells.encoder_config import EncoderConfig
from mindspore_rt.training.objectives import FreeLB
from tests.helpers.models import normal_arrays
from tests.helpers.objectives import watch
from tests.helpers.restatement import batch

CONFIG = EncoderConfig(60, 16, 1, 2, 32, 16, 2)
STILL = schema.AdversarialTraining(ascent_steps=2, ascent_rate=0.0, initial_norm=0.0, learning_rate=0.0)


def longer(b):
    """The same sentences with four more columns: another bucket."""
    columns = [np.pad(a, ((0, 0), (0, 4))) for a in (b.ids, b.attention_mask, b.token_types)]
    return dataclasses.replace(b, ids=columns[0], attention_mask=columns[1], token_types=columns[2])


def test_the_passes_of_an_update_share_the_dropout_of_its_key(monkeypatch):
    """Nothing moves the perturbation or the weights, so the dropout alone tells the losses of one batch apart."""
    monkeypatch.setattr(backend, "current", lambda: Backend.GPU)
    model = EncoderClassifier(CONFIG, 2, dropout=0.5)
    model.load(normal_arrays(CONFIG.parameters(2), 0.5))
    updates = [batch(0), longer(batch(0)), batch(0)]

    def losses(objective, first=0):
        """Of every pass, (updates from `first` on, passes)."""
        with monkeypatch.context() as patch:
            passes = watch(patch, objective, "ascent")
            for index in range(first, len(updates)):
                objective.step(updates[index], index)
        return np.reshape([float(results[0].asnumpy()) for _, results in passes], (-1, 2))

    objective = FreeLB(model, STILL, 10, seed=1)
    drawn = losses(objective)
    objective.noise = noise.source(1, rank=1)
    of_rank_1 = losses(objective)
    objective.noise = noise.source(1)  # as a process that goes on makes it
    resumed = losses(objective, first=2)
    both = np.concatenate([drawn, of_rank_1])
    # Products on CPU may round in another way at another address.
    np.testing.assert_allclose(both[:, 0], both[:, 1], rtol=1e-6)
    np.testing.assert_allclose(resumed, drawn[2:], rtol=1e-6)
    assert np.diff(np.sort(both[:, 0])).min() > 1e-4
