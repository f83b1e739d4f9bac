"""mindnlp: its BERT as a reference on MindSpore itself, its training step, which the bench times, and its refusals.

It replaces the `torch` module of its process, so it runs in one of its own: one for all, as importing it takes long.
"""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from configs.contract.basics.bench_case import StepCase
from configs.contract.basics.errors import reason_of
from configs.contract.inputs.tokenizer import load_tokenizer
from mindspore_rt.cells.encoder import EncoderClassifier
from mindspore_rt.data.batches import Batches
from mindspore_rt.formats import huggingface
from tests.helpers.commands import run_python
from tests.helpers.needs import needs_mindnlp
from torch_eval.bench import torch_step_worker

pytestmark = needs_mindnlp
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

import json
from configs.contract.basics.bench_case import StepCase
from mindspore_rt.compare.step_worker import mindnlp
step, about = mindnlp(StepCase(**json.loads(sys.argv[4])))
print(*(step() for _ in range(3)))

from mindspore_rt.formats import hub
sys.argv = ["hub", "model", "someone/bert", "main", sys.argv[3]]
assert hub.main() == 2
"""
CASE = StepCase("finetune", layers=2, hidden=24, batch=4, length=8, vocabulary=60, dropout=0.0)


@pytest.fixture(scope="module")
def computed(tmp_path_factory, packaged_model):
    """A batch of padded singles and pairs of texts, what mindnlp computes of it, the losses of three steps, and what is
    said where nobody answers for the hub."""
    folder = tmp_path_factory.mktemp("mindnlp")
    texts = [*((t, "") for t in TEXTS), *zip(TEXTS, reversed(TEXTS))]
    tokenizer = load_tokenizer(packaged_model, 24)
    batch = Batches(texts, np.zeros(8, int), 2, tokenizer, 24, 8, seed=0).batch(np.arange(8))
    arrays = {"input_ids": batch.ids, "attention_mask": batch.attention_mask, "token_type_ids": batch.token_types}
    np.savez(folder / "in.npz", **arrays)
    arguments = (packaged_model, folder / "in.npz", folder / "out.npz", CASE.to_json())
    result = run_python(REFERENCE, *arguments, HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(folder / "hf"))
    losses = [float(loss) for loss in result.stdout.split()[-3:]]
    return batch, np.load(folder / "out.npz"), losses, reason_of(result.stderr)


def test_mindnlp_trains_with_the_losses_of_transformers(computed):
    """The learning rate is 0 at the first step: the losses differ only if mindnlp's parameters were updated."""
    _, _, losses, _ = computed
    step = torch_step_worker.transformers_step(CASE)
    np.testing.assert_allclose(losses, [step() for _ in range(3)], atol=1e-5)
    assert losses[2] != losses[0]


def test_same_logits_as_mindnlp(packaged_model, computed):
    """The packaged BERT: pooled output and logits to 1e-5."""
    batch, expected, _, _ = computed
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


def test_a_model_that_nobody_answers_for_is_refused_with_the_reason(computed):
    """`test_hub.py` has the remedies that are added to it."""
    reason = computed[3]
    assert reason == "http://127.0.0.1:9 cannot be reached: Connection refused"
