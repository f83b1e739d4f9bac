"""mindnlp: its BERT as a reference on MindSpore itself, and its way to the hub.

It replaces the `torch` module of its process, so it always runs in one of its own.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from safetensors.numpy import load_file

from configs import assets
from configs.errors import UserError
from configs.run_dir import write_lines
from configs.tasks import TASKS
from mindspore_rt import data, hub, huggingface
from mindspore_rt.bert import BertClassifier

ROOT = Path(hub.__file__).resolve().parent.parent
TEXTS = ["a fine film", "dull", "an utterly charming , funny and warm piece of work", "it's the one , at 9 o'clock"]

REFERENCE = """
import sys
import numpy as np
import mindspore as ms
from mindnlp.transformers import AutoModelForSequenceClassification
import torch
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()
assert isinstance(model.classifier.weight, ms.Tensor), type(model.classifier.weight)
inputs = np.load(sys.argv[2])
tensors = {name: torch.tensor(inputs[name].astype(np.int64)) for name in inputs.files}
with torch.no_grad():
    pooled = model.bert(**tensors)[1]
    logits = model(**tensors)[0]
np.savez(sys.argv[3], pooled=pooled.asnumpy(), logits=logits.asnumpy(),
         weight=model.classifier.weight.asnumpy(), bias=model.classifier.bias.asnumpy())
"""


def python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )


def test_same_logits_as_mindnlp(packaged_model, tmp_path):
    """The packaged BERT on padded singles and pairs of texts: pooled output and logits to 1e-5."""
    texts = [*((t, "") for t in TEXTS), *zip(TEXTS, reversed(TEXTS))]
    tokenizer = data.load_tokenizer(packaged_model, 24)
    batch = data.Batches(texts, np.zeros(8, int), 2, tokenizer, 24, 8, seed=0).batch(np.arange(8))
    np.savez(
        tmp_path / "in.npz",
        input_ids=batch.ids, attention_mask=batch.attention_mask, token_type_ids=batch.token_types,
    )
    done = python("-c", REFERENCE, packaged_model, tmp_path / "in.npz", tmp_path / "out.npz")
    assert done.returncode == 0, done.stderr[-2000:]
    expected = np.load(tmp_path / "out.npz")

    # A classifier whose first outputs are the pooled ones, so that one pass gives both.
    source = huggingface.load(packaged_model)
    hidden = source.config.hidden_size
    cells = BertClassifier(source.config, hidden + 2)
    cells.load({
        **source.weights,
        "classifier.weight": np.concatenate([np.eye(hidden), expected["weight"]]),
        "classifier.bias": np.concatenate([np.zeros(hidden), expected["bias"]]),
    })

    @ms.jit
    def graph(ids, mask, types):
        return cells(cells.embed(ids), mask, types, None)

    found = graph(*(Tensor(a) for a in (batch.ids, batch.attention_mask, batch.token_types))).asnumpy()
    assert expected["pooled"].std(0).mean() > 0.01  # the rows differ, so mixed-up rows would show
    np.testing.assert_allclose(found[:, :hidden], expected["pooled"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(found[:, hidden:], expected["logits"], atol=1e-5, rtol=0)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and a hub that nobody answers for."""
    monkeypatch.setattr(assets, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "cache"


def test_hub_models_are_saved_as_directories_that_load(tiny_bert, cache):
    """mindnlp's download, with a local directory for the hub, in a process of its own as in a run."""
    folder = hub.model_dir(str(tiny_bert))
    assert folder.parent == cache / "hub" / "model"
    found, expected = huggingface.load(folder).weights, load_file(tiny_bert / "model.safetensors")
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    ours, theirs = (data.load_tokenizer(f, 24).encode_batch(TEXTS) for f in (folder, tiny_bert))
    assert [e.ids for e in ours] == [e.ids for e in theirs]


def test_a_model_in_the_cache_is_not_asked_for_again(cache, monkeypatch):
    (cache / "hub" / "model" / "someone--bert").mkdir(parents=True)
    monkeypatch.setattr(hub.subprocess, "run", None)
    assert hub.model_dir("someone/bert") == cache / "hub" / "model" / "someone--bert"


def test_hub_data_sets_are_saved_as_json_lines(cache, tmp_path):
    """mindnlp's loader, with a local directory for the hub; the result is what `prepare` reads."""
    rows = [{"sentence": "a fine\u2028film, naïve", "label": 1}, {"sentence": 'dull "words"', "label": 0}]
    (tmp_path / "source").mkdir()
    write_lines(tmp_path / "source" / "train.jsonl", rows)
    folder = hub.dataset_dir(str(tmp_path / "source"), None, "main", ["train"])
    assert data.read_file(folder / "train.jsonl", TASKS["sst2"]) == rows


def test_offline_says_what_would_help(cache):
    """One line with the remedies; nothing half-made stays in the cache."""

    def model():
        hub.model_dir("someone/bert")

    def dataset():
        hub.dataset_dir("someone/glue", "sst2", "abc", ["train"])

    def refusal(ask):
        with pytest.raises(UserError) as caught:
            ask()
        return str(caught.value)

    with ThreadPoolExecutor(2) as pool:  # each takes seconds, which importing mindnlp costs
        of_model, of_dataset = pool.map(refusal, (model, dataset))
    assert "couldn't connect to 'http://127.0.0.1:9'" in of_model and "Couldn't reach 'someone/glue'" in of_dataset
    assert "model someone/bert" in of_model and "model=DIRECTORY" in of_model
    assert "dataset someone/glue" in of_dataset and "data.train=FILE" in of_dataset
    for message in (of_model, of_dataset):
        assert "could not be downloaded" in message and "HF_ENDPOINT" in message and "\n" not in message
    assert not list((cache / "hub" / "model").iterdir()) and not list((cache / "hub" / "dataset").iterdir())
