"""Random numbers: repeatable by key, uniform, and independent between places, steps and passes."""

import itertools

import mindspore as ms
import numpy as np
from mindspore import Tensor
from scipy import stats

from mindspore_rt import noise
from mindspore_rt.bert import BertClassifier, BertConfig, Dropout, MaskedLinear

SHAPES = [(40, 50), (40, 50), (7,)]


def arrays(seed=1, step=0, ascent=0, rank=0):
    return [t.asnumpy() for t in noise.HostNoise(seed, rank).draw(SHAPES, step, ascent)]


def test_same_key_same_bytes():
    for a, b in zip(arrays(step=3, ascent=2), arrays(step=3, ascent=2), strict=True):
        assert a.tobytes() == b.tobytes()


def test_every_part_of_the_key_changes_everything():
    keys = list(itertools.product((0, 1, 2), repeat=4))
    draws = [arrays(seed, step, ascent, rank) for seed, step, ascent, rank in keys]
    streams = np.stack([a.ravel() for d in draws for a in d[:2]])
    correlation = np.corrcoef(streams) - np.eye(len(streams))
    # 162 streams of 2000 numbers: the largest of 13,041 correlations stays within 5 standard deviations.
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)


def test_numbers_are_uniform():
    values = np.concatenate([a.ravel() for step in range(20) for a in arrays(step=step)[:2]])
    assert values.min() >= 0 and values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    assert abs(values.mean() - 0.5) < 5 * np.sqrt(1 / 12 / values.size)
    assert abs(values.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / values.size)


def test_the_training_graph_uses_other_numbers_at_every_place():
    """On the very cells that train: zero embeddings, unit weights, each place's own noise shows in its mask."""
    config = BertConfig(30, 16, 2, 2, 16, 16, 2)
    model = BertClassifier(config, 2, dropout=0.5, masked=True)
    cells = [c for _, c in model.cells_and_names() if isinstance(c, MaskedLinear)]
    drops = [c for _, c in model.cells_and_names() if isinstance(c, Dropout)]
    shapes = model.noise_shapes(4, 8)
    assert len(shapes) == len(cells) + len(drops) == len({c.uniform.place for c in [*cells, *drops]})

    @ms.jit
    def masks(draws):
        return tuple(c.mask(draws) for c in cells)

    source = noise.HostNoise(1)
    passes = [masks(source.draw(shapes, step, ascent)) for step in range(2) for ascent in range(2)]
    streams = np.stack([m.asnumpy().ravel() for one in passes for m in one])
    assert streams.std(1).min() > 0
    correlation = np.corrcoef(streams) - np.eye(len(streams))
    assert np.abs(correlation).max() < 5.5 / np.sqrt(streams.shape[1])


def test_dropout_keeps_the_asked_share_and_the_mean():
    cell, x = Dropout(0.1, 0, 0), Tensor(np.ones((200, 300), np.float32))
    out = cell(x, noise.HostNoise(5).draw([(200, 300)], 0)).asnumpy()
    np.testing.assert_allclose(np.unique(out), [0, 1 / 0.9], rtol=1e-6)
    assert abs((out == 0).mean() - 0.1) < 5 * np.sqrt(0.09 / out.size)
    assert cell(x, None) is x
