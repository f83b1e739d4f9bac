"""mindnlp: its BERT as a reference on MindSpore itself.

It replaces the `torch` module of its process, so it always runs in one of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor

from configs.contract.tokenizer import load_tokenizer
from mindspore_rt.cells.encoder import EncoderClassifier
from mindspore_rt.data.batches import Batches
from mindspore_rt.formats import huggingface
from tests.helpers.needs import needs_mindnlp

ROOT = Path(huggingface.__file__).resolve().parents[2]
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
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_mindnlp
def test_same_logits_as_mindnlp(packaged_model, tmp_path):
    """The packaged BERT on padded singles and pairs of texts: pooled output and logits to 1e-5."""
    texts = [*((t, "") for t in TEXTS), *zip(TEXTS, reversed(TEXTS))]
    tokenizer = load_tokenizer(packaged_model, 24)
    batch = Batches(texts, np.zeros(8, int), 2, tokenizer, 24, 8, seed=0).batch(np.arange(8))
    np.savez(
        tmp_path / "in.npz",
        input_ids=batch.ids,
        attention_mask=batch.attention_mask,
        token_type_ids=batch.token_types,
    )
    done = python("-c", REFERENCE, packaged_model, tmp_path / "in.npz", tmp_path / "out.npz")
    assert done.returncode == 0, done.stderr[-2000:]
    expected = np.load(tmp_path / "out.npz")

    # A classifier whose first outputs are the pooled ones, so that one pass gives both.
    source = huggingface.load(packaged_model)
    hidden = source.config.hidden_size
    cells = EncoderClassifier(source.config, hidden + 2)
    cells.load(
        {
            **source.weights,
            "classifier.weight": np.concatenate([np.eye(hidden), expected["weight"]]),
            "classifier.bias": np.concatenate([np.zeros(hidden), expected["bias"]]),
        }
    )

    @ms.jit
    def graph(ids, mask, types):
        return cells(cells.embed(ids), mask, types, None)

    ours = graph(*(Tensor(a) for a in (batch.ids, batch.attention_mask, batch.token_types))).asnumpy()
    assert expected["pooled"].std(0).mean() > 0.01  # the rows differ, so mixed-up rows would show
    np.testing.assert_allclose(ours[:, :hidden], expected["pooled"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(ours[:, hidden:], expected["logits"], atol=1e-5, rtol=0)
