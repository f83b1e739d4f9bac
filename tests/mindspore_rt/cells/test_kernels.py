"""The fused kernels against float64 PyTorch with the same noise, how they are compiled, and exact repetition."""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor

from configs.contract.inputs import assets
from mindspore_rt.cells import backend, encoder, kernel_cells, kernels, noise
from mindspore_rt.cells.backend import Backend
from tests.helpers.commands import run_python

KEY = {"seed": 3, "rank": 1, "step": 20, "ascent": 2}
PLACE, RATE = 5, 0.3
RANDOM = np.random.default_rng(0)

pytestmark = pytest.mark.skipif(not kernels.library(), reason="no kernels: no compiler, or switched off")


def array(*shape, scale=1.0):
    return (RANDOM.normal(size=shape) * scale).astype(np.float32)


def draws():
    return noise.KernelNoise(KEY["seed"], KEY["rank"]).draw([], KEY["step"], KEY["ascent"])


def dropout_factors(shape):
    """Factors of inverted dropout, float64."""
    return torch.tensor((kernels.uniform(**KEY, place=PLACE, shape=shape) >= np.float32(RATE)) / (1 - RATE))


def compare(cell, reference, arrays, constants=(), tolerance=2e-6):
    """Output and all gradients of sum(output * weights), cell(*tensors, *constants) against reference(*float64)."""
    inputs = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
    expected = reference(*inputs)
    weights = array(*expected.shape)
    (expected * torch.tensor(weights)).sum().backward()

    def loss(w, *tensors):
        out = cell(*tensors, *constants)
        return (out * w).sum(), out

    function = ms.value_and_grad(loss, tuple(range(1, 1 + len(arrays))), has_aux=True)

    @ms.jit
    def graph(w, *tensors):
        return function(w, *tensors)

    (_, out), gradients = graph(Tensor(weights), *map(Tensor, arrays))
    np.testing.assert_allclose(out.asnumpy(), expected.detach(), atol=tolerance, rtol=tolerance)
    if len(inputs) == 1:
        gradients = [gradients]
    for gradient, x in zip(gradients, inputs, strict=True):
        error = np.linalg.norm(gradient.asnumpy() - x.grad.numpy()) / np.linalg.norm(x.grad.numpy())
        assert error <= 1e-5


@pytest.fixture(params=[Backend.KERNELS, Backend.PRIMITIVES, Backend.GPU], ids=lambda form: form.value)
def cells(request, monkeypatch):
    """The module of the parts: kernels, or primitives in the form of CPUs or of devices."""
    monkeypatch.setattr(backend, "current", lambda: request.param)
    return encoder.cells()


def test_bias(cells):
    compare(cells.AddBias(), lambda x, bias: x + bias, [array(70, 37), array(37)])


def test_split_heads(cells):
    def split(x):
        return x.reshape(3, 7, 4, 5).transpose(1, 2)

    compare(cells.SplitHeads(4), split, [array(21, 20)], [Tensor(array(3, 2))])


def test_join_heads(cells):
    compare(cells.JoinHeads(), lambda x: x.transpose(1, 2).reshape(21, 20), [array(3, 4, 7, 5)])


def test_moving_heads_keeps_no_memory(cells):
    """MindSpore's Transpose for the CPU keeps two to four times the data for each cell. The form of devices has it, and
    shows that this would be seen."""
    places = [cells.SplitHeads(4) for _ in range(4)]

    @ms.jit
    def sums(x, padding):
        return [place(x * i, padding).sum() for i, place in enumerate(places, 1)]

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    x, padding = Tensor(np.ones((2**14, 256), np.float32)), Tensor(np.ones((8, 1), np.float32))
    before = resident()
    assert [round(float(part.asnumpy()) / 2**22) for part in sums(x, padding)] == [1, 2, 3, 4]
    added = (resident() - before) / x.nbytes
    # 4 at once in passing; with Transpose 12 or more.
    assert added > 6 if backend.on_device() else added < 6, added


def test_gelu():
    x = np.concatenate([array(300), np.linspace(-12, 12, 4500, dtype=np.float32)])
    compare(kernel_cells.Gelu(), torch.nn.functional.gelu, [x])


@pytest.mark.parametrize("rate", [0.0, RATE])
@pytest.mark.parametrize("hidden", [48, 37])
def test_add_norm(rate, hidden):
    class Cell(ms.nn.Cell):
        def __init__(self):
            super().__init__(auto_prefix=False)
            self.part = kernel_cells._AddNorm(1e-12, rate, PLACE)

        def construct(self, x, residual, weight, bias, key):
            return self.part(x, residual, weight, bias, key)[0]

    def reference(x, residual, weight, bias):
        z = x * (dropout_factors(x.shape) if rate else 1) + residual
        return torch.nn.functional.layer_norm(z, (hidden,), weight, bias, 1e-12)

    compare(Cell(), reference, [array(70, hidden), array(70, hidden), array(hidden), array(hidden)], [draws()])


def test_the_norm_without_noise_is_the_plain_layer_norm():
    cell = kernel_cells.AddNorm(48, 1e-12, "norm", RATE, PLACE)

    def reference(x, residual):
        return torch.nn.functional.layer_norm(x + residual, (48,), eps=1e-12)

    compare(cell, reference, [array(9, 48), array(9, 48)], [None])


@pytest.mark.parametrize("rate", [0.0, RATE])
def test_attention_probabilities(rate):
    scores, padding = array(3, 4, 21, 21, scale=3), np.zeros((3, 21), np.float32)
    padding[1, 9:] = -10000.0
    cell = kernel_cells.AttentionProbabilities(0.25, rate, PLACE)

    def reference(scores):
        share = torch.softmax(scores * 0.25 + torch.tensor(padding)[:, None, None, :], -1)
        return share * dropout_factors(scores.shape) if rate else share

    compare(cell, reference, [scores], [Tensor(padding), draws()])
    out = cell(Tensor(scores), Tensor(padding), draws()).asnumpy()
    assert (out[1, :, :, 9:] == 0).all()  # padding takes no share at all


def test_dropout():
    compare(kernel_cells.Dropout(RATE, PLACE), lambda x: x * dropout_factors(x.shape), [array(31, 211)], [draws()])


def torch_masked(weight, s):
    return weight * torch.clamp(s * 1.2 - 0.1, 0, 1)


def test_masked_weight_with_noise():
    """Gradients of weight and score; entries on an edge of the clamp may stand on either side of it in float32."""
    weight, log_alpha = array(90, 70), array(90, 70, scale=3)
    u = torch.tensor(kernels.uniform(**KEY, place=PLACE, shape=weight.shape)).double().clamp(1e-4, 1 - 1e-4)
    z = (u.log() - (1 - u).log() + torch.tensor(log_alpha)) * 1.5
    edge = (torch.sigmoid(z) * 1.2 - 0.1 - torch.tensor([[[0.0]], [[1.0]]])).abs().amin(0) < 1e-5
    log_alpha[edge.numpy()] += 1.0

    def reference(weight, log_alpha):
        return torch_masked(weight, torch.sigmoid((u.log() - (1 - u).log() + log_alpha) / (2 / 3)))

    compare(kernel_cells.MaskedWeight(PLACE), reference, [weight, log_alpha], [draws()])


def test_masked_weight_without_noise():
    compare(
        kernel_cells.MaskedWeight(PLACE),
        lambda w, a: torch_masked(w, torch.sigmoid(a)),
        [array(90, 70), array(90, 70, scale=3)],
        [None],
    )


def test_uniform_numbers_are_those_of_the_restatement():
    cell = noise.KernelUniform(PLACE)
    numbers = cell(draws(), Tensor(np.zeros((123, 45), np.float32))).asnumpy()
    assert numbers.tobytes() == kernels.uniform(**KEY, place=PLACE, shape=(123, 45)).tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stays_visible(bad):
    x = np.ones((4, 16), np.float32)
    x[1, 3] = bad
    tensor, zeros = Tensor(x), Tensor(np.zeros((4, 16), np.float32))
    norm = kernel_cells.AddNorm(16, 1e-12, "norm", RATE, PLACE)
    scores = Tensor(np.full((1, 1, 4, 4), bad, np.float32))
    assert not np.isfinite(kernel_cells.Gelu()(tensor).asnumpy()).all()
    assert not np.isfinite(norm(tensor, zeros, None).asnumpy()).all()
    assert not np.isfinite(
        kernel_cells.AttentionProbabilities(1.0, 0.0, 0)(scores, zeros[:1, :4], None).asnumpy()
    ).all()
    if np.isnan(bad):
        assert np.isnan(kernel_cells.MaskedWeight(0)(zeros + 1, tensor, draws()).asnumpy()).any()
        assert np.isnan(kernel_cells.MaskedWeight(0)(zeros + 1, tensor, None).asnumpy()).any()


BYTES = """
import hashlib, numpy as np, mindspore as ms
from configs.contract.experiment import schema
from mindspore_rt.cells import backend
from mindspore_rt.cells.encoder import EncoderClassifier
from mindspore_rt.cells.encoder_config import EncoderConfig
from mindspore_rt.data.batches import Batch
from mindspore_rt.training.objectives import FineTuning, RobustSearch
ms.set_device("CPU")
ms.set_context(mode=ms.GRAPH_MODE, jit_config={"jit_level": "O0"})
config = EncoderConfig(60, 96, 1, 4, 160, 16, 2)
for path, searches in ((backend.current(), (True, False)), (backend.Backend.PRIMITIVES, (True,))):
    backend.current = lambda: path
    random, digest = np.random.default_rng(0), hashlib.sha256()
    for masked in searches:
        model = EncoderClassifier(config, 2, masked=masked)
        model.load({n: random.normal(0, 0.3, s).astype(np.float32) for n, s in config.parameters(2).items()})
        batch = Batch(random.integers(5, 60, (4, 16)).astype(np.int32), np.ones((4, 16), np.float32),
                      np.zeros((4, 16), np.int32), np.eye(2, dtype=np.float32)[[0, 1, 1, 0]] / 4, np.arange(4))
        settings = schema.MaskSearch(ascent_steps=2) if masked else schema.Training()
        objective = (RobustSearch if masked else FineTuning)(model, settings, 10, 1)
        for step in range(3):
            digest.update(repr(objective.step(batch, step)).encode())
        for parameter in objective.state().values():
            digest.update(parameter.asnumpy().tobytes())
    print(path.value, digest.hexdigest())
"""


def test_steps_repeat_byte_for_byte_in_another_process_with_other_threads():
    """Those of a search and of a fine-tuning with kernels, and those of a search with primitives."""
    results = []
    for threads in "14":
        result = run_python(BYTES, GLOG_v="3", OMP_NUM_THREADS=threads)
        first, *digests = result.stdout.strip().splitlines()
        assert first.startswith("kernels: fused")
        results.append([line.split() for line in digests])
    assert results[0] == results[1]
    (kernels, by_kernels), (primitives, by_primitives) = results[0]
    assert (kernels, primitives) == ("kernels", "primitives") and by_kernels != by_primitives


@pytest.mark.parametrize(
    "environment, reason",
    [
        ({"CXX": "no-such-compiler"}, "no C++ compiler: none of no-such-compiler found"),
        ({"CXX": "false"}, "exit status 1"),
        ({"ROBUST_TICKETS_KERNELS": "plain"}, "ROBUST_TICKETS_KERNELS=plain"),
    ],
)
def test_without_a_compiler_plain_primitives_stand_in(monkeypatch, tmp_path, capsys, environment, reason):
    """Which is said once."""
    monkeypatch.setattr(assets, "CACHE", tmp_path)
    monkeypatch.setattr(kernels, "library", functools.cache(kernels.library.__wrapped__))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert [backend.current.__wrapped__() for _ in range(2)] == [Backend.PRIMITIVES] * 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("kernels: plain primitives (") and reason in line
    assert not list(tmp_path.rglob("*.so"))


def test_two_that_compile_at_once_both_get_a_whole_library(monkeypatch, tmp_path):
    source = tmp_path / "kernels.cc"
    source.write_text("int one() { return 1; }")  # ours takes seconds, twice
    monkeypatch.setattr(kernels, "SOURCE", source)
    monkeypatch.setattr(assets, "CACHE", tmp_path / "a b")
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: kernels._build(*kernels._compiler()), range(2))
    assert first == second and list((tmp_path / "a b" / "kernels").iterdir()) == [first]


def test_a_library_is_named_after_source_compiler_and_processor(monkeypatch, tmp_path):
    monkeypatch.setattr(assets, "CACHE", tmp_path)
    monkeypatch.setattr(kernels, "_run", lambda command: Path(command[-1]).write_bytes(command[0].encode()) and "")
    monkeypatch.setattr(kernels.ctypes, "CDLL", lambda path: None)
    source = tmp_path / "kernels.cc"
    source.write_text("one")
    monkeypatch.setattr(kernels, "SOURCE", source)
    monkeypatch.setattr(kernels, "_processor", lambda: "one")
    paths = [kernels._build("g++", "version one"), kernels._build("g++", "version two")]
    monkeypatch.setattr(kernels, "_processor", lambda: "two")
    paths.append(kernels._build("g++", "version one"))
    source.write_text("two")
    paths.append(kernels._build("g++", "version one"))
    assert len(set(paths)) == 4 and all(path.is_file() for path in paths)
