"""The run: independence of examples, sharding, resuming, and what it refuses."""

import fcntl
import json

import pytest
import torch
from test_victim import tiny_bert

from configs import schema
from configs.errors import UserError
from configs.run_dir import RunDir, read_json, read_lines, write_json, write_lines
from torch_eval import attack, packaged

SENTENCES = [
    "a gripping and thoughtful drama", "the jokes are stale and the pace is slow", "an honest portrait of grief",
    "loud , silly and far too long", "the cast is superb", "a dull script ruins a good idea",
]
OVERRIDES = ["attack.examples=4", "attack.candidates=3", "sparsities=[0.3]", "methods=[finetune]", "attack.workers=2"]


class Here:
    """Workers without processes, on one thread too: more sum in another order."""

    def __init__(self, count):
        torch.set_num_threads(1)

    def map(self, function, *arguments):
        return map(function, *arguments)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """A run directory that is ready to be attacked. Call with overrides."""

    def make(*overrides, name="one"):
        run_dir = RunDir(schema.load("tiny", [*OVERRIDES, f"name={name}", *overrides]), tmp_path)
        if not run_dir.data.is_dir():
            labels = [1, 0, 1, 0, 1, 0]
            write_lines(run_dir.split("test"), [{"sentence": s, "label": y} for s, y in zip(SENTENCES, labels)])
            write_json(run_dir.data / "summary.json", {"columns": ["sentence"], "labels": [], "attacked": ["sentence"]})
            for model in run_dir.victims(1).values():
                tiny_bert(model)
        return run_dir

    monkeypatch.setattr(attack, "Workers", Here)
    attack.load_victim.cache_clear()
    attack.load_attack.cache_clear()
    threads = torch.get_num_threads()
    yield make
    torch.set_num_threads(threads)


def results(run_dir, recipe):
    records = read_lines(run_dir.attack(1, "finetune") / recipe / "results.jsonl")
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def test_processes_give_the_same_file_as_one_process(experiment, monkeypatch):
    here = experiment()
    attack.run(here)
    monkeypatch.undo()  # real processes
    there = experiment(name="two")
    attack.run(there)
    for recipe in here.config.attack.recipes:
        assert results(here, recipe) == results(there, recipe)
        assert len(results(here, recipe)) == 4
        manifest = read_json(there.attack(1, "finetune") / recipe / "manifest.json")
        assert manifest["settings"]["indices"] == [record["index"] for record in results(there, recipe)]
        assert manifest["results"]["examples"] == 4
    clean = read_json(there.attack(1, "finetune") / "clean" / "manifest.json")["results"]
    right = sum(record["original_prediction"] == record["label"] for record in results(there, "textfooler"))
    assert clean["n"] == 6 and right <= 6 * clean["accuracy"] <= right + 2


def test_records_say_what_changed(experiment):
    run_dir = experiment("attack.recipes=[textbugger]", "attack.examples=6")
    attack.run(run_dir)
    records = results(run_dir, "textbugger")
    assert [record["original"]["sentence"] for record in records] == SENTENCES
    for record in records:
        changed = record["original"] != record["perturbed"]
        assert changed == (record["words_changed"] > 0)
        flipped = record["perturbed_prediction"] != record["label"]
        assert flipped == (record["outcome"] in ("success", "skipped"))
        assert (record["outcome"] == "skipped") == (record["original_prediction"] != record["label"])
        assert (record["original_score"] < 0.5) == (record["outcome"] == "skipped")
    assert {record["outcome"] for record in records} >= {"skipped"} and any(r["queries"] > 1 for r in records)


def test_a_killed_run_goes_on_and_ends_the_same(experiment, monkeypatch, capsys):
    whole = experiment("attack.recipes=[textbugger]")
    attack.run(whole)

    killed = experiment("attack.recipes=[textbugger]", name="killed")
    attack_example, calls = attack.attack_example, []

    def counted(target, recipe, candidates, seed, index, example):
        calls.append(index)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return attack_example(target, recipe, candidates, seed, index, example)

    monkeypatch.setattr(attack, "attack_example", counted)
    with pytest.raises(KeyboardInterrupt):
        attack.run(killed)
    with open(killed.attack(1, "finetune") / "textbugger" / "results.jsonl", "a") as file:
        file.write('{"index": 5, "lab')  # torn
    attack.run(killed)
    indices = [record["index"] for record in results(whole, "textbugger")]
    assert calls == indices[:3] + indices[2:]
    assert results(killed, "textbugger") == results(whole, "textbugger")

    capsys.readouterr()
    attack.run(killed)
    assert capsys.readouterr().out.count("already done") == 2 and len(calls) == 5


def test_results_of_other_settings_are_never_mixed(experiment):
    run_dir = experiment("attack.recipes=[bertattack]")
    attack.run(run_dir)
    with pytest.raises(UserError, match="other settings"):
        attack.run(experiment("attack.recipes=[bertattack]", "attack.candidates=2"))
    (run_dir.attack(1, "finetune") / "bertattack" / "manifest.json").unlink()  # as if killed at the end
    with pytest.raises(UserError, match="begun with other settings"):
        attack.run(experiment("attack.recipes=[bertattack]", "attack.candidates=2"))


@pytest.mark.parametrize("line, message", [("{broken\n", "line 1"), ('{"index": 77}\n', "other examples")])
def test_broken_results_are_one_clear_error(experiment, line, message):
    run_dir = experiment("attack.recipes=[textbugger]")
    attack.run(run_dir)
    folder = run_dir.attack(1, "finetune") / "textbugger"
    (folder / "manifest.json").unlink()
    (folder / "results.jsonl").write_text(line)
    with pytest.raises(UserError, match=message):
        attack.run(run_dir)


def test_a_second_process_is_refused(experiment):
    run_dir = experiment()
    with open(run_dir.root / ".attack.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process"):
            attack.run(run_dir)


def test_a_missing_model_is_named(experiment):
    run_dir = experiment()
    (run_dir.finetune(1) / "model" / "config.json").unlink()
    with pytest.raises(UserError, match="finetune/model is missing"):
        attack.run(run_dir)


def test_a_poor_masked_model_leaves_bertattack_out(experiment, monkeypatch, capsys):
    run_dir = experiment("attack.recipes=[bertattack]")
    facts = {**packaged.mlm_facts(), "top1": 0.1}
    monkeypatch.setattr(packaged, "mlm_facts", lambda: facts)
    attack.run(run_dir)
    assert "left out" in capsys.readouterr().out
    folder = run_dir.attack(1, "finetune") / "bertattack"
    assert "10.0%" in json.loads((folder / "missing.json").read_text())["reason"]
    assert not (folder / "manifest.json").exists()


def test_a_masked_model_that_was_never_made_stops_the_run(experiment, monkeypatch, tmp_path):
    run_dir = experiment("attack.recipes=[bertattack]")
    monkeypatch.setattr(packaged, "mlm_folder", lambda: tmp_path / "absent")
    with pytest.raises(UserError, match="torch_eval setup"):
        attack.run(run_dir)


@pytest.mark.parametrize("example", [{"sentence": "fine"}, {"text": "fine", "label": 1}, {"sentence": 3, "label": 1}])
def test_a_broken_test_set_is_one_clear_error(experiment, example):
    run_dir = experiment()
    write_lines(run_dir.split("test"), [{"sentence": "fine", "label": 1}, example])
    with pytest.raises(UserError, match="test.jsonl, line 2"):
        attack.run(run_dir)


def test_sample_is_seeded_and_never_larger_than_the_data():
    assert attack.sample(1000, 60, 0) == attack.sample(1000, 60, 0) != attack.sample(1000, 60, 1)
    assert attack.sample(5, 60, 0) == [0, 1, 2, 3, 4]
    assert len({attack.example_seed(seed, index) for seed in range(50) for index in range(50)}) == 2500
