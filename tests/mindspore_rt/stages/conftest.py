"""A run whose stages train nothing."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from configs.contract import schema
from configs.contract.files import write_json
from configs.contract.run_dir import RunDir
from mindspore_rt.formats import huggingface
from mindspore_rt.stages import classifier
from tests.helpers.prepared import write_summary
from tests.helpers.stages import Recorder

OVERRIDES = ["methods=[lth,robust,random,robust_no_initialization,robust_no_structure]", "sparsities=[0.25]"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """An experiment on a one-layer BERT of random weights, prepared, with a ticket to change."""
    config, random = schema.load("tiny", OVERRIDES), np.random.default_rng(0)
    raw = {
        "model_type": "bert",
        "vocab_size": 30,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 16,
        "type_vocab_size": 2,
    }
    model = tmp_path / "model"
    model.mkdir()
    write_json(model / "config.json", raw)
    shapes = huggingface.EncoderConfig.from_dict(raw, "test").parameters(2)
    save_file(
        {n: random.normal(0, 0.1, s).astype(np.float32) for n, s in shapes.items() if "classifier" not in n},
        model / "model.safetensors",
    )
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxy"]
    (model / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    config.model, config.layers = str(model), None
    run = RunDir(config, tmp_path / "runs")
    run.data.mkdir(parents=True)
    for split in ("train", "dev", "test"):
        run.split(split).write_text("{}\n")
    write_summary(run)
    run.recorder = Recorder()
    monkeypatch.setattr(classifier, "ClassifierTraining", run.recorder)
    return run
