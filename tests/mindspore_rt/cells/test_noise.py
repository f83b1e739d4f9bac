"""Random numbers: repeatable by key, uniform, and independent between places, steps and passes."""

import itertools

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from scipy import stats

from mindspore_rt.cells import backend, noise
from mindspore_rt.cells.backend import Backend
from mindspore_rt.cells.encoder import EncoderClassifier, MaskedLinear, cells
from mindspore_rt.cells.encoder_config import EncoderConfig
from tests.helpers import forms
from tests.helpers.commands import run_python
from tests.helpers.models import normal_arrays

SHAPES = [(40, 50), (40, 50), (7,)]
ONE_LAYER, TWO_LAYERS = (EncoderConfig(30, 16, layers, 2, 16, 16, 2) for layers in (1, 2))


@pytest.fixture(params=[Backend.KERNELS, Backend.GPU, Backend.ASCEND], ids=lambda form: form.value)
def source(request, monkeypatch):
    """The class of noise; but for `KERNELS`, models are built of primitives."""
    forms.use(request.param, monkeypatch)
    return type(noise.source(1))


def test_graphs_draw_the_numbers_of_the_kernels_bit_for_bit():
    shapes = [(40, 50), (7,), (2, 3, 4), (40, 50), (90001,), (1,), *[(5,)] * 40]
    keys = [(1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 4, 4), (1, 3, 3, 4), (0, 0, 0, 0), (2**32 - 1,) * 4]
    for seed, rank, step, ascent in keys:
        numbers = noise.IntegerNoise(seed, rank).numbers(shapes, step, ascent)
        expected = noise.KernelNoise(seed, rank).numbers(shapes, step, ascent)
        assert [a.shape for a in numbers] == shapes
        assert [a.tobytes() for a in numbers] == [a.tobytes() for a in expected]


def test_lines_of_the_grid_are_independent():
    """Ascend's numbers form a grid. No two rows or columns are alike, reversed, or moved by a constant; and the
    numbers of a row and the next ones fill all cells of their plane."""
    for ascent in range(2):
        (numbers,) = noise.FloatNoise(5).numbers([(200 * 4096,)], 1, ascent)
        grid = numbers.reshape(200, 4096)
        wave = np.exp(2j * np.pi * grid).astype(np.complex64)
        for lines in (wave, wave[:, :1000].T):
            # |mean of n unit vectors| exceeds x / sqrt(n) with probability exp(-x^2): 4.9^2 = 24, for a million pairs.
            bound = 4.9 / np.sqrt(lines.shape[1])
            for partner in (lines.conj(), lines):
                coherence = np.abs(lines @ partner.T) / lines.shape[1]
                assert (coherence - np.diag(np.diag(coherence))).max() < bound
        for first, second in ((grid[:-1], grid[1:]), (grid[:, :-1], grid[:, 1:])):
            cells = (np.floor(first * 64) * 64 + np.floor(second * 64)).astype(int)
            assert stats.chisquare(np.bincount(cells.ravel(), minlength=4096)).pvalue > 1e-3
        for shift in (0, 8, 16):  # all bits, the lowest too
            values = ((numbers * 2**24).astype(np.int64) >> shift) & 255
            assert stats.chisquare(np.bincount(values, minlength=256)).pvalue > 1e-3


@pytest.mark.parametrize("device", ["GPU", "Ascend"])
def test_the_device_decides_which_numbers_are_drawn(monkeypatch, device):
    monkeypatch.setattr(backend.context, "get_context", lambda name: {"device_target": device}[name])
    monkeypatch.setattr(backend, "current", backend.current.__wrapped__)
    assert type(noise.source(1)) is {"GPU": noise.IntegerNoise, "Ascend": noise.FloatNoise}[device]


def test_same_key_same_bytes(source):
    for a, b in zip(source(1, 2).numbers(SHAPES, 3, 2), source(1, 2).numbers(SHAPES, 3, 2), strict=True):
        assert a.tobytes() == b.tobytes()


def test_every_part_of_the_key_changes_everything(source):
    keys = list(itertools.product((0, 1, 2), repeat=4))
    draws = [source(seed, rank).numbers(SHAPES, step, ascent) for seed, step, ascent, rank in keys]
    streams = np.stack([a.ravel() for d in draws for a in d[:2]])
    correlation = np.corrcoef(streams) - np.eye(len(streams))
    # 162 streams of 2000 numbers: the largest of 13,041 correlations stays within 5 standard deviations.
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)


def test_keys_of_neighbouring_words_share_no_numbers(source):
    """Sums, shifts and swaps of a key's words give other streams, and no stream is another one moved."""
    keys = [(1, 2, 3, 4), (2, 1, 3, 4), (1, 2, 4, 3), (1, 3, 2, 4), (0, 0, 0, 10), (2**32 - 1,) * 4]
    streams = [source(s, r).numbers([(4096,), (4096,)], step, ascent) for s, r, step, ascent in keys]
    arrays = [a for pair in streams for a in pair]
    for a, b in itertools.combinations(arrays, 2):
        correlation = np.fft.irfft(np.fft.rfft(a - 0.5) * np.conj(np.fft.rfft(b - 0.5))) * 12 / a.size
        assert np.abs(correlation).max() < 6 / np.sqrt(a.size)  # at any cyclic shift


def test_numbers_are_uniform(source):
    values = np.concatenate([a.ravel() for step in range(20) for a in source(1).numbers(SHAPES, step)[:2]])
    assert values.min() >= 0 and values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    assert abs(values.mean() - 0.5) < 5 * np.sqrt(1 / 12 / values.size)
    assert abs(values.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / values.size)
    pairs = np.histogram2d(values[:-1], values[1:], 16)[0]  # of successive numbers
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-3


def test_the_training_graph_uses_other_numbers_at_every_place(source):
    """Every dropout and gate of the model that trains draws at a place of its own, and its masks of several passes
    and steps are independent: mean, variance and correlations."""
    model = EncoderClassifier(TWO_LAYERS, 2, dropout=0.5, masked=True)
    words = [int(c.place_word.asnumpy()[0]) for _, c in model.cells_and_names() if hasattr(c, "place_word")]
    places = words + [c.place for _, c in model.cells_and_names() if isinstance(c, noise.DrawnUniform)]
    assert set(places) == set(range(len(model.noise_shapes(4, 8))))
    model = EncoderClassifier(ONE_LAYER, 2, dropout=0.5, masked=True)  # its graph takes half as long to compile
    model.load({name: np.ones(shape, np.float32) for name, shape in ONE_LAYER.parameters(2).items()})
    layers = [c for _, c in model.cells_and_names() if isinstance(c, MaskedLinear)]

    @ms.jit
    def masks(draws):
        return tuple(c.masked(c.weight, c.log_alpha, draws) for c in layers)

    shapes = model.noise_shapes(4, 8)
    passes = [masks(source(1).draw(shapes, step, ascent)) for step in range(2) for ascent in range(2)]
    streams = np.stack([m.asnumpy().ravel() for one in passes for m in one])
    expected = _mask_moments()
    assert np.abs(streams.mean(1) - expected[0]).max() < 5 * np.sqrt(expected[1] / streams.shape[1])
    correlation = np.corrcoef(streams) - np.eye(len(streams))
    assert np.abs(correlation).max() < 5.5 / np.sqrt(streams.shape[1])


def _mask_moments():
    """Mean and variance of Eq. 3 at log alpha = log 5, by quadrature over u."""
    u = (np.arange(1_000_000) + 0.5) / 1_000_000
    mask = np.clip(1.2 / (1 + ((1 - u) / u / 5) ** 1.5) - 0.1, 0, 1)
    return mask.mean(), mask.var()


def test_dropout_masks_of_the_model_are_independent(source):
    """Captured at three places and in two passes of one graph."""
    dropouts = [cells().Dropout(0.5, place) for place in (0, 2, 3)]
    ones = Tensor(np.ones((50, 60), np.float32))

    @ms.jit
    def drop(draws):
        return tuple(dropout(ones, draws) for dropout in dropouts)

    shapes = [(50, 60)] * 4
    streams = np.stack([d.asnumpy().ravel() for ascent in (0, 1) for d in drop(source(1).draw(shapes, 0, ascent))])
    correlation = np.corrcoef(streams) - np.eye(len(streams))
    assert np.abs(correlation).max() < 5 / np.sqrt(streams.shape[1])


def test_a_pass_repeats_itself_and_another_does_not(source):
    """FreeLB keeps its dropout mask: the same ascent number draws the same, on the whole model."""
    model = EncoderClassifier(ONE_LAYER, 2, dropout=0.3)
    model.load(normal_arrays(ONE_LAYER.parameters(2), 0.5))
    ids, mask, types = np.full((4, 8), 7, np.int32), np.ones((4, 8), np.float32), np.zeros((4, 8), np.int32)

    @ms.jit
    def logits(ids, mask, types, draws):
        return model(model.embed(ids), mask, types, draws)

    first, same, other = (
        logits(*map(Tensor, (ids, mask, types)), source(1).draw(model.noise_shapes(4, 8), 3, ascent)).asnumpy()
        for ascent in (0, 0, 1)
    )
    assert first.tobytes() == same.tobytes() and not np.allclose(first, other)


def test_dropout_keeps_the_asked_share_and_the_mean(source):
    cell, x = cells().Dropout(0.1, 0), Tensor(np.ones((200, 300), np.float32))
    out = cell(x, source(5).draw([(200, 300)], 0)).asnumpy()
    np.testing.assert_allclose(np.unique(out), [0, 1 / 0.9], rtol=1e-6)
    assert abs((out == 0).mean() - 0.1) < 5 * np.sqrt(0.09 / out.size)
    assert cell(x, None) is x


def test_noise_is_drawn_by_as_many_threads_as_cores_may_be_used():
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
    code += "from mindspore_rt.cells import noise; print(noise.THREADS._max_workers)"
    assert run_python(code).stdout.strip() == "1"
