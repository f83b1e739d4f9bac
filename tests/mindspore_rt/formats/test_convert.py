"""Conversion between formats: bit-exact round trips, the official draw, and what is refused by name."""

import json

import mindspore as ms
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch.nn.utils import prune
from transformers import BertForSequenceClassification

from configs.contract.basics.files import read_json, temporary_path
from configs.contract.inputs.matrices import matrix_name
from mindspore_rt.cells import backend
from mindspore_rt.cells.encoder import EncoderClassifier
from mindspore_rt.formats import contents, convert, huggingface
from mindspore_rt.ticket import Ticket, spread
from tests.helpers.commands import run_python
from tests.helpers.models import assert_same_arrays, normal_arrays
from torch_eval.bench.random_models import random_classifier

QUERY = matrix_name(1, "query")


pytestmark = pytest.mark.usefixtures("torch_half_here")  # in a process of its own: test_huggingface.py


@pytest.fixture(scope="module")
def weights(tiny_bert):
    return load_file(tiny_bert / "model.safetensors")


@pytest.fixture(scope="module")
def shapes(tiny_bert):
    return huggingface.load(tiny_bert).config.prunable()


def random_scores(shapes, share=(1, 1)):
    return normal_arrays({n: (r // share[0], c // share[1]) for n, (r, c) in shapes.items()}, 4, mean=1)


def official_directory(folder, tiny_bert, weights, scores):
    """As the official code's `save_pretrained` left it: pickled, scores among the weights, a buffer, its arguments."""
    folder.mkdir()
    (folder / "config.json").write_text((tiny_bert / "config.json").read_text())
    (folder / "tokenizer.json").write_text((tiny_bert / "tokenizer.json").read_text())
    entries = {**weights, "bert.embeddings.position_ids": np.arange(512)[None]}
    for name, values in scores.items():
        entries[name.replace(".weight", ".mask.mask_scores")] = values[None, :, None]
    torch.save({n: torch.tensor(a) for n, a in entries.items()}, folder / "pytorch_model.bin")
    (folder / "training_args.bin").write_bytes(b"pickled arguments, never read")
    return folder


def run(*arguments, capsys=None):
    assert convert.main([str(a) for a in arguments]) == 0
    return capsys.readouterr().out if capsys else None


def refused(capsys, *arguments):
    assert convert.main([str(a) for a in arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    return message


def pickled(path):
    return {n: t.numpy() for n, t in torch.load(path / "pytorch_model.bin", weights_only=True).items()}


# --- round trips -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["m.ckpt", "m.safetensors"])
def test_hugging_face_to_mindspore_and_back(tiny_bert, weights, tmp_path, file):
    run(tiny_bert, tmp_path / file, "--to", "mindspore")
    run(tmp_path / file, tmp_path / "back", "--like", tiny_bert)
    assert_same_arrays(load_file(tmp_path / "back" / "model.safetensors"), weights)
    assert (tmp_path / "back" / "tokenizer.json").read_bytes() == (tiny_bert / "tokenizer.json").read_bytes()
    loaded, info = BertForSequenceClassification.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(info.values())
    assert read_json(tmp_path / "back" / "config.json") == read_json(tiny_bert / "config.json")


def test_the_checkpoint_loads_into_the_cells(tiny_bert, tmp_path):
    run(tiny_bert, tmp_path / "m.ckpt")
    net = EncoderClassifier(huggingface.load(tiny_bert).config, 2)
    missing, unknown = ms.load_param_into_net(net, ms.load_checkpoint(str(tmp_path / "m.ckpt")), strict_load=True)
    assert not missing and unknown == ["config"]
    assert_same_arrays({n: p.asnumpy() for n, p in net.weights().items()}, load_file(tiny_bert / "model.safetensors"))


@pytest.mark.parametrize("share, way", [((1, 1), "m.ckpt"), ((32, 1), "m.safetensors"), ((16, 32), "directory")])
def test_a_search_checkpoint_of_the_official_code_and_back(tiny_bert, weights, shapes, tmp_path, share, way):
    source = official_directory(tmp_path / "theirs", tiny_bert, weights, random_scores(shapes, share))
    run(source, tmp_path / way, "--to", "huggingface" if way == "directory" else "mindspore")
    run(tmp_path / way, tmp_path / "back", "--to", "official")
    expected = pickled(source)
    del expected["bert.embeddings.position_ids"]  # a buffer, not a weight
    assert_same_arrays(pickled(tmp_path / "back"), expected)


def test_scores_of_our_search_for_the_official_code(tiny_bert, weights, shapes, tmp_path):
    scores = random_scores(shapes)
    save_file(scores, tmp_path / "epoch-20.safetensors", {"step": "9"})
    run(tmp_path / "epoch-20.safetensors", tmp_path / "theirs", "--to", "official", "--like", tiny_bert)
    checkpoint = pickled(tmp_path / "theirs")
    np.testing.assert_array_equal(checkpoint[QUERY.replace(".weight", ".mask.mask_scores")][0, :, 0], scores[QUERY])
    assert len(checkpoint) == len(weights) + len(shapes)


def test_a_retrained_checkpoint_becomes_what_it_computes(tiny_bert, weights, shapes, tmp_path):
    """Scores of +-20 are a ticket: its pruned weights are exact zeros in plain transformers, its mask comes back."""
    ticket = Ticket.from_scores(random_scores(shapes), 0.4)
    settled = {n: np.where(m, 20, -20).astype(np.float32) for n, m in ticket.masks.items()}
    source = official_directory(tmp_path / "theirs", tiny_bert, weights, settled)
    run(source, tmp_path / "model")
    assert_same_arrays(load_file(tmp_path / "model" / "model.safetensors"), ticket.apply(weights))
    run(source, tmp_path / "a", "--to", "ticket")
    run(tmp_path / "model", tmp_path / "b", "--to", "ticket")
    for path in (tmp_path / "a", tmp_path / "b"):
        assert_same_arrays(Ticket.load(path).masks, ticket.masks)


@pytest.mark.parametrize("to", ["huggingface", "official"])
def test_a_ticket_with_the_weights_of_a_model(tiny_bert, weights, shapes, tmp_path, to):
    ticket = Ticket.from_scores(random_scores(shapes), 0.3)
    ticket.save(tmp_path / "t.safetensors")
    run(tmp_path / "t.safetensors", tmp_path / "out", "--to", to, "--like", tiny_bert)
    if to == "official":
        scores = pickled(tmp_path / "out")[QUERY.replace(".weight", ".mask.mask_scores")][0, :, 0]
        np.testing.assert_array_equal(scores, np.where(ticket.masks[QUERY], 20, -20))
    run(tmp_path / "out", tmp_path / "again", "--to", "ticket")
    assert_same_arrays(Ticket.load(tmp_path / "again").masks, ticket.masks)


def test_compact_file(tiny_bert, weights, shapes, tmp_path, capsys):
    ticket = Ticket.from_scores(random_scores(shapes), 0.75)
    ticket.save(tmp_path / "t.safetensors")
    arguments = (tmp_path / "t.safetensors", tmp_path / "c.safetensors", "--to", "compact", "--like", tiny_bert)
    out = run(*arguments, capsys=capsys)
    assert_same_arrays(contents.read(tmp_path / "c.safetensors").weights, ticket.apply(weights))
    size, dense = (tmp_path / "c.safetensors").stat().st_size, sum(w.nbytes for w in weights.values())
    prunable = sum(r * c for r, c in shapes.values())
    assert size < dense - prunable * (4 * 0.75 - 1 / 8) + 20_000
    assert f"{size:,} bytes against {dense:,}" in out
    run(tmp_path / "c.safetensors", tmp_path / "model", "--like", tiny_bert)
    assert_same_arrays(load_file(tmp_path / "model" / "model.safetensors"), ticket.apply(weights))


def test_a_kept_weight_may_be_zero(tiny_bert, weights, shapes, tmp_path):
    """A compact file keeps the ticket's own mask, and the sign of zero."""
    masks = {n: np.ones(s, bool) for n, s in shapes.items()}
    masks[QUERY][0] = False
    spoiled = {**weights, QUERY: weights[QUERY].copy()}
    spoiled[QUERY][1, :2] = 0.0, -0.0
    settled = {n: np.where(m, 20, -20).astype(np.float32) for n, m in masks.items()}
    source = official_directory(tmp_path / "o", tiny_bert, spoiled, settled)
    run(source, tmp_path / "c", "--to", "compact")
    assert_same_arrays(contents.read(tmp_path / "c").weights, Ticket(masks).apply(spoiled))


# --- the draw --------------------------------------------------------------------------------------------------


def torch_draw(scores, sparsity):
    """float32 sigmoid, then a global L1 prune, on modules as in the official code."""
    modules = [torch.nn.ParameterList([torch.sigmoid(torch.tensor(s))]) for s in scores.values()]
    prune.global_unstructured([(m, "0") for m in modules], prune.L1Unstructured, amount=sparsity)
    return {n: getattr(m, "0_mask").bool().numpy() for n, m in zip(scores, modules, strict=True)}


@pytest.mark.parametrize("share, sparsity", [((1, 1), 0.1), ((32, 1), 0.3), ((1, 1), 0.5), ((32, 1), 0.9)])
def test_the_official_draw(tiny_bert, weights, shapes, tmp_path, capsys, share, sparsity):
    """Equal to torch's up to the scores that tie at the threshold, and these are counted."""
    scores = random_scores(shapes, share)
    if share == (1, 1):
        scores = {n: s + 9 for n, s in scores.items()}  # float32 sigmoids tie in great number
    source = official_directory(tmp_path / "theirs", tiny_bert, weights, scores)
    out = run(source, tmp_path / "t", "--to", "ticket", "--sparsity", sparsity, "--compat", "official", capsys=capsys)
    ticket, expected = Ticket.load(tmp_path / "t"), torch_draw(scores, sparsity)
    tied = int(ticket.about["tied"])
    assert f"{tied} scores tie" in out
    flat = torch.sigmoid(torch.tensor(np.concatenate([s.ravel() for s in scores.values()]))).numpy()
    threshold = np.sort(flat)[round(sparsity * flat.size) - 1]
    # torch's exponential may differ in its last bit, which moves a few scores into or out of a tie.
    assert abs(tied - (flat == threshold).sum()) <= max(2, 0.05 * tied)
    for name, mask in expected.items():
        s = torch.sigmoid(torch.tensor(scores[name])).numpy()
        clear = spread(np.abs(s - threshold) > 2.4e-7 * threshold, shapes[name])
        np.testing.assert_array_equal(ticket.masks[name][clear], spread(mask, shapes[name])[clear])
    assert ticket.pruned == sum(int((~m).sum()) for m in expected.values()) * share[0] * share[1]


def test_raw_scores_by_default(tiny_bert, weights, shapes, tmp_path):
    scores = random_scores(shapes)
    source = official_directory(tmp_path / "theirs", tiny_bert, weights, scores)
    run(source, tmp_path / "t", "--to", "ticket", "--sparsity", "0.3")
    assert_same_arrays(Ticket.load(tmp_path / "t").masks, Ticket.from_scores(scores, 0.3).masks)


# --- names -----------------------------------------------------------------------------------------------------


def rewritten(folder, tiny_bert, weights):
    folder.mkdir()
    (folder / "config.json").write_text((tiny_bert / "config.json").read_text())
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_older_names_are_understood(tiny_bert, weights, tmp_path):
    """TensorFlow's gamma and beta, an encoder without prefix; MindSpore's embedding_table."""

    def old(name):
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        return name.replace("embeddings.weight", "embeddings.embedding_table").removeprefix("bert.")

    source = rewritten(tmp_path / "old", tiny_bert, {old(n): w for n, w in weights.items()})
    run(source, tmp_path / "new")
    assert_same_arrays(load_file(tmp_path / "new" / "model.safetensors"), weights)


def test_a_bare_torch_file(tiny_bert, weights, tmp_path):
    torch.save({n: torch.tensor(w) for n, w in weights.items()}, tmp_path / "some.file")
    run(tmp_path / "some.file", tmp_path / "m.ckpt", "--like", tiny_bert)
    run(tmp_path / "m.ckpt", tmp_path / "back")
    assert_same_arrays(load_file(tmp_path / "back" / "model.safetensors"), weights)


def test_half_precision_is_widened(tiny_bert, weights, tmp_path):
    half = {n: w.astype(np.float16) for n, w in weights.items()}
    run(rewritten(tmp_path / "half", tiny_bert, half), tmp_path / "m.ckpt")
    run(tmp_path / "m.ckpt", tmp_path / "back")
    assert_same_arrays(
        load_file(tmp_path / "back" / "model.safetensors"), {n: w.astype(np.float32) for n, w in half.items()}
    )


def test_bfloat16_of_a_checkpoint_is_widened(tiny_bert, weights, tmp_path):
    entries = [{"name": name, "data": ms.Tensor(value, ms.bfloat16)} for name, value in weights.items()]
    ms.save_checkpoint(entries, str(tmp_path / "b.ckpt"))
    run(tmp_path / "b.ckpt", tmp_path / "out", "--like", tiny_bert)
    expected = {name: torch.tensor(value).bfloat16().float().numpy() for name, value in weights.items()}
    assert_same_arrays(load_file(tmp_path / "out" / "model.safetensors"), expected)


def test_missing_and_unknown_only_by_word(tiny_bert, weights, tmp_path, capsys):
    changed = {n: w for n, w in weights.items() if not n.startswith("classifier")}
    changed["cls.predictions.bias"] = np.zeros(3, np.float32)
    source = rewritten(tmp_path / "pretrained", tiny_bert, changed)
    message = refused(capsys, source, tmp_path / "m.ckpt")
    for part in ("2 missing: classifier.weight, classifier.bias", "1 unknown: cls.predictions.bias", "--allow-unknown"):
        assert part in message
    assert "cls" not in refused(capsys, source, tmp_path / "m.ckpt", "--allow-unknown", "cls")
    assert "missing:" not in refused(capsys, source, tmp_path / "m.ckpt", "--allow-missing", "classifier")
    run(source, tmp_path / "m.ckpt", "--allow-unknown", "cls", "--allow-missing", "classifier")
    entries = ms.load_checkpoint(str(tmp_path / "m.ckpt"))
    assert set(entries) - {"config"} == {n for n in weights if not n.startswith("classifier")}


# --- what is refused -------------------------------------------------------------------------------------------


def test_another_model_is_refused_with_a_few_names_and_their_number(tiny_bert, weights, tmp_path, capsys):
    """And weights alone, in a file, with what they lack."""
    save_file(
        {name: weights[name] for name in (QUERY, "classifier.bias")}, tmp_path / "part.safetensors", {"format": "pt"}
    )
    message = refused(capsys, tmp_path / "part.safetensors", tmp_path / "out", "--like", tiny_bert)
    assert f"{len(weights) - 2} missing: bert.embeddings" in message and f" and {len(weights) - 6} more" in message
    message = refused(capsys, tmp_path / "part.safetensors", tmp_path / "out")
    assert "part.safetensors (huggingface): its shape is unknown" in message and "--like DIRECTORY" in message


def test_misshapen_and_not_finite_weights_are_named(tiny_bert, weights, tmp_path, capsys):
    wrong = {**weights, QUERY: weights[QUERY][:30].copy(), "classifier.bias": np.float32([np.nan, 0])}
    message = refused(capsys, rewritten(tmp_path / "wrong", tiny_bert, wrong), tmp_path / "m.ckpt")
    assert f"{QUERY} is [30, 32], not [32, 32]" in message and "not finite: classifier.bias" in message


def test_a_head_of_other_labels_than_its_config_names_is_refused(tiny_bert, weights, tmp_path, capsys):
    """Transformers could not load what would be written."""
    head = {"classifier.weight": np.zeros((3, weights["classifier.weight"].shape[1]), np.float32)}
    save_file({**weights, **head, "classifier.bias": np.zeros(3, np.float32)}, tmp_path / "three.safetensors")
    message = refused(capsys, tmp_path / "three.safetensors", tmp_path / "out", "--like", tiny_bert)
    assert "a classifier of 3 labels, but config.json states 2; name all of them in its id2label" in message
    pruned = {QUERY: np.zeros_like(weights[QUERY])}
    save_file(
        {**weights, **head, **pruned, "classifier.bias": np.zeros(3, np.float32)}, tmp_path / "pruned.safetensors"
    )
    ticket = tmp_path / "ticket.safetensors"  # holds no head
    assert (
        convert.main([str(tmp_path / "pruned.safetensors"), str(ticket), "--like", str(tiny_bert), "--to", "ticket"])
        == 0
    )


def test_a_ticket_of_a_part_of_the_model_is_refused(tiny_bert, weights, tmp_path, capsys):
    """No run would accept it."""
    part = {name: value for name, value in weights.items() if "pooler" not in name}
    source = rewritten(tmp_path / "part", tiny_bert, {**part, QUERY: np.zeros_like(weights[QUERY])})
    words = (source, tmp_path / "ticket.safetensors", "--to", "ticket", "--allow-missing", "bert.pooler")
    assert f"{source}: lacks bert.pooler.dense.weight, so its ticket would" in refused(capsys, *words)
    assert not (tmp_path / "ticket.safetensors").exists()


def test_scores_that_do_not_fit_are_named(tiny_bert, weights, shapes, tmp_path, capsys):
    scores = random_scores(shapes)
    scores[QUERY] = scores[QUERY][:5]
    del scores[matrix_name(0, "key")]
    source = official_directory(tmp_path / "theirs", tiny_bert, weights, scores)
    message = refused(capsys, source, tmp_path / "m.ckpt")
    assert f"scores of {QUERY}" in message and f"scores of {matrix_name(0, 'key')}" in message


def test_a_wrong_command_line_is_refused_as_in_other_commands(tiny_bert, tmp_path, capsys):
    message = refused(capsys, tiny_bert, tmp_path / "out", "--to", "onnx")
    assert "'onnx'" in message and "`python -m mindspore_rt convert --help` lists what can be given" in message


def test_an_existing_target_is_left_alone(tiny_bert, tmp_path, capsys):
    (tmp_path / "there").write_text("mine")
    assert "is there already" in refused(capsys, tiny_bert, tmp_path / "there")
    assert (tmp_path / "there").read_text() == "mine"
    (tmp_path / "link").symlink_to("nothing")
    assert "is there already" in refused(capsys, tiny_bert, tmp_path / "link")


@pytest.mark.parametrize("target", ["model.onnx", "model.pt", "pytorch_model.bin"])
def test_a_target_of_a_format_that_is_not_written(tiny_bert, tmp_path, capsys, target):
    assert "NAME.ckpt a MindSpore checkpoint" in refused(capsys, tiny_bert, tmp_path / target)
    assert not (tmp_path / target).exists()


@pytest.mark.parametrize("target", ["model", "model.ckpt", "model.safetensors"])
def test_what_a_killed_conversion_left_is_gone_after_the_next(tiny_bert, tmp_path, target):
    code = (
        "import os, sys; from mindspore_rt.formats import convert;"
        "convert.os.replace = os.replace = lambda *_: os.kill(os.getpid(), 9); convert.main(sys.argv[1:])"
    )
    words = [tiny_bert, tmp_path / target, *(["--to", "mindspore"] if target.endswith("safetensors") else [])]
    run_python(code, *words, status=-9)
    assert [path.name for path in tmp_path.iterdir()] and not (tmp_path / target).exists()
    other = temporary_path(tmp_path / f"other.{target}")
    other.write_text("of a process that runs")
    run(*words)
    assert sorted(tmp_path.iterdir()) == [other, tmp_path / target]


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 broken", b"\x80\x02}.", b"\n3\n\x08a.weight\x12'"])
def test_a_file_of_no_known_format(tmp_path, capsys, content):
    (tmp_path / "x.ckpt").write_bytes(content)
    message = refused(capsys, tmp_path / "x.ckpt", tmp_path / "m")
    assert "x.ckpt" in message and "; " in message and "filter" not in message  # the remedy, and no advice on loading
    assert not (tmp_path / "m").exists()


def test_a_truncated_checkpoint(tiny_bert, tmp_path, capsys):
    for name in ("m.ckpt", "m.safetensors"):
        run(tiny_bert, tmp_path / name, "--to", "mindspore")
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9])
        assert name in refused(capsys, tmp_path / name, tmp_path / "out")


@pytest.mark.parametrize("place", [9, 0.5, 0.9])
def test_a_flipped_bit_of_a_checkpoint(tiny_bert, tmp_path, capsys, place):
    """Else it is another weight, without a word."""
    run(tiny_bert, tmp_path / "m.ckpt")
    raw = bytearray((tmp_path / "m.ckpt").read_bytes())
    raw[place if isinstance(place, int) else int(place * len(raw))] ^= 1
    (tmp_path / "m.ckpt").write_bytes(raw)
    message = refused(capsys, tmp_path / "m.ckpt", tmp_path / "out")
    assert "m.ckpt: damaged, its content does not fit its check sum" in message


def test_a_damaged_compact_file(tiny_bert, shapes, tmp_path, capsys):
    Ticket.from_scores(random_scores(shapes), 0.5).save(tmp_path / "t")
    run(tmp_path / "t", tmp_path / "c", "--to", "compact", "--like", tiny_bert)
    arrays = load_file(tmp_path / "c")
    arrays["mask:" + QUERY] = arrays["mask:" + QUERY] ^ np.uint8(1)
    config = json.dumps(read_json(tiny_bert / "config.json"))
    save_file(arrays, tmp_path / "d", {"format": "compact/1", "config": config})
    assert QUERY in refused(capsys, tmp_path / "d", tmp_path / "out")
    arrays["mask:" + QUERY] = arrays["mask:" + QUERY].astype(np.float32)
    save_file(arrays, tmp_path / "d", {"format": "compact/1", "config": config})
    assert QUERY in refused(capsys, tmp_path / "d", tmp_path / "out")


@pytest.mark.parametrize("format", ["compact/1", "ms"])
@pytest.mark.parametrize("config", [None, "[]", "3", "[" * 100_000, "{"])
def test_a_config_of_nonsense(weights, tmp_path, capsys, format, config):
    about = {"format": format, **({"config": config} if config else {})}
    save_file(weights, tmp_path / "x.safetensors", about)
    assert "x.safetensors" in refused(capsys, tmp_path / "x.safetensors", tmp_path / "out")


@pytest.mark.parametrize("kind", [np.int32, bool])
def test_weights_that_are_no_floats(tiny_bert, weights, tmp_path, capsys, kind):
    source = rewritten(tmp_path / "wrong", tiny_bert, {**weights, QUERY: weights[QUERY].astype(kind)})
    assert f"not of floats: {QUERY}" in refused(capsys, source, tmp_path / "out")


def test_arrays_of_odd_ranks(tiny_bert, weights, shapes, tmp_path, capsys):
    """A classifier's bias that is a number, and scores of four axes that are empty."""
    source = rewritten(tmp_path / "bias", tiny_bert, {**weights, "classifier.bias": np.array(1, np.float32)})
    assert "classifier.bias is []" in refused(capsys, source, tmp_path / "out")
    scores = {name.replace(".weight", ".mask.mask_scores"): np.zeros((0, 1, 1, 1), np.float32) for name in shapes}
    source = rewritten(tmp_path / "scores", tiny_bert, {**weights, **scores})
    assert f"{len(shapes)} misshapen: scores of {next(iter(shapes))}" in refused(capsys, source, tmp_path / "out")


def test_a_type_that_numpy_lacks(tiny_bert, weights, tmp_path, capsys):
    from safetensors.torch import save_file as save_torch

    source = rewritten(tmp_path / "eight", tiny_bert, weights)
    save_torch({QUERY: torch.zeros(32, 32, dtype=torch.float8_e4m3fn)}, source / "model.safetensors")
    assert "model.safetensors: not a complete safetensors file of float" in refused(capsys, source, tmp_path / "out")


@pytest.mark.parametrize("content", [b"\x80\x02.", b"\x80\x02}.", b"PK\x03\x04 broken"])
def test_a_broken_pickle_is_named_once(tmp_path, capsys, content):
    (tmp_path / "x.bin").write_bytes(content)
    message = refused(capsys, tmp_path / "x.bin", tmp_path / "m")
    assert message.count("error: ") == 1 and message.count("x.bin: ") == 1 and "PyTorch weight file" in message


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin"])
def test_a_source_without_weights_is_not_replaced_by_the_model_that_it_is_like(tiny_bert, tmp_path, capsys, name):
    """All weights of --like would be written, as if they were the source's."""
    source = tmp_path / name
    (torch.save if source.suffix == ".bin" else save_file)({}, source)
    assert f"{source}: holds no weights" in refused(capsys, source, tmp_path / "out", "--like", tiny_bert)
    assert not (tmp_path / "out").exists()


def test_a_ticket_of_a_narrower_model_is_refused(tiny_bert, shapes, tmp_path, capsys):
    """Scores may be shared by weights; a ticket states every weight, and its pattern repeated means nothing."""
    ticket = tmp_path / "t.safetensors"
    Ticket({name: np.ones((rows // 2, columns // 2), bool) for name, (rows, columns) in shapes.items()}).save(ticket)
    message = refused(capsys, ticket, tmp_path / "out", "--like", tiny_bert)
    assert f"{len(shapes)} misshapen: mask of {next(iter(shapes))} is [16, 16], not [32, 32]" in message


def test_what_cannot_be_made_says_why(tiny_bert, weights, shapes, tmp_path, capsys):
    assert "no such file" in refused(capsys, tmp_path / "gone", tmp_path / "out")
    assert "--to" in refused(capsys, tiny_bert, tmp_path / "out.safetensors")
    assert "states no ticket" in refused(capsys, tiny_bert, tmp_path / "out", "--to", "ticket")
    assert "holds no scores" in refused(capsys, tiny_bert, tmp_path / "out", "--to", "ticket", "--sparsity", "0.3")
    assert "neither scores" in refused(capsys, tiny_bert, tmp_path / "out", "--to", "official")
    assert ".ckpt or .safetensors" in refused(capsys, tiny_bert, tmp_path / "out", "--to", "mindspore")
    Ticket.from_scores(random_scores(shapes), 0.3).save(tmp_path / "t")
    assert "--like" in refused(capsys, tmp_path / "t", tmp_path / "out")
    assert "already" in refused(capsys, tmp_path / "t", tmp_path / "out", "--to", "ticket")
    source = official_directory(tmp_path / "theirs", tiny_bert, weights, random_scores(shapes))
    assert "--sparsity" in refused(capsys, source, tmp_path / "out", "--to", "ticket")
    assert "between 0 and 1" in refused(capsys, source, tmp_path / "out", "--to", "ticket", "--sparsity", "30")
    for target in ("out", "out.ckpt", "out.mindir"):
        message = refused(capsys, source, tmp_path / target, "--sparsity", "0.3")
        assert "--sparsity draws a ticket" in message and "--to ticket --sparsity 0.3, then" in message
    assert "--sparsity is not given" in refused(
        capsys, source, tmp_path / "out", "--to", "ticket", "--compat", "official"
    )
    assert "--shape is of a .mindir file" in refused(capsys, source, tmp_path / "out", "--shape", "1", "64")
    assert "state no ticket; draw one first" in refused(capsys, source, tmp_path / "out.mindir")
    assert "is called .mindir; rename TARGET" in refused(capsys, tiny_bert, tmp_path / "out", "--to", "mindir")
    (tmp_path / "graph.mindir").write_bytes(b"\n\x051.0.0")
    assert "give the model that it was made from" in refused(capsys, tmp_path / "graph.mindir", tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_a_roberta_keeps_its_names_in_every_format_but_the_official_one(tmp_path, capsys):
    """A bare file names no family: its weights' names do."""
    source = random_classifier(tmp_path / "roberta", "roberta", ["a fine film ."])
    expected, shapes = load_file(source / "model.safetensors"), huggingface.load(source).config.prunable()
    run(source, tmp_path / "model.ckpt")
    run(tmp_path / "model.ckpt", tmp_path / "back", "--like", source)
    assert_same_arrays(load_file(tmp_path / "back" / "model.safetensors"), expected)
    assert read_json(tmp_path / "back" / "config.json")["architectures"] == ["RobertaForSequenceClassification"]
    run(source / "model.safetensors", tmp_path / "bare.ckpt", "--like", source)
    save_file(random_scores(shapes), tmp_path / "scores.safetensors")
    run(
        tmp_path / "scores.safetensors",
        tmp_path / "t.safetensors",
        "--like",
        source,
        "--to",
        "ticket",
        "--sparsity",
        0.5,
    )
    assert {n: m.shape for n, m in Ticket.load(tmp_path / "t.safetensors").masks.items()} == shapes
    arguments = (tmp_path / "t.safetensors", tmp_path / "theirs", "--like", source, "--to", "official")
    assert "of RoBERTa; the official code has BERT alone" in refused(capsys, *arguments)


def test_an_exported_graph_gives_transformers_logits(tiny_bert, tmp_path, monkeypatch):
    """MindSpore loads it without the code of this project."""
    monkeypatch.setenv("ROBUST_TICKETS_KERNELS", "plain")  # the export sets it
    monkeypatch.setattr(backend, "current", lambda: backend.Backend.PRIMITIVES)
    assert convert.main([str(tiny_bert), str(tmp_path / "model.mindir"), "--shape", "2", "8"]) == 0
    graph = ms.nn.GraphCell(ms.load(str(tmp_path / "model.mindir")))
    ids = np.random.default_rng(0).integers(1000, 2000, (2, 8))
    mask, types = np.arange(8) < [[8], [5]], np.arange(8) >= [[4], [3]]
    logits = graph(ms.Tensor(ids, ms.int32), ms.Tensor(mask, ms.float32), ms.Tensor(types, ms.int32)).asnumpy()
    reference = BertForSequenceClassification.from_pretrained(tiny_bert).eval()
    inputs = {"input_ids": ids, "attention_mask": mask.astype(int), "token_type_ids": types.astype(int)}
    with torch.no_grad():
        expected = reference(**{name: torch.tensor(value) for name, value in inputs.items()}).logits.numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_a_graph_holds_a_classifier_of_a_length_that_the_model_has(tiny_bert, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ROBUST_TICKETS_KERNELS", "plain")
    for shape in (("1", "600"), ("0", "8"), ("-1", "8")):
        assert convert.main([str(tiny_bert), str(tmp_path / "model.mindir"), "--shape", *shape]) == 2
        assert "for one text or more of 1 to 512 word pieces (--shape)" in capsys.readouterr().err
