"""Tokenizer directories: the same ids as transformers, and what is refused by name."""

import json
import shutil

import pytest
from transformers import AutoTokenizer, BertTokenizer

from configs.contract.errors import UserError
from configs.contract.tokenizer import load_tokenizer

HARD = [
    "plain words",
    'a "quoted", and\na second line',
    'three """ quotes',
    "tab\tinside",
    "line\u2028separator, next\u0085line",
    "naïve café 北京 😀",
    "it's 'single'",
]
TEXTS = [*HARD, "an utterly charming , funny and warm piece of work " * 9, "x" * 150, "[MASK] [SEP] antidotes"]


@pytest.mark.parametrize("length", [8, 48, 128])
def test_tokens_equal_transformers(packaged_model, length):
    """Ids and token types of single texts and pairs, cut longest part first."""
    ours, theirs = load_tokenizer(packaged_model, length), AutoTokenizer.from_pretrained(packaged_model)
    pairs = [(a, b) for a in TEXTS for b in TEXTS]
    for batch, columns in ((TEXTS, [TEXTS]), (pairs, [list(c) for c in zip(*pairs)])):
        expected = theirs(*columns, truncation="longest_first", max_length=length)
        found = ours.encode_batch(batch)
        assert [e.ids for e in found] == expected["input_ids"]
        assert [e.type_ids for e in found] == expected["token_type_ids"]
        assert max(len(e.ids) for e in found) <= length


def test_tokens_equal_the_python_tokenizer(packaged_model):
    """The slow one of transformers, which shares no code with the one used here."""
    ours, theirs = load_tokenizer(packaged_model, 64), BertTokenizer(packaged_model / "vocab.txt")
    expected = theirs(TEXTS, truncation=True, max_length=64)["input_ids"]
    assert [e.ids for e in ours.encode_batch(TEXTS)] == expected


def test_vocab_txt_alone_is_enough(packaged_model, tmp_path):
    shutil.copyfile(packaged_model / "vocab.txt", tmp_path / "vocab.txt")
    full, bare = load_tokenizer(packaged_model, 32), load_tokenizer(tmp_path, 32)
    pairs = list(zip(TEXTS, reversed(TEXTS)))
    assert [e.ids for e in bare.encode_batch(pairs)] == [e.ids for e in full.encode_batch(pairs)]


def test_broken_and_missing_tokenizers(tmp_path):
    with pytest.raises(UserError, match="neither tokenizer.json nor vocab.txt"):
        load_tokenizer(tmp_path, 32)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="tokenizer.json: not a tokenizer"):
        load_tokenizer(tmp_path, 32)


def without_unknown(tokenizer):
    del tokenizer["model"]["vocab"]["[UNK]"]
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["content"] != "[UNK]"]


def one_segment(tokenizer):
    for part in tokenizer["post_processor"]["pair"]:
        next(iter(part.values()))["type_id"] = 0


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.update(post_processor=None), "between"),
        (lambda t: t["post_processor"]["special_tokens"]["[CLS]"].update(ids=[999_999]), "between"),
        (lambda t: t.update(pre_tokenizer=None), "spaces"),
        (lambda t: t["model"]["vocab"].update(film=999_999), "the id 999999, the model 30522"),
        (without_unknown, "no piece \\[UNK\\]"),
        (one_segment, "pair"),
    ],
)
def test_an_edited_tokenizer_is_refused(packaged_model, tmp_path, change, message):
    tokenizer = json.loads((packaged_model / "tokenizer.json").read_text())
    change(tokenizer)
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match=f"tokenizer.json: .*{message}"):
        load_tokenizer(tmp_path, 32, 30522)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda raw: raw.replace(b"\n[UNK]\n", b"\n[gone]\n"), "no piece \\[UNK\\]"),
        (lambda raw: raw[: len(raw) // 2], "cut off"),
        (lambda raw: raw[: raw.index(b"\n", len(raw) // 2) + 1], "cut off"),
        (lambda raw: raw[:-2], "not UTF-8"),
        (lambda raw: raw.replace(b"\nfilm\n", b"\nfilm\nfilm\n"), "'film' stands in 2 lines"),
        (lambda raw: raw + b"one more\n", "the id 30522, the model 30522"),
    ],
)
def test_an_edited_vocabulary_is_refused(packaged_model, tmp_path, change, message):
    (tmp_path / "vocab.txt").write_bytes(change((packaged_model / "vocab.txt").read_bytes()))
    with pytest.raises(UserError, match=f"vocab.txt: .*{message}"):
        load_tokenizer(tmp_path, 32, 30522)


def test_a_vocabulary_may_have_windows_lines_and_the_model_padded_rows(packaged_model, tmp_path):
    """As transformers has it: neither changes an id."""
    raw = (packaged_model / "vocab.txt").read_bytes()
    expected = load_tokenizer(packaged_model, 32).encode_batch(TEXTS)
    for content in (raw, raw.replace(b"\n", b"\r\n")):
        (tmp_path / "vocab.txt").write_bytes(content)
        found = load_tokenizer(tmp_path, 32, 30528).encode_batch(TEXTS)
        assert [e.ids for e in found] == [e.ids for e in expected]
