"""What a step asks of a device: the reference's counts against closed forms, and the arithmetic of the bounds."""

import pytest
import torch

from configs.contract.basics.bench_case import StepCase
from configs.contract.basics.errors import UserError
from torch_eval.bench import device_bound, torch_counts


def test_operations_bytes_and_multiplications_of_pytorch():
    a, b = torch.ones(3, 4), torch.ones(4, 5)
    with torch_counts.Counter() as counter:
        (a @ b).t().reshape(-1).add_(1)  # the transpose is a view, the reshape copies
    copied = 2 * 4 * 15
    assert counter.counts == {
        "primitives": 3,
        "bytes": 4 * (12 + 20 + 15) + copied + copied,
        "product_bytes": 4 * (12 + 20 + 15),
        "multiplications": 3 * 4 * 5,
    }


def test_a_fine_tuning_step_of_transformers_multiplies_what_the_closed_form_says():
    batch, length, hidden, layers = 3, 7, 24, 2
    case = StepCase("finetune", layers=layers, hidden=hidden, heads=2, batch=batch, length=length, vocabulary=60)
    counts = torch_counts.count(case, "transformers")
    tokens = batch * length
    forward = layers * tokens * (12 * hidden**2 + 2 * length * hidden) + batch * (hidden**2 + 2 * hidden)
    assert counts["multiplications"] == 3 * forward


def test_bounds():
    device = device_bound.Device("test", bandwidth=100.0, float32=10.0, float16=1000.0, source="")
    counts = {"bytes": 1000.0, "product_bytes": 400.0, "multiplications": 90.0}
    assert device_bound.seconds(counts, device) == pytest.approx(6 + 9)
    assert device_bound.seconds(counts, device, float16=True) == pytest.approx(6 + 4)
    few, more = {"bytes": 10.0, "none": 0.0}, {"bytes": 30.0, "none": 0.0}
    assert device_bound.extrapolate(few, more, 12) == {"bytes": 110.0, "none": 0.0}
    assert device_bound.largest_error({"bytes": 11.0, "none": 0.0}, few) == pytest.approx(0.1)
    with pytest.raises(UserError, match="bench device: layers: 1 is out of range, allowed is 2 or more"):
        device_bound.main(["layers=1"])


def test_the_table_has_every_step_of_both_sides(monkeypatch, capsys):
    def counted(module, case, variant):
        counts = dict.fromkeys(device_bound.COUNTS, 1e9 * case.layers)
        if variant == "GPU":
            names = ["draw", "one_pass", "apply"] if case.task in ("search", "freelb") else ["draw", "step"]
            return {"parameters": 1e9, "graphs": [{"name": name, **counts} for name in names]}
        return counts

    monkeypatch.setattr(device_bound, "_worker", counted)
    assert device_bound.main([]) == 0
    output = capsys.readouterr().out
    titles = [line.split("|")[1].strip() for line in output.splitlines() if line.startswith("| ")][2:]
    assert titles == [
        "fine-tuning",
        "fine-tuning, PyTorch (transformers)",
        "search, pass",
        "search, update",
        "search, PyTorch (official), pass and update",
        "FreeLB, pass",
        "FreeLB, update",
        "retraining",
        "retraining, PyTorch (official)",
    ]
    assert "| search, pass | 24,000,000,000 | 24.0 | 100% |" in output and "off by at most 0.0e+00" in output
