"""What a training reads: the splits under both readings of the paper, and the inputs that a stage states."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from configs.contract.basics.errors import UserError
from configs.contract.experiment import schema
from configs.contract.experiment.methods import with_snapshots
from configs.contract.run.jobs import Job
from configs.contract.run.run_dir import RunDir
from configs.contract.run.stage import Changed
from mindspore_rt import __main__
from mindspore_rt.stages import inputs, prepare
from mindspore_rt.stages.models import train_model
from tests.helpers.files import edit_json, write_file
from tests.helpers.prepared import write_summary
from tests.helpers.stages import jobs_of


@pytest.mark.parametrize("task, dev, train", [("sst2", "test", 30), ("imdb", "cut", 27)])
def test_official_splits(monkeypatch, task, dev, train):
    """GLUE: dev is test, all the rest is trained on. IMDB: a tenth is cut off anew in every stage."""
    sizes, starts = {"train": 20, "dev": 10, "test": 5}, {"train": 0, "dev": 20, "test": 100}

    def load(_run, name):
        texts = [(f"{starts[name] + i}",) for i in range(sizes[name])]
        return texts, np.array([starts[name] + i for i in range(sizes[name])])

    monkeypatch.setattr(inputs.splits, "read", load)
    run = RunDir(schema.load(task, ["compat=official"]))

    def split(stage, name):
        texts, labels = inputs.load_split(run, Job(stage, "x", None), name)
        assert [int(t[0]) for t in texts] == labels.tolist()
        return labels.tolist()

    assert len(split("finetune", "train")) == train
    if dev == "test":
        assert split("finetune", "dev") == list(range(100, 105)) == split("search", "dev")
        assert split("search", "train") == list(range(30))
    else:
        for stage in ("finetune", "search"):
            assert sorted(split(stage, "train") + split(stage, "dev")) == list(range(30))
            assert split(stage, "dev") == split(stage, "dev")
        assert split("finetune", "dev") != split("search", "dev")


def test_under_compat_paper_splits_are_what_they_are_called(monkeypatch):
    monkeypatch.setattr(inputs.splits, "read", lambda run, name: name)
    run = RunDir(schema.load("imdb"))
    assert [inputs.load_split(run, None, name) for name in ("train", "dev")] == ["train", "dev"]


@pytest.mark.parametrize("compat, split", [("paper", "train"), ("paper", "dev"), ("official", "test")])
def test_a_model_is_of_the_splits_that_its_training_reads(run, compat, split):
    """Dev gives the accuracies that a training states; officially dev is trained on, and test takes its place."""
    run.config.compat, run.config.methods, run.config.task = compat, ["finetune"], "sst2"
    one = jobs_of(run, "finetune")[0]
    train_model(run, one)
    train_model(run, one)  # done
    run.split(split).write_text("{}\n{}\n")
    with pytest.raises(Changed, match=f"inputs.{split}"):
        train_model(run, one)


def test_snapshots_asked_for_later_are_not_passed_over(run):
    run.config.methods = ["finetune", "infobert"]
    for one in jobs_of(run, "finetune"):
        train_model(run, one)
    run.config.snapshots = 4
    refusals = []
    for one in jobs_of(run, "finetune"):
        try:
            train_model(run, one)
        except Changed as change:
            refusals.append((one.model, "snapshots: absent, now 4" in str(change)))
    assert refusals == [(model, True) for model in ("finetune", "infobert") if model in with_snapshots()]


@pytest.mark.parametrize(
    "length, protocol, message",
    [
        (20, "paper", "data.max_length: 20, but .*model has 16 positions"),
        (12, "official", "attack.protocol=official cuts to: .*, but .*model has 16 positions"),
    ],
)
def test_a_model_of_fewer_positions_than_its_inputs_is_refused_before_it_is_trained(
    run, monkeypatch, length, protocol, message
):
    """The attack would have failed after all training, with an IndexError."""
    monkeypatch.setattr(inputs.splits, "read", lambda run, name: ([("a",)], np.array([0])))
    run.config.data.max_length, run.config.attack.protocol = length, protocol
    source = inputs.pretrained(run.config)
    with pytest.raises(UserError, match=message):
        inputs.batches(run, jobs_of(run, "finetune")[0], "train", 2, source)
    run.config.data.max_length, run.config.attack.protocol = 16, "paper"
    assert len(inputs.batches(run, jobs_of(run, "finetune")[0], "train", 2, source)) == 1


def test_a_model_of_one_segment_is_refused_for_pairs(run, monkeypatch):
    write_summary(run, ("question", "sentence"))
    monkeypatch.setattr(inputs.splits, "read", lambda run, name: ([("a", "b")], np.array([0])))
    run.config.data.max_length, source = 16, inputs.pretrained(run.config)
    one_segment = replace(source, config=replace(source.config, type_vocab_size=1))
    with pytest.raises(UserError, match="type_vocab_size is 1, but pairs of texts need two segments"):
        inputs.batches(run, jobs_of(run, "finetune")[0], "train", 2, one_segment)


def test_resources_that_are_missing_are_refused_before_any_training(tmp_path, capsys):
    keys = ["attack.resources=original", f"attack.resources_dir={tmp_path}", f"name=test-inputs-{os.getpid()}"]
    try:
        assert __main__.main(["prepare", "tiny", *keys]) == 2
    finally:
        shutil.rmtree(RunDir(schema.load("tiny", keys)).root, ignore_errors=True)
    assert "put paragramcf/paragram.npy" in capsys.readouterr().err


def test_a_victim_that_cannot_be_attacked_is_refused_before_any_training(run, monkeypatch, tmp_path):
    """What only loading shows, tests/torch_eval/attack/test_ready.py tests."""
    folder = tmp_path / "theirs"
    shutil.copytree(run.config.model, folder)
    changes = {"max_position_embeddings": 8, "architectures": ["BertForSequenceClassification"]}
    edit_json(folder / "config.json", **changes, id2label={"0": "bad", "1": "good"})
    monkeypatch.setattr(inputs, "already_done", lambda stage: True)
    run.config.attack.victims, run.config.data.max_length = [f"theirs={folder}"], 16
    with pytest.raises(UserError, match="theirs: .*a model of 8 positions, but inputs have up to 16") as error:
        prepare.prepare(run, Job("prepare", "prepare", run.data))
    assert "delete" not in str(error.value)


def test_numbers_above_what_is_there_are_told_with_the_data(tmp_path, capsys):
    """All sentences are taken. A number that is reached, or that nothing asks for, is not mentioned."""
    rows = "".join(f"{word},{number % 2}\n" for number, word in enumerate("abcdefgh"))
    files = {name: write_file(tmp_path, f"{name}.csv", f"text,label\n{rows}") for name in ("train", "dev", "test")}
    keys = [
        "task=custom",
        "data.text_columns=[text]",
        "data.labels=[0,1]",
        *(f"data.{n}={f}" for n, f in files.items()),
    ]
    sizes = ["data.train_size=9", "data.test_size=null", "attack.examples=10", "choice.examples=11"]
    run = RunDir(schema.load("tiny", [*keys, *sizes]), tmp_path / "one")
    prepare.prepare(run, Job("prepare", "data", run.data))
    lines = [
        "  data.train_size: 9 requested, all 8 sentences of train are taken",
        "  attack.examples: 10 requested, all 8 sentences of test are taken",
    ]
    assert [line for line in capsys.readouterr().out.splitlines() if " requested, " in line] == lines
    sizes = ["data.train_size=8", "data.test_size=null", "attack.examples=8", "choice.examples=11"]
    run = RunDir(schema.load("tiny", [*keys, *sizes, "sparsities=[0.3,0.5]"]), tmp_path / "two")
    prepare.prepare(run, Job("prepare", "data", run.data))
    lines = ["  choice.examples: 11 requested, all 8 sentences of dev are taken"]
    assert [line for line in capsys.readouterr().out.splitlines() if " requested, " in line] == lines
