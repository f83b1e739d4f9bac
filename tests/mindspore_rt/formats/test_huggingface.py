"""Hugging Face directories: whatever is no whole BERT is refused by name, and what is written loads anywhere."""

import dataclasses
import json
import re
import shutil
import time

import mindspore as ms
import numpy as np
import pytest
import torch
from safetensors import torch as torch_safetensors
from safetensors.numpy import load_file, save_file
from torch.nn.utils import prune
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForMaskedLM,
    BertForSequenceClassification,
)
from transformers import BertConfig as TorchConfig

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import read_json
from configs.contract.inputs.matrices import matrix_name
from configs.contract.inputs.tokenizer import load_tokenizer
from mindspore_rt.cells.encoder import EncoderClassifier
from mindspore_rt.cells.encoder_config import EncoderConfig
from mindspore_rt.data.batches import Batches
from mindspore_rt.formats import huggingface
from mindspore_rt.ticket import Ticket
from tests.helpers import refusals
from tests.helpers.files import Malicious, edit_json, edit_weights
from tests.helpers.models import assert_same_arrays, normal_arrays
from torch_eval.bench.random_models import random_classifier

QUERY = "bert.encoder.layer.1.attention.self.query.weight"


@pytest.fixture
def model(tiny_bert, tmp_path):
    """A copy of the tiny model that a test may spoil."""
    return shutil.copytree(tiny_bert, tmp_path / "model")


def refusal(folder, layers=None):
    message = refusals.refusal(huggingface.load, folder, layers)
    assert str(folder) in message
    return message


# --- reading -------------------------------------------------------------------------------------------------


def test_weights_come_back(tiny_bert):
    source = huggingface.load(tiny_bert)
    assert_same_arrays(source.weights, load_file(tiny_bert / "model.safetensors"))
    assert source.config == EncoderConfig(30522, 32, 2, 4, 64, 512, 2)


def test_names_without_the_prefix(model):
    """As in the packaged model, which is a bare encoder: there is then no classifier."""
    expected = load_file(model / "model.safetensors")
    edit_weights(model, lambda w: {n.removeprefix("bert."): v for n, v in w.items() if not n.startswith("classifier")})
    weights = huggingface.load(model).weights
    assert_same_arrays(weights, {n: v for n, v in expected.items() if n.startswith("bert.")})


def test_names_of_the_published_bert(model):
    """bert-base-uncased is TensorFlow's: its LayerNorm has a gamma and a beta. It has a head for hidden words, too."""
    expected = huggingface.load(model).weights
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def published(weights):
        renamed = {next((n.replace(a, b) for a, b in names.items() if a in n), n): w for n, w in weights.items()}
        return {**renamed, "cls.predictions.transform.LayerNorm.gamma": np.ones(32, np.float32)}

    edit_weights(model, published)
    assert_same_arrays(huggingface.load(model).weights, expected)


def test_one_weight_under_two_names_is_refused(model):
    edit_weights(model, lambda weights: weights.update({QUERY.removeprefix("bert."): weights[QUERY] + 1}))
    assert f"holds {QUERY} twice" in refusal(model)


def test_the_first_layers_are_kept(tiny_bert):
    source = huggingface.load(tiny_bert, layers=1)
    assert source.config.num_hidden_layers == source.raw["num_hidden_layers"] == 1
    expected = load_file(tiny_bert / "model.safetensors")
    assert_same_arrays(source.weights, {n: v for n, v in expected.items() if "layer.1." not in n})


def test_more_layers_than_there_are(tiny_bert):
    assert "layers: 3 requested" in refusal(tiny_bert, 3)


def test_pickled_weights(model):
    """The PyTorch half reads them, in a process of its own. Names without the prefix, too."""
    expected = load_file(model / "model.safetensors")
    renamed = {n.removeprefix("bert."): torch.tensor(v) for n, v in expected.items()}
    torch.save(renamed, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    assert_same_arrays(huggingface.load(model).weights, expected)


def test_a_pickle_runs_nothing(model, tmp_path):
    torch.save({QUERY: Malicious(tmp_path / "executed")}, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    assert "pytorch_model.bin" in refusal(model)
    assert not (tmp_path / "executed").exists()
    torch.load(model / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "executed").exists()  # it would have


@pytest.mark.usefixtures("torch_half_here")
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float64"])
def test_weights_of_any_precision(model, file, kind):
    rounded = {n: torch.tensor(w).to(getattr(torch, kind)) for n, w in load_file(model / "model.safetensors").items()}
    (model / "model.safetensors").unlink()
    (torch_safetensors.save_file if file.endswith("safetensors") else torch.save)(rounded, model / file)
    assert_same_arrays(huggingface.load(model).weights, {n: w.float().numpy() for n, w in rounded.items()})


@pytest.mark.usefixtures("torch_half_here")
def test_a_type_that_is_no_float_names_the_users_file(model):
    weights = {n: torch.tensor(w) for n, w in load_file(model / "model.safetensors").items()}
    (model / "model.safetensors").unlink()
    torch.save({**weights, QUERY: weights[QUERY].to(torch.float8_e4m3fn)}, model / "pytorch_model.bin")
    assert "model/pytorch_model.bin: not a complete" in refusal(model)


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.model."])
@pytest.mark.parametrize("nested", [None, "state_dict", "model", "model_state_dict"])
def test_checkpoints_of_training_code(model, prefix, nested, torch_half_here):
    """Names with what data-parallel, compiled and Lightning models put before them, weights beside other state."""
    expected = load_file(model / "model.safetensors")
    weights = {prefix + name: torch.tensor(value) for name, value in expected.items()}
    more = {"epoch": 3, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}, "loss": torch.tensor(0.5)}
    torch.save({**more, nested: weights} if nested else weights, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    assert_same_arrays(huggingface.load(model).weights, expected)


def test_weights_pruned_by_torch(model):
    """torch.nn.utils.prune leaves the weight and its mask: the product is what the model computes with."""
    whole = BertForSequenceClassification.from_pretrained(model)
    for layer in whole.bert.encoder.layer:
        prune.l1_unstructured(layer.attention.self.query, "weight", 0.4)
        prune.random_unstructured(layer.output.dense, "bias", 0.5)
    expected = whole.bert.encoder.layer[1].attention.self.query.weight.detach().numpy()
    torch_safetensors.save_file(whole.state_dict(), model / "model.safetensors")
    weights = huggingface.load(model).weights
    np.testing.assert_array_equal(weights[QUERY], expected)
    assert (weights[QUERY] == 0).mean() > 0.39
    edit_weights(model, lambda weights: {n: w for n, w in weights.items() if n != f"{QUERY}_mask"})
    assert f"{QUERY}_orig and {QUERY}_mask do not make a pair" in refusal(model)


@pytest.mark.usefixtures("torch_half_here")
@pytest.mark.parametrize("safe", [True, False])
def test_weights_in_several_files(model, safe):
    expected = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    whole = BertForSequenceClassification(TorchConfig.from_pretrained(model))
    whole.load_state_dict({name: torch.tensor(value) for name, value in expected.items()})
    whole.save_pretrained(model, max_shard_size="1MB", safe_serialization=safe)
    parts = sorted(model.glob("*-of-*"))
    assert len(parts) > 1
    assert_same_arrays(huggingface.load(model).weights, expected)
    parts[0].unlink()
    assert f"the part {parts[0].name} is missing" in refusal(model)


def test_a_weight_that_stands_in_two_parts_is_refused(model):
    weights, parts = load_file(model / "model.safetensors"), ["a-1-of-2.safetensors", "b-2-of-2.safetensors"]
    (model / "model.safetensors").unlink()
    half = dict(list(weights.items())[: len(weights) // 2])
    save_file({**half, QUERY: weights[QUERY]}, model / parts[0])
    save_file({name: value for name, value in weights.items() if name not in half or name == QUERY}, model / parts[1])
    index = {name: parts[name not in half] for name in weights}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert f"{parts[1]}: holds {QUERY}, which {parts[0]} holds too" in refusal(model)


def test_parts_without_their_index_are_told_of(model):
    (model / "model.safetensors").rename(model / "model-00001-of-00001.safetensors")
    message = "holds parts of weights, such as model-00001-of-00001.safetensors; copy model.safetensors.index.json too"
    assert message in refusal(model)


def test_a_part_elsewhere_is_refused(model):
    shutil.move(model / "model.safetensors", model.parent / "outside.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {QUERY: "../outside.safetensors"}}))
    assert "outside.safetensors is missing" in refusal(model)
    (model / "model.safetensors.index.json").write_text("[]")  # of the user's own: nothing to delete
    assert "index.json: expected an object, got a list; copy the model again" in refusal(model)


def test_a_model_of_masked_words_gets_a_fresh_pooler(model, capsys):
    """As training on masked words saves it: no pooler, a head that is not used."""
    expected = load_file(model / "model.safetensors")
    other = BertForMaskedLM.from_pretrained(model)
    other.save_pretrained(model)
    source = huggingface.load(model)
    assert_same_arrays(
        source.weights, {n: w for n, w in expected.items() if not n.startswith(("classifier", "bert.pooler"))}
    )
    weights = huggingface.with_classifier(source, 2, seed=1)
    assert weights.keys() == expected.keys() and "has no pooler: a fresh one is drawn" in capsys.readouterr().out
    pooler = weights["bert.pooler.dense.weight"]
    assert pooler.shape == (32, 32) and abs(pooler.std() - 0.02) < 0.002 and not weights["bert.pooler.dense.bias"].any()
    whole = huggingface.Model(source.config, source.raw, expected, model)
    again = huggingface.with_classifier(whole, 2, seed=1)
    np.testing.assert_array_equal(weights["classifier.weight"], again["classifier.weight"])
    assert not (huggingface.with_classifier(source, 2, seed=2)["bert.pooler.dense.weight"] == pooler).all()


def test_a_classifier_without_a_pooler_is_damaged(model):
    edit_weights(model, lambda weights: {n: w for n, w in weights.items() if "pooler" not in n})
    assert "weight bert.pooler.dense.weight is missing" in refusal(model)


def test_a_configuration_without_a_model_type(model, tmp_path):
    """As the first years of BERT wrote it; what is written says it again."""
    config = read_json(model / "config.json")
    (model / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in ("model_type",)}))
    source = huggingface.load(model)
    huggingface.save_classifier(tmp_path / "out", source, source.weights, ["a", "b"], 20)
    assert read_json(tmp_path / "out" / "config.json")["model_type"] == "bert"


def test_no_weights_at_all(model):
    (model / "model.safetensors").unlink()
    (model / "tf_model.h5").write_bytes(b"")
    message = refusal(model)
    assert "neither model.safetensors nor pytorch_model.bin" in message and "tf_model.h5" in message


@pytest.mark.parametrize("name", [QUERY, "bert.embeddings.LayerNorm.bias", "bert.pooler.dense.weight"])
def test_a_missing_weight_is_named(model, name):
    edit_weights(model, lambda w: {n: v for n, v in w.items() if n != name})
    assert f"weight {name} is missing" in refusal(model)


def test_a_misshapen_weight_is_named(model):
    edit_weights(model, lambda w: w.update({QUERY: w[QUERY][:, :30].copy()}))
    assert f"{QUERY} is [32, 30], config.json says [32, 32]" in refusal(model)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(model, value):
    edit_weights(model, lambda w: w[QUERY].__setitem__((3, 4), value))
    assert QUERY in refusal(model) and "not finite" in refusal(model)


def test_a_double_too_large_for_a_float_is_not_finite(model):
    edit_weights(model, lambda w: w.update({QUERY: np.full((32, 32), 1e300)}))
    assert QUERY in refusal(model) and "not finite" in refusal(model)


@pytest.mark.parametrize("shape, value, message", [((2, 32), np.nan, "not finite"), ((7, 3), 0, "is \\[7, 3")])
def test_a_classifier_is_checked_too(model, shape, value, message):
    edit_weights(model, lambda w: w.update({"classifier.weight": np.full(shape, value, np.float32)}))
    assert re.search(f"classifier.weight .*{message}", refusal(model))


def test_more_layers_than_any_file_has(model):
    """Refused before the names of three million layers are generated."""
    edit_json(model / "config.json", num_hidden_layers=3_000_000)
    started = time.process_time()
    assert "num_hidden_layers is 3000000" in refusal(model)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("size", [0, 4, 5000])
def test_truncated_safetensors(model, size):
    content = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(content[:size])
    assert "model.safetensors: not a complete safetensors file" in refusal(model)


@pytest.mark.parametrize(
    "values, expected",
    [
        ({"model_type": "distilbert"}, ["model_type", "'distilbert'", "only bert, electra, roberta"]),
        ({"hidden_act": "relu"}, ["hidden_act", "'relu'", "'gelu'"]),
        ({"vocab_size": None}, ["vocab_size", "positive whole number"]),
    ],
)
def test_configurations_of_other_models(model, values, expected):
    """All that is refused: test_encoder.py."""
    edit_json(model / "config.json", **values)
    message = refusal(model)
    for part in ["config.json", *expected]:
        assert part in message


def test_no_or_broken_configuration(model):
    (model / "config.json").write_text('{"model_type": "bert",\n')
    assert "config.json, line 2" in refusal(model)
    (model / "config.json").unlink()
    assert "has no config.json; give a Hugging Face directory" in refusal(model)


@pytest.mark.parametrize("layers", [None, "6"])
def test_a_layer_count_that_is_no_number(model, layers):
    edit_json(model / "config.json", num_hidden_layers=layers)
    assert "num_hidden_layers" in refusal(model, layers=1)


def test_where_a_model_comes_from(packaged_model, tiny_bert, tmp_path):
    assert huggingface.resolve("packaged") == packaged_model
    assert huggingface.resolve(str(tiny_bert)) == tiny_bert
    with pytest.raises(UserError, match="model: no directory .*; give a Hugging Face directory"):
        huggingface.resolve(str(tmp_path / "gone"))


def test_a_fresh_classifier_is_drawn_as_berts(tiny_bert):
    """Normal(0, 0.02), bias 0, the same for the same seed; the encoder's weights as they were."""
    source = huggingface.load(tiny_bert)
    weights = huggingface.with_classifier(source, 600, seed=1)
    assert weights["classifier.weight"].shape == (600, 32) and weights["classifier.weight"].dtype == np.float32
    assert abs(weights["classifier.weight"].std() - 0.02) < 0.001 and abs(weights["classifier.weight"].mean()) < 0.001
    assert not weights["classifier.bias"].any()
    again, other = (huggingface.with_classifier(source, 600, seed)["classifier.weight"] for seed in (1, 2))
    assert (again == weights["classifier.weight"]).all() and (other != again).mean() > 0.99
    assert weights[QUERY] is source.weights[QUERY]


# --- writing -------------------------------------------------------------------------------------------------

NAMES = ["entailment", "neutral", "contradiction"]
TEXTS = ["a fine film", "dull", "an utterly charming and warm piece of work " * 3, "it's the one , at 9 o'clock"]


@pytest.fixture(scope="module")
def saved(tiny_bert, tmp_path_factory):
    """The tiny model with a new classifier of three labels, length 20, and its weights; it was a regression before."""
    source = huggingface.load(tiny_bert)
    other_head = {"num_labels": 1, "problem_type": "regression", "torchscript": True, "return_dict": False}
    of_code = {"auto_map": {"AutoModel": "its.Own"}, "_attn_implementation": "flash_attention_2"}
    source = dataclasses.replace(source, raw={**source.raw, **other_head, **of_code})
    weights = huggingface.with_classifier(source, 3, seed=1)
    weights["classifier.weight"] = weights["classifier.weight"] * 20
    weights["classifier.bias"] = np.array([0.5, -0.5, 0.1], np.float32)
    target = tmp_path_factory.mktemp("saved") / "deep" / "model"
    huggingface.save_classifier(target, source, weights, NAMES, 20)
    return target, source, weights


def test_the_written_configuration(saved):
    target = saved[0]
    model = AutoModelForSequenceClassification.from_pretrained(target)
    assert type(model) is BertForSequenceClassification
    assert model.config.id2label == dict(enumerate(NAMES))
    assert model.config.label2id == {name: i for i, name in enumerate(NAMES)}
    assert model.dtype == torch.float32
    assert model.config.problem_type is None and model.config.use_return_dict
    assert "auto_map" not in read_json(target / "config.json")
    assert AutoTokenizer.from_pretrained(target).model_max_length == 20


def test_written_weights_are_the_ones_given(saved):
    """Bit for bit, in transformers and read again here."""
    target, _, weights = saved
    model = AutoModelForSequenceClassification.from_pretrained(target)
    assert_same_arrays({n: p.detach().numpy() for n, p in model.named_parameters()}, weights)
    read = huggingface.load(target).weights
    assert_same_arrays(read, weights)


@pytest.mark.parametrize("second", [None, TEXTS[::-1]], ids=["single", "pair"])
def test_logits_equal_in_transformers(saved, second):
    """The same texts through the whole of either side: tokenizer, padding, truncation, model."""
    target, source, weights = saved
    texts = list(zip(TEXTS, second)) if second else [(t,) for t in TEXTS]
    tokenizer = load_tokenizer(target, 20)
    batches = Batches(texts, np.zeros(4, int), 3, tokenizer, 20, 5, seed=0)
    ids, mask, types, _ = batches.batch(np.arange(4)).tensors()
    cells = EncoderClassifier(source.config, 3)
    cells.load(weights)

    @ms.jit
    def graph(ids, mask, types):
        return cells(cells.embed(ids), mask, types, None)

    ours = graph(ids, mask, types).asnumpy()[:4]

    theirs = AutoModelForSequenceClassification.from_pretrained(target).eval()
    encoded = AutoTokenizer.from_pretrained(target)(
        TEXTS, second, padding=True, truncation=True, max_length=20, return_tensors="pt"
    )
    with torch.no_grad():
        expected = theirs(**encoded).logits.numpy()
    assert expected.std(0).min() > 0.05  # the rows differ, so mixed-up rows would show
    np.testing.assert_allclose(ours, expected, atol=1e-5, rtol=0)


def test_writing_again_replaces(saved, tmp_path):
    """Nothing of the old directory stays, and no temporary one."""
    _, source, weights = saved
    target = tmp_path / "model"
    target.mkdir()
    (target / "old.txt").write_text("old")
    huggingface.save_classifier(target, source, weights, NAMES, 20)
    assert not (target / "old.txt").exists() and (target / "model.safetensors").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_failed_write_leaves_the_old_directory(saved, tmp_path, monkeypatch):
    _, source, weights = saved
    target = tmp_path / "model"
    huggingface.save_classifier(target, source, weights, NAMES, 20)

    def failing(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface, "save", failing)
    with pytest.raises(OSError):
        huggingface.save_classifier(target, source, weights, ["a", "b", "c"], 20)
    assert read_json(target / "config.json")["id2label"]["0"] == "entailment"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_pruned_weights_are_exact_zeros(saved, tmp_path):
    _, source, weights = saved
    pruned = {**weights, QUERY: np.where(weights[QUERY] > 0, weights[QUERY], np.float32(0))}
    huggingface.save_classifier(tmp_path / "model", source, pruned, NAMES, 20)
    exported = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").state_dict()[QUERY].numpy()
    assert ((exported == 0) == (weights[QUERY] <= 0)).all()


# --- shrinking -----------------------------------------------------------------------------------------------


def logits(folder):
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    pieces, random = model.config.vocab_size, np.random.default_rng(0)
    ids, mask = torch.tensor(random.integers(pieces // 20, pieces, (5, 12))), torch.ones(5, 12, dtype=torch.long)
    mask[1, 7:] = 0
    with torch.no_grad():
        return model, model(input_ids=ids, attention_mask=mask).logits.numpy()


def both_sizes(tiny_bert, ticket, folder):
    source = huggingface.load(tiny_bert)
    huggingface.write_model(folder, source.raw, ticket.apply(source.weights), tiny_bert)
    large, expected = logits(folder)
    weights, config = huggingface.shrink(source.weights, source.raw, ticket)
    huggingface.write_model(folder, config, weights, tiny_bert)
    small, actual = logits(folder)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    return large, small


@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5, 0.7])
def test_a_shrunk_model_computes_what_the_masked_one_does(tiny_bert, tmp_path, sparsity):
    shapes = huggingface.load(tiny_bert).config.prunable()
    ticket = Ticket.structured(normal_arrays(shapes, random=1), 4, sparsity)
    large, small = both_sizes(tiny_bert, ticket, tmp_path)
    biases = sum(int((~m.any(1)).sum()) for n, m in ticket.masks.items() if not n.endswith("output.dense.weight"))
    assert large.num_parameters() - small.num_parameters() == ticket.pruned + biases
    if sparsity:
        with pytest.raises(UserError, match="pruned_heads is set"):
            huggingface.load(tmp_path)


def test_a_roberta_is_written_shrunk_and_given_a_new_head(tmp_path):
    """What a pre-trained one has in place of a head is left out, and its whole head starts at random."""
    folder = random_classifier(tmp_path / "roberta", "roberta", ["a fine film ."])
    source = huggingface.load(folder)
    shapes = source.config.prunable()
    assert source.config.positions == 512 and len(shapes) == 12
    both_sizes(folder, Ticket.structured(normal_arrays(shapes, random=1), 2, 0.5), tmp_path / "small")
    edit_weights(folder, lambda w: {n: v for n, v in w.items() if not n.startswith("classifier")})
    edit_weights(folder, lambda w: w.update({"lm_head.bias": np.zeros(3, np.float32)}))
    source = huggingface.load(folder)
    weights = huggingface.with_classifier(source, 3, 1)
    assert {n: w.shape for n, w in weights.items()} == source.config.parameters(3)
    dense = weights["classifier.dense.weight"]
    assert abs(dense.std() - 0.02) < 0.002 and not weights["classifier.dense.bias"].any()
    trained = dataclasses.replace(source, weights={**weights, "classifier.dense.weight": dense + 1})
    np.testing.assert_array_equal(huggingface.with_classifier(trained, 3, 1)["classifier.dense.weight"], dense)


def test_layers_may_keep_different_numbers_of_neurons(tiny_bert, tmp_path):
    """Single weights pruned besides, a head whose rows alone are gone: only what adds nothing is cut."""
    random, shapes = np.random.default_rng(2), huggingface.load(tiny_bert).config.prunable()
    masks = {n: random.random(s) > 0.2 for n, s in shapes.items()}
    masks[matrix_name(0, "output")][:, 10:] = False
    masks[matrix_name(1, "output")][:, 30:] = False
    masks[matrix_name(1, "intermediate")][5] = False  # its bias still comes through
    masks[matrix_name(0, "attention output")][:, 8:16] = False
    masks[matrix_name(1, "value")][:8] = False  # likewise
    _, small = both_sizes(tiny_bert, Ticket(masks), tmp_path)
    assert small.config.intermediate_size == 30 and small.config.pruned_heads == {0: [1]}


def test_a_layer_without_heads_is_refused(tiny_bert):
    source = huggingface.load(tiny_bert)
    masks = {n: np.ones(s, bool) for n, s in source.config.prunable().items()}
    masks[matrix_name(1, "attention output")][:] = False
    with pytest.raises(ValueError, match="no attention head in layer 1"):
        huggingface.shrink(source.weights, source.raw, Ticket(masks))
