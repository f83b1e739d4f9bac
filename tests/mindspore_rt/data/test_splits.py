"""Splits: read from files or packaged, cut by a fixed seed, described, and guarded against changes."""

import tarfile

import numpy as np
import pytest

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import read_json, read_lines
from configs.contract.experiment import schema
from configs.contract.inputs import assets, snippets, tasks
from configs.contract.run.run_dir import RunDir
from mindspore_rt.cells import noise
from mindspore_rt.data import splits
from mindspore_rt.formats import hub
from tests.helpers.files import write_file

# --- prepare -------------------------------------------------------------------------------------------------


def prepared(folder, *overrides):
    config = schema.load("demo", overrides)
    run = RunDir(config, folder)
    splits.write(run)
    return run


SIZES = ("data.train_size=6000", "data.dev_size=600", "data.test_size=1000")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("demo"), *SIZES)


@pytest.fixture(scope="module")
def ratings():
    """Sentence to mean rating, read from the packaged file by other means."""
    with tarfile.open(assets.fetched_folder("snippets") / "hutto_ICWSM_2014.tar.gz") as archive:
        rows = archive.extractfile(snippets.MEMBER).read().split(b"\r\n")
    assert len(rows) == 10605
    fields = [row.split(b"\t") for row in rows]
    return [(float(rating), b" ".join(text.split()).decode("utf-8")) for _, rating, text in fields]


def test_snippets_are_read_whole(ratings):
    """10,605 of them; accents are letters, not the two bytes of their encoding."""
    records, note = snippets.read_snippets()
    assert "10605 snippets" in note and f"{len(records)} remain" in note
    assert {r["sentence"] for r in records} == {text for rating, text in ratings if abs(rating) >= 0.5}
    assert len({r["sentence"] for r in records}) == len(records)
    assert any("é" in r["sentence"] for r in records) and not any("Ã" in r["sentence"] for r in records)


def test_labels_are_the_signs_of_clear_ratings(ratings):
    """A rating nearer to 0 than a half is no label."""
    signs = {}
    for rating, text in ratings:
        signs.setdefault(text, set()).add(int(np.sign(rating)) if abs(rating) >= 0.5 else 0)
    for record in snippets.read_snippets()[0]:
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
        assert snippets.MLM_MEASURED <= snippets.text_hash(record["sentence"]) < snippets.MLM_UNSEEN


def test_the_split_is_fixed_by_its_seed(demo, tmp_path):
    """The experiment's own seeds do not matter."""
    same = prepared(tmp_path / "same", *SIZES, "seeds=[7]")
    other = prepared(tmp_path / "other", *SIZES, "data.seed=1")
    for name in ("train", "dev", "test"):
        assert same.split(name).read_bytes() == demo.split(name).read_bytes()
    assert other.split("train").read_bytes() != demo.split("train").read_bytes()


def test_splits_are_balanced_and_described(demo):
    stated = read_json(demo.data / "summary.json")["splits"]
    for name in ("train", "dev", "test"):
        texts, labels = splits.read(demo, name)
        counts = stated[name]["labels"]
        assert counts == {"negative": int((labels == 0).sum()), "positive": int((labels == 1).sum())}
        assert min(counts.values()) > 0.4 * len(texts)
        assert sum(stated[name]["length"].values()) == len(texts)


def test_a_changed_split_is_refused(tmp_path):
    run = prepared(tmp_path, "data.train_size=20", "data.dev_size=10", "data.test_size=10")
    with open(run.split("dev"), "a") as stream:
        stream.write('{"sentence": "more", "label": 1}\n')
    assert len(splits.read(run, "train")[0]) == 20
    with pytest.raises(UserError, match="dev.jsonl is damaged or was changed after it was made; delete .*data and"):
        splits.read(run, "dev")


def test_own_files(tmp_path):
    """Test sentences are split off when there is no file of them; duplicates over splits are counted."""
    rows = [f"sentence {i},{i % 2}" for i in range(20)]
    train = write_file(tmp_path, "train.csv", "\n".join(["sentence,label", *rows]))
    dev = write_file(tmp_path, "dev.csv", "sentence,label\nsentence 3,1\nunique,0\n")
    files = [f"data.train={train}", f"data.dev={dev}", "data.test_size=5", "data.train_size=null"]
    run = prepared(tmp_path, "task=sst2", *files)
    texts = {name: splits.read(run, name)[0] for name in ("train", "dev", "test")}
    assert [len(texts[name]) for name in ("train", "dev", "test")] == [15, 2, 5]
    assert sorted(texts["train"] + texts["test"]) == sorted((f"sentence {i}",) for i in range(20))
    assert sum(read_json(run.data / "summary.json")["duplicates"].values()) == 1


def test_the_hub_names_columns_whatever_the_configuration_says(tmp_path, monkeypatch):
    for split in ("train", "test"):
        lines = (f'{{"text": "{split} {i}", "label": {i % 2}}}\n' for i in range(4))
        write_file(tmp_path, f"{split}.jsonl", "".join(lines))
    monkeypatch.setattr(hub, "dataset_dir", lambda *_: tmp_path)
    run = prepared(tmp_path, "task=imdb", "data.columns=[label,text]", "data.dev_size=1", "data.test_size=2")
    assert len(splits.read(run, "train")[0]) == 3


@pytest.mark.parametrize(
    "overrides, expected",
    [
        (["data.test_size=9000"], "data.test_size: 9000 requested"),
        (["data.dev_size=9000"], "data.dev_size: 9000 requested"),
        (["data.test=x.csv"], "data.train: unset"),
    ],
)
def test_impossible_splits(tmp_path, overrides, expected):
    with pytest.raises(UserError, match=expected):
        prepared(tmp_path, *overrides)


def test_a_task_without_data_of_its_own_gets_no_snippets(tmp_path, monkeypatch):
    """As CONTRIBUTING.md says how to add one, without a data set of the hub."""
    columns = tasks.TASKS["snippets"].columns
    monkeypatch.setitem(
        tasks.TASKS, "toy", tasks.Task(columns, ("dull", "lively"), columns, (tasks.FileLayout(columns),))
    )
    with pytest.raises(
        UserError, match="data.train: unset, and the task toy has no data set on the hub; name its file"
    ):
        splits.write(RunDir(schema.load("tiny", ["task=toy"]), tmp_path))


def test_a_pair_with_own_columns_and_labels(tmp_path):
    """What the summary says is what the attack and the models go by."""
    rows = "".join(f"r{i},c{i},{'xyz'[i % 3]}\n" for i in range(30))
    train = write_file(tmp_path, "a.csv", f"rule,case,verdict\n{rows}")
    keys = ["data.text_columns=[rule, case]", "data.label_column=verdict", "data.labels=[x, y, z]"]
    sizes = ["data.dev_size=6", "data.test_size=6", "data.train_size=null"]
    run = prepared(tmp_path, "task=custom", f"data.train={train}", *keys, *sizes)
    (texts, labels), summary = splits.read(run, "train"), run.summary()
    assert len(texts) == 18 and all(r[1:] == c[1:] and int(r[1:]) % 3 == k for (r, c), k in zip(texts, labels))
    assert (summary.columns, summary.labels, summary.attacked) == (["rule", "case"], ["x", "y", "z"], ["case"])


def test_test_sentences_are_kept_at_random(tmp_path):
    """Test sets that are sorted by label, as IMDB's, keep both."""
    train = write_file(tmp_path, "train.csv", "text,label\n" + "".join(f"train {i},{i % 2}\n" for i in range(20)))
    test = write_file(tmp_path, "test.csv", "text,label\n" + "".join(f"test {i:03d},{i // 500}\n" for i in range(1000)))
    sizes = ["data.dev_size=5", "data.test_size=100", "data.train_size=null"]
    run = prepared(tmp_path, "task=imdb", f"data.train={train}", f"data.test={test}", *sizes)
    texts, labels = splits.read(run, "test")
    assert len(set(texts)) == 100 and texts == sorted(texts) and 30 < labels.sum() < 70


def test_broken_rows_and_absent_labels_are_reported(tmp_path):
    rows = "".join(f"a{i}\tb{i}\t{i % 2}\n" for i in range(10))
    train = write_file(tmp_path, "train.tsv", f"question1\tquestion2\tis_duplicate\n{rows}torn\nc\t\t0\n")
    test = write_file(tmp_path, "test.tsv", "question1\tquestion2\tlabel\na1\tb1\t1\n")
    sizes = ["data.dev_size=2", "data.test_size=null", "data.train_size=null"]
    run = prepared(tmp_path, "task=qqp", f"data.train={train}", f"data.test={test}", "data.bad_rows=2", *sizes)
    skipped, *others = read_json(run.data / "summary.json")["warnings"]
    assert (
        f"broken rows skipped: 2, such as {train}, line 12: 1 fields" in skipped
        and "line 13: column 'question2'" in skipped
    )
    assert "texts that stand in both train and test: 1" in others[0]
    assert "no sentence of test has the label not_duplicate" in others


def test_of_many_absent_labels_some_are_named(tmp_path):
    rows = "".join(f"text {i},{i % 40}\n" for i in range(80))
    train = write_file(tmp_path, "train.csv", f"text,label\n{rows}")
    labels = f"data.labels=[{','.join(f'class {i}' for i in range(40))}]"
    sizes = ["data.dev_size=2", "data.test_size=2", "data.train_size=null"]
    run = prepared(tmp_path, "task=custom", "data.text_columns=[text]", labels, f"data.train={train}", *sizes)
    warnings = read_json(run.data / "summary.json")["warnings"]
    assert any(w.startswith("no sentence of dev has the label") and w.endswith(" and 26 more") for w in warnings)


def test_one_label_alone_is_refused_before_anything_is_written(tmp_path):
    train = write_file(tmp_path, "train.csv", "sentence,label\n" + "".join(f"s{i},1\n" for i in range(9)))
    sizes = ["data.dev_size=2", "data.test_size=2", "data.train_size=null"]
    with pytest.raises(UserError, match=f"{train}: all 5 training sentences have the label 'positive'"):
        prepared(tmp_path / "runs", "task=sst2", f"data.train={train}", *sizes)
    assert not (tmp_path / "runs").exists()


def test_conflicting_labels_and_invisible_texts_are_reported(tmp_path):
    rows = ["twice,1", "twice,0", "\u200b\ufeff,1", *(f"text {i},{i % 2}" for i in range(20))]
    train = write_file(tmp_path, "train.csv", "\n".join(["sentence,label", *rows]))
    sizes = ["data.dev_size=5", "data.test_size=5", "data.train_size=null"]
    run = prepared(tmp_path, "task=sst2", f"data.train={train}", *sizes)
    warnings = read_json(run.data / "summary.json")["warnings"]
    assert "texts that appear with different labels: 1, such as 'twice'" in warnings
    assert "rows with a text without a visible character: 1" in warnings


def test_quotes_that_are_read_as_text_are_reported(tmp_path):
    """As in the TSV files of Kaggle's film reviews, and in CSV files with a space after each comma."""
    rows = ['"a \\"fine\\" film {0}"\t{1}', '{1}, "a film {0}"']
    for name, header, row in zip(("a.tsv", "a.csv"), ("sentence\tlabel", "label, sentence"), rows):
        path = write_file(tmp_path, name, "\n".join([header, *(row.format(i, i % 2) for i in range(20))]))
        sizes = ["data.dev_size=5", "data.test_size=5", "data.train_size=null"]
        run = prepared(tmp_path / name.replace(".", "-"), "task=sst2", f"data.train={path}", *sizes)
        (warning,) = read_json(run.data / "summary.json")["warnings"]
        assert warning == "rows with a text in quotes, which are read as part of the text: 20 of 20"


def test_bad_rows_as_a_share_reaches_the_files(tmp_path):
    rows = [f"text {i},{i % 2}" for i in range(199)] + ["torn"]
    train = write_file(tmp_path, "train.csv", "\n".join(["sentence,label", *rows]))
    keys = [f"data.train={train}", "data.bad_rows=0.5%", "data.dev_size=5", "data.test_size=5"]
    run = prepared(tmp_path, "task=sst2", *keys, "data.train_size=null")
    assert "broken rows skipped: 1," in read_json(run.data / "summary.json")["warnings"][0]
    for wrong in ("x", "150%", "-1%", "0.5", "-1"):
        with pytest.raises(UserError, match="data.bad_rows in the command line"):
            schema.load("demo", [f"data.bad_rows={wrong}"])


def phrases(tmp_path):
    """A training file of 40 sentences, each with a phrase of it, and one phrase of all."""
    rows = [row for i in range(40) for row in (f"the film number {i} is fine,{i % 2}", f"number {i},{i % 2}")]
    return write_file(tmp_path, "train.csv", "\n".join(["sentence,label", *rows, "the film number,1"]))


def test_dev_shares_no_text_with_train(tmp_path):
    """Phrases of one sentence go to the same part; those in sentences of both parts go to neither. Both are counted."""
    keys = [f"data.train={phrases(tmp_path)}", "data.test_size=1", "data.dev_size=10", "data.train_size=null"]
    run = prepared(tmp_path, "task=sst2", *keys)
    dev, train = ({text for (text,) in splits.read(run, name)[0]} for name in ("dev", "train"))
    assert len(dev) == 10 and not [(a, b) for a in dev for b in train if f" {a} " in f" {b} " or f" {b} " in f" {a} "]
    summary = read_json(run.data / "summary.json")
    assert summary["overlap"]["left_out"] == 1 and summary["overlap"]["moved"] > 0
    assert f"texts moved between dev and train: {summary['overlap']['moved']};" in summary["warnings"][0]


def test_compat_official_keeps_the_random_cut(tmp_path):
    keys = [f"data.train={phrases(tmp_path)}", "data.test_size=1", "data.dev_size=10", "data.train_size=null"]
    run = prepared(tmp_path, "task=sst2", *keys, "compat=official")
    whole = [line.split(",")[0] for line in phrases(tmp_path).read_text().splitlines()[1:]]
    order = noise.generator(0, noise.SHUFFLE).permutation(81)
    assert [text for (text,) in splits.read(run, "dev")[0]] == [whole[i] for i in order[1:11]]
    assert read_json(run.data / "summary.json")["overlap"] == {"moved": 0, "left_out": 0}


def test_too_few_separate_texts_for_dev(tmp_path):
    rows = "\n".join(f"{'very ' * i}good,{i % 2}" for i in range(30))
    train = write_file(tmp_path, "train.csv", f"sentence,label\n{rows}")
    with pytest.raises(UserError, match="data.dev_size: 5 requested, but too few texts of .*train.csv"):
        prepared(tmp_path, "task=sst2", f"data.train={train}", "data.dev_size=5", "data.test_size=5")


def test_half_of_the_test_set_is_for_the_choice(tmp_path):
    """The two halves share no row and make up the test set; which half a sentence is in depends on data.seed alone."""
    sizes = ["data.train_size=20", "data.dev_size=10", "data.test_size=21"]
    whole = prepared(tmp_path / "whole", *sizes)
    run, same, other = (
        prepared(tmp_path / name, *sizes, "choice.split=test_half", *keys)
        for name, keys in (("half", ()), ("same", ("seeds=[5]",)), ("other", ("data.seed=3",)))
    )
    test, choice = (read_lines(run.split(name)) for name in ("test", "choice"))
    assert (len(test), len(choice)) == (11, 10)
    assert sorted(map(str, test + choice)) == sorted(map(str, read_lines(whole.split("test"))))
    assert same.split("choice").read_bytes() == run.split("choice").read_bytes() != other.split("choice").read_bytes()
    assert whole.split("train").read_bytes() == run.split("train").read_bytes()
    summary = read_json(run.data / "summary.json")
    assert summary["duplicates"]["test and choice"] == 0 and not whole.split("choice").exists()
