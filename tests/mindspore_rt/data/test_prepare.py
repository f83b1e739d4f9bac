"""Text in, batches out: splits, the packaged snippets, tokenisation, buckets, parts for data-parallel workers."""

import json
import shutil
import tarfile

import numpy as np
import pytest
from transformers import AutoTokenizer, BertTokenizer, BertTokenizerFast

from configs.contract import assets, schema
from configs.contract.errors import UserError
from configs.contract.files import read_lines
from configs.contract.run_dir import RunDir
from mindspore_rt.data import prepare

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


# --- prepare -------------------------------------------------------------------------------------------------


def prepared(folder, *overrides):
    config = schema.load("demo", overrides)
    run = RunDir(config, folder)
    prepare.prepare(config, run)
    return run


SIZES = ("data.train_size=6000", "data.dev_size=600", "data.test_size=1000")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("demo"), *SIZES)


@pytest.fixture(scope="module")
def ratings():
    """Sentence to mean rating, read from the packaged file by other means."""
    with tarfile.open(assets.path("snippets") / "hutto_ICWSM_2014.tar.gz") as archive:
        rows = archive.extractfile(prepare.SNIPPETS).read().split(b"\r\n")
    assert len(rows) == 10605
    fields = [row.split(b"\t") for row in rows]
    return [(float(rating), b" ".join(text.split()).decode("utf-8")) for _, rating, text in fields]


def test_snippets_are_read_whole(ratings):
    """10,605 of them; accents are letters, not the two bytes of their encoding."""
    records, note = prepare.read_snippets()
    assert "10605 snippets" in note and f"{len(records)} remain" in note
    assert {r["sentence"] for r in records} == {text for rating, text in ratings if abs(rating) >= 0.5}
    assert len({r["sentence"] for r in records}) == len(records)
    assert any("é" in r["sentence"] for r in records) and not any("Ã" in r["sentence"] for r in records)


def test_labels_are_the_signs_of_clear_ratings(ratings):
    """A rating nearer to 0 than a half is no label."""
    signs = {}
    for rating, text in ratings:
        signs.setdefault(text, set()).add(int(np.sign(rating)) if abs(rating) >= 0.5 else 0)
    for record in prepare.read_snippets()[0]:
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
    _, _, summary = prepare.load_split(demo, "test")
    for name in ("train", "dev", "test"):
        texts, labels, _ = prepare.load_split(demo, name)
        counts = summary["splits"][name]["labels"]
        assert counts == {"negative": int((labels == 0).sum()), "positive": int((labels == 1).sum())}
        assert min(counts.values()) > 0.4 * len(texts)
        assert sum(summary["splits"][name]["length"].values()) == len(texts)


def test_a_changed_split_is_refused(tmp_path):
    run = prepared(tmp_path, "data.train_size=20", "data.dev_size=10", "data.test_size=10")
    with open(run.split("dev"), "a") as stream:
        stream.write('{"sentence": "more", "label": 1}\n')
    assert len(prepare.load_split(run, "train")[0]) == 20
    with pytest.raises(UserError, match="dev.jsonl was changed after prepare"):
        prepare.load_split(run, "dev")


def test_own_files(tmp_path):
    """Test sentences are split off when there is no file of them; duplicates over splits are counted."""
    rows = [f"sentence {i},{i % 2}" for i in range(20)]
    train = file(tmp_path, "train.csv", "\n".join(["sentence,label", *rows]))
    dev = file(tmp_path, "dev.csv", "sentence,label\nsentence 3,1\nunique,0\n")
    files = [f"data.train={train}", f"data.dev={dev}", "data.test_size=5", "data.train_size=null"]
    run = prepared(tmp_path, "task=sst2", *files)
    splits = {name: prepare.load_split(run, name)[0] for name in ("train", "dev", "test")}
    assert [len(splits[name]) for name in ("train", "dev", "test")] == [15, 2, 5]
    assert sorted(splits["train"] + splits["test"]) == sorted((f"sentence {i}",) for i in range(20))
    _, _, summary = prepare.load_split(run, "train")
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


def test_a_pair_with_own_columns_and_labels(tmp_path):
    """What the summary says is what the attack and the models go by."""
    train = file(tmp_path, "a.csv", "rule,case,verdict\n" + "".join(f"r{i},c{i},{'xyz'[i % 3]}\n" for i in range(30)))
    keys = ["data.text_columns=[rule, case]", "data.label_column=verdict", "data.labels=[x, y, z]"]
    sizes = ["data.dev_size=6", "data.test_size=6", "data.train_size=null"]
    run = prepared(tmp_path, "task=custom", f"data.train={train}", *keys, *sizes)
    texts, labels, summary = prepare.load_split(run, "train")
    assert len(texts) == 18 and all(r[1:] == c[1:] and int(r[1:]) % 3 == k for (r, c), k in zip(texts, labels))
    assert (summary["columns"], summary["labels"], summary["attacked"]) == (["rule", "case"], ["x", "y", "z"], ["case"])


def test_test_sentences_are_kept_at_random(tmp_path):
    """Test sets that are sorted by label, as IMDB's, keep both."""
    train = file(tmp_path, "train.csv", "text,label\n" + "".join(f"train {i},{i % 2}\n" for i in range(20)))
    test = file(tmp_path, "test.csv", "text,label\n" + "".join(f"test {i:03d},{i // 500}\n" for i in range(1000)))
    sizes = ["data.dev_size=5", "data.test_size=100", "data.train_size=null"]
    run = prepared(tmp_path, "task=imdb", f"data.train={train}", f"data.test={test}", *sizes)
    texts, labels, _ = prepare.load_split(run, "test")
    assert len(set(texts)) == 100 and texts == sorted(texts) and 30 < labels.sum() < 70


def test_broken_rows_and_absent_labels_are_reported(tmp_path):
    rows = "".join(f"a{i}\tb{i}\t{i % 2}\n" for i in range(10))
    train = file(tmp_path, "train.tsv", f"question1\tquestion2\tis_duplicate\n{rows}torn\nc\t\t0\n")
    test = file(tmp_path, "test.tsv", "question1\tquestion2\tlabel\na1\tb1\t1\n")
    sizes = ["data.dev_size=2", "data.test_size=null", "data.train_size=null"]
    run = prepared(tmp_path, "task=qqp", f"data.train={train}", f"data.test={test}", "data.bad_rows=2", *sizes)
    _, _, summary = prepare.load_split(run, "train")
    skipped, *others = summary["warnings"]
    assert f"2 broken rows skipped: {train}, line 12: 1 fields" in skipped and "line 13: column 'question2'" in skipped
    assert "1 texts stand in both" in others[0]
    assert "no sentence of test has the label not_duplicate" in others


def test_one_label_alone_is_refused_before_anything_is_written(tmp_path):
    train = file(tmp_path, "train.csv", "sentence,label\n" + "".join(f"s{i},1\n" for i in range(9)))
    sizes = ["data.dev_size=2", "data.test_size=2", "data.train_size=null"]
    with pytest.raises(UserError, match=f"{train}: all 5 training sentences have the label 'positive'"):
        prepared(tmp_path / "runs", "task=sst2", f"data.train={train}", *sizes)
    assert not (tmp_path / "runs").exists()


# --- tokenisation --------------------------------------------------------------------------------------------

TEXTS = [*HARD, "an utterly charming , funny and warm piece of work " * 9, "x" * 150, "[MASK] [SEP] antidotes"]


@pytest.mark.parametrize("length", [8, 48, 128])
def test_tokens_equal_transformers(packaged_model, length):
    """Ids and token types of single texts and pairs, cut longest part first."""
    ours, theirs = prepare.load_tokenizer(packaged_model, length), AutoTokenizer.from_pretrained(packaged_model)
    pairs = [(a, b) for a in TEXTS for b in TEXTS]
    for batch, columns in ((TEXTS, [TEXTS]), (pairs, [list(c) for c in zip(*pairs)])):
        expected = theirs(*columns, truncation="longest_first", max_length=length)
        found = ours.encode_batch(batch)
        assert [e.ids for e in found] == expected["input_ids"]
        assert [e.type_ids for e in found] == expected["token_type_ids"]
        assert max(len(e.ids) for e in found) <= length


def test_tokens_equal_the_python_tokenizer(packaged_model):
    """The slow one of transformers, which shares no code with the one used here."""
    ours, theirs = prepare.load_tokenizer(packaged_model, 64), BertTokenizer(packaged_model / "vocab.txt")
    expected = theirs(TEXTS, truncation=True, max_length=64)["input_ids"]
    assert [e.ids for e in ours.encode_batch(TEXTS)] == expected


def test_vocab_txt_alone_is_enough(packaged_model, tmp_path):
    shutil.copyfile(packaged_model / "vocab.txt", tmp_path / "vocab.txt")
    full, bare = prepare.load_tokenizer(packaged_model, 32), prepare.load_tokenizer(tmp_path, 32)
    pairs = list(zip(TEXTS, reversed(TEXTS)))
    assert [e.ids for e in bare.encode_batch(pairs)] == [e.ids for e in full.encode_batch(pairs)]


def test_broken_and_missing_tokenizers(tmp_path):
    with pytest.raises(UserError, match="neither tokenizer.json nor vocab.txt"):
        prepare.load_tokenizer(tmp_path, 32)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="tokenizer.json: not a tokenizer"):
        prepare.load_tokenizer(tmp_path, 32)


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
        prepare.load_tokenizer(tmp_path, 32, 30522)


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
        prepare.load_tokenizer(tmp_path, 32, 30522)


def test_a_vocabulary_may_have_windows_lines_and_the_model_padded_rows(packaged_model, tmp_path):
    """As transformers has it: neither changes an id."""
    raw = (packaged_model / "vocab.txt").read_bytes()
    expected = prepare.load_tokenizer(packaged_model, 32).encode_batch(TEXTS)
    for content in (raw, raw.replace(b"\n", b"\r\n")):
        (tmp_path / "vocab.txt").write_bytes(content)
        found = prepare.load_tokenizer(tmp_path, 32, 30528).encode_batch(TEXTS)
        assert [e.ids for e in found] == [e.ids for e in expected]


# --- batches -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def batches(packaged_model):
    """83 pairs of 5 to 60 pieces, 3 classes, 8 a batch: the last batch of every order has 3."""
    random = np.random.default_rng(0)
    texts = [("good " * random.integers(1, 40), "film " * random.integers(1, 20)) for _ in range(83)]
    tokenizer = prepare.load_tokenizer(packaged_model, 60)
    return prepare.Batches(texts, random.integers(0, 3, 83), 3, tokenizer, 60, 8, seed=5)


def test_every_sentence_once_an_epoch(batches):
    for order in (batches.epoch(0), batches.epoch(1), batches.in_order()):
        assert len(order) == len(batches) == 11
        assert sorted(np.concatenate(order)) == list(range(83))


def test_epochs_differ_and_repeat(batches, packaged_model):
    def again(seed):
        texts = [("good",)] * 83
        tokenizer = prepare.load_tokenizer(packaged_model, 60)
        other = prepare.Batches(texts, batches.labels, 3, tokenizer, 60, 8, seed)
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
        first, second = np.flatnonzero(batch.ids[row] == 102)  # the two [SEP]
        assert not batch.token_types[row, : first + 1].any()
        assert batch.token_types[row, first + 1 : second + 1].all()
        assert not batch.token_types[row, second + 1 :].any()


def test_dtypes_of_tensors(batches):
    kinds = [str(t.dtype) for t in batches.batch(np.arange(8)).tensors()]
    assert kinds == ["Int32", "Float32", "Int32", "Float32"]


def test_pairs_keep_their_segments(packaged_model):
    """Ids, segments and mask of a batch are those of transformers' fast tokenizer, padded to the same length."""
    random, length = np.random.default_rng(1), 40
    words = np.array("good film , it 's a long-winded naïve comedy of 1999 !".split())
    texts = [tuple(" ".join(random.choice(words, random.integers(1, 50))) for _ in range(2)) for _ in range(16)]
    batches = prepare.Batches(
        texts, np.zeros(16, int), 2, prepare.load_tokenizer(packaged_model, length), length, 16, seed=0
    )
    batch = batches.batch(np.arange(16))
    cut = {"truncation": "longest_first", "padding": "max_length", "max_length": length}
    theirs = BertTokenizerFast.from_pretrained(packaged_model)
    expected = theirs(*map(list, zip(*texts)), **cut, return_tensors="np")
    assert batch.ids.shape == (16, length) and any(sum(map(len, t)) > 3 * length for t in texts)
    np.testing.assert_array_equal(batch.ids, expected["input_ids"])
    np.testing.assert_array_equal(batch.token_types, expected["token_type_ids"])
    np.testing.assert_array_equal(batch.attention_mask, expected["attention_mask"])


def test_lengths_are_those_of_an_epoch(batches):
    for epoch in range(3):
        assert batches.lengths(epoch) == sorted({batches.batch(i).ids.shape[1] for i in batches.epoch(epoch)})


@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 16])
def test_workers_take_equal_parts_of_every_batch(batches, ranks):
    """Every sentence once, parts of one shape, and the mean over the workers is the whole batch's, also of the last
    batch of 3 sentences: for a loss that is a sum over rows weighted by their targets, and its gradient alike."""
    values = np.random.default_rng(2).standard_normal((83, 3))  # minus log probabilities of each sentence
    for indices in batches.epoch(0):
        whole, parts = batches.batch(indices), [batches.batch(indices, rank, ranks) for rank in range(ranks)]
        assert sorted(np.concatenate([part.indices for part in parts])) == sorted(indices)
        assert {part.ids.shape for part in parts} == {(-(-8 // ranks), whole.ids.shape[1])}
        assert max(len(p.indices) for p in parts) - min(len(p.indices) for p in parts) <= 1

        def loss(batch):
            rows = np.zeros(batch.targets.shape)
            rows[: len(batch.indices)] = values[batch.indices]
            return (batch.targets * rows).sum()

        assert np.mean([loss(part) for part in parts]) == pytest.approx(loss(whole))
        for part in parts:
            for row, index in enumerate(part.indices):
                there = list(whole.indices).index(index)
                np.testing.assert_array_equal(part.ids[row], whole.ids[there])
                np.testing.assert_array_equal(part.token_types[row], whole.token_types[there])


def test_many_texts_are_tokenised_in_parts(packaged_model, monkeypatch):
    texts = [(f"film {i}",) for i in range(10)]
    tokenizer = prepare.load_tokenizer(packaged_model, 16)
    whole = prepare.Batches(texts, np.zeros(10, int), 2, tokenizer, 16, 4, seed=0)
    monkeypatch.setattr(prepare, "TOKENISED_AT_ONCE", 3)
    parts = prepare.Batches(texts, np.zeros(10, int), 2, tokenizer, 16, 4, seed=0)
    assert [list(i) for i in parts.ids] == [list(i) for i in whole.ids] and len(whole.ids) == 10
