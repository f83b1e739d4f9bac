"""The victim against TextAttack's own wrapper, which pads everything to the full length."""

import json

import numpy as np
import pytest
import torch
import transformers
from transformers import (
    AutoTokenizer,
    BertForSequenceClassification,
    BigBirdConfig,
    BigBirdForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from configs.contract.basics.errors import UserError
from configs.contract.inputs import classifiers
from tests.helpers.files import edit_json, edit_weights
from tests.helpers.victims import tokenizer, write_bert
from torch_eval.attack.workers import Target, inspect
from torch_eval.bench import stock_textattack
from torch_eval.bench.random_models import random_classifier
from torch_eval.victim.classifier import Victim

LENGTH = 24
TEXTS = ["a fine film .", "dull", "", "an utterly charming , funny and warm piece of work " * 4] * 11


def test_pairs_of_a_tokenizer_that_leaves_token_types_out_are_read_as_in_the_stock_wrapper(tmp_path):
    """The model was trained on such inputs: segments that it never saw would change its answers."""
    folder, pairs = write_bert(tmp_path), [("who came ?", text) for text in TEXTS[:7]]
    segments = Victim(folder, LENGTH)(pairs)
    edit_json(folder / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    victim, expected = Victim(folder, LENGTH), stock_textattack.victim(folder, LENGTH)(pairs)
    torch.testing.assert_close(victim(pairs), expected, atol=1e-5, rtol=0)
    rounded = victim.rounded_logits(pairs, victim.roundings(pairs)[0])
    torch.testing.assert_close(rounded, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(segments, expected, atol=1e-3)


@pytest.mark.parametrize("names", [["input_ids", "token_type_ids", "attention_mask"], ["input_ids", "attention_mask"]])
def test_inputs_that_a_model_does_not_take_are_left_out(tmp_path, names):
    """As by the Trainer of transformers: many a DistilBERT was trained with the tokenizer of BERT."""
    folder = random_classifier(tmp_path, "distilbert", TEXTS)
    edit_json(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer", model_input_names=names)
    inspection = inspect(Target(folder, LENGTH), [(text,) for text in TEXTS])
    assert inspection.refusal is None and inspection.batching == "sorted"


def test_a_tokenizer_without_masks_leaves_the_padding_to_be_read_as_in_the_stock_wrapper(tmp_path):
    folder = write_bert(tmp_path)
    masked = Victim(folder, LENGTH)(TEXTS)
    edit_json(folder / "tokenizer_config.json", model_input_names=["input_ids", "token_type_ids"])
    victim, expected = Victim(folder, LENGTH), stock_textattack.victim(folder, LENGTH)(TEXTS)
    torch.testing.assert_close(victim(TEXTS), expected, atol=1e-5, rtol=0)
    assert victim.use_fastest(TEXTS) > 1 and victim.batching == "padded" and not torch.allclose(masked, expected)


def test_a_model_that_a_short_batch_changes_for_good_is_as_before_in_the_next_way_of_running_it(tmp_path):
    """BigBird goes over from its sparse attention to the full one."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BigBirdConfig(30522, **sizes, block_size=2, num_random_blocks=1, initializer_range=0.3)
    BigBirdForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    victim = Victim(tmp_path, LENGTH)
    assert victim.use_fastest(TEXTS[:4]) > 1 and victim.batching == "padded"
    expected = stock_textattack.victim(tmp_path, LENGTH)(TEXTS[:4])
    torch.testing.assert_close(victim(TEXTS[:4]), expected, atol=1e-5, rtol=0)


def test_a_decoder_that_states_no_padding_reads_the_end_of_a_text(tmp_path):
    """Its last padding would be read as the end; the stock wrapper stops with an error."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(write_bert(tmp_path))
    sizes = {"vocab_size": len(tokenizer), "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": LENGTH}
    config = GPT2Config(**sizes, initializer_range=0.3, return_dict=False)
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = GPT2ForSequenceClassification.from_pretrained(tmp_path).eval()
    alone = [model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=LENGTH)) for text in TEXTS[:4]]
    expected = torch.cat([logits.detach() for logits, *_ in alone])
    torch.testing.assert_close(Victim(tmp_path, LENGTH)(TEXTS[:4]), expected, atol=1e-5, rtol=0)
    refusal = inspect(Target(tmp_path, LENGTH + 1), [(text,) for text in TEXTS]).refusal
    assert "cannot classify a text of up to 25 pieces (IndexError: index out of range" in refusal


SIZES = {"num_attention_heads": 2, "initializer_range": 0.3}
READERS_OF_CHARACTERS = {
    "Canine": {**SIZES, "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64},
    "Perceiver": {**SIZES, "d_latents": 32, "d_model": 32, "num_latents": 4, "num_self_attends_per_block": 1},
}


@pytest.mark.parametrize("family", READERS_OF_CHARACTERS)
def test_a_tokenizer_of_bytes_or_characters_has_no_vocabulary_file(tmp_path, family):
    tokenizer = getattr(transformers, f"{family}Tokenizer")()
    config = getattr(transformers, f"{family}Config")(**READERS_OF_CHARACTERS[family])
    torch.manual_seed(0)
    getattr(transformers, f"{family}ForSequenceClassification")(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert classifiers.check(tmp_path, ["a", "b"], LENGTH) is None
    victim, expected = Victim(tmp_path, LENGTH), stock_textattack.victim(tmp_path, LENGTH)(TEXTS)
    victim.use_fastest(TEXTS[3:4])  # the sample may be of long texts alone
    torch.testing.assert_close(victim(TEXTS), expected, atol=1e-5, rtol=0)
    inspection = inspect(Target(tmp_path, LENGTH), [(text,) for text in TEXTS])
    stopped = any("sorted batches stop the model; padded ones are used" in note for note in inspection.notes)
    assert inspection.refusal is None and stopped == (family == "Canine")  # whose convolutions need four characters
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(UserError, match="no tokenizer"):
        classifiers.check(tmp_path, ["a", "b"], LENGTH)


@pytest.mark.parametrize("labels, layers", [(2, 2), (3, 1), (2, 3)])
def test_same_logits_as_the_stock_wrapper(tmp_path, labels, layers):
    folder = write_bert(tmp_path, labels, layers=layers)
    ours, expected = Victim(folder, LENGTH)(TEXTS), stock_textattack.victim(folder, LENGTH)(TEXTS)
    assert ours.shape == (len(TEXTS), labels) and ours.dtype == torch.float32
    assert expected.std(0).min() > 0.1  # rows differ, so a wrong order shows
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_pairs_are_read_as_two_segments(tmp_path):
    folder = write_bert(tmp_path, 3)
    pairs = [("who came ?", text) for text in TEXTS[:7]]
    expected = stock_textattack.victim(folder, LENGTH)(pairs)
    torch.testing.assert_close(Victim(folder, LENGTH)(pairs), expected, atol=1e-5, rtol=0)
    joined = Victim(folder, LENGTH)([" ".join(pair) for pair in pairs])
    assert not torch.allclose(joined, expected, atol=1e-3)


def test_one_column_in_a_tuple_is_a_single_text(tmp_path):
    victim = Victim(write_bert(tmp_path), LENGTH)
    torch.testing.assert_close(victim([(text,) for text in TEXTS]), victim(TEXTS))


def test_texts_that_read_alike_are_classified_once_and_tie_exactly(tmp_path):
    victim = Victim(write_bert(tmp_path), LENGTH)
    texts = [text for code in range(0x1F600, 0x1F614) for text in (f"a {chr(code)} film", f"film {code}")]
    rows, forward = [], victim.forward
    victim.forward = lambda batch: rows.append(len(batch)) or forward(batch)
    logits = victim(texts)
    assert sum(rows) == 21  # the 20 unknown characters are one input
    assert torch.equal(logits[::2], logits[:1].expand(20, -1))
    assert len(set(map(tuple, logits[1::2].tolist()))) == 20


def test_a_text_that_reads_like_an_earlier_one_has_its_logits_to_the_bit(tmp_path):
    """Also in a batch of another shape, where the last bits of a sum differ."""
    victim = Victim(write_bert(tmp_path), LENGTH)
    (alone,) = victim(["Hong kong"])
    assert torch.equal(victim([*TEXTS, "hong Kong"])[-1], alone)
    victim.forget()
    torch.testing.assert_close(victim([*TEXTS, "hong kong"])[-1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "text", ["so good " * 90, "很好看" * 200, "good" * 150 + " film" * 90, " " * 600 + "dull", "é" * 400 + " ok"]
)
def test_only_the_beginning_of_a_very_long_text_is_tokenized(tmp_path, text):
    victim, read = Victim(write_bert(tmp_path), LENGTH), []
    [expected] = victim._encode([text])
    encode = victim._encode
    victim._encode = lambda texts: read.extend(map(len, texts)) or encode(texts)
    assert victim._rows([text]) == [expected]
    assert min(read) < len(text) and victim._rows([text]) == [expected] and len(read) <= 2


@pytest.mark.parametrize("joining", "\x0b\x0c\x1c\x1f\x85")
def test_a_very_long_text_is_not_cut_inside_a_word(tmp_path, joining):
    """BERT's tokenizer deletes these characters, although Python counts them as spaces."""
    victim = Victim(write_bert(tmp_path), 16)
    text = f"{'q' * 103} {'a ' * 12}fil{joining}m is good"  # 13 pieces, then the one that the cut is near to
    assert victim._rows([text]) == victim._encode([text])


@pytest.mark.parametrize("positions", [1, 40, 4096])
def test_batches_of_any_size_give_the_same_logits(tmp_path, positions):
    victim = Victim(write_bert(tmp_path), LENGTH)
    expected = victim(TEXTS)
    victim.positions = positions
    victim.forget()
    torch.testing.assert_close(victim(TEXTS), expected, atol=1e-5, rtol=0)


def test_pruned_heads_and_neurons(tmp_path):
    """Heads are pruned by transformers itself; layers may then differ in size."""
    folder = write_bert(tmp_path)
    model = BertForSequenceClassification.from_pretrained(folder)
    model.prune_heads({0: [1]})
    model.save_pretrained(folder)
    expected = stock_textattack.victim(folder, LENGTH)(TEXTS)
    torch.testing.assert_close(Victim(folder, LENGTH)(TEXTS), expected, atol=1e-5, rtol=0)


def test_temperature_divides_and_dtype_rounds(tmp_path):
    folder = write_bert(tmp_path)
    exact = Victim(folder, LENGTH)(TEXTS)
    torch.testing.assert_close(Victim(folder, LENGTH, temperature=4.0)(TEXTS), exact / 4)
    rounded = Victim(folder, LENGTH, dtype="bfloat16")(TEXTS)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, atol=0.3, rtol=0.1)


def test_labels_in_another_order_are_those_of_the_data(tmp_path):
    folder = write_bert(tmp_path, labels=3)
    theirs = Victim(folder, LENGTH)(TEXTS)
    assert torch.equal(Victim(folder, LENGTH, label_order=(2, 0, 1))(TEXTS), theirs[:, [2, 0, 1]])


def test_a_bert_without_a_classifier_is_refused_without_advice_to_delete_it(tmp_path):
    folder = write_bert(tmp_path)
    BertForSequenceClassification.from_pretrained(folder).bert.save_pretrained(folder)
    with pytest.raises(UserError, match="a bert model without a trained classifier .*fine-tune it first$"):
        Victim(folder, LENGTH)


def test_a_tokenizer_of_more_pieces_than_the_model_is_refused(tmp_path):
    """Only texts that hold one of them would have failed, hours later."""
    tokenizer = AutoTokenizer.from_pretrained(write_bert(tmp_path))
    tokenizer.add_tokens(["unheardofword"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="its tokenizer has 30523 pieces, the model 30522; .*resize_token_embeddings"):
        Victim(tmp_path, LENGTH)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_an_absent_device_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="no CUDA device"):
        Victim(write_bert(tmp_path), LENGTH, device="cuda")


def test_broken_directories_are_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="missing"):
        Victim(tmp_path / "absent", LENGTH)
    folder = write_bert(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="no classifier can be loaded from config.json and model.safetensors .*header"):
        Victim(folder, LENGTH)
    config = (folder / "config.json").read_text()
    edit_json(folder / "config.json", quantization_config={"quant_method": "gptq"})
    with pytest.raises(UserError, match="config.json: weights quantised by gptq cannot be loaded here .*in float16"):
        Victim(folder, LENGTH)
    (folder / "config.json").write_text(config)
    edit_json(folder / "config.json", model_type="ours", auto_map={"AutoConfig": "m.C"})
    with pytest.raises(UserError, match="config.json: model_type 'ours' is no classifier of transformers 4.*never run"):
        Victim(folder, LENGTH)


def test_code_of_a_tokenizer_is_not_run_and_nobody_is_asked_for_it(tmp_path, monkeypatch):
    folder = write_bert(tmp_path)
    own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    (folder / "own.py").write_text("raise SystemExit('code was run')")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(UserError, match="no tokenizer can be loaded from .* contains custom code"):
        Victim(folder, LENGTH)


def test_logits_that_overflow_are_refused(tmp_path):
    """They would count as an answer, and the first attack would blame its text."""
    folder = write_bert(tmp_path)
    edit_weights(folder, lambda weights: weights["classifier.weight"].fill(3e38))
    with pytest.raises(UserError, match=f"{folder}: its logits are not finite in torch.float32; take float32"):
        Victim(folder, LENGTH)(TEXTS)


@pytest.mark.parametrize(
    "file, content, reason",
    [
        ("tokenizer.json", "{}", "Model missing"),
        ("vocab.txt", "film\n", "Missing .UNK. token"),
        ("spiece.model", "no model", "could not parse"),
    ],
)
def test_a_broken_tokenizer_is_named_with_what_is_wrong(tmp_path, file, content, reason):
    folder = write_bert(tmp_path)
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink()
    (folder / file).write_text(content)
    with pytest.raises(UserError, match=f"no tokenizer can be loaded from {file} .*{reason}.*; save it there again"):
        Victim(folder, LENGTH)


@pytest.mark.parametrize("kind", ["RobertaTokenizer", "PreTrainedTokenizerFast"])
def test_a_tokenizer_of_which_files_are_missing_is_refused_with_their_names(tmp_path, kind):
    """Transformers speaks of a None, or of a package that is not installed; vocab.json is there, and whole."""
    folder = random_classifier(tmp_path, "roberta", TEXTS)
    for name in ("tokenizer.json", "merges.txt"):
        (folder / name).unlink()
    edit_json(folder / "tokenizer_config.json", tokenizer_class=kind)
    with pytest.raises(
        UserError, match="from vocab.json .*or copy all its files: tokenizer.json, or vocab.json and mer"
    ):
        Victim(folder, LENGTH)


def test_a_file_that_the_tokenizer_does_not_need_may_be_of_any_format(tmp_path):
    """LLaMA 3 has a tokenizer.model of another format than SentencePiece's beside its tokenizer.json."""
    folder = write_bert(tmp_path)
    expected = Victim(folder, LENGTH)(TEXTS[:4])
    (folder / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")
    assert torch.equal(Victim(folder, LENGTH)(TEXTS[:4]), expected)


QUERY, POOLER = "bert.encoder.layer.0.attention.self.query.weight", "bert.pooler.dense.weight"
DAMAGES = {
    "its weights have other names than bert.embeddings.*mindspore_rt convert FOLDER NEW": lambda weights: {
        f"module.{name}": w for name, w in weights.items()
    },
    "has no weights .*query.weight": lambda weights: {n: w for n, w in weights.items() if n != QUERY},
    "has no weights bert.pooler.dense.weight": lambda weights: {n: w for n, w in weights.items() if n != POOLER},
    "also has weights bert.encoder.layer.7.x: weights and config.json do not belong together": lambda weights: (
        weights.update({"bert.encoder.layer.7.x": np.zeros(2, np.float32)})
    ),
    "weights of classifier.weight are not finite": lambda weights: weights["classifier.weight"].fill(np.nan),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_damaged_weights_are_refused(tmp_path, message):
    folder = write_bert(tmp_path)
    edit_weights(folder, DAMAGES[message])
    with pytest.raises(UserError, match=message):
        Victim(folder, LENGTH)


def test_weights_that_a_classifier_does_not_use_do_no_harm(tmp_path):
    folder = write_bert(tmp_path)
    expected = Victim(folder, LENGTH)(TEXTS)
    more = {"bert.embeddings.position_ids": np.arange(512)[None], "cls.predictions.bias": np.zeros(9, np.float32)}
    edit_weights(folder, lambda weights: weights.update(more))
    torch.testing.assert_close(Victim(folder, LENGTH)(TEXTS), expected)
