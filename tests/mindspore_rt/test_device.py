"""The settings of the device reach MindSpore. No device is needed: the calls are recorded."""

import functools
import os
import re
import sys
import types
from pathlib import Path

import mindspore as ms
import pytest
from mindspore.common import api

from configs.contract.basics.errors import UserError
from configs.contract.experiment import schema
from mindspore_rt import device, launch, parallel
from mindspore_rt.cells import backend
from mindspore_rt.cells.encoder import EncoderConfig
from mindspore_rt.device import use_device
from mindspore_rt.formats import huggingface
from mindspore_rt.stages import classifier
from mindspore_rt.training import profiling

SET = ["set_device", "set_context", "set_deterministic", "runtime.set_memory"]
SET += ["device_context.gpu.op_precision.matmul_allow_tf32", "device_context.ascend.op_precision.matmul_allow_hf32"]


@pytest.fixture
def calls(monkeypatch):
    """Calls of MindSpore by name, with the arguments: all positional ones, then the values of the named ones."""
    calls = {}

    def record(name, *given, **named):
        calls[name] = [*given, *named.values()]

    for name in SET:
        folder, _, function = name.rpartition(".")
        where = sys.modules[".".join(filter(None, ["mindspore", folder]))]
        monkeypatch.setattr(where, function, functools.partial(record, function))
    return calls


def test_the_defaults_set_nothing_but_the_device(calls):
    use_device()
    assert calls == {"set_device": ["CPU", None], "set_context": [ms.GRAPH_MODE, {"jit_level": "O0"}]}


@pytest.mark.parametrize("target, precision", [("GPU", "matmul_allow_tf32"), ("Ascend", "matmul_allow_hf32")])
def test_settings_of_the_device_reach_mindspore(calls, target, precision):
    keys = ["device_id=3", "deterministic=true", "tf32=true", "device_memory=20", "jit_level=O1"]
    use_device(schema.load("tiny", [f"device={target}", *keys]))
    assert calls == {
        "set_device": [target, 3],
        "set_context": [ms.GRAPH_MODE, {"jit_level": "O1"}],
        "set_deterministic": [True],
        "set_memory": ["20GB"],
        precision: [True],
    }


def test_a_device_that_is_not_there_and_workers_that_do_not_meet_are_told_apart(calls, monkeypatch):
    def fail(*_):
        raise RuntimeError("connection refused\nmore")

    monkeypatch.setattr(parallel, "start", fail)
    monkeypatch.setenv("MS_SCHED_HOST", "10.0.0.1")
    monkeypatch.setenv("MS_SCHED_PORT", "29500")
    with pytest.raises(UserError, match="workers: .* did not meet at 10.0.0.1:29500; .* says: connection refused$"):
        use_device()
    monkeypatch.setattr(ms, "set_device", fail)
    with pytest.raises(UserError, match="device: CPU is not available here; .* says: connection refused$"):
        use_device()


def test_workers_take_the_devices_from_the_first_on(monkeypatch):
    config = schema.Experiment(workers=2, device_id=4)
    devices = []
    for role in launch._roles(config, 0)[1:]:
        for name, value in role.items():
            monkeypatch.setenv(name, value)
        devices.append(launch.device_id(config))
    assert devices == [4, 5]
    monkeypatch.delenv("DEVICE_ID")
    assert launch.device_id(schema.Experiment(workers=2)) is None  # the scheduler of msrun


def test_the_profiler_is_told_of_every_step(monkeypatch, tmp_path):
    calls = []

    class Recorder:
        def __init__(self, activities, schedule, on_trace_ready):
            calls.append([str(activity.value) for activity in activities])

        def __getattr__(self, name):
            return lambda: calls.append(name)

    monkeypatch.setattr(profiling, "profile", Recorder)
    with profiling.profiler(tmp_path, 2) as step:
        step()
    assert calls == [["CPU"], "start", "step", "stop"]
    with profiling.profiler(tmp_path, 0) as step:
        step()
    assert len(calls) == 4


@pytest.fixture
def bfloat16(calls, monkeypatch):
    """The configuration, on a machine that can."""
    monkeypatch.setattr(ms, "__version__", "2.10.0")
    monkeypatch.setattr(device, "_processor", lambda: {"avx2", "avx512_bf16"})
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "")
    return schema.load("tiny", ["amp_level=O1", "amp_dtype=bfloat16"])


def test_bfloat16_on_cpu_asks_onednn_and_casts_nothing(bfloat16, capsys):
    use_device(bfloat16)
    assert os.environ["ONEDNN_DEFAULT_FPMATH_MODE"] == "BF16"
    assert capsys.readouterr().out == "products: bfloat16 by avx512_bf16\n"
    source = huggingface.Model(EncoderConfig(50, 16, 1, 2, 32, 16, 2), {}, {}, Path())
    assert classifier.build(bfloat16, source, 2, bfloat16.finetune).amp is None


def test_bfloat16_on_cpu_needs_a_mindspore_that_can(bfloat16, monkeypatch):
    monkeypatch.setattr(ms, "__version__", "2.9.1")
    with pytest.raises(UserError, match="needs MindSpore 2.10.0, .*; this is 2.9.1"):
        use_device(bfloat16)


def test_bfloat16_on_cpu_needs_a_processor_that_can(bfloat16, monkeypatch):
    monkeypatch.setattr(device, "_processor", lambda: {"avx2", "avx512f"})
    with pytest.raises(UserError, match="amx_bf16 or avx512_bf16; this one has neither"):
        use_device(bfloat16)


def test_the_features_of_this_processor_are_read():
    assert device._processor() & {"sse2", "asimd"}


def test_graphs_are_compiled_at_the_level_that_was_set(monkeypatch):
    """`ms.jit` by itself asks for O0, whatever the context says. Read is what MindSpore's compiler gets."""
    levels = []

    class Executor:
        def __init__(self, executor):
            self.executor = executor

        def compile(self, *arguments):
            levels.append(arguments[-1]["jit_level"])
            return self.executor.compile(*arguments)

        def __getattr__(self, name):
            return getattr(self.executor, name)

    for name in ("GraphExecutor_", "JitExecutor_"):
        executor = Executor(getattr(api, name).get_instance())
        monkeypatch.setattr(api, name, types.SimpleNamespace(get_instance=lambda executor=executor: executor))
    for level in ("O1", "O0"):
        ms.set_context(jit_config={"jit_level": level})

        @backend.jit
        def double(x):
            return x * 2

        assert double(ms.Tensor([3.0])).asnumpy() == 6
    assert levels == ["O1", "O0"]


def test_all_graphs_are_compiled_by_the_one_function():
    sources = {path: path.read_text() for path in Path(device.__file__).parent.rglob("*.py")}
    makers = [path.name for path, text in sources.items() if re.search(r"\bjit\(|@(ms|mindspore)\.jit", text)]
    assert makers == ["backend.py"]
