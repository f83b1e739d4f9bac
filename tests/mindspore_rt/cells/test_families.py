"""Every family of encoders: parameters, logits and gradients against transformers, the dropouts of its head."""

import dataclasses

import numpy as np
import pytest
import torch
from mindspore import Tensor
from transformers import AutoModelForSequenceClassification

from configs.contract.basics.files import read_json
from configs.contract.inputs.families import FAMILIES
from mindspore_rt.cells import backend, noise
from mindspore_rt.cells.encoder import EncoderClassifier
from mindspore_rt.cells.encoder_config import EncoderConfig
from tests.helpers.models import normal_arrays
from tests.mindspore_rt.cells.test_encoder import compare
from torch_eval.bench.random_models import random_classifier

TEXTS = ["a fine film .", "dull , and far too long", "an utterly charming , funny and warm piece of work"]
SMALL = EncoderConfig(50, 32, 1, 4, 64, 16, 2)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory):
    """A random classifier of transformers, and the shape that its config.json states."""
    # Small ELECTRA models project their embeddings, which these cells do not; of one width they are as BERT's.
    sizes = {"embedding_size": 32} if request.param == "electra" else {}
    folder = random_classifier(tmp_path_factory.mktemp(request.param), request.param, TEXTS, **sizes)
    config = EncoderConfig.from_dict(read_json(folder / "config.json"), "config.json")
    return AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager"), config


def test_parameters_and_prunable_matrices_are_those_of_transformers(model):
    """Prunable is every linear layer of the body: the encoder's, and BERT's pooler, but no head that starts anew."""
    theirs, config = model
    shapes = {name: tuple(p.shape) for name, p in theirs.named_parameters()}
    assert config.parameters(2) == shapes
    body = theirs.base_model
    linear = {
        f"{config.family.body}.{name}.weight" for name, m in body.named_modules() if isinstance(m, torch.nn.Linear)
    }
    assert set(config.prunable()) == linear
    assert type(theirs).__name__ == config.family.architecture


@pytest.mark.parametrize(
    "model", ["electra", "roberta"], indirect=True
)  # BERT in test_encoder; the others are RoBERTas
def test_logits_and_gradients_agree_with_transformers(model):
    compare(*model)


def test_the_head_drops_its_input_unless_a_pooler_made_it():
    """The noise of each dropout has a place of its own; the masks' places follow."""
    for kind, family in FAMILIES.items():
        config = dataclasses.replace(SMALL, model_type=kind)
        cells = EncoderClassifier(config, 2, dropout=0.5, masked=True)
        random = np.random.default_rng(0)
        weights = normal_arrays(config.parameters(2), 0.3, random)
        cells.load(weights)
        for scores in cells.log_alpha():
            backend.put(scores, np.full(scores.shape, 20, np.float32))
        source, shapes, x = noise.source(4), cells.noise_shapes(3, 6), random.normal(size=(3, 32)).astype(np.float32)
        numbers = source.numbers(shapes, 0)[: -len(cells.log_alpha())][-1 if family.pooled else -2 :]
        drops = [np.float32(2) * (u >= 0.5).reshape(3, 32) for u in numbers]
        dense, bias, output, last = (torch.tensor(weights[name]) for name in family.head)
        expected = torch.tensor(x if family.pooled else x * drops[1]) @ dense.T + bias
        expected = {"tanh": torch.tanh, "gelu": torch.nn.functional.gelu}[family.activation](expected) * drops[0]
        logits = cells.classify(Tensor(x), source.draw(shapes, 0)).asnumpy()
        np.testing.assert_allclose(logits, (expected @ output.T + last).numpy(), atol=1e-5, err_msg=kind)
