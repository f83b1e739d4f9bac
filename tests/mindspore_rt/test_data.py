"""Text in, batches out: files of three kinds, the packaged snippets, tokenisation, buckets."""

import csv
import io
import json
import shutil
import tarfile

import numpy as np
import pytest
from transformers import AutoTokenizer, BertTokenizer

from configs import assets, schema
from configs.errors import UserError
from configs.run_dir import RunDir, read_lines
from configs.tasks import TASKS
from mindspore_rt import data

SINGLE, PAIR = TASKS["sst2"], TASKS["qnli"]
HARD = [
    "plain words",
    'a "quoted", and\na second line',
    'three """ quotes',
    "tab\tinside",
    "line\u2028separator, next\u0085line",
    "naïve café 北京 😀",
    "it's 'single'",
]


def file(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path, task=SINGLE):
    """The message of the `UserError`; always one line, always naming the file."""
    with pytest.raises(UserError) as caught:
        data.read_file(path, task)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


# --- files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newline", ["\r\n", "\n"])
def test_csv_is_rfc_4180(tmp_path, newline):
    """Whatever Python's writer quotes comes back: commas, quotes, newlines."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator=newline)
    writer.writerows([["id", "sentence", "label"], *([i, text, i % 2] for i, text in enumerate(HARD))])
    records = data.read_file(file(tmp_path, "a.csv", stream.getvalue()), SINGLE)
    assert records == [{"sentence": text, "label": i % 2} for i, text in enumerate(HARD)]


def test_tsv_knows_no_quotes(tmp_path):
    """GLUE's files: a quote is a character like any other, and only a newline ends a row."""
    texts = ['"opened and never closed', 'closed only"', '""', 'in "the" middle', *HARD[4:]]
    text = "sentence\tlabel\n" + "".join(f"{t}\t{i % 2}\r\n" for i, t in enumerate(texts))
    records = data.read_file(file(tmp_path, "a.tsv", text), SINGLE)
    assert records == [{"sentence": t, "label": i % 2} for i, t in enumerate(texts)]


@pytest.mark.parametrize("ascii", [True, False])
def test_json_lines(tmp_path, ascii):
    """Also with separators inside a sentence that Unicode counts as line ends."""
    rows = [{"label": i % 2, "sentence": text, "more": [1]} for i, text in enumerate(HARD)]
    text = "\n".join(json.dumps(row, ensure_ascii=ascii) for row in rows)
    for ending in ("", "\n"):
        records = data.read_file(file(tmp_path, "a.jsonl", text + ending), SINGLE)
        assert records == [{"sentence": t, "label": i % 2} for i, t in enumerate(HARD)]


def test_labels_are_names_or_numbers(tmp_path):
    text = "sentence,question,label\na,b,entailment\na,b,1\na,b, 0 \na,b,not_entailment\n"
    records = data.read_file(file(tmp_path, "a.csv", text), PAIR)
    assert [r["label"] for r in records] == [0, 1, 0, 1]
    assert list(records[0]) == ["question", "sentence", "label"]  # reading order of the task


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path):
    assert data.read_file(file(tmp_path, "a.csv", b"\xef\xbb\xbfsentence,label\nfine,1\n"), SINGLE)


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("a.csv", "text,label\nfine,1\n", ["line 2", "no column 'sentence'", "text, label"]),
        ("a.csv", 'sentence,label\n"two\nlines",1\nfine,2\n', ["line 4", "'2'", "0 or negative, 1 or positive"]),
        ("a.csv", 'sentence,label\n"two\nlines",1\nfine\n', ["line 4", "1 fields, the header has 2"]),
        ("a.csv", "sentence,label\nfine, really,1\n", ["line 2", "3 fields, the header has 2"]),
        ("a.csv", 'sentence,label\nfine,1\n"open,1\n', ["line 3", "quote"]),
        ("a.csv", 'sentence,label\n"a" b,1\n', ["line 2", "quote fields"]),
        ("a.csv", "sentence,label\n  ,1\n", ["line 2", "'sentence'", "no text"]),
        ("a.csv", "sentence,label\nfine,\n", ["line 2", "unknown label ''"]),
        ("a.csv", "sentence,label\nfine,-1\n", ["line 2", "unknown label '-1'"]),
        ("a.csv", "sentence,label\n", ["no rows"]),
        ("a.csv", "", ["no rows"]),
        ("a.csv", b"sentence,label\nfine,1\ncaf\xe9,1\n", ["line 3", "UTF-8", "iconv"]),
        ("a.tsv", "sentence\tlabel\nfine\t1\nfine\ttwice\t1\n", ["line 3", "3 fields, the header has 2"]),
        ("a.tsv", "sentence\tlabel\nfine\tgreat\n", ["line 2", "unknown label 'great'", "1 or positive"]),
        ("a.jsonl", '{"sentence": "a", "label": 1}\n{"sentence": \n', ["line 2", "not valid JSON"]),
        ("a.jsonl", '{"sentence": "a", "label": 1}\n[1]\n', ["line 2", "JSON object"]),
        ("a.jsonl", '{"sentence": 5, "label": 1}\n', ["line 1", "'sentence'", "no text"]),
        ("a.jsonl", '{"sentence": "a", "label": null}\n', ["line 1", "unknown label 'None'"]),
        ("a.txt", "fine", [".csv, .tsv or .jsonl"]),
    ],
)
def test_wrong_files_name_line_and_remedy(tmp_path, name, content, expected):
    message = refusal(file(tmp_path, name, content))
    for part in expected:
        assert part in message


def test_a_missing_file(tmp_path):
    assert "no such file" in refusal(tmp_path / "gone.csv")


# --- prepare -------------------------------------------------------------------------------------------------


def prepared(folder, *overrides):
    config = schema.load("demo", overrides)
    run = RunDir(config, folder)
    data.prepare(config, run)
    return run


SIZES = ("data.train_size=6000", "data.dev_size=600", "data.test_size=1000")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("demo"), *SIZES)


@pytest.fixture(scope="module")
def ratings():
    """Sentence to mean rating, read from the packaged file by other means."""
    with tarfile.open(assets.path("snippets") / "hutto_ICWSM_2014.tar.gz") as archive:
        rows = archive.extractfile(data.SNIPPETS).read().split(b"\r\n")
    assert len(rows) == 10605
    fields = [row.split(b"\t") for row in rows]
    return [(float(rating), b" ".join(text.split()).decode("utf-8")) for _, rating, text in fields]


def test_snippets_are_read_whole(ratings):
    """10,605 of them; accents are letters, not the two bytes of their encoding."""
    records, note = data.read_snippets()
    assert "10605 snippets" in note and f"{len(records)} remain" in note
    assert {r["sentence"] for r in records} == {text for rating, text in ratings if abs(rating) >= 0.5}
    assert len({r["sentence"] for r in records}) == len(records)
    assert any("é" in r["sentence"] for r in records) and not any("Ã" in r["sentence"] for r in records)


def test_labels_are_the_signs_of_clear_ratings(ratings):
    """A rating nearer to 0 than a half is no label."""
    signs = {}
    for rating, text in ratings:
        signs.setdefault(text, set()).add(int(np.sign(rating)) if abs(rating) >= 0.5 else 0)
    for record in data.read_snippets()[0]:
        assert (1 if record["label"] else -1) in signs[record["sentence"]]


def test_no_sentence_stands_in_two_splits(demo):
    sizes = {"train": 6000, "dev": 600, "test": 1000}
    splits = {name: [r["sentence"] for r in read_lines(demo.split(name))] for name in sizes}
    assert {name: len(s) for name, s in splits.items()} == sizes
    together = sum(splits.values(), [])
    assert len(set(together)) == len(together)


def test_attacked_sentences_are_unseen_by_the_masked_language_model(demo):
    """It is trained on snippets above the second place and measured on those below the first."""
    for record in read_lines(demo.split("test")):
        assert assets.MLM_MEASURED <= assets.place(record["sentence"]) < assets.MLM_UNSEEN


def test_the_split_is_fixed_by_its_seed(demo, tmp_path):
    """The experiment's own seeds do not matter."""
    same = prepared(tmp_path / "same", *SIZES, "seeds=[7]")
    other = prepared(tmp_path / "other", *SIZES, "data.seed=1")
    for name in ("train", "dev", "test"):
        assert same.split(name).read_bytes() == demo.split(name).read_bytes()
    assert other.split("train").read_bytes() != demo.split("train").read_bytes()


def test_splits_are_balanced_and_described(demo):
    _, _, summary = data.load_split(demo, "test")
    for name in ("train", "dev", "test"):
        texts, labels, _ = data.load_split(demo, name)
        counts = summary["splits"][name]["labels"]
        assert counts == {"negative": int((labels == 0).sum()), "positive": int((labels == 1).sum())}
        assert min(counts.values()) > 0.4 * len(texts)
        assert sum(summary["splits"][name]["length"].values()) == len(texts)


def test_a_changed_split_is_refused(tmp_path):
    run = prepared(tmp_path, "data.train_size=20", "data.dev_size=10", "data.test_size=10")
    with open(run.split("dev"), "a") as stream:
        stream.write('{"sentence": "more", "label": 1}\n')
    assert len(data.load_split(run, "train")[0]) == 20
    with pytest.raises(UserError, match="dev.jsonl was changed after prepare"):
        data.load_split(run, "dev")


def test_own_files(tmp_path):
    """Test sentences are split off when there is no file of them; duplicates over splits are counted."""
    rows = [f"sentence {i},{i % 2}" for i in range(20)]
    train = file(tmp_path, "train.csv", "\n".join(["sentence,label", *rows]))
    dev = file(tmp_path, "dev.csv", "sentence,label\nsentence 3,1\nunique,0\n")
    files = [f"data.train={train}", f"data.dev={dev}", "data.test_size=5", "data.train_size=null"]
    run = prepared(tmp_path, "task=sst2", *files)
    splits = {name: data.load_split(run, name)[0] for name in ("train", "dev", "test")}
    assert [len(splits[name]) for name in ("train", "dev", "test")] == [15, 2, 5]
    assert sorted(splits["train"] + splits["test"]) == sorted((f"sentence {i}",) for i in range(20))
    _, _, summary = data.load_split(run, "train")
    assert sum(summary["duplicates"].values()) == 1


@pytest.mark.parametrize(
    "overrides, expected",
    [
        (["data.test_size=9000"], "data.test_size: 9000 asked"),
        (["data.dev_size=9000"], "data.dev_size: 9000 asked"),
        (["data.test=x.csv"], "data.train: unset"),
    ],
)
def test_impossible_splits(tmp_path, overrides, expected):
    with pytest.raises(UserError, match=expected):
        prepared(tmp_path, *overrides)


# --- tokenisation --------------------------------------------------------------------------------------------

TEXTS = [*HARD, "an utterly charming , funny and warm piece of work " * 9, "x" * 150, "[MASK] [SEP] antidotes"]


@pytest.mark.parametrize("length", [8, 48, 128])
def test_tokens_equal_transformers(packaged_model, length):
    """Ids and token types of single texts and pairs, cut longest part first."""
    ours, theirs = data.load_tokenizer(packaged_model, length), AutoTokenizer.from_pretrained(packaged_model)
    pairs = [(a, b) for a in TEXTS for b in TEXTS]
    for batch, columns in ((TEXTS, [TEXTS]), (pairs, [list(c) for c in zip(*pairs)])):
        expected = theirs(*columns, truncation="longest_first", max_length=length)
        found = ours.encode_batch(batch)
        assert [e.ids for e in found] == expected["input_ids"]
        assert [e.type_ids for e in found] == expected["token_type_ids"]
        assert max(len(e.ids) for e in found) <= length


def test_tokens_equal_the_python_tokenizer(packaged_model):
    """The slow one of transformers, which shares no code with the one used here."""
    ours, theirs = data.load_tokenizer(packaged_model, 64), BertTokenizer(packaged_model / "vocab.txt")
    expected = theirs(TEXTS, truncation=True, max_length=64)["input_ids"]
    assert [e.ids for e in ours.encode_batch(TEXTS)] == expected


def test_vocab_txt_alone_is_enough(packaged_model, tmp_path):
    shutil.copyfile(packaged_model / "vocab.txt", tmp_path / "vocab.txt")
    full, bare = data.load_tokenizer(packaged_model, 32), data.load_tokenizer(tmp_path, 32)
    pairs = list(zip(TEXTS, reversed(TEXTS)))
    assert [e.ids for e in bare.encode_batch(pairs)] == [e.ids for e in full.encode_batch(pairs)]


def test_broken_and_missing_tokenizers(tmp_path):
    with pytest.raises(UserError, match="neither tokenizer.json nor vocab.txt"):
        data.load_tokenizer(tmp_path, 32)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="tokenizer.json: not a tokenizer"):
        data.load_tokenizer(tmp_path, 32)


# --- batches -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def batches(packaged_model):
    """83 pairs of 5 to 60 pieces, 3 classes, 8 a batch: the last batch of every order has 3."""
    random = np.random.default_rng(0)
    texts = [("good " * random.integers(1, 40), "film " * random.integers(1, 20)) for _ in range(83)]
    tokenizer = data.load_tokenizer(packaged_model, 60)
    return data.Batches(texts, random.integers(0, 3, 83), 3, tokenizer, 60, 8, seed=5)


def test_every_sentence_once_an_epoch(batches):
    for order in (batches.epoch(0), batches.epoch(1), batches.in_order()):
        assert len(order) == len(batches) == 11
        assert sorted(np.concatenate(order)) == list(range(83))


def test_epochs_differ_and_repeat(batches, packaged_model):
    def again(seed):
        texts = [("good",)] * 83
        tokenizer = data.load_tokenizer(packaged_model, 60)
        other = data.Batches(texts, batches.labels, 3, tokenizer, 60, 8, seed)
        other.ids = batches.ids
        return other

    first = [list(b) for b in batches.epoch(0)]
    assert [list(b) for b in again(5).epoch(0)] == first
    assert [list(b) for b in batches.epoch(1)] != first
    assert [list(b) for b in again(6).epoch(0)] != first


def test_shapes_come_from_few_buckets(batches):
    """So few graphs are compiled; and like lengths go together."""
    shapes = {batches.batch(indices).ids.shape for indices in batches.epoch(0)}
    assert len(shapes) > 1
    assert shapes <= {(8, length) for length in (16, 32, 48, 60)}
    padded = sum(batches.batch(i).ids.shape[1] * len(i) for i in batches.epoch(0))
    assert padded < 0.85 * 60 * 83


def test_rows_hold_their_sentence_and_nothing_else(batches):
    for indices in batches.in_order():
        batch = batches.batch(indices)
        for row, index in enumerate(indices):
            size = len(batches.ids[index])
            assert list(batch.ids[row, :size]) == list(batches.ids[index]) and not batch.ids[row, size:].any()
            assert list(batch.attention_mask[row]) == [1] * size + [0] * (batch.ids.shape[1] - size)
            assert batch.targets[row].argmax() == batches.labels[index]


def test_targets_average_over_real_rows(batches):
    """They sum to 1; filler rows weigh nothing and still attend to one position."""
    sizes = []
    for indices in batches.epoch(0):
        batch = batches.batch(indices)
        sizes.append(len(indices))
        assert batch.targets.sum() == pytest.approx(1)
        assert np.allclose(batch.targets[: len(indices)].sum(1), 1 / len(indices))
        assert not batch.targets[len(indices) :].any() and not batch.ids[len(indices) :].any()
        assert (batch.attention_mask[len(indices) :].sum(1) == 1).all()
    assert sorted(set(sizes)) == [3, 8]


def test_token_types_mark_the_second_part(batches):
    batch = batches.batch(np.arange(8))
    for row in range(8):
        first, second = (np.flatnonzero(batch.ids[row] == 102))  # the two [SEP]
        assert not batch.token_types[row, : first + 1].any()
        assert batch.token_types[row, first + 1 : second + 1].all()
        assert not batch.token_types[row, second + 1 :].any()


def test_dtypes_of_tensors(batches):
    kinds = [str(t.dtype) for t in batches.batch(np.arange(8)).tensors()]
    assert kinds == ["Int32", "Float32", "Int32", "Float32"]
