"""Tokenizer directories: the same ids as transformers, and what is refused by name."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizer

from configs.contract.basics.errors import UserError
from configs.contract.inputs.tokenizer import compare_ids, load_tokenizer, sample_ids, save_tokenizer
from tests.helpers.files import HARD_TEXTS, edit_json
from torch_eval.bench.random_models import random_classifier

TEXTS = [*HARD_TEXTS, "an utterly charming , funny and warm piece of work " * 9, "x" * 150, "[MASK] [SEP] antidotes"]


@pytest.mark.parametrize("length", [8, 48, 128])
def test_tokens_equal_transformers(packaged_model, length):
    """Ids and token types of single texts and pairs, cut longest part first."""
    ours, theirs = load_tokenizer(packaged_model, length), AutoTokenizer.from_pretrained(packaged_model)
    pairs = [(a, b) for a in TEXTS for b in TEXTS]
    for batch, columns in ((TEXTS, [TEXTS]), (pairs, [list(c) for c in zip(*pairs)])):
        expected = theirs(*columns, truncation="longest_first", max_length=length)
        encoded = ours.encode_batch(batch)
        assert [e.ids for e in encoded] == expected["input_ids"]
        assert [e.type_ids for e in encoded] == expected["token_type_ids"]
        assert max(len(e.ids) for e in encoded) <= length


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
    (tmp_path / "tokenizer_config.json").write_text("[]")  # of the user's own: nothing to delete
    with pytest.raises(UserError, match="tokenizer_config.json: expected an object, got a list; copy the tokenizer"):
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
        (lambda raw: raw.replace(b"\nfilm\n", b"\nfilm\nfilm\n"), "'film' is in 2 lines"),
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
        encoded = load_tokenizer(tmp_path, 32, 30528).encode_batch(TEXTS)
        assert [e.ids for e in encoded] == [e.ids for e in expected]


# --- both halves read the same ids ---------------------------------------------------------------------------


PIECES = 2500  # characters and 500 words; a small vocabulary is read fast


@pytest.fixture(scope="session")
def small_model(packaged_model, tmp_path_factory):
    """The packaged tokenizer with its first pieces only."""
    folder = tmp_path_factory.mktemp("small")
    tokenizer = json.loads((packaged_model / "tokenizer.json").read_text())
    pieces = [piece for piece, number in tokenizer["model"]["vocab"].items() if number < PIECES]
    tokenizer["model"]["vocab"] = {piece: tokenizer["model"]["vocab"][piece] for piece in pieces}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    return folder


def directory(folder, small_model, config=None, normalizer=None, change=None, files=(), model_type="bert"):
    """Write a tokenizer directory.

    Args:
        folder: Where to write it.
        small_model: Gives pieces and tokenizer.json.
        config: Content of tokenizer_config.json; None for no such file.
        normalizer: Values to change in the normalizer of tokenizer.json; None for no tokenizer.json but vocab.txt.
        change: Changes the rest of tokenizer.json.
        files: Names and contents of more JSON files.
        model_type: What config.json says.
    """
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    if normalizer is None:
        shutil.copyfile(small_model / "vocab.txt", folder / "vocab.txt")
    else:
        tokenizer = json.loads((small_model / "tokenizer.json").read_text())
        tokenizer["normalizer"] |= normalizer
        if change:
            change(tokenizer)
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    for name, content in (("tokenizer_config", config), *files):
        if content is not None:
            (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


CASED, ACCENTS, JOINED = {"lowercase": False}, {"strip_accents": False}, {"handle_chinese_chars": False}
SETTINGS = [
    None,
    {},
    {"do_lower_case": False},
    {"do_lower_case": True, "strip_accents": False},
    {"strip_accents": True},
]
SETTINGS += [
    {"tokenize_chinese_chars": False},
    {"do_basic_tokenize": False},
    {"do_lower_case": False, "strip_accents": True},
]
CLASSES = [None, "BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "DistilBertTokenizer"]
FILES = [
    None,
    {},
    CASED,
    ACCENTS,
    JOINED,
    {**CASED, **ACCENTS},
    {**CASED, "strip_accents": True},
    {"clean_text": False},
]
DIRECTORIES = st.tuples(st.sampled_from(SETTINGS), st.sampled_from(CLASSES), st.sampled_from(FILES))
ODD = ["[SEP]", "[MASK]", "[unused1]", "Ünïcödé", "e\u0301", "İstanbul", "ẞ", "北京", "が", "한국어", "नमस्ते", "سلام"]
ODD += [
    "שָׁלוֹם",
    "👩\u200d👩\u200d👧",
    "\u200b",
    "\ufeff",
    "\t",
    "\n",
    "\0",
    "\ufffd",
    "a" * 120,
    "O'Neil",
    "MiXeD",
    "x" * 99,
]
WORDS = st.one_of(st.sampled_from(ODD), st.text(st.characters(exclude_categories=("Cs",)), max_size=8))
RANDOM_TEXTS = st.lists(st.lists(WORDS, max_size=8).map(" ".join), min_size=1, max_size=15)


def both(folder, texts, length=24):
    """Ids and types of single texts and pairs, as the training half reads them and as transformers does."""
    ours, theirs = load_tokenizer(folder, length), AutoTokenizer.from_pretrained(folder)
    pairs = list(zip(texts, reversed(texts)))
    for columns, batch in (((texts,), texts), (tuple(map(list, zip(*pairs))), pairs)):
        expected = theirs(*columns, truncation=True, max_length=length, return_token_type_ids=True)
        encodings = ours.encode_batch(batch)
        yield [e.ids for e in encodings], expected["input_ids"]
        yield [e.type_ids for e in encodings], expected["token_type_ids"]


def assert_read_alike(folder, copy, texts):
    """Both halves read the same ids, and once more from the files that an exported model has."""
    encoded = list(both(folder, texts))
    for ours, theirs in encoded:
        assert ours == theirs
    copy.mkdir()
    save_tokenizer(load_tokenizer(folder, 24), copy)
    (copy / "config.json").write_text('{"model_type": "bert"}')
    for (ours, theirs), (before, _) in zip(both(copy, texts), encoded):
        assert ours == theirs == before


@settings(max_examples=40, derandomize=True, deadline=None)  # loading the tokenizers takes the time, not the texts
@given(DIRECTORIES, RANDOM_TEXTS)
def test_random_texts_have_the_same_ids_in_both_halves(small_model, case, texts):
    """Whatever a directory says or leaves out."""
    config, kind, normalizer = case
    if kind:
        config = {**(config or {}), "tokenizer_class": kind}
    if kind == "PreTrainedTokenizerFast" and normalizer is None:
        return  # transformers cannot read this one
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "a"
        folder.mkdir()
        directory(folder, small_model, config, normalizer)
        assert_read_alike(folder, Path(name) / "b", texts)


def test_a_cased_tokenizer_whose_settings_say_nothing(small_model, tmp_path, capsys):
    """Transformers lower-cases then, and so does training, with a line that says it."""
    folder = directory(tmp_path, small_model, {}, CASED)
    for ours, theirs in both(folder, ["A Fine Film"]):
        assert ours == theirs
    assert "do_lower_case is True, as transformers does without that setting" in capsys.readouterr().out


def without_added_tokens(tokenizer):
    tokenizer["added_tokens"] = []


UNUSED = {
    "content": "[unused1]",
    "lstrip": True,
    "normalized": False,
    "rstrip": True,
    "single_word": False,
    "special": True,
}
TOKENS = {
    "tokens of tokenizer.json left out": {"change": without_added_tokens},
    "the same, without defaults": {
        "change": without_added_tokens,
        "config": {"tokenizer_class": "PreTrainedTokenizerFast"},
    },
    "no mask": {"change": without_added_tokens, "config": {"mask_token": None}},
    "added_tokens_decoder": {"config": {"added_tokens_decoder": {"2": UNUSED}}},
    "additional_special_tokens": {"config": {"additional_special_tokens": ["[unused1]"]}},
    "special_tokens_map.json": {"files": [("special_tokens_map", {"additional_special_tokens": ["[unused1]"]})]},
    "special_tokens_map.json, objects": {
        "files": [
            (
                "special_tokens_map",
                {
                    "cls_token": {
                        "content": "[CLS]",
                        "lstrip": False,
                        "normalized": False,
                        "rstrip": False,
                        "single_word": False,
                    }
                },
            )
        ]
    },
    "added_tokens.json": {"files": [("added_tokens", {"[unused1]": 2})]},
    "a new token": {"files": [("added_tokens", {"BRANDNEW": PIECES})]},
    "left truncation": {"config": {"truncation_side": "left"}},
    "split special tokens": {"config": {"split_special_tokens": True}},
    "a normalizer of another kind": {"change": lambda t: t.update(normalizer={"type": "Lowercase"})},
}
SPECIAL_TEXTS = [
    "a [SEP] b [MASK]",
    "x [unused1] y[unused1]z",
    "[CLS]",
    "BRANDNEW brandnew",
    "word " * 40,
    "É [UNK] [PAD]",
]


CHANGES_JSON = [name for name, case in TOKENS.items() if "change" in case]  # these say nothing without tokenizer.json


@pytest.mark.parametrize(
    "name, has_json", [*((n, True) for n in TOKENS), *((n, False) for n in TOKENS if n not in CHANGES_JSON)]
)
def test_special_tokens_and_truncation(small_model, tmp_path, name, has_json):
    case = {"config": {}, **TOKENS[name]}
    folder = tmp_path / "a"
    folder.mkdir()
    directory(folder, small_model, normalizer={} if has_json else None, **case)
    assert_read_alike(folder, tmp_path / "b", SPECIAL_TEXTS)


def test_written_files_are_complete_and_read_without_tokenizer_json(small_model, tmp_path):
    """The Python tokenizer of transformers knows vocab.txt and the settings alone."""
    folder = directory(tmp_path, small_model, {"do_lower_case": False}, {**CASED, **ACCENTS})
    tokenizer = load_tokenizer(folder, 24)
    copy = tmp_path / "written"
    save_tokenizer(tokenizer, copy)
    names = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"}
    assert {path.name for path in copy.iterdir()} == names
    assert (copy / "vocab.txt").read_bytes() == (small_model / "vocab.txt").read_bytes()
    (copy / "tokenizer.json").unlink()
    slow = BertTokenizer.from_pretrained(copy)
    texts = ["A Fine Film", "café O'Neil", "[SEP] end", "北京 x"]
    assert slow(texts)["input_ids"] == [tokenizer.encode(text).ids for text in texts]
    assert slow.model_max_length == 24


@pytest.mark.parametrize(
    "config",
    [
        {"tokenizer_class": "XLMRobertaTokenizer"},
        {"do_lower_case": "no"},
        {"added_tokens_decoder": [1]},
        {"truncation_side": "up"},
        {"tokenizer_class": 7},
    ],
)
def test_settings_that_cannot_be_used_are_refused(small_model, tmp_path, config):
    with pytest.raises(UserError, match=str(tmp_path)):
        load_tokenizer(directory(tmp_path, small_model, config, {}), 24)


def test_the_sample_of_a_training_is_compared(small_model):
    """The texts with the most unusual characters are in it; the first difference is shown with both lists."""
    tokenizer = load_tokenizer(small_model, 16)
    texts = (
        [("plain words",)] * 5
        + [(f"plain {'abcdefghij'[i % 10]} {'klmnopqrst'[i // 10]}",) for i in range(90)]
        + [("Ünï 北",)]
    )
    sample = sample_ids(tokenizer, texts)
    assert len(sample) == 64 and sample[0] == {"texts": ["Ünï 北"], "ids": tokenizer.encode("Ünï 北").ids}
    compare_ids(sample, lambda text: tokenizer.encode(text).ids, "x")
    with pytest.raises(UserError, match=r"x does not read .*'Ünï 北' was \[101, .* there, and is \[7\]"):
        compare_ids(sample, lambda text: [7], "x")
    assert sample_ids(tokenizer, [("a", "b")])[0]["ids"] == tokenizer.encode("a", "b").ids


# Text that spells special pieces, and a first word without a space before it.
SPELLED = ["a <mask> fine </s> film <pad>.", " two  spaces", *HARD_TEXTS]


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta"])
def test_tokens_of_roberta_equal_transformers(family, tmp_path):
    """Byte-level and SentencePiece, single texts and pairs; once written, transformers reads the same ids."""
    random_classifier(tmp_path / "model", family, TEXTS)
    ours, theirs = load_tokenizer(tmp_path / "model", 24), AutoTokenizer.from_pretrained(tmp_path / "model")
    save_tokenizer(ours, tmp_path / "written")
    copy = AutoTokenizer.from_pretrained(tmp_path / "written")
    single = [*SPELLED, *TEXTS]
    for texts in ([(text,) for text in single], list(zip(single, reversed(single), strict=True))):
        encodings = ours.encode_batch([text if len(text) > 1 else text[0] for text in texts])
        assert not any(any(encoding.type_ids) for encoding in encodings)
        for reader in (theirs, copy):
            expected = reader(*map(list, zip(*texts, strict=True)), truncation="longest_first", max_length=24)
            assert [encoding.ids for encoding in encodings] == expected["input_ids"]
    sample_ids(ours, [(text,) for text in TEXTS])
    with pytest.raises(UserError, match="no tokenizer.json is there"):
        (tmp_path / "model" / "tokenizer.json").unlink()
        load_tokenizer(tmp_path / "model", 24)


def test_a_byte_level_tokenizer_puts_a_space_first_where_its_settings_say_so(tmp_path):
    random_classifier(tmp_path, "roberta", TEXTS)
    edit_json(tmp_path / "tokenizer_config.json", add_prefix_space=True)
    expected = AutoTokenizer.from_pretrained(tmp_path)("fine film")["input_ids"]
    assert load_tokenizer(tmp_path, 24).encode("fine film").ids == expected
    save_tokenizer(load_tokenizer(tmp_path, 24), tmp_path / "written")
    assert AutoTokenizer.from_pretrained(tmp_path / "written")("fine film")["input_ids"] == expected


def test_the_tokenizer_of_another_family_is_refused(tmp_path):
    random_classifier(tmp_path, "roberta", TEXTS)
    edit_json(tmp_path / "config.json", model_type="bert")
    with pytest.raises(UserError, match="a RobertaTokenizer; the model needs a BertTokenizer"):
        load_tokenizer(tmp_path, 24)
