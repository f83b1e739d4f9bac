"""Files of users: which columns and labels are meant, and what is refused."""

import json
import re

import pytest

from configs.contract.basics.errors import UserError
from configs.contract.experiment import schema
from configs.contract.inputs import classifiers
from configs.contract.inputs.tasks import TASKS
from torch_eval.library import data, hub

NAMES = ["negative", "positive"]
SILENT = ["LABEL_0", "LABEL_1"]


def config(*overrides):
    return schema.load("base", ["task=custom", *overrides], complete=False)


def read(path, content, names=NAMES, *overrides):
    path.write_text(content)
    return data.read(str(path), config(*overrides), names)


@pytest.mark.parametrize(
    "content",
    [
        "text,label\nfine,Positive\ndull,Negative\n",
        "id,review,sentiment\n7,fine,pos\n8,dull,neg\n",
        "label;text\n1;fine\n0;dull\n",
        "title,label,other\nfine,1,x\ndull,0,y\n",
        "body,class\nfine,1\ndull,0\n",
        "Text,Label\nfine,POSITIVE\ndull,negative\n",
        "text,label\nfine,1.0\ndull,0.0\n",
        "text,label\nfine,1.000000e+00\ndull,0.000000e+00\n",
        "text,label\nfine,True\ndull,False\n",
    ],
)
def test_columns_and_labels_are_found(tmp_path, content):
    task, records, note = read(tmp_path / "a.csv", content)
    assert [(record[task.columns[0]], record["label"]) for record in records] == [("fine", 1), ("dull", 0)]
    assert note == "a.csv"


def test_names_with_accents_or_a_plus_are_found(tmp_path):
    """An accent may stand apart from its letter, in the file or in what is asked for."""
    for asked, written in (("\u00e9", "e\u0301"), ("e\u0301", "\u00e9")):
        content, key = f"text,qualit{written}\nfine,pos\ndull,neg\n", f"data.label_column=qualit{asked}"
        _, records, _ = read(tmp_path / "a.csv", content, NAMES, key)
        assert [(record["text"], record["label"]) for record in records] == [("fine", 1), ("dull", 0)]
    _, records, _ = read(tmp_path / "a.csv", "title+body,label\nfine,pos\ndull,neg\n")
    assert [(record["title++body"], record["label"]) for record in records] == [("fine", 1), ("dull", 0)]
    _, records, _ = read(tmp_path / "a.csv", "id,Title+Description,label\n1,fine,pos\n2,dull,neg\n")
    assert [(record["Title++Description"], record["label"]) for record in records] == [("fine", 1), ("dull", 0)]


@pytest.mark.parametrize("ending", ["_text", "_name"])
def test_names_beside_numbered_labels_say_which_are_meant(tmp_path, ending):
    """As in SetFit's files. MNLI's count from entailment, many models from contradiction."""
    names = ["CONTRADICTION", "NEUTRAL", "ENTAILMENT"]
    rows = [("entailment", 0), ("contradiction", 2)]
    lines = [{"text1": "p", "text2": "h", "label": number, f"label{ending}": name} for name, number in rows]
    content = "\n".join(map(json.dumps, lines))
    task, records, _ = read(tmp_path / "a.jsonl", content, names)
    assert task.columns == ("text1", "text2") and [record["label"] for record in records] == [2, 0]
    for models in (["LABEL_0", "LABEL_1", "LABEL_2"], ["no", "perhaps", "yes"]):  # the numbers are all there is
        assert [record["label"] for record in read(tmp_path / "a.jsonl", content, models)[1]] == [0, 2]
    for keys in ("data.label_column=label", "data.labels=[0=ENTAILMENT,1=NEUTRAL,2=CONTRADICTION]"):
        assert [record["label"] for record in read(tmp_path / "a.jsonl", content, names, keys)[1]] == [0, 2]


def test_labels_follow_the_model_in_whatever_order_its_names_stand(tmp_path):
    names = ["CONTRADICTION", "entailment", "Neutral"]
    lines = [{"premise": "p", "hypothesis": "h", "label": label} for label in ("neutral", "contradiction")]
    task, records, _ = read(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)), names)
    assert task.columns == ("premise", "hypothesis") and task.attacked == ("hypothesis",)
    assert [record["label"] for record in records] == [2, 0]
    assert task.labels == ("contradiction", "entailment", "neutral")


@pytest.mark.parametrize("header", ["Question,Sentence,Label", "index,question,sentence,label"])
def test_pairs_are_pairs_in_whatever_case_their_columns_stand(tmp_path, header):
    """One of the two texts alone would be scored without a word."""
    row = "7," * header.startswith("index") + "who?,me,entailment"
    task, records, _ = read(tmp_path / "a.csv", f"{header}\n{row}\n", ["entailment", "not_entailment"])
    assert [list(record.values()) for record in records] == [["who?", "me", 0]] and len(task.columns) == 2


@pytest.mark.parametrize("first, second", [("text", "text_pair"), ("Text1", "Text2"), ("question", "context")])
def test_usual_names_of_pairs_are_read_as_pairs(tmp_path, first, second):
    for header, row in ((f"{first},{second}", "who?,me"), (f"{second},{first}", "me,who?")):
        task, records, _ = read(tmp_path / "a.csv", f"{header},label\n{row},1\n")
        assert task.columns == (first, second) and task.attacked == (second,)
        assert [records[0][column] for column in task.columns] == ["who?", "me"]


@pytest.mark.parametrize("header", ["Class Index,Title,Description", "label,title,description"])
@pytest.mark.parametrize("names", [["Sci/Tech", "World", "Sports", "Business"], [f"LABEL_{i}" for i in range(4)]])
def test_the_published_files_of_ag_news_count_from_1_also_where_no_text_is_of_the_last_label(tmp_path, header, names):
    task, records, _ = read(tmp_path / "a.csv", f"{header}\n1,Vote,A poll.\n3,Sale,A shop.\n", names)
    assert [task.labels[record["label"]] for record in records] == ["World", "Business"]
    assert records[0][task.columns[0]] == "Vote A poll."


@pytest.mark.parametrize("names", [["-", "+"], ["👎", "👍"], ["C", "C++", "C#"], SILENT])
def test_labels_that_are_the_models_to_the_letter_need_no_further_name(tmp_path, names):
    rows = "".join(f"x,{name}\n" for name in reversed(names))
    task, records, _ = read(tmp_path / "a.csv", f"text,label\n{rows}", names)
    assert [record["label"] for record in records] == list(reversed(range(len(names))))
    assert classifiers.match_labels(names, task.labels, tmp_path) is None


@pytest.mark.parametrize(
    "names, values",
    [
        (["x=1", "x==2"], ["x=1", "x==2"]),
        (["x=1", "x=2"], ["X = 1", "X = 2"]),
        (["x=1", "x=2"], ["0", "1"]),
        (["1 =", "2 ="], ["1", "2"]),
        (SILENT, ["LABEL_0", "LABEL_1"]),
    ],
)
def test_labels_may_hold_an_equals_sign(tmp_path, names, values):
    lines = [{"text": "fine", "label": values[1]}, {"text": "dull", "label": values[0]}]
    task, records, _ = read(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)), names)
    assert [record["label"] for record in records] == [1, 0]
    assert classifiers.match_labels(names, task.labels, tmp_path) is None


def test_the_user_writes_an_equals_sign_of_a_label_twice(tmp_path):
    content = "text,label\nfine,x=2\ndull,x=1\n"
    task, records, _ = read(tmp_path / "a.csv", content, NAMES, "data.labels=[x==1=negative,x==2=positive]")
    assert [record["label"] for record in records] == [1, 0] and list(task.labels) == NAMES
    for folder, text in (("x=1", "dull"), ("x=2", "fine")):
        (tmp_path / "folders" / folder).mkdir(parents=True)
        (tmp_path / "folders" / folder / "a.txt").write_text(text)
    for names in (["x=2", "x=1"], SILENT):
        task, records, _ = data.read(str(tmp_path / "folders"), config(), names)
        assert {record["text"]: task.labels[record["label"]] for record in records} == {"dull": "x=1", "fine": "x=2"}


def test_numbers_are_refused_where_two_models_number_their_labels_differently(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nfine,1\ndull,0\n")
    for others in ([NAMES], [SILENT], [["NEG", "POS"]], [["other", "names"]]):
        assert data.read(str(tmp_path / "a.csv"), config(), NAMES, others)[0].labels == tuple(NAMES)
    for models in ([NAMES, NAMES[::-1]], [SILENT, NAMES, ["POS", "neg"]]):
        with pytest.raises(UserError, match="models number theirs differently: negative, positive, and .*0=negative"):
            data.read(str(tmp_path / "a.csv"), config(), models[0], models[1:])
    remedy = config("data.labels=[0=negative, 1=positive]")
    assert [r["label"] for r in data.read(str(tmp_path / "a.csv"), remedy, NAMES, [NAMES[::-1]])[1]] == [1, 0]


@pytest.mark.parametrize(
    "header, names, published",
    [
        ("premise,hypothesis", ["CONTRADICTION", "NEUTRAL", "ENTAILMENT"], "entailment, neutral, contradiction"),
        ("Text", ["POSITIVE", "NEGATIVE"], "neg, pos"),
        ("question,sentence", ["not_entailment", "entailment"], "entailment, not_entailment"),
        # These files were published with names and with numbers from 1 on; many copies count from 0.
        ("review", ["POSITIVE", "NEGATIVE"], "neg, pos"),
        ("title,description", ["Business", "Sci/Tech", "Sports", "World"], "World, Sports, Business, Sci/Tech"),
    ],
)
def test_numbers_are_refused_where_a_model_orders_the_labels_of_a_published_task_differently(
    tmp_path, header, names, published
):
    """The files of MNLI count from entailment; many models of the hub count from contradiction."""
    label = "sentiment" if header == "review" else "label"
    content = f"{header},{label}\n{'a,' * (header.count(',') + 1)}0\n"
    with pytest.raises(UserError, match=f"{names[0]}, .*and {published}; .*'labels=.0={names[0]}, 1={names[1]}"):
        read(tmp_path / "a.csv", content, names)
    remedy = "data.labels=[" + ",".join(f"{i}={name}" for i, name in enumerate(published.split(", "))) + "]"
    task, records, _ = read(tmp_path / "a.csv", content, names, remedy)
    order = classifiers.match_labels(names, task.labels, tmp_path)
    assert names[order[records[0]["label"]]].lower().startswith(published.split(", ")[0].lower())
    for ordered in (published.split(", "), [f"LABEL_{i}" for i in range(len(names))], names[:1] + ["another"]):
        records = read(tmp_path / "a.csv", content, ordered)[1]
        assert [record["label"] for record in records] == [0]


@pytest.mark.parametrize("header", ["sentence", "text"])
def test_numbers_are_refused_where_a_model_has_a_label_between_those_of_a_published_task(tmp_path, header):
    """SST-2's and IMDB's 1 is positive; for a model of three labels it would be neutral."""
    names = ["negative", "neutral", "positive"]
    with pytest.raises(UserError, match="numbers them differently from the model: negative, neutral, positive, and"):
        read(tmp_path / "a.csv", f"{header},label\nfine,1\ndull,0\n", names)
    remedy = "data.labels=[0=negative,1=positive,2=neutral]"
    task, records, _ = read(tmp_path / "a.csv", f"{header},label\nfine,1\ndull,0\n", names, remedy)
    assert [classifiers.match_labels(names, task.labels, tmp_path)[r["label"]] for r in records] == [2, 0]
    for content, order in (("fine,2\ndull,0\n", names), ("fine,1\ndull,0\n", ["Negative", "Positive", "Neutral"])):
        assert read(tmp_path / "a.csv", f"{header},label\n{content}", order)[0].labels == tuple(order)


def test_numbers_are_the_models_own_where_a_published_task_has_other_labels(tmp_path):
    """Both begin with IMDB's `pos`, but they are not IMDB's labels in another order."""
    names = ["Positive with reserve", "Positive"]
    _, records, _ = read(tmp_path / "a.csv", "text,label\na,0\nb,1\n", names)
    assert [record["label"] for record in records] == [0, 1]


def test_what_is_read_is_said(tmp_path):
    task, _, _ = read(tmp_path / "a.csv", "Text,other,Label\nfine,x,pos\ndull,y,neg\n", ["POSITIVE", "NEGATIVE"])
    sentence = data.reading(task, "Label", ["POSITIVE", "NEGATIVE"], tmp_path)
    assert sentence == "texts in Text, labels in Label; pos is POSITIVE, neg is NEGATIVE"
    task, _, _ = read(tmp_path / "a.csv", "text,label\nfine,1\ndull,0\n")
    assert data.reading(task, "label", NAMES, tmp_path).endswith("; 0 is negative, 1 is positive")


@pytest.mark.parametrize("values", [("0", "1"), (0, 1), (0.0, 1.0), (False, True)])
def test_numbers_are_the_models_own(tmp_path, values):
    lines = [{"text": "x", "label": value} for value in values]
    for names in (NAMES, SILENT):
        assert [r["label"] for r in read(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)), names)[1]] == [0, 1]


@pytest.mark.parametrize("stars", ["12345", ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")])
def test_numbers_with_which_the_models_names_begin_are_those_labels(tmp_path, stars):
    for highest in (5, 4):  # without a 5, the others could be numbers from 0 on
        content = f"text,stars\na,{highest}\nb,1\n"
        task, records, _ = read(tmp_path / "a.csv", content, list(stars), "data.label_column=stars")
        assert [record["label"] for record in records] == [highest - 1, 0] and task.labels == tuple(stars)


@pytest.mark.parametrize("numbers", ["01", "12", "012"])
@pytest.mark.parametrize("names", [[f"{i} stars" for i in range(1, 6)], [f"LABEL_{i}" for i in range(5)]])
def test_numbers_that_may_be_those_of_fewer_labels_are_refused(tmp_path, names, numbers):
    """1 is positive in a file of two labels, and would be taken for 2 stars."""
    content = "text,label\n" + "".join(f"a,{number}\n" for number in numbers)
    with pytest.raises(
        UserError, match=f"its labels are {', '.join(numbers)}, the model has 5: {names[0]}, .*the same"
    ):
        read(tmp_path / "a.csv", content, names)
    first = int(numbers == "12" and names[0] == "1 stars")
    pairs = ", ".join(f"{number}={name}" for number, name in enumerate(names, first))
    with pytest.raises(UserError, match=re.escape(f"'labels=[{pairs}]'")):
        read(tmp_path / "a.csv", content, names)
    _, records, _ = read(tmp_path / "a.csv", content, names, f"data.labels=[{pairs}]")
    assert [record["label"] for record in records] == [int(number) - first for number in numbers]


@pytest.mark.parametrize("numbers", [[3], [0, 4], [0, 2, 3], [0, 1, 2, 3, 4]])
def test_numbers_that_are_of_as_many_labels_as_the_model_has_are_taken(tmp_path, numbers):
    names = ["very bad", "bad", "fair", "good", "very good"]
    content = "text,label\n" + "".join(f"a,{number}\n" for number in numbers)
    assert [record["label"] for record in read(tmp_path / "a.csv", content, names)[1]] == numbers


def test_labels_that_nobody_can_match_are_refused_with_both_lists(tmp_path):
    for names, content in ((SILENT, "text,label\na,good\nb,bad\n"), (NAMES, "text,label\na,1\nb,2\n")):
        with pytest.raises(UserError, match=r"cannot be told; .*'labels=\[\.\.\.=.*bad_rows=N"):
            read(tmp_path / "a.csv", content, names)
    with pytest.raises(UserError, match=r"a.csv: its labels are mixed, positive, the model's are negative, positive: "):
        read(tmp_path / "a.csv", "text,label\na,mixed\nb,positive\n")
    with pytest.raises(UserError, match="-1 often stands for a label that is kept secret"):
        read(tmp_path / "a.csv", "text,label\na,-1\nb,-1\n")
    remedy = "data.labels=[1=negative, 2=positive]"
    assert [r["label"] for r in read(tmp_path / "a.csv", "text,label\na,1\nb,2\n", NAMES, remedy)[1]] == [0, 1]


def test_columns_that_nobody_can_tell_are_asked_for(tmp_path):
    with pytest.raises(UserError, match="which of one, two is the text.*text_columns="):
        read(tmp_path / "a.csv", "one,two,label\na,b,1\n")
    with pytest.raises(UserError, match="no column .*only one, two; name it: label_column=.* no header: columns="):
        read(tmp_path / "a.csv", "one,two\na,b\n")
    with pytest.raises(UserError, match="/dev/null: neither a file nor a folder; write the data into a file"):
        data.read("/dev/null", config(), NAMES)
    for name in (str(tmp_path / "gone.csv"), "stanfordnlp/imdb"):
        with pytest.raises(UserError, match="no such file or folder, and no task; the tasks are .*sst2.*load_dataset"):
            data.read(name, config(), NAMES)
    for address in ("https://example.org/a.csv", "file://host/a.csv", "hf://datasets/stanfordnlp/imdb"):
        with pytest.raises(UserError, match=f"{address}: an address; download the file, and give the path to it"):
            data.read(address, config(), NAMES)


def test_columns_and_labels_are_the_users_own_whatever_a_task_has(tmp_path):
    names = ["bad", "fair", "good"]
    three = "one,two,label\na,b,x\nc,d,z\n"
    task, records, _ = read(tmp_path / "a.csv", three, names, "data.labels=[x,y,z]", "data.text_columns=[one,two]")
    assert task.columns == ("one", "two") and [record["label"] for record in records] == [0, 2]
    pairs = "premise,hypothesis,label\na,b,0\nc,d,1\n"
    task, _, _ = read(tmp_path / "a.csv", pairs, NAMES, "data.attacked=premise")
    assert task.attacked == ("premise",)


def test_a_path_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.csv").write_text("text,label\nfine,1\ndull,0\n")
    assert len(data.read("~/a.csv", config(), NAMES)[1]) == 2
    assert hub.model_dir("~/") == tmp_path.resolve()


def test_a_name_that_begins_with_a_tilde_is_one(tmp_path, monkeypatch):
    """Such as an editor's copy of a file: it is nobody's home."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~a.csv").write_text("text,label\nfine,1\ndull,0\n")
    (tmp_path / "~model").mkdir()
    assert len(data.read("~a.csv", config(), NAMES)[1]) == 2
    assert hub.model_dir("~model") == tmp_path / "~model"
    with pytest.raises(UserError, match="~other: no such directory"):
        hub.model_dir("~other")


@pytest.mark.parametrize(
    "content, message",
    [
        ('{\n "text": "a",\n "label": 1\n}\n{\n "text": "b",\n "label": 0\n}\n', "line 1: not valid JSON"),
        ('{"text": "a", "label": 1}\n{"text": "b", "label": NaN}\n', "line 2: no label"),
        ('{"text": "a", "label": [0, 1]}\n', "line 1: the label is a list or an object; write one name"),
        ('{"text": "a", "label": 1, "label": 0}\n', "line 1: the label appears twice"),
    ],
)
def test_broken_rows_are_named_before_columns_and_labels_are_asked_for(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a.jsonl", content)


def test_a_damaged_array_is_named_where_it_is_damaged(tmp_path):
    rows = json.dumps([{"text": "fine", "label": 1}, {"text": "dull", "label": 0}], indent=1)
    for content, place in ((rows[:-1] + ",]", "line 10"), (rows[:50], "line 7"), ("[\n" + rows[2:-5], "line 8")):
        with pytest.raises(UserError, match=rf"a.json: begins as an array, but is not valid JSON \(.* in {place}\)"):
            read(tmp_path / "a.json", content)
    assert len(read(tmp_path / "a.json", json.dumps({"text": "fine", "label": 1}, indent=1))[1]) == 1


def test_a_folder_of_texts_and_a_task(tmp_path, monkeypatch):
    for label, text in (("pos", "fine"), ("neg", "dull")):
        (tmp_path / "texts" / label).mkdir(parents=True)
        (tmp_path / "texts" / label / "1.txt").write_text(text)
    task, records, _ = data.read(str(tmp_path / "texts"), config(), NAMES)
    assert sorted((record["text"], record["label"]) for record in records) == [("dull", 0), ("fine", 1)]
    given = config("data.labels=[neg=negative, pos=positive]")
    assert data.read(str(tmp_path / "texts"), given, NAMES)[1] == records
    (tmp_path / "none").mkdir()
    for names in (NAMES, SILENT):
        with pytest.raises(UserError, match=f"no {names[0]}/.*.txt in it; it holds nothing, and needs a folder"):
            data.read(str(tmp_path / "none"), config(), names)
    with pytest.raises(UserError, match="custom: this task has no data of its own; give a file"):
        data.read("custom", config(), NAMES)
    monkeypatch.setitem(TASKS, "toy", TASKS["snippets"])
    with pytest.raises(UserError, match="toy: this task has no data of its own; give a file"):
        data.read("toy", config(), NAMES)
    task, records, note = data.read("snippets", config(), NAMES)
    assert task.labels == ("negative", "positive") and len(records) > 500 and "ratings" in note


def test_a_model_in_the_place_of_the_data_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="the folder of a model; give the data after the models"):
        data.read(str(tmp_path), config(), NAMES)
    (tmp_path / "link").symlink_to("nothing")
    with pytest.raises(UserError, match="link: a link to what is not there"):
        hub.model_dir(str(tmp_path / "link"))
