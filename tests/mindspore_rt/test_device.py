"""The settings of the device reach MindSpore. No device is needed: the calls are recorded."""

import functools
import sys

import mindspore as ms
import pytest

from configs.contract import schema
from mindspore_rt import launch
from mindspore_rt.device import use_device
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


@pytest.mark.parametrize("device, precision", [("GPU", "matmul_allow_tf32"), ("Ascend", "matmul_allow_hf32")])
def test_settings_of_the_device_reach_mindspore(calls, device, precision):
    keys = ["device_id=3", "deterministic=true", "tf32=true", "device_memory=20", "jit_level=O1"]
    use_device(schema.load("tiny", [f"device={device}", *keys]))
    assert calls == {
        "set_device": [device, 3],
        "set_context": [ms.GRAPH_MODE, {"jit_level": "O1"}],
        "set_deterministic": [True],
        "set_memory": ["20GB"],
        precision: [True],
    }


def test_workers_take_the_devices_from_the_first_on(monkeypatch):
    config = schema.Experiment(workers=2, device_id=4)
    devices = []
    for role in launch._roles(config, 0)[1:]:
        for name, value in {**role, "ROBUST_TICKETS_RUN": "1"}.items():
            monkeypatch.setenv(name, value)
        devices.append(launch.device_id(config))
    assert devices == [4, 5]
    monkeypatch.delenv("ROBUST_TICKETS_RUN")
    assert launch.device_id(schema.Experiment(workers=2)) is None  # under msrun, which MindSpore gives its devices


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
