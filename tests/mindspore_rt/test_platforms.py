"""Every graph that a GPU or an Ascend runs uses primitives that MindSpore has there, for those number types.

Neither device can be run here. What can be: compile that form on the CPU, dump its graphs, and look up each primitive
in MindSpore's own documentation: its 'Supported Platforms', and what it warns of.
"""

import functools
import importlib
import json
import pkgutil
import re

import mindspore
import mindspore.mint
import pytest

from tests.helpers.commands import run_python

BLOCKS = "RobustSearch(model(masked=True, block=(2, 4)), schema.MaskSearch(**two, max_norm=1.0), 10, 1, 'official')"
BUILD = {  # the device, the number of layers, and what makes a step
    "search": ("GPU", 2, BLOCKS),
    "two workers": ("GPU", 1, "RobustSearch(model(masked=True), schema.MaskSearch(**two), 10, 1)"),
    "InfoBERT": ("GPU", 1, "InfoBert(model(), schema.InfoBertTraining(**two), 10, 1)"),
    "two workers, mixed precision": (
        "GPU",
        1,
        "FreeLB(model(amp='float16'), schema.AdversarialTraining(**two), 10, 1, masks)",
    ),
    "Ascend": ("Ascend", 1, "RobustSearch(model(masked=True, amp='bfloat16'), schema.MaskSearch(**two), 10, 1)"),
    "evaluation": ("GPU", 2, "Evaluation(model(masked=True))"),
}
CODE = """
import json, os, sys
from pathlib import Path
from unittest.mock import patch
import numpy as np, mindspore as ms
from configs.contract.experiment import schema
from mindspore_rt import parallel
from mindspore_rt.cells import backend
from mindspore_rt.cells.encoder import EncoderClassifier
from mindspore_rt.cells.encoder_config import EncoderConfig
from mindspore_rt.data.batches import Batch
from mindspore_rt.training.infobert import InfoBert
from mindspore_rt.training.objectives import FreeLB, RobustSearch
from mindspore_rt.training.trainer import compile_logits

ms.set_device("CPU")
ms.set_context(mode=ms.GRAPH_MODE, jit_config={"jit_level": "O0"}, save_graphs=1)

def model(**options):
    return EncoderClassifier(config, 2, **options)

class Evaluation:
    def __init__(self, model):
        self.graph = compile_logits(model)

    def step(self, batch, index):
        self.graph(*batch.tensors()[:3])

ids, types = np.full((4, 8), 7, np.int32), np.zeros((4, 8), np.int32)
targets = np.eye(2, dtype=np.float32)[[0, 1, 1, 0]] / 4
batch = Batch(ids, np.ones((4, 8), np.float32), types, targets, np.arange(4))

two = {"ascent_steps": 2}
for name, (device, layers, build) in json.loads(sys.argv[1]).items():
    backend.current = lambda: backend.Backend(device)
    config = EncoderConfig(60, 16, layers, 2, 32, 16, 2)
    masks = {name: np.ones(shape, bool) for name, shape in config.prunable().items()}
    ms.set_context(save_graphs_path=str(Path(name).absolute()))
    workers = 2 if "workers" in name else 1
    os.environ["RANK_SIZE"] = str(workers)  # MindSpore takes the size of a group that nobody joined from here
    with patch.object(parallel, "ranks", lambda: workers), patch("mindspore.communication.init"):
        parallel.start()
        made = eval(build)
    try:
        made.step(batch, 0)
    except (RuntimeError, TypeError) as error:  # the CPU cannot run it, but its graph is compiled
        lacking = "AllReduce" if workers > 1 else "MatMul" if "bfloat16" in build else None
        if lacking is None or lacking not in str(error):
            raise
    ms.reset_auto_parallel_context()
"""

# Not operations of a device: structure of the graph, resolved by the compiler or the host.
STRUCTURE = {"MakeTuple", "TupleGetItem", "Load", "UpdateState", "Depend", "Return", "Partial", "StopGradient"}
# Documented nowhere, each with the reason why it is taken to be there.
REVIEWED = {
    "BiasAddGrad": "gradient of BiasAdd (Ascend GPU CPU)",
    "LayerNormGrad": "gradient of LayerNorm (Ascend GPU CPU)",
    "HSigmoidGrad": "gradient of HSigmoid (Ascend GPU CPU)",
    "LogSoftmaxGrad": "gradient of LogSoftmax (Ascend GPU CPU)",
    "Muls": "what tensor * number compiles to (Tensor.mul: Ascend GPU CPU)",
    "Divs": "what tensor / number compiles to in MindSpore 2.10 (Tensor.div: Ascend GPU CPU)",
    "StridedSliceGrad": "gradient of StridedSlice (Ascend GPU CPU)",
    "TensorMove": "copy that the compiler itself puts in front of an update in place",
    "SoftmaxBackward": "gradient of Softmax (Ascend GPU CPU)",
    "TanhGrad": "gradient of Tanh (Ascend GPU CPU)",
    "SoftplusGrad": "gradient of Softplus (Ascend GPU CPU)",
    "ReluGrad": "gradient of ReLU (Ascend GPU CPU)",
}


# What the documentation warns of, and why it does no harm here.
HARMLESS = {
    "Tile": "of two dimensions, on Ascend of at most four",
    "Transpose": "the permutation has no negative value, which Ascend would refuse",
}
PLATFORMS = re.compile(r"Supported Platforms:\s*\n\s*(.*)")
LIMIT = re.compile(r"\b(not|no|only|ignored?|differ\w*|inconsistent|unsupported|random)\b", re.I)
PRODUCTS = {"MatMul", "BatchMatMul", "Cast"}  # all that may see 16 bits


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """The graphs of each build as text, as the compiler hands them to the device."""
    folder = tmp_path_factory.mktemp("graphs")
    # Dumped after every pass of the compiler they would take longest. Nothing is launched: the other worker is made up,
    # and MindSpore 2.10 ends by SIGSEGV where it sums without one.
    environment = {"MS_DEV_DUMP_IR_PASSES": "validate", "MS_SIMULATION_LEVEL": "1", "GLOG_v": "3"}
    run_python(CODE, json.dumps(BUILD), folder=folder, **environment)
    return {name: [file.read_text() for file in (folder / name).rglob("*_validate_*.ir")] for name in BUILD}


def nodes_of(graph: str) -> list[tuple[str, set[str]]]:
    """Every primitive of a graph, with the number types of the tensors that it reads and writes."""
    nodes = re.findall(r"^\s*%\d+\([^\n]*?\) = (?:PrimFunc_)?([A-Za-z_]\w*)\([^\n]*\n\s*: ([^\n]*)", graph, re.M)
    return [(name, set(re.findall(r"Tensor\[(\w+)\]", types))) for name, types in nodes if name not in STRUCTURE]


def draws_noise(graph: str) -> bool:
    return bool(re.match(r"# IR entry: @\w*_draw_", graph))


def modules():
    operations = importlib.import_module("mindspore.ops.operations")
    inner = [f"{operations.__name__}.{m.name}" for m in pkgutil.iter_modules(operations.__path__)]
    names = [
        "mindspore.ops.auto_generate.gen_ops_prim",
        operations.__name__,
        *inner,
        "mindspore.ops",
        "mindspore.ops.auto_generate.gen_ops_def",
        "mindspore.mint",
        "mindspore.mint.nn.functional",
    ]
    return [importlib.import_module(name) for name in names]


@functools.cache
def documentation(primitive: str) -> str:
    """The documentation of a primitive, or of the function of its name, that names platforms; empty if none does."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", primitive).lower()
    for module in modules():
        for name in (primitive, snake, f"{snake}_ext"):
            text = getattr(getattr(module, name, None), "__doc__", None) or ""
            referred = re.search(r"Refer to :func:`mindspore\.([\w.]+)`", text)
            if referred:
                other = mindspore
                for part in referred.group(1).split("."):
                    other = getattr(other, part, None)
                text = getattr(other, "__doc__", None) or ""
            if PLATFORMS.search(text):
                return text
    return ""


def documented(primitive: str) -> set[str]:
    """Platforms that the documentation promises; empty if there is none."""
    platforms = PLATFORMS.search(documentation(primitive))
    return set(re.findall(r"\w+", platforms.group(1))) if platforms else set()


def warnings(primitive: str) -> list[str]:
    """Sentences of the documentation that name a device, and something that it does not do."""
    text = PLATFORMS.sub("", documentation(primitive)).partition("Examples:")[0]
    sentences = re.split(r"(?<=\.)\s|\n\s*\n|\n\s+- ", text)
    return [" ".join(s.split()) for s in sentences if re.search(r"Ascend|GPU|Atlas", s) and LIMIT.search(s)]


@pytest.mark.parametrize("build", BUILD)
def test_every_primitive_is_there_on_its_device(build, graphs):
    """Those of a pass on both devices, since both run the same; those of the noise on the device that draws it."""
    device = BUILD[build][0]
    for graph in graphs[build]:
        devices = {device} if draws_noise(graph) else {"GPU", "Ascend"}
        primitives = {name for name, _ in nodes_of(graph)}
        assert "Custom" not in primitives  # the fused kernels are for the CPU alone
        lacking = {p: documented(p) for p in primitives if p not in REVIEWED and not devices <= documented(p)}
        assert not lacking


@pytest.mark.parametrize("build", BUILD)
def test_every_primitive_is_given_numbers_that_its_device_has(build, graphs):
    device, _, code = BUILD[build]
    sixteen = {"BFloat16"} if "bfloat16" in code else {"Float16"} if "float16" in code else set()
    products = set()
    for graph in graphs[build]:
        for name, types in nodes_of(graph):
            assert "Float64" not in types, name
            assert not types & {"Float16", "BFloat16"} or (name in PRODUCTS and types <= sixteen | {"Float32"}), name
            if draws_noise(graph) and device == "Ascend":
                assert types == {"Float32"}, name
            products |= types if name == "MatMul" else set()
    assert products == (sixteen or {"Float32"})


@pytest.mark.parametrize("build", BUILD)
def test_several_workers_add_up_every_gradient_once_and_the_stop_request(build, graphs):
    """In float32, and all in the graph of the update. With one worker no graph adds up anything.

    The other worker is made up, so a step ends where the sum is to be computed; by then all its graphs are compiled.
    """
    sums = [[types for name, types in nodes_of(graph) if name == "AllReduce"] for graph in graphs[build]]
    # Weights: 3 embeddings, LayerNorm 2, a layer's 4 + 2 matrices with biases and its 2 LayerNorms, pooler, classifier.
    weights = 3 + 2 + 2 * 6 + 2 * 2 + 2 + 2
    expected = {"two workers": 7, "two workers, mixed precision": weights}.get(build)  # scores: the matrices but one
    assert [types for graph in sums for types in graph] == ([{"Float32"}] * (expected + 1) if expected else [])
    assert sum(map(bool, sums)) == bool(expected)


def test_a_primitive_of_which_the_documentation_warns_is_known(graphs):
    primitives = {name for build in graphs.values() for graph in build for name, _ in nodes_of(graph)}
    assert {"MatMul", "BatchMatMul", "LayerNorm", "AllReduce"} <= primitives
    assert {p: warnings(p) for p in primitives if warnings(p) and p not in HARMLESS} == {}


def test_the_look_ups_find_what_is_lacking():
    """They must be able to fail: they see primitives for CPU only, not documented, or with a warning."""
    assert documented("MatMul") >= {"GPU", "Ascend", "CPU"}
    assert not documented("NoSuchPrimitive")
    assert any("have no effect" in sentence for sentence in warnings("UniformReal"))
