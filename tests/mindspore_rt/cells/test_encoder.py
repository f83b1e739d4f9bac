"""Logits and gradients of both implementations against transformers, and a restatement with the same noise."""

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor, ops
from transformers import BertConfig as TorchConfig
from transformers import BertForSequenceClassification

from configs.contract.basics.errors import UserError
from mindspore_rt.cells import backend, noise
from mindspore_rt.cells.backend import Backend
from mindspore_rt.cells.encoder import EncoderClassifier, MixedPrecisionProduct
from mindspore_rt.cells.encoder_config import EncoderConfig
from mindspore_rt.formats import huggingface
from mindspore_rt.training.objectives import cross_entropy
from tests.helpers import forms
from tests.helpers.models import normal_arrays


@pytest.fixture(params=[Backend.KERNELS, Backend.PRIMITIVES, Backend.GPU], ids=lambda form: form.value)
def implementation(request, monkeypatch):
    """Build models of kernels, or of primitives in the form of CPUs or of devices."""
    forms.use(request.param, monkeypatch)


def inputs(vocabulary, segments=2, batch=3, length=12):
    random = np.random.default_rng(0)
    ids = random.integers(5, vocabulary, (batch, length)).astype(np.int32)
    mask = np.ones((batch, length), np.float32)
    types = np.zeros((batch, length), np.int32)
    mask[1, 5:], mask[2, 9:], types[0, 6:] = 0, 0, segments - 1
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
    model = EncoderClassifier(config, 2, dropout=0.0)
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
    case = inputs(config.vocab_size, config.type_vocab_size)
    logits, slope, gradients = by_torch(torch_model, *case)
    our_logits, our_slope, our_gradients = by_mindspore(config, weights, *case)
    np.testing.assert_allclose(our_logits, logits, atol=1e-5)
    np.testing.assert_allclose(our_slope, slope, atol=1e-5 * max(1, np.abs(slope).max()))
    assert our_gradients.keys() == gradients.keys()
    for name, value in gradients.items():
        np.testing.assert_allclose(our_gradients[name], value, atol=1e-5 * max(1, np.abs(value).max()), err_msg=name)


@pytest.mark.parametrize(
    "implementation", [Backend.KERNELS, Backend.PRIMITIVES], indirect=True, ids=lambda form: form.value
)
def test_packaged_model_agrees_with_transformers(implementation):
    """In the form of devices: BERT-base below."""
    directory = huggingface.resolve("packaged")
    torch.manual_seed(0)
    torch_model = BertForSequenceClassification.from_pretrained(directory, attn_implementation="eager")
    compare(torch_model, huggingface.load(directory).config)


kernels_and_devices = pytest.mark.parametrize(
    "implementation", [Backend.KERNELS, Backend.GPU], indirect=True, ids=lambda form: form.value
)


@kernels_and_devices
def test_two_layers_of_bert_base_agree_with_transformers(implementation):
    """The packaged model has more layers; these are wider."""
    torch.manual_seed(0)
    torch_model = BertForSequenceClassification(TorchConfig(attn_implementation="eager", num_hidden_layers=2))
    compare(torch_model, EncoderConfig(30522, 768, 2, 12, 3072, 512, 2))


def test_masked_pass_equals_the_pass_of_masked_weights(implementation):
    """Eq. 5 without noise, with one score for 2 x 4 weights, shared with a stride."""
    config = EncoderConfig(50, 16, 2, 2, 32, 16, 2)
    random = np.random.default_rng(3)
    weights = normal_arrays(config.parameters(2), 0.3, random)
    masked = EncoderClassifier(config, 2, masked=True, block=(2, 4))
    masked.load(weights)
    expected = dict(weights)
    for parameter in masked.log_alpha():
        scores = random.normal(0, 2, parameter.shape).astype(np.float32)
        backend.put(parameter, scores)
        mask = np.clip(1 / (1 + np.exp(-scores)) * 1.2 - 0.1, 0, 1)
        name = parameter.name.removesuffix(".log_alpha")
        rows, columns = weights[name].shape
        assert scores.shape == (rows // 2, columns // 4)
        for i in range(rows):
            for j in range(columns):
                expected[name][i, j] = weights[name][i, j] * mask[i % (rows // 2), j % (columns // 4)]
    plain = EncoderClassifier(config, 2)
    plain.load(expected)
    ids, mask, types, _ = (Tensor(a) for a in inputs(50))
    np.testing.assert_allclose(
        masked(masked.embed(ids), mask, types, None).asnumpy(),
        plain(plain.embed(ids), mask, types, None).asnumpy(),
        atol=1e-5,
    )


def torch_pass(config, weights, scores, block, numbers, rate, case, delta):
    """Logits of one noisy training pass, float64, straight from the definitions, with every token computed in every
    layer; `numbers` are its uniform numbers."""
    ids, mask, types, _ = (torch.tensor(a) for a in case)
    batch, length = ids.shape
    numbers = [torch.tensor(u) for u in numbers]
    gates = iter(numbers[-len(scores) :])
    drops = iter(numbers[: -len(scores)])

    def dropout(x):
        u = next(drops)
        if u.numel() < x.numel():  # the last layer, where the model computes the first token only
            first, u = u, torch.ones(x.shape)
            view = u[:, :, 0] if x.dim() == 4 else u[:, 0]
            view.copy_(first.reshape(view.shape))
        return x * (u >= np.float32(rate)).reshape(x.shape) / (1 - rate)

    def linear(x, name):
        a, u = scores[f"{name}.weight"], next(gates).double().clamp(1e-4, 1 - 1e-4)
        m = torch.clamp(torch.sigmoid((u.log() - (1 - u).log() + a) / (2 / 3)) * 1.2 - 0.1, 0, 1)
        m = m.repeat(block)  # with a stride: row i shares with row i + rows of scores
        return x @ (weights[f"{name}.weight"] * m).T + weights[f"{name}.bias"]

    def norm(x, name):
        return torch.nn.functional.layer_norm(
            x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], config.layer_norm_eps
        )

    def split(x):
        return x.reshape(batch, length, config.num_attention_heads, -1).transpose(1, 2)

    at = "bert.embeddings"
    x = weights[f"{at}.word_embeddings.weight"][ids] + delta + weights[f"{at}.position_embeddings.weight"][:length]
    x = dropout(norm(x + weights[f"{at}.token_type_embeddings.weight"][types], f"{at}.LayerNorm"))
    for i in range(config.num_hidden_layers):
        at = f"bert.encoder.layer.{i}"
        q, k, v = (split(linear(x, f"{at}.attention.self.{part}")) for part in ("query", "key", "value"))
        logit = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5 + (1 - mask[:, None, None, :]) * -10000.0
        context = (dropout(torch.softmax(logit, -1)) @ v).transpose(1, 2).reshape(batch, length, -1)
        y = linear(context, f"{at}.attention.output.dense")
        x = norm(dropout(y) + x, f"{at}.attention.output.LayerNorm")
        y = linear(torch.nn.functional.gelu(linear(x, f"{at}.intermediate.dense")), f"{at}.output.dense")
        x = norm(dropout(y) + x, f"{at}.output.LayerNorm")
    pooled = dropout(torch.tanh(linear(x[:, 0], "bert.pooler.dense")))
    return pooled @ weights["classifier.weight"].T + weights["classifier.bias"]


@pytest.mark.parametrize("block", [(1, 1), (2, 4)])
def test_noisy_pass_and_all_its_gradients_agree_with_the_restatement(implementation, block):
    """Of embeddings, scores and weights, with dropout and gate noise drawn as in training."""
    config, random = EncoderConfig(50, 32, 2, 4, 64, 16, 2), np.random.default_rng(3)
    weights = normal_arrays(config.parameters(2), 0.3, random)
    model, case = EncoderClassifier(config, 2, dropout=0.2, masked=True, block=block), inputs(50)
    model.load(weights)
    source, shapes = noise.source(4), model.noise_shapes(3, 12)
    numbers = source.numbers(shapes, 6, 1)
    scores = {}
    for parameter, u in zip(model.log_alpha(), numbers[-len(model.log_alpha()) :], strict=True):
        # Away from the edges of the clamp, on which float32 and float64 may stand on different sides.
        a, u = random.normal(0, 2, parameter.shape), np.clip(u.astype(np.float64), 1e-4, 1 - 1e-4)
        mask = 1.2 / (1 + np.exp(-(np.log(u / (1 - u)) + a) * 1.5)) - 0.1
        a = np.where(np.minimum(abs(mask), abs(mask - 1)) < 1e-4, a + 0.1, a).astype(np.float32)
        scores[parameter.name.removesuffix(".log_alpha")] = a
        backend.put(parameter, a)
    trained = {
        **{n: p for n, p in model.weights().items() if "word_embeddings" not in n},
        **{p.name: p for p in model.log_alpha()},
    }

    def loss(delta, ids, mask, types, targets, draws):
        logits = model(model.embed(ids) + delta, mask, types, draws)
        return cross_entropy(logits, targets), logits

    function = ms.value_and_grad(loss, 0, weights=list(trained.values()), has_aux=True)

    @ms.jit
    def graph(delta, ids, mask, types, targets, draws):
        return function(delta, ids, mask, types, targets, draws)

    zeros = np.zeros((3, 12, 32), np.float32)
    (_, logits), (slope, gradients) = graph(Tensor(zeros), *map(Tensor, case), source.draw(shapes, 6, 1))

    delta = torch.tensor(zeros, dtype=torch.float64, requires_grad=True)
    leaves = {n: torch.tensor(w, dtype=torch.float64, requires_grad=True) for n, w in weights.items()}
    alphas = {n: torch.tensor(a, dtype=torch.float64, requires_grad=True) for n, a in scores.items()}
    expected = torch_pass(config, leaves, alphas, block, numbers, 0.2, case, delta)
    (-(torch.log_softmax(expected, -1) * torch.tensor(case[3])).sum()).backward()
    np.testing.assert_allclose(logits.asnumpy(), expected.detach(), atol=1e-5)
    references = {**leaves, **{f"{n}.log_alpha": a for n, a in alphas.items()}}
    references["delta"], errors, sizes = delta, [], []
    for name, gradient in {"delta": slope, **dict(zip(trained, gradients, strict=True))}.items():
        reference = references[name].grad.numpy()
        errors.append(np.linalg.norm(gradient.asnumpy() - reference))
        sizes.append(np.linalg.norm(reference))
        if not name.endswith("key.bias"):  # has no gradient but rounding
            assert errors[-1] <= 3e-5 * sizes[-1], name
    assert np.linalg.norm(errors) <= 1e-5 * np.linalg.norm(sizes)


def logits_and_score_gradients(amp):
    """Of a noisy pass of one small model, flat, float32."""
    config, random = EncoderConfig(50, 32, 1, 4, 64, 16, 2), np.random.default_rng(3)
    model, source = EncoderClassifier(config, 2, masked=True, amp=amp), noise.source(4)
    model.load(normal_arrays(config.parameters(2), 0.2, random))

    def loss(ids, mask, types, targets, draws):
        logits = model(model.embed(ids), mask, types, draws)
        return cross_entropy(logits, targets), logits

    function = ms.value_and_grad(loss, None, weights=model.log_alpha(), has_aux=True)

    @ms.jit
    def graph(ids, mask, types, targets, draws):
        return function(ids, mask, types, targets, draws)

    draws = source.draw(model.noise_shapes(3, 12), 0)
    (_, logits), gradients = graph(*map(Tensor, inputs(50)), draws)
    assert all(t.dtype == ms.float32 for t in (logits, *gradients))
    return np.concatenate([t.asnumpy().ravel() for t in (logits, *gradients)])


@kernels_and_devices
def test_mixed_precision_computes_the_products_alone_in_float16(implementation):
    """Logits and gradients stay near float32's, with float16's rounding in them."""
    exact, half = logits_and_score_gradients(None), logits_and_score_gradients("float16")
    assert 1e-5 < np.linalg.norm(half - exact) / np.linalg.norm(exact) < 2e-2


def test_products_are_cast_to_bfloat16():
    """MindSpore has no bfloat16 matrix product on CPU; a sum shows the same casts."""
    x = np.float32([1 + 2**-7, 1 + 2**-10])
    total = MixedPrecisionProduct(ops.Add(), "bfloat16")(Tensor(x), Tensor(x))
    assert total.dtype == ms.float32
    np.testing.assert_array_equal(total.asnumpy(), np.float32([2 + 2**-6, 2]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta", "pad_token_id": "1"}, "pad_token_id"),
        ({"model_type": "roberta", "pad_token_id": 511}, "no position is left"),
        ({"model_type": "electra", "embedding_size": 8}, "embedding_size"),
        ({"model_type": "distilbert"}, "model_type"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"hidden_size": "16"}, "hidden_size"),
        ({"num_attention_heads": 3}, "no multiple"),
        ({"is_decoder": True}, "is_decoder"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"attention_probs_dropout_prob": None}, "attention_probs_dropout_prob is None, not a number from 0 to 1"),
        ({"classifier_dropout": 2}, "classifier_dropout is 2"),
        ({"pad_token_id": 40000}, "pad_token_id is 40000, but vocab_size 30522"),
    ],
)
def test_a_model_that_the_cells_or_transformers_do_not_compute_is_refused(change, message):
    values = TorchConfig(hidden_size=16, num_attention_heads=2, intermediate_size=32).to_dict()
    EncoderConfig.from_dict(values, "config.json")
    with pytest.raises(UserError, match=message):
        EncoderConfig.from_dict({**values, **change}, "config.json")
