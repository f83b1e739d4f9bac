"""The form of every training step that a GPU or an Ascend runs uses primitives that MindSpore has there.

Neither can be run here. What can be: compile that form on the CPU, dump its graphs, and look up each primitive in
the 'Supported Platforms' of MindSpore's own documentation.
"""

import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import mindspore
import mindspore.mint
import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = {
    "retraining": "FineTuning(model(), schema.Training(), 10, 1, masks)",  # fine-tuning, and masks
    "search": "RobustSearch(model(masked=True), schema.Search(ascent_steps=2, max_norm=1.0), 10, 1)",
    "search by blocks": "RobustSearch(model(masked=True, block=(2, 4)), schema.Search(ascent_steps=2), 10, 1)",
    "official search": "RobustSearch(model(masked=True), schema.Search(ascent_steps=2), 10, 1, 'official')",
    "FreeLB": "FreeLB(model(), schema.AdversarialTraining(ascent_steps=2), 10, 1, masks)",
    "InfoBERT": "InfoBert(model(), schema.InfoBertTraining(ascent_steps=2), 10, 1)",
    "mixed precision": "FineTuning(model(amp='float16'), schema.Training(), 10, 1)",
}
CODE = """
import json, sys
from pathlib import Path
import numpy as np, mindspore as ms
from configs.contract import schema
from mindspore_rt.cells import backend
from mindspore_rt.cells.bert import BertClassifier
from mindspore_rt.cells.bert_config import BertConfig
from mindspore_rt.data.batches import Batch
from mindspore_rt.training.infobert import InfoBert
from mindspore_rt.training.objectives import FineTuning, FreeLB, RobustSearch

ms.set_device("CPU")
ms.set_context(mode=ms.GRAPH_MODE, jit_config={"jit_level": "O0"}, save_graphs=1)
backend.current = lambda: backend.Backend.DEVICE
config = BertConfig(60, 16, 1, 2, 32, 16, 2)
masks = {name: np.ones(shape, bool) for name, shape in config.prunable().items()}

def model(**options):
    return BertClassifier(config, 2, **options)

ids, mask, types = np.full((4, 8), 7, np.int32), np.ones((4, 8), np.float32), np.zeros((4, 8), np.int32)
batch = Batch(ids, mask, types, np.eye(2, dtype=np.float32)[[0, 1, 1, 0]] / 4, np.arange(4))
for name, build in json.loads(sys.argv[1]).items():
    ms.set_context(save_graphs_path=str(Path(name).absolute()))
    eval(build).step(batch, 1)
"""

# Not operations of a device: structure of the graph, resolved by the compiler or the host.
STRUCTURE = {"MakeTuple", "TupleGetItem", "Load", "UpdateState", "Depend", "Return", "Partial", "StopGradient"}
# Documented nowhere, each with the reason why it is taken to be there.
REVIEWED = {
    "HSigmoidGrad": "gradient of HSigmoid (Ascend GPU CPU)",
    "LogSoftmaxGrad": "gradient of LogSoftmax (Ascend GPU CPU)",
    "Muls": "what tensor * number compiles to (Tensor.mul: Ascend GPU CPU)",
    "StridedSliceGrad": "gradient of StridedSlice (Ascend GPU CPU)",
    "TensorMove": "copy that the compiler itself puts in front of an update in place",
    "SoftmaxBackward": "gradient of Softmax (Ascend GPU CPU)",
    "TanhGrad": "gradient of Tanh (Ascend GPU CPU)",
    "SoftplusGrad": "gradient of Softplus (Ascend GPU CPU)",
    "ReluGrad": "gradient of ReLU (Ascend GPU CPU)",
}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """The graphs of one step of each objective, as text, as the compiler hands them to the device."""
    folder = tmp_path_factory.mktemp("graphs")
    # Without the last variable the graphs are dumped after every pass of the compiler, which takes longest.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOG_v": "3", "MS_DEV_DUMP_IR_PASSES": "validate"}
    command = [sys.executable, "-c", CODE, json.dumps(BUILD)]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return {name: "\n".join(file.read_text() for file in (folder / name).rglob("*_validate_*.ir")) for name in BUILD}


def primitives_of(graphs: str) -> list[str]:
    primitives = set(re.findall(r"^\s*%\d+\([^\n]*?\) = (?:PrimFunc_)?([A-Za-z_]\w*)\(", graphs, re.M))
    assert {"MatMul", "BatchMatMul"} <= primitives
    return sorted(primitives - STRUCTURE)


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


def documented(primitive: str) -> set[str]:
    """Platforms that the documentation of a primitive, or of the function of its name, promises; empty if none."""
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
            platforms = re.search(r"Supported Platforms:\s*\n\s*(.*)", text)
            if platforms:
                return set(re.findall(r"\w+", platforms.group(1)))
    return set()


@pytest.mark.parametrize("build", BUILD)
def test_every_primitive_of_a_step_is_there_on_gpu_and_ascend(build, graphs):
    primitives = primitives_of(graphs[build])
    assert "Custom" not in primitives  # the fused kernels are for the CPU alone
    assert "UniformReal" in primitives  # noise comes from the device
    lacking = {p: documented(p) for p in primitives if p not in REVIEWED and not {"GPU", "Ascend"} <= documented(p)}
    assert not lacking


def test_the_look_up_finds_what_is_lacking():
    """The look-up must be able to fail: it sees primitives that are for CPU only, or not documented."""
    assert documented("MatMul") >= {"GPU", "Ascend", "CPU"}
    assert not documented("NoSuchPrimitive")
