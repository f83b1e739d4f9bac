"""Files as users have them: every kind and every data set's own format, and what is refused, by file and line."""

import csv
import dataclasses
import gzip
import io
import json
import tempfile
from pathlib import Path

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.contract.basics.errors import UserError
from configs.contract.experiment import schema
from configs.contract.inputs.read_files import read_file
from configs.contract.inputs.tasks import TASKS, task_of
from tests.helpers import refusals
from tests.helpers.files import HARD_TEXTS, write_file

SINGLE, PAIR = TASKS["sst2"], TASKS["qnli"]


def records(path, task=SINGLE, **options):
    examples, skipped = read_file(path, task, **options)
    assert not skipped
    return examples


def refusal(path, task=SINGLE, **options):
    """The message of the `UserError`; always naming the file."""
    message = refusals.refusal(read_file, path, task, **options)
    assert str(path) in message
    return message


# --- kinds of files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newline", ["\r\n", "\n"])
@pytest.mark.parametrize("order", [("id", "sentence", "label"), ("label", "sentence", "id"), ("sentence", "label")])
def test_csv_is_rfc_4180(tmp_path, newline, order):
    """Whatever Python's writer quotes comes back: commas, quotes, newlines."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, order, lineterminator=newline, extrasaction="ignore")
    writer.writeheader()
    writer.writerows({"id": i, "sentence": text, "label": i % 2} for i, text in enumerate(HARD_TEXTS))
    examples = records(write_file(tmp_path, "a.csv", stream.getvalue()))
    assert examples == [{"sentence": text, "label": i % 2} for i, text in enumerate(HARD_TEXTS)]


def test_tsv_knows_no_quotes(tmp_path):
    """GLUE's files: a quote is a character like any other, and only a newline ends a row."""
    texts = ['"opened and never closed', 'closed only"', '""', 'in "the" middle', *HARD_TEXTS[4:7]]
    text = "sentence\tlabel\n" + "".join(f"{t}\t{i % 2}\r\n" for i, t in enumerate(texts))
    examples = records(write_file(tmp_path, "a.tsv", text))
    assert examples == [{"sentence": t, "label": i % 2} for i, t in enumerate(texts)]


@pytest.mark.parametrize("ascii", [True, False])
def test_json_lines(tmp_path, ascii):
    """Also with separators inside a sentence that Unicode counts as line ends."""
    rows = [{"label": i % 2, "sentence": text, "more": [1]} for i, text in enumerate(HARD_TEXTS)]
    text = "\n".join(json.dumps(row, ensure_ascii=ascii) for row in rows)
    for ending in ("", "\n", "\n\n"):
        examples = records(write_file(tmp_path, "a.jsonl", text + ending))
        assert examples == [{"sentence": t, "label": i % 2} for i, t in enumerate(HARD_TEXTS)]


def test_labels_are_names_or_numbers(tmp_path):
    text = "sentence,question,label\na,b,entailment\na,b,1\n\na,b, 0 \na,b,not_entailment\n"
    examples = records(write_file(tmp_path, "a.csv", text), PAIR)
    assert [r["label"] for r in examples] == [0, 1, 0, 1]
    assert list(examples[0]) == ["question", "sentence", "label"]  # reading order of the task


# --- the six data sets as they are handed out ----------------------------------------------------------------

MNLI = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
MNLI_ROW = '0\t31\t31n\tfiction\t( a )\t( b )\t(ROOT a)\t(ROOT b)\tIt "rained .\tIt was wet .\t'
FORMATS = [
    ("sst2", "train.tsv", "sentence\tlabel\nfine \t1\nso 'dull' \t0\n", None, [("fine", 1), ("so 'dull'", 0)]),
    (
        "qnli",
        "dev.tsv",
        'index\tquestion\tsentence\tlabel\n0\tWho "won?\tThey did.\tentailment\n1\tWhen?\tNo.\tnot_entailment\n',
        None,
        [('Who "won?', "They did.", 0), ("When?", "No.", 1)],
    ),
    (
        "mnli",
        "train.tsv",
        f"{MNLI} sentence1 sentence2 label1 gold_label".replace(" ", "\t")
        + f"\n{MNLI_ROW}neutral\tneutral\n{MNLI_ROW}entailment\tcontradiction\n",
        None,
        [('It "rained .', "It was wet .", 1), ('It "rained .', "It was wet .", 2)],
    ),
    (
        "mnli",
        "dev_matched.tsv",
        f"{MNLI} sentence1 sentence2 label1 label2 label3 label4 label5 gold_label".replace(" ", "\t")
        + f"\n{MNLI_ROW}"
        + "neutral\t" * 5
        + "entailment\n",
        None,
        [('It "rained .', "It was wet .", 0)],
    ),
    (
        "qqp",
        "train.tsv",
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n7\t1\t2\tHow?\tWhy?\t0\n8\t3\t4\tA?\tB?\t1\n",
        None,
        [("How?", "Why?", 0), ("A?", "B?", 1)],
    ),
    (
        "agnews",
        "test.csv",
        '"3","Wall St. ""Bears""","Short, and\\black."\n"1","Vote","A poll."\n"4","Chip","New."\n',
        ["label", "title", "description"],
        [('Wall St. "Bears" Short, and\\black.', 2), ("Vote A poll.", 0), ("Chip New.", 3)],
    ),
    ("agnews", "train.csv", "Class Index,Title,Description\n2,Cup,Final.\n", None, [("Cup Final.", 1)]),
    (
        "agnews",
        "a.jsonl",
        '{"text": "Cup", "label": 1}\n{"text": "Chip", "label": "Sci/Tech"}',
        None,
        [("Cup", 1), ("Chip", 3)],
    ),
    (
        "imdb",
        "IMDB Dataset.csv",
        'review,sentiment\n"It, <br />was",positive\nno,negative\n',
        None,
        [("It, <br />was", 1), ("no", 0)],
    ),
    ("imdb", "labeledTrainData.tsv", 'id\tsentiment\treview\n"5_8"\t1\t"no"\n', None, [('"no"', 1)]),
    (
        "imdb",
        "a.jsonl",
        '{"text": "good", "label": 1}\n{"text": "bad", "label": "neg"}\n',
        None,
        [("good", 1), ("bad", 0)],
    ),
    ("imdb", "train.tsv", "sentence\tlabel\ngood\t1\n", None, [("good", 1)]),
]


@pytest.mark.parametrize("task, name, content, columns, expected", FORMATS, ids=[f"{f[0]} {f[1]}" for f in FORMATS])
def test_every_data_set_in_its_own_format(tmp_path, task, name, content, columns, expected):
    examples = records(write_file(tmp_path, name, content), TASKS[task], columns=columns)
    assert examples == [dict(zip((*TASKS[task].columns, "label"), row)) for row in expected]


def test_agnews_counts_labels_from_1_where_it_has_titles(tmp_path):
    """So a 0 there is an error, not World."""
    path = write_file(tmp_path, "a.csv", "0,Vote,A poll.\n")
    message = refusal(path, TASKS["agnews"], columns=["label", "title", "description"])
    assert "line 1: unknown label '0'; allowed: 1 or World" in message


@pytest.mark.parametrize(
    "task, written, entries",
    [
        ("agnews", "1 2 3 4", "[1=World,2=Sports,3=Business,4=Sci/Tech]"),
        ("agnews", "2 4", "[1=World,2=Sports,3=Business,4=Sci/Tech]"),
        ("sst2", "2.0 1.0", "[1=negative,2=positive]"),
        ("sst2", "2.000e+00 1.000e+00", "[1=negative,2=positive]"),
        ("sst2", "-1 1", "[-1=negative,1=positive]"),
        ("sst2", "0 4", "[0=negative,4=positive]"),
        ("mnli", "-1 1 0", "[-1=entailment,0=neutral,1=contradiction]"),
        ("agnews", "0 1 2 3 4", None),
        ("agnews", "1 2 many", None),
        ("sst2", "-1 0", None),
        ("mnli", "-1 0 1 2", None),
    ],
)
@pytest.mark.parametrize("bad_rows", [0, 1])
def test_labels_that_count_otherwise_are_not_offered_to_be_skipped(tmp_path, task, written, entries, bad_rows):
    """Without the rows of 4, the 1 of World would be read as Sports."""
    task = TASKS[task]
    rows = [*written.split(), *written.split()]
    text = "".join(",".join([*["x"] * len(task.columns), label]) + "\n" for label in rows)
    path = write_file(tmp_path, "a.csv", f"{','.join(task.columns)},label\n{text}")
    message = refusal(path, task, bad_rows=bad_rows)
    assert "unknown label" in message and ("data.labels=[1=bad" in message or "-1 often" in message) != bool(entries)
    assert ("data.bad_rows=" in message) != bool(entries) and (
        not entries or f"say so: data.labels={entries}" in message
    )
    if entries:
        names = own(f"task={next(name for name in TASKS if TASKS[name] is task)}", f"data.labels={entries}")
        names = dataclasses.replace(names, layouts=(dataclasses.replace(names.layouts[0], texts=task.columns),))
        assert {r["label"] for r in records(path, names)} <= set(range(len(task.labels)))


def test_the_folders_of_imdb(tmp_path):
    for label, texts in {"neg": ["dull", "naïve"], "pos": ["fine"], "unsup": ["unknown"]}.items():
        (tmp_path / "train" / label).mkdir(parents=True)
        for i, text in enumerate(texts):
            write_file(tmp_path, f"train/{label}/{i}_7.txt", text)
    expected = [{"text": "dull", "label": 0}, {"text": "naïve", "label": 0}, {"text": "fine", "label": 1}]
    assert records(tmp_path / "train", TASKS["imdb"]) == expected
    assert "pairs" in refusal(tmp_path / "train", TASKS["qqp"])
    broken = write_file(tmp_path, "train/pos/1_7.txt", "a <SPLIT> b")
    assert "holds <SPLIT>" in refusal(tmp_path / "train", TASKS["imdb"])
    broken = write_file(tmp_path, "train/pos/1_7.txt", b"caf\xe9")
    with pytest.raises(UserError, match=f"{broken}, line 1: not UTF-8"):
        read_file(tmp_path / "train", TASKS["imdb"])
    broken.write_bytes(b" \n")
    with pytest.raises(UserError, match=f"{broken}: empty"):
        read_file(tmp_path / "train", TASKS["imdb"])
    write_file(tmp_path, "train/pos/._1_7.txt", b"\0what macOS leaves in archives")
    broken.unlink()
    assert records(tmp_path / "train", TASKS["imdb"]) == expected
    assert "no neg/*.txt in it; it holds train, and needs" in refusal(tmp_path, TASKS["imdb"])


def test_texts_of_a_folder_are_all_read_or_refused(tmp_path):
    """As in a table, where a label that the task lacks is an error."""
    for name in ("neg/1.txt", "neg/2.TXT", "pos/1.txt", "unsup/1.txt", "notes/about.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_file(tmp_path, name, name)
    assert [r["text"] for r in records(tmp_path, TASKS["imdb"])] == ["neg/1.txt", "neg/2.TXT", "pos/1.txt"]
    (tmp_path / "mixed").mkdir()
    write_file(tmp_path, "mixed/1.txt", "so so")
    message = refusal(tmp_path, TASKS["imdb"])
    assert f"{tmp_path / 'mixed'}: no label has this name; allowed: neg, pos; move the folder" in message


@pytest.mark.parametrize("names", [("Neg", "POS"), ("0", "1"), ("neg", "Pos")])
def test_folders_are_named_as_labels_are_written_in_tables(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir()
        write_file(tmp_path, f"{name}/1.txt", name)
    assert [(r["text"], r["label"]) for r in records(tmp_path, TASKS["imdb"])] == list(zip(names, (0, 1)))


def test_folders_of_other_names_are_told_how_to_name_them(tmp_path):
    for name in ("negative", "positive"):
        (tmp_path / name).mkdir()
        write_file(tmp_path, f"{name}/1.txt", name)
    message = refusal(tmp_path, TASKS["imdb"])
    assert "no neg/*.txt in it; it holds negative, positive" in message and "data.labels=[negative=bad,...]" in message
    task = own("task=imdb", "data.labels=[negative=neg,positive=pos]")
    assert [(r["text"], r["label"]) for r in records(tmp_path, task)] == [("negative", 0), ("positive", 1)]


def test_files_of_a_folder_are_broken_rows_where_they_hold_no_text(tmp_path):
    """Files of another name, as some data sets mix them, folders, blank files, and those of another encoding."""
    for name in ("neg/1.txt", "neg/2", "neg/more/3.txt", "neg/more.txt/4", "pos/1.txt", "pos/2.txt.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        write_file(tmp_path, name, name)
    write_file(tmp_path, "pos/3.txt", b"caf\xe9")
    write_file(tmp_path, "pos/4.txt", "\n")
    message = refusal(tmp_path, TASKS["imdb"])
    assert f"{tmp_path / 'neg/2'}: no .txt file" in message and "data.bad_rows=6" in message
    examples, skipped = read_file(tmp_path, TASKS["imdb"], bad_rows=6)
    assert [r["text"] for r in examples] == ["neg/1.txt", "pos/1.txt"]
    assert [text.partition(":")[0].removeprefix(f"{tmp_path}/") for text in skipped] == [
        "neg/2",
        "neg/more",
        "neg/more.txt",
        "pos/2.txt.gz",
        "pos/3.txt, line 1",
        "pos/4.txt",
    ]


@pytest.mark.parametrize("task", [SINGLE, PAIR])
@pytest.mark.parametrize(
    "name, content, expected",
    [
        (
            "train/data-00000-of-00002.arrow",
            b"\xff\xff\xff\xff",
            "a data set in Arrow's format; write it as JSON Lines",
        ),
        ("data/train-00000-of-00003.parquet", b"PAR1", "a Parquet file; write it as CSV"),
        ("train-00000-of-00003.jsonl", b"{}", "a folder with tables; give one file, such as"),
        ("TRAIN.CSV", b"sentence", "TRAIN.CSV"),
    ],
)
def test_folders_of_tables_are_refused_with_the_file_to_give(tmp_path, task, name, content, expected):
    """As `save_to_disk` writes data sets, beside descriptions in JSON, and as the hub keeps them."""
    (tmp_path / "dataset_dict.json").touch()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    write_file(tmp_path, name, content)
    assert expected in refusal(tmp_path, task)


# --- files of a user's own -----------------------------------------------------------------------------------


def own(*overrides):
    return task_of(schema.load("base", ["data.train=x.csv", *overrides]))


def test_own_columns_and_labels(tmp_path):
    names = ("data.text_columns=[head+body, claim]", "data.label_column=verdict", "data.labels=[x, y, z]")
    task = own("task=custom", *names)
    path = write_file(tmp_path, "a.csv", "verdict,claim,head,body,more\nz,c,h,b,0\n1,c,,b,0\n")
    assert records(path, task) == [
        {"head+body": "h b", "claim": "c", "label": 2},
        {"head+body": "b", "claim": "c", "label": 1},
    ]


def test_values_of_labels(tmp_path):
    """`value=name` gives the values in the file; plain numbers are values too, and then nothing else is."""
    path = write_file(tmp_path, "a.csv", "text,label\na,1\nb,2\nc,1\n")
    for labels, names in (("[1=up, 2=down]", ("up", "down")), ("['1', '2']", ("1", "2"))):
        task = own("task=custom", "data.text_columns=[text]", f"data.labels={labels}")
        assert task.labels == names
        assert [r["label"] for r in records(path, task)] == [0, 1, 0]
        assert "unknown label '0'" in refusal(write_file(tmp_path, "b.csv", "text,label\na,0\n"), task)


def test_numbers_that_name_labels_are_no_values_beside_other_numbers(tmp_path):
    """Such as 0 for a text that nobody rated, where 1 is bad and 2 is good."""
    path = write_file(tmp_path, "a.csv", "text,label\na,1\nb,2\nc,0\n")
    task = own("task=custom", "data.text_columns=[text]", "data.labels=[1=0, 2=1]")
    assert "line 4: unknown label '0'; allowed: 1, 2;" in refusal(path, task)
    task = own("task=custom", "data.text_columns=[text]", "data.labels=[bad=0, good=1]")
    path = write_file(tmp_path, "b.csv", "text,label\na,bad\nb,0\nc,1\n")
    assert [r["label"] for r in records(path, task)] == [0, 0, 1]


def test_spaces_in_an_entry_of_labels_do_not_count(tmp_path):
    """Else `0 = bad` would not mean the file's 0, and each label would be read as the other one."""
    task = own("task=custom", "data.text_columns=[text]", "data.labels=[1 = good, ' 0=bad ']")
    assert task.labels == ("good", "bad")
    path = write_file(tmp_path, "a.csv", "text,label\na,1\nb,0\nc, bad\n")
    assert [r["label"] for r in records(path, task)] == [0, 1, 1]


def test_a_task_of_the_table_with_own_spellings(tmp_path):
    task = own("task=sst2", "data.text_columns=[quote]", "data.label_column=tone", "data.labels=[sad, glad]")
    path = write_file(tmp_path, "a.tsv", "tone\tquote\nglad\tfine\nsad\tdull\n")
    assert records(path, task) == [{"sentence": "fine", "label": 1}, {"sentence": "dull", "label": 0}]
    assert task.labels == ("negative", "positive")


@pytest.mark.parametrize(
    "task, labels, values",
    [
        ("sst2", "[1=positive, 0=negative]", "0 1"),
        ("sst2", "[up=pos, down=neg]", "down up"),
        ("sst2", "[Positive, Negative]", "Negative Positive"),
        ("mnli", "[2=contradiction, 0=entailment, 1=neutral]", "0 1 2"),
        ("agnews", "[4=sci_tech, 1=world, 2=sport, 3=business]", "1 2 3 4"),
        ("agnews", "[1=World, 2=Sport, 3=Money, 4=Gadgets]", "1 2 3 4"),
        ("qqp", "[different, same]", "different same"),
    ],
)
def test_names_of_a_tasks_labels_stand_for_these_in_any_order(task, labels, values):
    assert own(f"task={task}", f"data.labels={labels}").layouts[0].values == tuple(values.split())


@pytest.mark.parametrize("columns", ["[sentence, question]", "[sentence, query]", "[text, question]"])
def test_names_of_a_tasks_columns_are_these_in_any_order(tmp_path, columns):
    path = write_file(tmp_path, "a.csv", f"{columns[1:-1]},label\nThey did.,Who won?,0\n")
    expected = {"question": "Who won?", "sentence": "They did.", "label": 0}
    assert records(path, own("task=qnli", f"data.text_columns={columns}")) == [expected]


def test_names_of_some_of_a_tasks_labels_in_another_order_are_refused():
    message = refusals.refusal(own, "task=mnli", "data.labels=[2=contradiction, 0=yes, 1=maybe]")
    assert "which of contradiction, yes, maybe is contradiction can be told" in message
    assert "name all of entailment, neutral, contradiction" in message


# --- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("a.csv", "text,label\nfine,1\n", ["line 1", "no column 'sentence'", "text, label", "data.text_columns"]),
        ("a.csv", "fine,1\ndull,0\n", ["line 1", "only fine, 1", "data.columns"]),
        ("a.csv", "sentence,label,label\nfine,1,1\n", ["line 1", "'label' twice"]),
        ("a.csv", 'sentence,label\n"two\nlines",1\nfine,2\n', ["line 4", "'2'", "0 or negative, 1 or positive"]),
        (
            "a.csv",
            'sentence,label\n"two\nlines",1\nfine\n',
            ["line 4", "1 fields, the header has 2", "data.bad_rows=1"],
        ),
        ("a.csv", "sentence,label\nfine, really,1\n", ["line 2", "3 fields, the header has 2"]),
        ("a.csv", 'sentence,label\nfine,1\n"open,1\n', ["line 3", "quote"]),
        ("a.csv", 'sentence,label\n"a" b,1\n', ["line 2", "quote fields"]),
        ("a.csv", 'sentence,label\nfine,1\n"open,1\nmore,0\n"closed",1\n', ["line 3", "double quotes"]),
        ("a.csv", "sentence,label\n  ,1\n", ["line 2", "'sentence'", "no text"]),
        ("a.csv", "sentence,label\nfine,\n", ["line 2", "no label; correct the row; all rows are broken"]),
        ("a.csv", "sentence,label\nfine,-1\n", ["line 2", "unknown label '-1'", "take the validation set"]),
        ("a.csv", "sentence,label\n", ["no rows"]),
        *((name, content, ["empty"]) for name in ("a.csv", "a.tsv", "a.jsonl") for content in ("", "\n")),
        (
            "a.csv",
            b"sentence,label\nfine,1\ncaf\xe9,1\n",
            ["line 3", "as Windows-1252 it reads 'café,1'", "iconv -f WINDOWS-1252"],
        ),
        ("a.csv", b"sentence,label\ncaf\xc3\xa9,1\ncaf\xe9,1\n", ["line 3", "other lines are", "correct"]),
        ("a.csv", b"sentence,label\ncaf\xe9,1\ncaf\xc3\xa9,1\n", ["line 2", "other lines are", "correct"]),
        ("a.csv", b"sentence,label\ncaf\xe9\x81,1\n", ["line 2", "not Windows-1252"]),
        ("a.csv", "sentence,label\nfine,1\n".encode("utf-16-le"), ["line 1", "iconv -f UTF-16LE"]),
        ("a.csv", "sentence,label\nfine,1\n".encode("utf-16-be"), ["line 1", "iconv -f UTF-16BE"]),
        ("a.csv", "sentence,label\nfine \u9999\ud7ff,1\n".encode("utf-16-le"), ["line 1", "iconv -f UTF-16LE"]),
        ("a.csv", "sentence,label\n好的電影,1\n很棒的,0\n".encode("utf-16-be"), ["line 1", "iconv -f UTF-16BE"]),
        ("a.csv", gzip.compress(b"sentence,label\nfine,1\n", mtime=0), ["compressed by gzip; unpack it with gunzip"]),
        (
            "a.csv.gz",
            gzip.compress(b"sentence,label\nfine,1\n", mtime=0),
            ["compressed by gzip; unpack it with gunzip"],
        ),
        ("a.tgz", gzip.compress(b"a.csv", mtime=0), ["or with tar xzf if its name ends in .tar.gz or .tgz"]),
        ("a.tar", b"a.csv" + b"\0" * 252 + b"ustar\x0000", ["a.tar: a tar archive; unpack it with tar xf"]),
        ("a.csv", b"PK\x03\x04" + b"\0" * 40, ["a workbook or a zip archive; save the sheet as CSV"]),
        ("a.arrow", b"\xff\xff\xff\xff\0", ["a data set in Arrow's format; write it as JSON Lines with datasets"]),
        ("a.feather", b"ARROW1\0\0", ["a Feather file; write it as CSV with pandas.read_feather"]),
        ("a.csv", b"version https://git-lfs.github.com/spec/v1\n", ["only points to its content; fetch that with git"]),
        ("a.csv", "\n<!DOCTYPE html>\n<html lang='en'>\n", ["a.csv: a web page; download the file itself"]),
        ("a.json", "<html><body>404</body></html>", ["a.json: a web page; download the file itself"]),
        ("a.pkl", b"\x80\x04\x95\0\0", ["give a .csv, .tsv, .jsonl or .json file"]),
        ("a.csv", "\ufeff\ufeffsentence,label\nfine,1\n", ["no column 'sentence', only \\ufeffsentence, label;"]),
        ("a.json", '{"columns": ["sentence", "label"], "data": [["fine", 1]]}', ["one object of 'columns', 'data'"]),
        ("a.json", json.dumps({f"row {i}": {"sentence": "a"} for i in range(99)}), ["row 11 and 87 more;"]),
        ("a.json", b"PAR1\x15\x04" + b"\0\xff" * 40, ["a Parquet file; write it as CSV with pandas"]),
        ("a.json", '{"data": [{"sentence": "a", "label": 1}]}', ["one object of 'data'", "orient='records'"]),
        (
            "a.json",
            '{"sentence": {"0": "a"}, "label": {"1": 1}}',
            ["one object of 'sentence', 'label'", "for each row"],
        ),
        ("a.csv", "sentence,label\nfine,1\n".encode("utf-16")[:-1], ["UTF-16 by its byte-order mark, but damaged"]),
        ("a.csv", 'sentence,label\n"two\nlines",1\n"open,1\nmore,0\n', ["line 4", "close the quote"]),
        ("a.tsv", "sentence\tlabel\nfi\0ne\t1\n", ["line 2", "NUL"]),
        ("a.tsv", "sentence\tlabel\nfine\t1\nfine\ttwice\t1\n", ["line 3", "3 fields, the header has 2"]),
        ("a.tsv", "sentence\tlabel\nfine\t1 dull\t0\n", ["line 2", "3 fields"]),
        ("a.tsv", "sentence;label\nfine;1\n", ["line 1: its columns end at ';', not at tabs; call it a.csv"]),
        ("a.tsv", "sentence,label\nfine,1\n", ["line 1: its columns end at ',', not at tabs; call it a.csv"]),
        ("a.JSON", '[{"sentence": "a", "label": 1},\n]\n', ["begins as an array, but is not valid JSON"]),
        ("a.tsv", "sentence\tlabel\nfine\tgreat\n", ["line 2", "unknown label 'great'", "1 or positive"]),
        ("test.tsv", "index\tsentence\n0\tfine\n", ["line 1", "no column 'label'", "dev.tsv serves as the test set"]),
        ("train.tsv", "sentence\ttone\nfine\t1\n", ["'label', only sentence, tone; name yours with data.text_columns"]),
        ("a.jsonl", '{"sentence": "a", "label": 1}\n{"sentence": \n', ["line 2", "not valid JSON"]),
        ("a.jsonl", '{"sentence": "a", "label": 1} {"sentence": "b", "label": 1}\n', ["line 1", "one object a line"]),
        ("a.jsonl", '{"sentence": "a", "label": 1}\n[1]\n', ["line 2", "JSON object"]),
        ("a.jsonl", '[DONE]\n{"sentence": "a", "label": 1}\n', ["line 1", "not valid JSON", "data.bad_rows=1"]),
        ("a.jsonl", '{"sentence": 5, "label": 1}\n', ["line 1", "'sentence'", "no text"]),
        ("a.jsonl", '{"sentence": "a", "label": 1}\n{"text": "a", "label": 1}\n', ["line 2", "'sentence'"]),
        ("a.jsonl", '{"sentence": "a", "label": null}\n', ["line 1", "no label"]),
        ("a.jsonl", '{"sentence": "a \\ud83d", "label": 1}\n', ["line 1", "half a character"]),
        ("a.jsonl", '{"sentence": "a", "label": ' + "9" * 5000 + "}\n", ["line 1", "not valid JSON"]),
        ("a.jsonl", '{"sentence": "a", "label": 1}\n' + "[" * 100_000 + "\n", ["line 2", "nested too deep"]),
        ("a.jsonl", '{"sentence": "a", "label": 1, "label": 0}\n', ["line 1", "the label appears twice"]),
        ("a.jsonl", '{"sentence": "a", "sentence": "b", "label": 0}\n', ["line 1", "'sentence' appears twice"]),
        ("a.csv", "sentence,label\na <SPLIT> b,1\n", ["line 2", "<SPLIT>", "TextAttack"]),
        ("a.csv", "sentence,label\nfine,7\n", ["line 2", "unknown label '7'", "data.labels=[1=bad,...]"]),
        ("a.txt", "fine", [".csv, .tsv, .jsonl or .json"]),
    ],
)
def test_wrong_files_name_line_and_remedy(tmp_path, name, content, expected):
    message = refusal(write_file(tmp_path, name, content))
    for part in expected:
        assert part in message


def test_a_json_file_is_not_told_of_headers(tmp_path):
    message = refusal(write_file(tmp_path, "a.json", '[{"text": "fine", "label": 1}]'))
    assert message.endswith(
        "a.json: no column 'sentence', only text, label; name yours with data.text_columns and data.label_column"
    )


def test_a_missing_file(tmp_path):
    assert "no such file" in refusal(tmp_path / "gone.csv")


def test_a_header_that_is_named_again(tmp_path):
    message = refusal(write_file(tmp_path, "a.csv", "sentence,label\nfine,1\n"), columns=["sentence", "label"])
    assert "line 1: this file has a header" in message
    assert "empty" in refusal(write_file(tmp_path, "b.csv", ""), columns=["sentence", "label"])


def test_names_of_columns_that_are_too_few_are_named(tmp_path):
    path = write_file(tmp_path, "a.tsv", "0\tfine\t1\n")
    assert "line 1: 3 fields, data.columns has 2" in refusal(path, columns=["sentence", "label"])


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "pos/a.txt"])
def test_names_of_columns_are_refused_where_they_would_rename_nothing(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    path = write_file(tmp_path, name, '{"text": "fine", "label": 1}')
    message = refusal(path.parent if path.suffix == ".txt" else path, TASKS["imdb"], columns=["label", "text"])
    assert "data.columns names the columns of CSV and TSV files" in message and "unset data.columns" in message


def test_broken_rows_are_skipped_as_far_as_allowed(tmp_path):
    """As in QQP's own file: torn lines, a question without text."""
    path = write_file(tmp_path, "a.tsv", "sentence\tlabel\nfine\t1\ntorn\n\t0\ndull\t0\n")
    examples, skipped = read_file(path, SINGLE, bad_rows=2)
    assert [r["sentence"] for r in examples] == ["fine", "dull"]
    assert [text.partition(": ")[0] for text in skipped] == [f"{path}, line 3", f"{path}, line 4"]
    assert "line 4" in refusal(path, bad_rows=1) and "line 3" in refusal(path)


# --- what spreadsheets, pandas and public data sets write ----------------------------------------------------


@pytest.mark.parametrize("name, mark", [("a.csv", ","), ("a.tsv", "\t")])
def test_line_ends_of_old_spreadsheets(tmp_path, name, mark):
    path = write_file(tmp_path, name, f"sentence{mark}label\rfine{mark}1\rdull{mark}2\r")
    examples, (skipped,) = read_file(path, SINGLE, bad_rows=1)
    assert examples == [{"sentence": "fine", "label": 1}] and "line 3: unknown label '2'" in skipped


def test_quoted_fields_of_several_lines(tmp_path):
    """A line of a text may look like a row: RFC 4180 decides."""
    text = 'label,text\n1,"Sales rose to\n1,500 units"\n0,"What a waste,\nreally"\n1,"I give it 4,5\nGreat"\n0,dull\n'
    examples = records(write_file(tmp_path, "a.csv", text), TASKS["imdb"])
    assert [r["text"] for r in examples] == [
        "Sales rose to\n1,500 units",
        "What a waste,\nreally",
        "I give it 4,5\nGreat",
        "dull",
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name, mark", [("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", "\t")])
def test_byte_order_marks_and_delimiters_of_spreadsheets(tmp_path, encoding, name, mark):
    """A spreadsheet's "Unicode text" is UTF-16 with tabs, whatever its name; some countries use semicolons."""
    text = f"sentence{mark}label\r\nnaïve film{mark}1\r\nbad 電影{mark}0\r\n"
    before = "\ufeff" if encoding[-2:] in ("le", "be") else ""
    examples = records(write_file(tmp_path, name, (before + text).encode(encoding)))
    assert examples == [{"sentence": "naïve film", "label": 1}, {"sentence": "bad 電影", "label": 0}]


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\r\nsentence;label\r\nwell, fine;1\r\ndull;2\r\n",
        '"sep=,"\nsentence,label\n"well, fine",1\ndull,2\n',
        "\nsentence|label\nwell, fine|1\ndull|2\n",
    ],
)
def test_other_delimiters_and_the_first_line_that_names_one_to_excel(tmp_path, text):
    """Lines keep their numbers."""
    path = write_file(tmp_path, "a.csv", text)
    assert "line 4: unknown label '2'" in refusal(path)
    assert read_file(path, SINGLE, bad_rows=1)[0] == [{"sentence": "well, fine", "label": 1}]


def test_keys_may_differ_from_row_to_row(tmp_path):
    """A missing part of a joined text is empty; a row without any text is broken."""
    task = own(
        "task=custom", "data.text_columns=[summary+reviewText]", "data.label_column=overall", "data.labels=['1', '5']"
    )
    rows = [
        {"overall": 5, "summary": "fine"},
        {"overall": 1, "summary": "poor", "reviewText": "not for me"},
        {"overall": 5, "reviewText": "buy", "summary": None},
        {"overall": 5, "reviewText": "more", "summary": float("nan")},
    ]
    expected = ["fine", "poor not for me", "buy", "more"]
    path = write_file(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert [r["summary+reviewText"] for r in records(path, task)] == expected
    array = write_file(tmp_path, "a.json", json.dumps(rows, indent=1))
    assert [r["summary+reviewText"] for r in records(array, task)] == expected
    path = write_file(tmp_path, "b.jsonl", "\n".join(map(json.dumps, [*rows, {"overall": 5}])))
    assert "line 5: column 'summary+reviewText' holds no text" in refusal(path, task)
    assert len(read_file(path, task, bad_rows=1)[0]) == 4


@pytest.mark.parametrize(
    "content",
    [
        'v1,v2,,,\nham,"Go, now",,,\nspam,Free entry,,,\n',
        'v1,v2,,,\nham,"Go, now"\nspam,Free entry,x,\n',
        'v1,v2\nham,"Go, now",,\nspam,Free entry,\n,,\n',
        '"wide, and\nlong",v1,v2\n1,ham,"Go, now"\n2,spam,Free entry\n',
        '"wide; and\nlong";v1;v2\n1;ham;"Go, now"\n2;spam;Free entry\n',
        'x,x,v1,v2,"wide, and\nlong"\n1,2,ham,"Go, now","a\nb"\n1,2,spam,Free entry,\n',
    ],
)
def test_columns_that_nobody_asked_for_do_not_matter(tmp_path, content):
    task = own("task=custom", "data.text_columns=[v2]", "data.label_column=v1", "data.labels=[ham, spam]")
    assert records(write_file(tmp_path, "a.csv", content), task) == [
        {"v2": "Go, now", "label": 0},
        {"v2": "Free entry", "label": 1},
    ]


def test_json_rows_may_stand_under_their_names(tmp_path):
    """As `DataFrame.to_json(orient='index')` writes them under an index of names; keys may differ."""
    rows = {"first": {"sentence": "a", "label": 1}, "second": {"label": 0, "more": 2, "sentence": "b"}}
    path = write_file(tmp_path, "a.json", json.dumps(rows))
    assert records(path) == [{"sentence": "a", "label": 1}, {"sentence": "b", "label": 0}]


def test_unused_keys_of_any_shape(tmp_path):
    rows = '{"sentence": "a", "label": 1, "x": [1], "x": {"y": 1, "y": 2}, "z": NaN}\n{"sentence": "b", "label": 0}\n'
    assert [r["label"] for r in records(write_file(tmp_path, "a.jsonl", rows))] == [1, 0]


STARS = ("[1=bad, 3=fair, 5=good]", "[1.0=bad, 3.0=fair, 5.0=good]")


@pytest.mark.parametrize("labels", STARS)
@pytest.mark.parametrize(
    "value, expected", [("5.0", 2), ('"5"', 2), ("1", 0), ('" 3.00 "', 1), ("5", 2), ("5e0", 2), ('"5.0e+00"', 2)]
)
def test_numbers_are_labels_however_they_are_written(tmp_path, labels, value, expected):
    task = own("task=custom", "data.text_columns=[text]", "data.label_column=stars", f"data.labels={labels}")
    assert records(write_file(tmp_path, "a.jsonl", f'{{"text": "x", "stars": {value}}}'), task)[0]["label"] == expected
    assert "unknown label '5.5'" in refusal(write_file(tmp_path, "b.jsonl", '{"text": "x", "stars": 5.5}'), task)


@pytest.mark.parametrize(
    "labels", ["[false=bad, true=good]", "['False=bad', 'True=good']", "['false', 'true']", "[bad, good]"]
)
def test_true_and_false_are_labels(tmp_path, labels):
    task = own("task=custom", "data.text_columns=[text]", f"data.labels={labels}")
    rows = '{"text": "x", "label": true}\n{"text": "y", "label": false}\n{"text": "z", "label": "TRUE"}'
    assert [r["label"] for r in records(write_file(tmp_path, "a.jsonl", rows), task)] == [1, 0, 1]
    assert [r["label"] for r in records(write_file(tmp_path, "a.csv", "text,label\nx,True\ny,false\n"), task)] == [1, 0]


def test_labels_in_another_case_are_the_same_unless_two_labels_differ_by_it(tmp_path):
    text = "text,label\nx,schön\ny,SCHO\u0308N\nz,hässlich\n"  # accents as one character, or as two
    german = own("task=custom", "data.text_columns=[text]", "data.labels=[hässlich, schön]")
    assert [r["label"] for r in records(write_file(tmp_path, "a.csv", text), german)] == [1, 1, 0]
    text = "text,label\nx,Good\ny,BAD\nz,good\n"
    task = own("task=custom", "data.text_columns=[text]", "data.labels=[bad, good]")
    assert [r["label"] for r in records(write_file(tmp_path, "a.csv", text), task)] == [1, 0, 1]
    task = own("task=custom", "data.text_columns=[text]", "data.labels=[bad, good, Bad]")
    assert "unknown label 'BAD'" in refusal(write_file(tmp_path, "a.csv", text), task)


@pytest.mark.parametrize(
    "asked, written", [("\u00e9", "e\u0301"), ("e\u0301", "\u00e9")], ids=["file", "configuration"]
)
@pytest.mark.parametrize("kind", ["csv", "jsonl", "columns", "folder"])
def test_accents_may_be_written_apart_from_their_letters(tmp_path, kind, asked, written):
    """As macOS writes names of folders, and some programs headers."""
    columns = [f"data.text_columns=[r{asked}sum{asked}]", f"data.label_column=qualit{asked}"]
    task = own("task=custom", *columns, f"data.labels=[mauvais, am{asked}lior{asked}]")
    names, label, options = (f"r{written}sum{written}", f"qualit{written}"), f"am{written}lior{written}", {}
    if kind == "csv":
        path = write_file(tmp_path, "a.csv", f"{names[0]},{names[1]}\nx,{label}\ny,mauvais\n")
    elif kind == "columns":
        path, options = write_file(tmp_path, "a.csv", f"x,{label}\ny,mauvais\n"), {"columns": list(names)}
    elif kind == "jsonl":
        rows = (dict(zip(names, values)) for values in (("x", label), ("y", "mauvais")))
        path = write_file(tmp_path, "a.jsonl", "\n".join(json.dumps(row) for row in rows))
    else:
        path = tmp_path / "folder"
        for name, text in ((label, "x"), ("mauvais", "y")):
            (path / name).mkdir(parents=True)
            (path / name / "1.txt").write_text(text)
    expected = {("x", 1), ("y", 0)}
    assert {(r["r\u00e9sum\u00e9"], r["label"]) for r in records(path, task, **options)} == expected


def test_a_column_with_a_plus_in_its_name_is_written_with_two(tmp_path):
    path = write_file(tmp_path, "a.csv", "a+b,c,label\nx,y,1\n")
    for asked, text in (("a++b", "x"), ("a++b+c", "x y"), ("c+a++b", "y x")):
        task = own("task=custom", f"data.text_columns=[{asked}]", "data.labels=[0,1]")
        assert records(path, task) == [{asked: text, "label": 1}]


def test_labels_may_be_given_as_numbers_with_a_point(tmp_path):
    task = own("task=custom", "data.text_columns=[text]", "data.labels=[1.0, 2.0]")
    assert task.labels == ("1.0", "2.0")
    assert [r["label"] for r in records(write_file(tmp_path, "a.csv", "text,label\nx,1\ny,2.0\n"), task)] == [0, 1]


def test_fields_of_any_length(tmp_path):
    """The csv module's own limit is 128 KiB."""
    text = "long " * 60_000
    assert records(write_file(tmp_path, "a.csv", f'sentence,label\n"{text}",1\n'))[0]["sentence"] == text.strip()
    assert records(write_file(tmp_path, "a.tsv", f'sentence\tlabel\n"{text}"""\t1\n'))[0]["sentence"] == text + '"'


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_tsv_from_pandas_has_quotes(tmp_path, quoting):
    """A TSV has quotes only if a CSV writer would have written all of it so."""
    frame = pandas.DataFrame({"sentence": HARD_TEXTS, "label": [i % 2 for i in range(len(HARD_TEXTS))]})
    frame.to_csv(tmp_path / "a.tsv", sep="\t", index=False, quoting=quoting)
    assert [r["sentence"] for r in records(tmp_path / "a.tsv")] == HARD_TEXTS


def test_tsv_from_a_spreadsheet_has_quotes_around_commas_too(tmp_path):
    text = 'sentence\tlabel\r\n"Go, now"\t1\r\nfree\t0\r\n"say ""yes"""\t1\r\n'
    assert [r["sentence"] for r in records(write_file(tmp_path, "a.tsv", text))] == ["Go, now", "free", 'say "yes"']


@pytest.mark.parametrize(
    "line", ['"whole"\t1', 'some "word"\t1', '"a" b\t1', 'a ""b""\t1', '""\t1', '"a, b"\t1\nc, d\t1']
)
def test_tsv_that_a_csv_writer_would_not_have_written_keeps_its_quotes(tmp_path, line):
    examples = records(write_file(tmp_path, "a.tsv", f"sentence\tlabel\nfine\t0\n{line}\n"))
    assert examples[1]["sentence"] == line.partition("\t")[0]


def test_broken_rows_are_skipped_up_to_a_share(tmp_path):
    rows = ["fine,1"] * 198 + ["torn", ",0"]
    path = write_file(tmp_path, "a.csv", "\n".join(["sentence,label", *rows]))
    assert len(read_file(path, SINGLE, bad_rows="1%")[0]) == 198
    message = refusal(path, bad_rows="0.9%")
    assert "line 201" in message and "(broken rows skipped before it: 1)" in message


def test_a_row_with_a_wrong_quote_is_broken_alone(tmp_path):
    path = write_file(tmp_path, "a.csv", 'sentence,label\nfine,1\n"a" b,1\ndull,0\n')
    assert [r["sentence"] for r in read_file(path, SINGLE, bad_rows=1)[0]] == ["fine", "dull"]


# --- random tables -------------------------------------------------------------------------------------------

LETTERS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)
SPICE = st.sampled_from(['"', '""', ",", ";", "\t", "\n", "\r\n", "\r", "'", "\\", "\u2028", "\ufeff", "1,0", " "])
TEXT = st.lists(st.one_of(LETTERS, SPICE), max_size=6).map("".join)
ROWS = st.lists(st.tuples(TEXT, TEXT.filter(str.strip), st.integers(0, 1)), min_size=1, max_size=6)
random_tables = settings(max_examples=150, derandomize=True, deadline=None)


def written(rows, writer, encoding, folder):
    """Write a table with another library; returns the file and the texts that must come back."""
    frame = pandas.DataFrame(rows, columns=["more", "sentence", "label"])
    path = folder / f"a{'.jsonl' if 'json' in writer else '.tsv' if 'tsv' in writer else '.csv'}"
    mark = "\t" if "tsv" in writer else ";" if "semicolon" in writer else ","
    if writer in ("pandas json columns", "pandas json index"):
        frame.to_json(path, orient=writer.split()[-1])
    elif writer.startswith("pandas json"):
        frame.to_json(path, orient="records", lines="lines" in writer, force_ascii="ascii" in writer)
    elif writer == "json lines":
        path.write_text(
            "".join(json.dumps(dict(zip(frame, row)), ensure_ascii=False) + "\n" for row in rows), newline=""
        )
    elif writer.startswith("pandas"):
        quoting = csv.QUOTE_ALL if "all" in writer else csv.QUOTE_MINIMAL
        frame.to_csv(path, sep=mark, index=False, quoting=quoting, encoding=encoding, lineterminator="\r\n")
    else:
        with open(path, "w", newline="", encoding=encoding) as stream:
            csv.writer(
                stream, delimiter=mark, quoting=csv.QUOTE_ALL if "all" in writer else csv.QUOTE_MINIMAL
            ).writerows([list(frame), *rows])
    return path


WRITERS = [
    "pandas csv",
    "pandas csv all",
    "pandas csv semicolon",
    "pandas tsv",
    "pandas tsv all",
    "tsv",
    "csv",
    "csv all",
    "csv semicolon",
]
WRITERS += ["pandas json columns", "pandas json index", "pandas json lines", "pandas json ascii", "json lines"]


@random_tables
@given(ROWS, st.sampled_from(WRITERS), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_random_tables_come_back(rows, writer, encoding):
    """Whatever pandas, the csv module or a JSON writer writes is read as it was, but for space at the ends."""
    with tempfile.TemporaryDirectory() as folder:
        path = written(rows, writer, encoding, Path(folder))
        assert records(path) == [{"sentence": text.strip(), "label": label} for _, text, label in rows]
