"""Logits and gradients of the cells against transformers."""

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor
from transformers import BertForSequenceClassification
from transformers import BertConfig as TorchConfig

from configs.errors import UserError
from mindspore_rt import huggingface
from mindspore_rt.bert import BertClassifier, BertConfig
from mindspore_rt.objectives import cross_entropy


def inputs(vocabulary, batch=3, length=12):
    random = np.random.default_rng(0)
    ids = random.integers(5, vocabulary, (batch, length)).astype(np.int32)
    mask = np.ones((batch, length), np.float32)
    types = np.zeros((batch, length), np.int32)
    mask[1, 5:], mask[2, 9:], types[0, 6:] = 0, 0, 1
    return ids, mask, types, np.eye(2, dtype=np.float32)[[0, 1, 1]] / batch


def by_torch(model, ids, mask, types, targets):
    """Logits, embedding gradient and parameter gradients."""
    model.eval()
    embeddings = model.get_input_embeddings()(torch.tensor(ids)).detach().requires_grad_()
    logits = model(
        inputs_embeds=embeddings, attention_mask=torch.tensor(mask), token_type_ids=torch.tensor(types)
    ).logits
    (-(torch.log_softmax(logits, -1) * torch.tensor(targets)).sum()).backward()
    gradients = {n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None}
    return logits.detach().numpy(), embeddings.grad.numpy(), gradients


def by_mindspore(config, weights, ids, mask, types, targets):
    model = BertClassifier(config, 2, dropout=0.0)
    model.load(weights)
    names = [n for n in model.weights() if "word_embeddings" not in n]

    def loss(embeddings, mask, types, targets):
        logits = model(embeddings, mask, types, None)
        return cross_entropy(logits, targets), logits

    function = ms.value_and_grad(loss, 0, weights=[model.weights()[n] for n in names], has_aux=True)

    @ms.jit
    def graph(ids, mask, types, targets):
        return function(model.embed(ids), mask, types, targets)

    (_, logits), (slope, gradients) = graph(*(Tensor(a) for a in (ids, mask, types, targets)))
    return logits.asnumpy(), slope.asnumpy(), {n: g.asnumpy() for n, g in zip(names, gradients, strict=True)}


def compare(torch_model, config):
    weights = {n: p.detach().numpy() for n, p in torch_model.named_parameters()}
    case = inputs(config.vocab_size)
    logits, slope, gradients = by_torch(torch_model, *case)
    found_logits, found_slope, found = by_mindspore(config, weights, *case)
    np.testing.assert_allclose(found_logits, logits, atol=1e-5)
    np.testing.assert_allclose(found_slope, slope, atol=1e-5 * max(1, np.abs(slope).max()))
    assert found.keys() == gradients.keys()
    for name, value in gradients.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5 * max(1, np.abs(value).max()), err_msg=name)


def test_packaged_model_agrees_with_transformers():
    directory = huggingface.resolve("packaged")
    torch.manual_seed(0)
    torch_model = BertForSequenceClassification.from_pretrained(directory, attn_implementation="eager")
    compare(torch_model, huggingface.load(directory).config)


def test_random_bert_base_agrees_with_transformers():
    torch.manual_seed(0)
    torch_model = BertForSequenceClassification(TorchConfig(attn_implementation="eager"))
    compare(torch_model, BertConfig(30522, 768, 12, 12, 3072, 512, 2))


def test_masked_pass_equals_the_pass_of_masked_weights():
    """Eq. 5 without noise, with one score for a block of 2 x 4 weights."""
    config = BertConfig(50, 16, 2, 2, 32, 16, 2)
    random = np.random.default_rng(3)
    weights = {n: random.normal(0, 0.3, s).astype(np.float32) for n, s in config.parameters(2).items()}
    masked = BertClassifier(config, 2, masked=True, block=(2, 4))
    masked.load(weights)
    expected = dict(weights)
    for parameter in masked.log_alpha():
        scores = random.normal(0, 2, parameter.shape).astype(np.float32)
        parameter.set_data(Tensor(scores))
        mask = np.clip(1 / (1 + np.exp(-scores)) * 1.2 - 0.1, 0, 1)
        name = parameter.name.removesuffix(".log_alpha")
        rows, columns = weights[name].shape
        assert scores.shape == (rows // 2, columns // 4)
        for i in range(rows):
            for j in range(columns):
                expected[name][i, j] = weights[name][i, j] * mask[i // 2, j // 4]
    plain = BertClassifier(config, 2)
    plain.load(expected)
    ids, mask, types, _ = (Tensor(a) for a in inputs(50))
    np.testing.assert_allclose(
        masked(masked.embed(ids), mask, types, None).asnumpy(),
        plain(plain.embed(ids), mask, types, None).asnumpy(),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, "model_type"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"hidden_size": "16"}, "hidden_size"),
        ({"num_attention_heads": 3}, "no multiple"),
        ({"is_decoder": True}, "is_decoder"),
    ],
)
def test_a_model_that_the_cells_do_not_compute_is_refused(change, message):
    values = TorchConfig(hidden_size=16, num_attention_heads=2, intermediate_size=32).to_dict()
    BertConfig.from_dict(values, "config.json")
    with pytest.raises(UserError, match=message):
        BertConfig.from_dict({**values, **change}, "config.json")
