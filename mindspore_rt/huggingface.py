"""Hugging Face directories: read any BERT, write classifiers that plain transformers loads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import load_file, save

from configs import assets
from configs.errors import UserError
from configs.run_dir import ROOT, atomic_write, read_json
from mindspore_rt import noise
from mindspore_rt.bert import BertConfig

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
INITIALIZER_RANGE = 0.02


def resolve(model: str) -> Path:
    """The directory of `packaged`, a local directory, or a hub name (downloaded on first use)."""
    if model == "packaged":
        return assets.path("minilm")
    if Path(model).is_dir():
        return Path(model)
    if Path(model).is_absolute() or model.startswith("."):
        raise UserError(f"model: no directory {model}")
    from mindspore_rt import hub

    return hub.model_dir(model)


@dataclass
class Model:
    """A model on disk: its shape, its `config.json`, its weights (float32) and where it came from."""

    config: BertConfig
    raw: dict
    weights: dict[str, np.ndarray]
    directory: Path


def load(directory: Path, layers: int | None = None) -> Model:
    """Read a BERT directory, keeping only the first `layers` if given.

    Weight names may carry the `bert.` prefix or not. Raises `UserError` naming the file and the weight
    for anything that is not a whole BERT.
    """
    raw = read_json(directory / "config.json")
    config = BertConfig.from_dict(raw, str(directory / "config.json"))
    if layers is not None:
        if layers > config.num_hidden_layers:
            raise UserError(f"layers: {layers} asked, {directory} has {config.num_hidden_layers}")
        raw = {**raw, "num_hidden_layers": layers}
        config = replace(config, num_hidden_layers=layers)
    found = _read_weights(directory)
    weights = {}
    for name, shape in config.parameters(labels=1).items():
        value = found.get(name, found.get(name.removeprefix("bert.")))
        if name.startswith("classifier."):
            if value is not None:
                weights[name] = np.asarray(value, np.float32)
            continue
        if value is None:
            raise UserError(f"{directory}: weight {name} is missing")
        if value.shape != shape:
            raise UserError(f"{directory}: {name} is {list(value.shape)}, config.json says {list(shape)}")
        if not np.isfinite(value).all():
            raise UserError(f"{directory}: {name} holds values that are not finite")
        weights[name] = np.asarray(value, np.float32)
    return Model(config, raw, weights, directory)


def _read_weights(directory: Path) -> dict[str, np.ndarray]:
    path = directory / "model.safetensors"
    if not path.is_file():
        pickled = directory / "pytorch_model.bin"
        if not pickled.is_file():
            raise UserError(f"{directory}: neither model.safetensors nor pytorch_model.bin is there")
        # Unpickling is the torch half's business: it loads weights only, and leaves safetensors.
        with tempfile.TemporaryDirectory() as temporary:
            target = Path(temporary) / "model.safetensors"
            command = [sys.executable, "-m", "torch_eval.weights", str(pickled.resolve()), str(target)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                raise UserError(f"{pickled}: {(done.stderr.strip().splitlines() or ['cannot be read'])[-1]}")
            return _read_safetensors(target)
    return _read_safetensors(path)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (safetensors.SafetensorError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a whole safetensors file of float weights ({error})") from None


def with_classifier(model: Model, labels: int, seed: int) -> dict[str, np.ndarray]:
    """The pre-trained weights and a fresh classifier, drawn as BERT's: normal(0, 0.02), bias 0."""
    draw = noise.generator(seed, noise.INITIAL).standard_normal((labels, model.config.hidden_size), np.float32)
    return {
        **model.weights,
        "classifier.weight": draw * np.float32(INITIALIZER_RANGE),
        "classifier.bias": np.zeros(labels, np.float32),
    }


def save_classifier(target: Path, model: Model, weights: dict[str, np.ndarray], labels: list[str], max_length: int):
    """Write a directory that `AutoModelForSequenceClassification.from_pretrained` loads.

    The directory appears whole or not at all. Pruned weights stand in it as exact zeros.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        config = {
            **model.raw,
            "architectures": ["BertForSequenceClassification"],
            "id2label": {str(i): name for i, name in enumerate(labels)},
            "label2id": {name: i for i, name in enumerate(labels)},
            "torch_dtype": "float32",
        }
        config.pop("_name_or_path", None)
        atomic_write(temporary / "config.json", json.dumps(config, indent=2) + "\n")
        atomic_write(temporary / "model.safetensors", save(weights, metadata={"format": "pt"}))
        for name in TOKENIZER_FILES:
            if (model.directory / name).is_file():
                shutil.copyfile(model.directory / name, temporary / name)
        tokenizer = temporary / "tokenizer_config.json"
        settings = read_json(tokenizer) if tokenizer.is_file() else {}
        # What the model was trained with is what an attack must use.
        atomic_write(tokenizer, json.dumps({**settings, "model_max_length": max_length}, indent=2) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
