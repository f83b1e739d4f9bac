"""The command `score`, the function, and the wrapper, on small random models; docs/score.md shows the same calls."""

import json
import re
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from scipy import stats
from transformers import AutoConfig

import torch_eval
from configs.contract.basics import files
from configs.contract.basics.errors import UserError
from configs.contract.basics.files import ROOT, locked, read_json, read_lines, write_json
from configs.contract.experiment import schema
from tests.helpers.attacked_runs import SENTENCES
from tests.helpers.commands import modules_here, run_python
from torch_eval.__main__ import main
from torch_eval.attack.workers import Target
from torch_eval.bench.attacks import attack_stock
from torch_eval.bench.random_models import random_classifier
from torch_eval.library import api, run
from torch_eval.recipes.recipes import Spec


def classifier(folder, family, names=("negative", "positive"), seed=0):
    """A random model with names of labels; returns its folder."""
    random_classifier(folder, family, SENTENCES, seed=seed, labels=len(names))
    config = AutoConfig.from_pretrained(folder)
    config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    config.save_pretrained(folder)
    return folder


def table(path, labels=("pos", "neg")):
    """A file of reviews, half of each label."""
    rows = [f'"{text}",{labels[number % 2]}' for number, text in enumerate(SENTENCES)]
    path.write_text("\n".join(["review,sentiment", *rows]))
    return path


def test_figures_are_those_of_stock_textattack(tmp_path, attacks_here, capsys):
    model, file = classifier(tmp_path / "mine", "roberta"), table(tmp_path / "reviews.csv")
    folder = run.run(
        [str(model)], str(file), ["recipes=[textfooler]", "examples=4", "max_length=48"], tmp_path / "runs"
    )
    assert folder == tmp_path / "runs" / "score" / "mine-reviews"
    lines = read_lines(folder / "seed-1" / "attacks" / "mine" / "textfooler" / "results.jsonl")
    spec = Spec("textfooler", ("review",), ("review",))
    examples = read_lines(folder / "data" / "test.jsonl")
    assert [example["label"] for example in examples] == [1, 0] * 3
    for line in lines:
        stock = attack_stock(Target(model, 48), spec, 1, line["index"], examples[line["index"]])
        assert all(line[key] == stock[key] for key in ("outcome", "queries", "perturbed"))
    (row,) = read_json(folder / "results.json")["scores"]
    assert row["metrics"]["aua"]["value"] == sum(line["outcome"] == "failure" for line in lines) / 4
    output = capsys.readouterr().out
    assert re.search(r"mine +textfooler +[\d.]+ \[[\d.]+, [\d.]+\]", output)
    page = (folder / "score.html").read_text()
    assert "textfooler" in page and "<script" not in page


def test_several_models_are_compared_on_the_same_texts_by_the_names_of_their_labels(tmp_path, attacks_here, capsys):
    first = classifier(tmp_path / "a" / "model", "bert")
    names = ("POSITIVE", "NEGATIVE")
    second = classifier(tmp_path / "b" / "model", "distilbert", names)
    several_labels = AutoConfig.from_pretrained(second, problem_type="multi_label_classification")
    several_labels.save_pretrained(second)
    file, options = table(tmp_path / "r.csv"), ["recipes=[textbugger]", "examples=6"]
    with open(file, "a") as more:
        more.write(f'\n"{SENTENCES[0]}",neg')
    folder = run.run([str(first), str(second)], str(file), options, out=tmp_path / "out")
    results = read_json(folder / "results.json")
    output = capsys.readouterr().out
    for part in ("McNemar", "warning: texts that appear with different labels: 1,", "b/model: made for several labels"):
        assert part in output
    assert [row["model"] for row in results["scores"]] == ["a", "b"]
    (test,) = results["paired"]
    files = [path for path in sorted(folder.rglob("results.jsonl")) if "textbugger" in path.parts]
    withstood = [[record["outcome"] == "failure" for record in read_lines(path)] for path in files]
    assert len(files) == 2
    only_a, only_b = (sum(x > y for x, y in zip(one, other)) for one, other in (withstood, withstood[::-1]))
    assert (test["first"], test["second"]) == ("a", "b")
    assert test["p"] == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0)
    swapped = classifier(tmp_path / "c" / "model", "distilbert", names[::-1])
    again = run.run([str(swapped)], str(file), options, out=tmp_path / "again")
    sums = [read_json(f / "results.json")["models"] for f in (folder, again)]
    assert sums[0]["b"]["clean_of_all"] == pytest.approx(1 - sums[1]["c"]["clean_of_all"])


def test_results_are_not_taken_for_those_of_labels_that_are_named_otherwise(tmp_path, attacks_here):
    """The file that is attacked is the same to the byte: it holds numbers."""
    model, file = classifier(tmp_path / "mine", "bert"), table(tmp_path / "r.csv", "10")
    options, accuracies = ["recipes=[deepwordbug]", "examples=1"], []
    for names, more in (("0=negative,1=positive", ()), ("0=positive,1=negative", ["on_change=redo"])):
        keys = [*options, f"labels=[{names}]"]
        if more:
            with pytest.raises(
                UserError, match=r"made with other settings \(settings.label_order: absent, now \[1, 0\]\)"
            ):
                run.run([str(model)], str(file), keys, out=tmp_path / "out")
        results = read_json(run.run([str(model)], str(file), [*keys, *more], out=tmp_path / "out") / "results.json")
        accuracies.append(results["models"]["mine"]["clean_of_all"])
    assert sum(accuracies) == pytest.approx(1)
    assert results["settings"]["mine/deepwordbug"]["label_order"] == [1, 0]


def test_what_cannot_be_scored_is_said_before_any_attack(tmp_path, attacks_here, capsys):
    file = table(tmp_path / "r.csv")
    for name in (str(tmp_path / "gone"), r"C:\models\mine", "./gone", "a/b/c"):
        with pytest.raises(UserError, match="no such directory"):
            run.run([name], str(file), [])
    with pytest.raises(UserError, match="r.csv: a file; give the folder .* and the data after the models"):
        run.run([str(file)], str(tmp_path), [])
    two = classifier(tmp_path / "two", "bert")
    with locked(tmp_path / "out" / ".score.lock"), pytest.raises(UserError, match="in use by process"):
        run.run([str(two)], str(file), [], out=tmp_path / "out")
    assert not (tmp_path / "out" / "data").exists()  # of the other run
    with pytest.raises(UserError, match="two/out is in the folder of a model, whose files must stay as they are"):
        run.run([str(two)], str(file), ["examples=99"], out=two / "out")
    assert capsys.readouterr().out.count(f"examples: 99 requested, all {len(SENTENCES)} texts are taken\n") == 1
    three = classifier(tmp_path / "three", "bert", ("a", "b", "c"))
    with pytest.raises(UserError, match="its labels are neg, pos, the model's are a, b, c"):
        run.run([str(three)], str(file), [], out=tmp_path / "out")
    with pytest.raises(UserError, match="unknown key"):
        run.run([str(three)], str(file), ["exmaples=3"])
    for key in ("test_size=3", "attack.shard=1/2", "methods=all", "search.epochs=3", "victims=[a=b]"):
        with pytest.raises(UserError, match=f"score: .*{key.partition('=')[0]} is a key of experiments"):
            run.run([str(two)], str(file), [key])
    with pytest.raises(UserError, match=r"score: seeds=\[1, 2\]: it attacks with one seed"):
        run.run([str(two)], str(file), ["seeds=[1,2]"])


def test_attacks_that_stopped_at_their_limit_are_counted_in_words(tmp_path, attacks_here, capsys):
    """Otherwise 0% Aua would look as if every attack had succeeded."""
    model, file = classifier(tmp_path / "mine", "bert"), table(tmp_path / "r.csv")
    left = tmp_path / "out" / "data" / f".test.jsonl.{2**31}-{files.MACHINE}.tmp"  # of a process that was killed
    left.parent.mkdir(parents=True)
    left.touch()
    folder = run.run([str(model)], str(file), ["recipes=[textbugger]", "max_queries=1"], out=tmp_path / "out")
    assert not left.exists()
    metrics = read_json(folder / "results.json")["scores"][0]["metrics"]
    assert metrics["timeouts"] == metrics["attacked"] > 0
    said = f"mine, textbugger: {metrics['timeouts']} of {metrics['attacked']} attacks stopped at max_seconds or max_"
    assert said in capsys.readouterr().out and said in (folder / "score.html").read_text()


def test_records_in_place_of_a_file(tmp_path, attacks_here, monkeypatch):
    """What `score` starts in a process of its own, in this one. test_huggingface.py starts such a process."""
    monkeypatch.setattr(api, "run_module", modules_here({"torch_eval": main}))
    model = classifier(tmp_path / "model", "electra", ("no", "yes"))  # as YAML reads them, no names but truth values
    records = [{"text": text, "label": ("no", "yes")[number % 2]} for number, text in enumerate(SENTENCES)]
    scored = torch_eval.score(model, records, recipes=["textfooler"], examples=3, workers=1, labels=["no", "yes"])
    (row,) = scored["scores"]
    assert row["metrics"]["examples"] == 3 and 0 <= row["metrics"]["aua"]["value"] <= 1
    with pytest.raises(UserError, match="no column"):
        torch_eval.score(model, [{"text": "a"}])


def test_many_models_have_a_folder_of_a_name_that_a_file_system_takes():
    names = [f"a-model-with-a-name-as-on-the-hub-{number}" for number in range(9)]
    made = {run.folder_name(parts) for parts in (names, names[:-1], [name.replace("a", "名") for name in names])}
    assert len(made) == 3 and all(len(name.encode()) <= 255 for name in made)
    assert run.folder_name(["mine", "reviews"]) == "mine-reviews"


def test_records_hold_what_numpy_and_pandas_make(monkeypatch):
    def read(_module, words, **_):
        out.append([json.loads(line) for line in Path(words[2]).read_text().splitlines()])
        write_json(Path(words[-1]) / "results.json", {})

    out: list = []
    monkeypatch.setattr(api, "run_module", read)
    frame = pandas.DataFrame({"text": ["a\u2028b"], "label": np.array([1]), "day": pandas.to_datetime(["2026-01-01"])})
    records = [{"text": "a", "label": np.int64(1), "ids": np.arange(2)}, {"text": "\ud83d", "label": np.bool_(True)}]
    for data in (frame.to_dict("records"), records):
        api.score("model", data)
    assert out[0][0]["text"] == "a\u2028b" and [row["label"] for rows in out for row in rows] == [1, 1, True]
    with pytest.raises(UserError, match=r"data: expected records such as .* found 'text'; .*to_dict\('records'\)"):
        api.score("model", frame)


@pytest.mark.parametrize("recipes, key", [("pwws", '"pwws"'), (("pwws", "bae"), '["pwws", "bae"]')])
def test_one_recipe_stands_for_a_list_of_one(tmp_path, monkeypatch, recipes, key):
    monkeypatch.setattr(api, "run_module", lambda _module, words, **_: asked.extend(words))
    asked: list = []
    write_json(tmp_path / "results.json", {})
    api.score("model", "data.csv", recipes, out=tmp_path)
    assert f"recipes={key}" in asked
    assert schema.load("base", [f"attack.recipes={key}"]).attack.recipes[0] == "pwws"


def test_the_examples_of_the_documentation_run(tmp_path, attacks_here, monkeypatch, capsys):
    monkeypatch.setattr(api, "run_module", modules_here({"torch_eval": main}))
    classifier(tmp_path / "my-model", "bert")
    table(tmp_path / "reviews.csv")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "score.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    names: dict = {}
    for block in blocks:
        exec(compile(block, "docs/score.md", "exec"), names)
    assert [row["recipe"] for row in names["results"]["scores"]] == ["textfooler"]
    assert "my_model textfooler {'value'" in capsys.readouterr().out
    assert names["result"].num_queries > 0 and len(names["dataset"]) == 2


def test_the_wrapper_gives_textattack_the_answers_of_its_own(tmp_path):
    from textattack import AttackArgs, Attacker
    from textattack.attack_recipes import DeepWordBugGao2018
    from textattack.datasets import Dataset
    from textattack.models.wrappers import HuggingFaceModelWrapper
    from textattack.shared.utils import set_seed
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = classifier(tmp_path / "model", "roberta")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    stock = HuggingFaceModelWrapper(AutoModelForSequenceClassification.from_pretrained(folder), tokenizer)
    fast = torch_eval.FastClassifier(folder, texts=SENTENCES)
    assert fast.batching == "unpadded"
    with pytest.raises(UserError, match="model of [0-9]+ positions, but inputs have up to 9999"):
        torch_eval.FastClassifier(folder, max_length=9999)
    torch.testing.assert_close(fast(SENTENCES), stock(SENTENCES), atol=2e-5, rtol=0)
    results = []
    for wrapper in (fast, stock):
        set_seed(1)
        labels = stock(SENTENCES).argmax(1).tolist()
        data = Dataset(list(zip(SENTENCES, labels)))
        arguments = AttackArgs(num_examples=4, disable_stdout=True, silent=True)
        attacked = Attacker(DeepWordBugGao2018.build(wrapper), data, arguments).attack_dataset()
        results.append([(r.perturbed_result.attacked_text.text, r.num_queries, type(r)) for r in attacked])
    assert results[0] == results[1]
    assert fast.get_grad(SENTENCES[0])["gradient"].any()  # inherited; dropout makes it random


def test_importing_the_package_loads_nothing():
    code = "import sys, torch_eval, json; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(run_python(code).stdout)
    assert not {"torch", "transformers", "textattack", "numpy"} & set(modules)
    with pytest.raises(AttributeError):
        torch_eval.nothing  # noqa: B018  the attribute is what is asked for


def test_it_takes_the_cores_that_the_process_may_use():
    """A scheduler gives it a few of the machine's."""
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
    code += "from torch_eval.library import run; print(run.DEFAULTS[-1])"
    assert run_python(code).stdout.strip() == "attack.workers=1"
