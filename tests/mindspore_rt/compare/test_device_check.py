"""The check that a user runs on a GPU or an NPU, with the CPU in the place of the device."""

import dataclasses
import subprocess

import numpy as np
import pytest

from mindspore_rt.compare import device_check


def test_the_cpu_computes_what_the_form_of_a_device_computes(tmp_path, monkeypatch, capsys):
    """The fused kernels against the primitives of a GPU."""
    computed = []

    def run(_module, words, show):
        computed.append(dict(text.split("=", 1) for text in words)["side"])
        assert show and device_check.main(words) == 0

    monkeypatch.setattr(device_check, "run_module", run)
    monkeypatch.setattr(device_check, "timings", lambda case, seconds: iter([("finetune float32, median step", 0.1)]))
    monkeypatch.setattr(device_check, "COMPARED", dataclasses.replace(device_check.COMPARED, layers=1))
    monkeypatch.setattr(device_check, "overflowing_run", lambda case: {"loss_scale": 1024.0})
    out = tmp_path / "check.json"
    assert device_check.main(["device=CPU", "case=small", f"out={out}"]) == 0
    output = capsys.readouterr().out
    assert computed == ["device", "cpu"] and "all agrees" in output and out.is_file()
    assert output.count('"noise ') == 12 and '"update search"' in output


def test_what_is_no_rounding_is_told():
    ours = {"noise 0.0.1": np.float32([0.5, 0.25]), "logits search": np.float32([1.0, 2.0])}
    for name, change, wrong in (
        ("noise 0.0.1", 2**-24, True),
        ("logits search", 1e-5, False),
        ("logits search", 1, True),
    ):
        distances = device_check.compare({**ours, name: ours[name] + np.float32(change)}, ours)
        assert device_check.differing(distances) == [name] * wrong
    gradient = np.float32([1, 2, 0, 4])
    for edge, wrong in ((0, ["edges search"]), (3.001, [])):
        ours, reference = {"gradient search": np.float32([1, 2, 3, 4])}, {"gradient search": gradient + [0, 0, edge, 0]}
        assert device_check.differing(device_check.compare(ours, reference)) == wrong
    assert device_check.differing({"loss search": float("nan")}) == ["loss search"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("foo=1", "unknown key foo; known are device, seconds"),
        ("device", "write overrides as key=value"),
        ("device=XPU", "'XPU' is not one of CPU, GPU, Ascend"),
        ("seconds=x", "'x'"),
    ],
)
def test_wrong_options_are_refused_in_one_line(word, message, capsys):
    assert device_check.main([word]) == 2
    assert message in capsys.readouterr().err


def test_a_side_that_fails_says_why_in_one_line(monkeypatch, capsys):
    """As on a machine without the device."""
    stderr = "WARNING of MindSpore\nerror: device: GPU is not available here\n"
    failed = subprocess.CompletedProcess([], 2, stderr=stderr)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    assert device_check.main(["case=small"]) == 2
    assert capsys.readouterr().err == "error: device: GPU is not available here\n"
