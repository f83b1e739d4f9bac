"""Small random models, written without a framework, and the arrays that they are made of."""

import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from configs.contract.basics.files import write_json
from mindspore_rt.cells.encoder_config import EncoderConfig

# The configuration of a BERT of one layer.
ONE_LAYER = {
    "model_type": "bert",
    "vocab_size": 30,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}


def normal_arrays(
    shapes: dict[str, tuple[int, ...]], scale: float = 1.0, random: int | np.random.Generator = 0, mean: float = 0.0
) -> dict[str, np.ndarray]:
    """Normal numbers in float32, an array for each shape; `random` is a seed, or the generator to continue."""
    draw = np.random.default_rng(random)
    return {name: draw.normal(mean, scale, shape).astype(np.float32) for name, shape in shapes.items()}


def write_encoder(folder: Path, config: dict, labels: int | None = 2) -> dict[str, np.ndarray]:
    """Write an encoder of random weights, with a classifier unless `labels` is None; returns its weights."""
    write_json(folder / "config.json", config)
    weights = normal_arrays(EncoderConfig.from_dict(config, "test").parameters(labels or 2), 0.1)
    if labels is None:
        weights = {name: value for name, value in weights.items() if not name.startswith("classifier")}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return weights


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the files of a model's tokenizer."""
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copyfile(source / name, folder / name)


def assert_same_arrays(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """The same names, number types and bytes."""
    assert set(actual) == set(expected)
    for name, value in expected.items():
        assert (actual[name].dtype, actual[name].shape) == (value.dtype, value.shape), name
        assert actual[name].tobytes() == value.tobytes(), name
