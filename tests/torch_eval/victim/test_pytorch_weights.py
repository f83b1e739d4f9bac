"""PyTorch weight files to safetensors and back, bit for bit."""

import pytest
import torch
from safetensors.torch import load_file

from torch_eval.victim import pytorch_weights


def convert(*paths):
    return pytorch_weights.main(*map(str, paths))


def tensors():
    torch.manual_seed(0)
    base = torch.randn(6, 4)
    others = {"half": torch.randn(3).half(), "ids": torch.arange(3)}
    return {"a.weight": base, "a.view": base[::2, 1:], "tied": base, **others}


def test_there_and_back(tmp_path):
    """Views and shared storage, which safetensors refuses as they are, come out whole."""
    torch.save(tensors(), tmp_path / "a.bin")
    assert convert(tmp_path / "a.bin", tmp_path / "b.safetensors") == 0
    assert convert(tmp_path / "b.safetensors", tmp_path / "c.bin") == 0
    for weights in (load_file(tmp_path / "b.safetensors"), torch.load(tmp_path / "c.bin", weights_only=True)):
        assert set(weights) == set(tensors())
        for name, value in tensors().items():
            assert weights[name].dtype == value.dtype and torch.equal(weights[name], value)


def test_the_format_before_zip_files(tmp_path):
    torch.save(tensors(), tmp_path / "a.bin", _use_new_zipfile_serialization=False)
    assert convert(tmp_path / "a.bin", tmp_path / "b.safetensors") == 0
    assert torch.equal(load_file(tmp_path / "b.safetensors")["tied"], tensors()["tied"])


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "module"])
def test_weights_beside_the_state_of_a_training(tmp_path, key):
    torch.save({"epoch": 1, key: tensors(), "optimizer": {"lr": 0.1}}, tmp_path / "a.bin")
    assert convert(tmp_path / "a.bin", tmp_path / "b.safetensors") == 0
    assert set(load_file(tmp_path / "b.safetensors")) == set(tensors())


def test_a_whole_model_is_refused_with_the_remedy(tmp_path, capsys):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.bin")
    assert convert(tmp_path / "a.bin", tmp_path / "b.safetensors") == 2
    message = capsys.readouterr().err
    assert "Unsupported global: GLOBAL torch.nn.modules.linear.Linear" in message and message.isascii()
    assert "torch.save(model.state_dict(), FILE)" in message and "\033" not in message


@pytest.mark.parametrize(
    "name, change",
    [
        ("w", torch.Tensor.to_sparse),
        ("w", lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8)),
        ("w", lambda w: w.to("meta")),
        (0, lambda w: w),
    ],
)
def test_weights_that_are_not_dense_are_refused(tmp_path, capsys, name, change):
    torch.save({name: change(torch.eye(2))}, tmp_path / "a.bin")
    assert convert(tmp_path / "a.bin", tmp_path / "b.safetensors") == 2
    assert f"a.bin: {name!r} is no name of a dense weight" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x02}.", b"PK\x03\x04"])
@pytest.mark.parametrize("source, target", [("a.bin", "b.safetensors"), ("a.safetensors", "b.bin")])
def test_broken_files(tmp_path, capsys, content, source, target):
    (tmp_path / source).write_bytes(content)
    assert convert(tmp_path / source, tmp_path / target) == 2
    assert source in capsys.readouterr().err and not (tmp_path / target).exists()
