"""A run whose stages train nothing."""

import pytest

from configs.contract.experiment import schema
from configs.contract.run.run_dir import RunDir
from mindspore_rt.stages import classifier
from tests.helpers.models import ONE_LAYER, write_encoder
from tests.helpers.prepared import write_summary
from tests.helpers.stages import Recorder

OVERRIDES = ["methods=[lth,robust,random,robust_no_initialization,robust_no_structure]", "sparsities=[0.25]"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """An experiment on a one-layer BERT of random weights, prepared, with a ticket to change."""
    config, model = schema.load("tiny", OVERRIDES), tmp_path / "model"
    write_encoder(model, ONE_LAYER, labels=None)
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
