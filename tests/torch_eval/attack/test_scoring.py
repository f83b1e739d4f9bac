"""The run: independence of examples, shards, budgets, resuming, transfer, and what it refuses."""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from multiprocessing import active_children, get_context
from types import SimpleNamespace

import pytest
from transformers import BertForSequenceClassification

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import ROOT, file_hash, read_json, read_lines, write_json, write_lines
from configs.contract.experiment import schema
from configs.contract.inputs.tokenizer import TOKEN_IDS
from configs.contract.run.run_dir import RunDir
from configs.contract.run.stage import Stage, verified
from tests.helpers.attacked_runs import SENTENCES, attacks_here, labels_by_victim
from tests.helpers.files import edit_json, edit_weights
from tests.helpers.prepared import write_summary
from tests.helpers.timeless import timeless_lines
from tests.helpers.victims import write_bert
from torch_eval.assets import packaged
from torch_eval.attack import example, merge, records, scoring, transfer, workers
from torch_eval.attack.sampling import Shard, sample
from torch_eval.recipes import recipes
from torch_eval.recipes.budget import OutOfBudget
from torch_eval.victim.classifier import Victim

OVERRIDES = ["attack.examples=4", "attack.candidates=3", "sparsities=[0.3]", "methods=[finetune]", "attack.workers=2"]
EXAMPLES = [{"sentence": sentence, "label": 1 - i % 2} for i, sentence in enumerate(SENTENCES)]
# TextBugger finds another adversarial text of it for nearly every seed.
DRAWN = {"sentence": "beautifully photographed but painfully uneven entertainment", "label": 0}


def prepared(folder, *overrides, name="one", examples=EXAMPLES):
    """A run directory that is ready to be attacked."""
    run_dir = RunDir(schema.load("tiny", [*OVERRIDES, f"name={name}", *overrides]), folder)
    if not run_dir.data.is_dir():
        for split in ("test", "dev"):
            write_lines(run_dir.split(split), examples)
        write_summary(run_dir)
        for model in run_dir.victims(1).values():
            write_bert(model)
    return run_dir


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """`prepared` in the test's folder, and attacked in this process."""
    with attacks_here(monkeypatch):
        yield partial(prepared, tmp_path)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """A folder with a run that TextBugger has attacked, for all tests."""
    folder = tmp_path_factory.mktemp("attacked")
    with pytest.MonkeyPatch.context() as patch, attacks_here(patch):
        scoring.run(prepared(folder, "attack.recipes=[textbugger]"))
    return folder


@pytest.fixture
def finished(experiment, attacked, tmp_path):
    """That run in the test's folder."""
    shutil.copytree(attacked, tmp_path, dirs_exist_ok=True)
    return experiment("attack.recipes=[textbugger]")


def results(run_dir, recipe):
    return timeless_lines(run_dir.attack(1, "finetune") / recipe / "results.jsonl")


def test_processes_give_the_same_file_as_one_process(experiment, monkeypatch):
    recipes = "attack.recipes=[textfooler,textbugger]"  # TextBugger draws at random
    examples = [*EXAMPLES[:2], DRAWN, DRAWN]
    here = experiment(recipes, examples=examples)
    scoring.run(here)
    monkeypatch.undo()  # real processes, of which one imports TextAttack for both
    context = get_context("forkserver")
    context.set_forkserver_preload(["torch_eval.victim.classifier", "torch_eval.recipes.packaged_resources"])
    monkeypatch.setattr(workers, "get_context", lambda _: context)
    there = experiment(recipes, name="two", examples=examples)
    scoring.run(there)
    *_, once, again = results(here, "textbugger")
    assert once["perturbed"] != again["perturbed"]  # each example has a seed of its own, and the draws decide
    for recipe in here.config.attack.recipes:
        assert results(here, recipe) == results(there, recipe)
        assert len(results(here, recipe)) == 4
        manifest = read_json(there.attack(1, "finetune") / recipe / "manifest.json")
        assert manifest["settings"]["indices"] == [record["index"] for record in results(there, recipe)]
        assert manifest["results"]["examples"] == 4
    clean = read_json(there.attack(1, "finetune") / "clean" / "manifest.json")["results"]
    right = sum(record["original_prediction"] == record["label"] for record in results(there, "textfooler"))
    assert clean["n"] == 4 and 4 * clean["accuracy"] == right


def write_late(path, seconds):
    time.sleep(seconds)
    path.write_text("done")


def test_workers_end_at_once_when_the_run_is_interrupted(tmp_path):
    first, last = tmp_path / "first", tmp_path / "last"
    with pytest.raises(KeyboardInterrupt), workers.Workers(1) as started:
        results = started.map(write_late, [first, last], [0, 5])
        next(results)
        raise KeyboardInterrupt
    assert first.exists() and not last.exists()
    assert not active_children()


def test_records_say_what_changed(experiment):
    run_dir = experiment("attack.recipes=[textbugger]", "attack.examples=6")
    scoring.run(run_dir)
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


def test_a_killed_run_goes_on_and_ends_the_same(experiment, finished, monkeypatch, capsys):
    killed = experiment("attack.recipes=[textbugger]", name="killed")
    attack_example, calls = scoring.attack_example, []

    def counted(target, spec, seed, index, *rest):
        calls.append(index)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return attack_example(target, spec, seed, index, *rest)

    monkeypatch.setattr(scoring, "attack_example", counted)
    with pytest.raises(KeyboardInterrupt):
        scoring.run(killed)
    file = killed.attack(1, "finetune") / "textbugger" / "results.jsonl"
    write_lines(file, [{**record, "seconds": 500.0} for record in read_lines(file)])
    file.write_text(file.read_text() + '{"index": 5, "lab')  # torn
    scoring.run(killed)
    assert 500 <= read_json(file.with_name("manifest.json"))["seconds"] < 1000  # two workers' time goes into the whole
    indices = [record["index"] for record in results(finished, "textbugger")]
    assert calls == indices[:3] + indices[2:]
    assert results(killed, "textbugger") == results(finished, "textbugger")

    capsys.readouterr()
    scoring.run(killed)
    assert capsys.readouterr().out.count("already done") == 2 and len(calls) == 5


def test_results_of_other_settings_are_never_mixed(experiment):
    run_dir = experiment("attack.recipes=[bertattack]")
    scoring.run(run_dir)
    with pytest.raises(UserError, match="other settings"):
        scoring.run(experiment("attack.recipes=[bertattack]", "attack.candidates=2"))
    (run_dir.attack(1, "finetune") / "bertattack" / "manifest.json").unlink()  # as if killed at the end
    with pytest.raises(UserError, match="begun with other settings"):
        scoring.run(experiment("attack.recipes=[bertattack]", "attack.candidates=2"))


@pytest.mark.parametrize("finished", [True, False])
def test_an_attack_of_other_settings_is_made_again_when_asked(experiment, finished):
    keys = ("attack.recipes=[textbugger]", "attack.examples=2", "attack.max_queries=40")
    scoring.run(experiment("attack.recipes=[textbugger]", "attack.examples=2", "attack.max_queries=1"))
    run_dir = experiment(*keys, "on_change=redo")
    if not finished:
        (run_dir.attack(1, "finetune") / "textbugger" / "manifest.json").unlink()
    scoring.run(run_dir)
    redone = results(run_dir, "textbugger")
    shutil.rmtree(run_dir.attack(1, "finetune"))
    scoring.run(experiment(*keys))
    assert redone == results(run_dir, "textbugger")


def rewritten(change):
    """The text of results.jsonl with its records changed."""

    def damage(text):
        lines = [json.loads(line) for line in text.splitlines()]
        change(lines)
        return "".join(json.dumps(line) + "\n" for line in lines)

    return damage


BROKEN_RESULTS = [
    (lambda text: "{broken\n" + text, "line 1: not valid JSON"),
    (rewritten(lambda lines: lines[1].update(index=77)), "line 2: .*other examples"),
    (rewritten(lambda lines: lines[2].update(outcome="crashed")), "line 3: outcome: invalid enum value 'crashed'"),
    (rewritten(lambda lines: lines[2].update(queries=-3)), "line 3: queries: expected a whole number >= 0"),
    (rewritten(lambda lines: lines[0].update(perturbed_score=float("nan"))), "line 1: not valid JSON near .*_score"),
    (rewritten(lambda lines: lines[3].pop("label")), "line 4: object missing required field label"),
    (rewritten(lambda lines: lines.insert(1, lines[0])), "line 2: example .* is in line 1 already"),
    (rewritten(lambda lines: lines[1]["original"].update(sentence="other")), "line 2: original of example"),
    (rewritten(lambda lines: lines[1]["perturbed"].update(sentence="other")), "line 2: is not what the attack wrote"),
]


@pytest.mark.parametrize("damage, message", BROKEN_RESULTS)
def test_broken_results_are_one_clear_error(finished, damage, message):
    """Of a finished attack, and of one that was killed."""
    folder = finished.attack(1, "finetune") / "textbugger"
    results = folder / "results.jsonl"
    results.write_text(damage(results.read_text()))
    for again in (scoring.run, transfer.run):
        with pytest.raises(UserError, match=f"results.jsonl, {message}.*delete"):
            again(finished)
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match=f"results.jsonl, {message}.*delete"):
        scoring.run(finished)


@pytest.mark.parametrize("left", [0, 2])
def test_a_finished_attack_without_its_lines_is_refused(finished, left):
    results = finished.attack(1, "finetune") / "textbugger" / "results.jsonl"
    write_lines(results, read_lines(results)[:left])
    if not left:
        results.unlink()
    for again in (scoring.run, transfer.run):
        with pytest.raises(UserError, match=f"results.jsonl: holds {left} of 4 examples .*delete .*textbugger to redo"):
            again(finished)


def test_a_model_made_again_is_refused_wherever_its_lines_are_read(finished):
    """It is refused after the attack and in the middle of it. The message shows both hashes."""
    model, folder = finished.model(1, "finetune"), finished.attack(1, "finetune")
    old = file_hash(model)
    assert read_json(folder / "textbugger" / "begun.json")["inputs"]["model"] == old
    write_bert(model, seed=5)
    hashes = rf"inputs.model: {old[:40]}, now {file_hash(model)[:40]}"
    with pytest.raises(UserError, match=f"finetune/clean was made with other settings .{hashes}"):
        scoring.run(finished)
    with pytest.raises(UserError, match=f"textbugger was made with other settings .{hashes}"):
        transfer.run(finished)
    (folder / "clean" / "manifest.json").unlink()
    (folder / "textbugger" / "manifest.json").unlink()
    workers.load_victim.cache_clear()
    with pytest.raises(UserError, match=f"textbugger was begun with other settings .{hashes}"):
        scoring.run(finished)


def test_a_model_that_its_training_did_not_leave_is_refused(experiment):
    """Before anything is attacked, and for the choice as well, which scores its candidates likewise."""
    run_dir = experiment("attack.recipes=[textbugger]")
    model = run_dir.model(1, "finetune")
    training = Stage(model.parent, "finetune", {}, {})
    training.finish({"model_sha256": file_hash(model)})
    assert verified(model) == model
    write_bert(model, seed=5)
    with pytest.raises(UserError, match="finetune/model is damaged or was changed after it was made; delete"):
        scoring.run(run_dir)
    assert not run_dir.attack(1, "finetune").exists()


@pytest.mark.parametrize("swapped_in", ["attack_example", "logits_of"])
def test_a_model_made_again_during_an_attack_ends_in_no_results(experiment, monkeypatch, swapped_in):
    run_dir = experiment("attack.recipes=[textbugger]")
    real = getattr(scoring, swapped_in)

    def meanwhile(*arguments):
        write_bert(run_dir.model(1, "finetune"), seed=5)
        return real(*arguments)

    monkeypatch.setattr(scoring, swapped_in, meanwhile)
    with pytest.raises(UserError, match="was begun with other settings .inputs.model: .*, now .*delete that folder"):
        scoring.run(run_dir)
    stage = "textbugger" if swapped_in == "attack_example" else "clean"
    assert not (run_dir.attack(1, "finetune") / stage / "manifest.json").exists()


def test_a_broken_summary_is_one_clear_error(experiment):
    """tests/contract/run/test_run_dir.py has the ways in which it can be broken."""
    run_dir = experiment()
    edit_json(run_dir.data / "summary.json", columns=None)
    for command in (scoring.run, merge.merge, transfer.run):
        with pytest.raises(UserError, match=r"summary\.json: .*; delete .*/data and run prepare again"):
            command(run_dir)


@pytest.mark.parametrize("damage", [lambda text: text.replace("gripping", "griping"), lambda text: text + text])
def test_a_test_set_that_prepare_did_not_leave_is_refused(experiment, damage):
    run_dir = experiment()
    run_dir.split("test").write_text(damage(run_dir.split("test").read_text()))
    with pytest.raises(UserError, match="test.jsonl is damaged or was changed after it was made; delete .*data and"):
        scoring.run(run_dir)


@pytest.mark.parametrize("results", [{}, {"accuracy": None}, {"accuracy": "0.5"}, {"accuracy": float("nan")}])
def test_a_manifest_without_its_figure_is_one_clear_error(finished, results):
    manifest = finished.attack(1, "finetune") / "clean" / "manifest.json"
    edit_json(manifest, results=results)
    with pytest.raises(UserError, match="clean/manifest.json.*accuracy.*; delete .*/clean to redo"):
        scoring.run(finished)


HOLDER = """
import sys, time
from pathlib import Path
from configs.contract.run.run_dir import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_with_the_owner_and_a_dead_owner_stands_in_nobodys_way(experiment):
    run_dir = experiment("attack.recipes=[textbugger]")
    lock = run_dir.root / ".attack.lock"
    command = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "held\n"
        for function in (scoring.run, merge.merge):
            with pytest.raises(UserError, match=rf"in use by process {owner.pid} of .*, started \d{{4}}-\d\d-\d\d"):
                function(run_dir)
        owner.kill()
    assert f"process {owner.pid} of" in lock.read_text()
    scoring.run(run_dir)
    assert f"process {os.getpid()} of" in lock.read_text() and len(results(run_dir, "textbugger")) == 4


def test_an_owner_that_has_not_written_who_it_is_holds_the_lock_too(experiment):
    run_dir = experiment()
    with open(run_dir.root / ".attack.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="in use by another process; wait"):
            scoring.run(run_dir)


def test_a_missing_model_is_named(experiment):
    run_dir = experiment()
    (run_dir.model(1, "finetune") / "config.json").unlink()
    with pytest.raises(UserError, match="finetune/model is missing"):
        scoring.run(run_dir)


def test_a_model_of_other_labels_than_the_data_is_refused(experiment):
    run_dir = experiment()
    write_bert(run_dir.model(1, "finetune"), labels=3)
    with pytest.raises(
        UserError, match=r"finetune/model: a classifier of 3 labels for data of 2: .*LABEL_2; the data's are bad, good"
    ):
        scoring.run(run_dir)


def test_a_classifier_from_elsewhere_is_attacked_once(experiment, tmp_path):
    write_bert(tmp_path / "elsewhere", seed=3)
    keys = ["attack.recipes=[textbugger]", f"attack.victims=[mine={tmp_path / 'elsewhere'}]"]
    run_dir = experiment(*keys)
    scoring.run(run_dir)
    for recipe in ("clean", "textbugger"):
        manifest = read_json(run_dir.attack(1, "mine") / recipe / "manifest.json")
        assert manifest["inputs"]["model"] == file_hash(tmp_path / "elsewhere")
    two = experiment(*keys, "seeds=[1,2]")
    assert "mine" in two.victims(1) and "mine" not in two.victims(2)


def test_a_folder_without_a_model_is_refused(experiment, tmp_path):
    experiment()  # without it: the fixture makes a model for every victim
    run_dir = experiment(f"attack.victims=[mine={tmp_path / 'elsewhere'}]")
    with pytest.raises(UserError, match="attack.victims: mine: .*elsewhere has no config.json; give a Hugging Face"):
        scoring.run(run_dir)


def with_labels(folder, names):
    """The classifier of a folder, whose labels are called so."""
    edit_json(folder / "config.json", id2label={str(i): name for i, name in enumerate(names)})
    return folder


def test_labels_in_another_order_score_as_the_same_model(experiment, tmp_path):
    """The classifier's rows and its label names are both reversed: the same model, so the same records."""
    run_dir = experiment("attack.recipes=[textbugger]")
    model = run_dir.model(1, "finetune")
    shutil.copytree(with_labels(model, ["bad", "good"]), tmp_path / "turned")
    edit_weights(
        tmp_path / "turned", lambda weights: {n: w[::-1].copy() if "classifier" in n else w for n, w in weights.items()}
    )
    with_labels(tmp_path / "turned", ["GOOD", "BAD"])
    scoring.run(experiment("attack.recipes=[textbugger]", f"attack.victims=[turned={tmp_path / 'turned'}]"))
    files = [run_dir.attack(1, name) / "textbugger" / "results.jsonl" for name in ("finetune", "turned")]
    same = ("outcome", "queries", "perturbed", "perturbed_prediction", "original_score")
    ours, theirs = ([[record[key] for key in same] for record in read_lines(file)] for file in files)
    assert ours == theirs


@pytest.mark.parametrize("names", [["LABEL_0", "LABEL_1"], ["bad", "good"]])
def test_below_chance_is_a_warning_where_labels_have_no_names(experiment, capsys, names):
    run_dir = experiment("attack.recipes=[textbugger]")
    model = with_labels(run_dir.model(1, "finetune"), names)
    texts = [(sentence,) for sentence in SENTENCES]
    logits = workers.logits_of(workers.Target(model, 128), texts)
    rows = [{"sentence": s, "label": row.index(min(row))} for (s,), row in zip(texts, logits)]  # all wrong
    write_lines(run_dir.split("test"), rows)
    write_summary(run_dir)
    scoring.run(run_dir)
    output = capsys.readouterr().out
    assert ("accuracy 0.0% is below chance, and its labels are called LABEL_0, LABEL_1" in output) == (
        names[0] != "bad"
    )


def test_every_victim_is_checked_before_the_first_attack(experiment, tmp_path):
    """Also for faults that only loading shows; the remedy never deletes a folder of the user's own."""
    experiment()  # without it: the fixture makes a model for every victim
    raw = write_bert(tmp_path / "raw")
    BertForSequenceClassification.from_pretrained(raw).bert.save_pretrained(raw)
    run_dir = experiment(f"attack.victims=[raw={raw}]")
    with pytest.raises(UserError) as error:
        scoring.run(run_dir)
    assert "raw: a bert model without a trained classifier" in str(error.value)
    assert "delete" not in str(error.value)
    for file in ("tokenizer.json", "vocab.txt"):
        (raw / file).unlink()
    with pytest.raises(UserError, match="attack.victims: raw: .*raw: no tokenizer"):
        scoring.run(run_dir)
    assert not run_dir.attack(1, "finetune").exists()


def test_unchanged_texts_are_classified_by_all_victims_before_the_first_attack(experiment, tmp_path, monkeypatch):
    """What is wrong with the last one, or with a text for it, would otherwise show after hours."""
    run_dir = experiment("attack.recipes=[textbugger]", f"attack.victims=[own={write_bert(tmp_path / 'own')}]")
    measured: list[set] = []
    folders = [run_dir.attack(1, name) for name in ("finetune", "own")]
    monkeypatch.setattr(
        scoring.Scoring,
        "recipe",
        lambda *_: measured.append({folder.name for folder in folders if (folder / "clean/manifest.json").is_file()}),
    )
    scoring.run(run_dir)
    assert measured == [{"finetune", "own"}] * 2


@pytest.mark.parametrize(
    "text, remedy",
    [
        ("dull </s>", r"take out those that spell a special token of it: 'dull </s>'"),
        ("dull", "is the tokenizer its own"),
    ],
)
def test_a_text_that_stops_a_victim_is_named(monkeypatch, text, remedy):
    """BART's classifier takes no batch in which texts have different numbers of its end token."""

    class Bart:
        tokenizer = SimpleNamespace(all_special_tokens=["<s>", "</s>"])

        def __call__(self, texts):
            raise ValueError("All examples must have the same number of <eos> tokens.")

    monkeypatch.setattr(workers, "load_victim", lambda _: Bart())
    with pytest.raises(UserError, match=rf"bart: cannot classify some texts .*ValueError: All examples .*; {remedy}"):
        workers.logits_of(workers.Target("bart", 48), [("fine",), (text,)])


def test_a_victim_that_reads_otherwise_than_its_training_is_refused(experiment):
    run_dir = experiment()
    sample = {"max_length": 16, "texts": [{"texts": ["a film"], "ids": [101, 102]}]}
    write_json(run_dir.stage(1, "finetune") / TOKEN_IDS, sample)
    with pytest.raises(UserError, match="does not read texts as the training did: 'a film'"):
        scoring.run(run_dir)
    assert not run_dir.attack(1, "finetune").exists()


@pytest.mark.parametrize("asked, length", [("attack.protocol=official", 512), ("data.max_length=256", 256)])
def test_a_victim_of_fewer_positions_than_the_inputs_is_refused(experiment, tmp_path, asked, length):
    experiment()
    own = write_bert(tmp_path / "own", positions=64)
    run_dir = experiment(f"attack.victims=[own={own}]", asked)
    with pytest.raises(UserError, match=f"attack.victims: own: .*a model of 64 positions, but inputs .* {length}"):
        scoring.run(run_dir)
    assert not run_dir.attack(1, "finetune").exists()


def test_a_model_that_predicts_one_class_is_a_warning_and_stands_in_the_manifest(experiment, capsys):
    run_dir = experiment("attack.recipes=[textbugger]")
    edit_weights(run_dir.model(1, "finetune"), lambda weights: weights["classifier.bias"].__setitem__(0, 100))
    scoring.run(run_dir)
    warning = "warning: seed 1, finetune: predicts one class; its accuracy under attack means nothing"
    assert warning in capsys.readouterr().out
    clean = read_json(run_dir.attack(1, "finetune") / "clean" / "manifest.json")["results"]
    assert abs(clean.pop("median_margin")) < 100 + 1  # half of the sentences are right by about 100, half wrong
    assert clean == {"accuracy": 0.5, "n": 6, "predicted_classes": 1, "majority_share": 0.5}
    scoring.run(run_dir)
    assert warning in capsys.readouterr().out


@pytest.mark.parametrize(
    "more, reason",
    [
        ({}, ""),  # as an older version left it
        ({"predicted_classes": 2, "majority_share": 0.5}, ""),
        ({"predicted_classes": 3, "majority_share": 0.6}, "no better than always predicting the most frequent class"),
        ({"predicted_classes": 1, "majority_share": 0.6}, "predicts one class"),
    ],
)
def test_what_has_learned_nothing(more, reason):
    assert records.CleanResults(accuracy=0.6, n=6, **more).unlearned == reason


def test_the_margin_is_to_the_best_of_the_other_classes():
    logits, labels = [[2.0, 1.0, 0.5], [0.0, 3.0, 1.0], [9.0, 2.0, 9.5], [0.0, -1.0, 4.0]], [0, 0, 2, 2]
    assert records.CleanResults.count(logits, labels).median_margin == pytest.approx(
        (0.5 + 1.0) / 2
    )  # of 1, -3, 0.5, 4


def test_a_poor_masked_model_leaves_bertattack_out(experiment, monkeypatch, capsys):
    run_dir = experiment("attack.recipes=[bertattack]")
    facts = {**packaged.mlm_facts(), "top1": 0.1}
    monkeypatch.setattr(packaged, "mlm_facts", lambda: facts)
    scoring.run(run_dir)
    assert "left out" in capsys.readouterr().out
    folder = run_dir.attack(1, "finetune") / "bertattack"
    reason = json.loads((folder / "missing.json").read_text())["reason"]
    assert "10.0%" in reason and "attack.resources=original" in reason and "choice.recipe=textfooler" in reason
    assert not (folder / "manifest.json").exists()


def test_a_masked_model_that_was_never_made_stops_the_run(experiment, monkeypatch, tmp_path):
    run_dir = experiment("attack.recipes=[bertattack]")
    monkeypatch.setattr(packaged, "mlm_folder", lambda: tmp_path / "absent")
    with pytest.raises(UserError, match="torch_eval setup"):
        scoring.run(run_dir)


@pytest.mark.parametrize(
    "example",
    [
        {"sentence": "fine"},
        {"text": "fine", "label": 1},
        {"sentence": 3, "label": 1},
        {"sentence": "fine", "label": -1},
        {"sentence": "fine", "label": 2},
        {"sentence": "great <SPLIT> movie", "label": 1},
    ],
)
def test_a_broken_test_set_is_one_clear_error(experiment, example):
    run_dir = experiment()
    write_lines(run_dir.split("test"), [{"sentence": "fine", "label": 1}, example])
    write_summary(run_dir)
    with pytest.raises(UserError, match="test.jsonl, line 2"):
        scoring.run(run_dir)


def test_textattack_joins_columns_with_the_token_that_is_refused():
    from textattack.shared import AttackedText

    assert scoring.SPLIT_TOKEN == AttackedText.SPLIT_TOKEN


def test_an_example_on_which_the_attack_itself_fails_is_named(experiment, monkeypatch):
    run_dir = experiment("attack.recipes=[textbugger]")
    [first, *_] = sample([1, 0, 1, 0, 1, 0], 4, 0)
    monkeypatch.setattr("textattack.Attack.attack", lambda *_: "a".index("b"))
    with pytest.raises(UserError, match=rf"test.jsonl, line {first + 1}: textbugger fails .*substring not found.*name"):
        scoring.run(run_dir)


def test_sample_is_seeded_and_never_larger_than_the_data():
    labels = [0] * 1000
    assert sample(labels, 60, 0) == sample(labels, 60, 0) != sample(labels, 60, 1)
    assert sample(labels[:5], 60, 0) == [0, 1, 2, 3, 4]
    assert sample(labels, 3, 0, "official") == [0, 1, 2]
    assert len({example.example_seed(seed, index) for seed in range(50) for index in range(50)}) == 2500


@pytest.mark.parametrize("size", [1, 10, 99, 100])
def test_a_stratified_sample_keeps_the_shares_of_labels(size):
    labels = [2] * 10 + [0] * 60 + [1] * 30
    indices = sample(labels, size, 0, stratified=True)
    assert len(indices) == len(set(indices)) == size and indices == sorted(indices)
    for label, count in ((0, 60), (1, 30), (2, 10)):
        assert abs(sum(labels[i] == label for i in indices) - size * count / 100) < 1


def test_shards_share_the_examples_out():
    indices = list(range(0, 100, 7))
    parts = [Shard(number, 4).part(indices) for number in range(1, 5)]
    assert sorted(sum(parts, [])) == indices and max(map(len, parts)) - min(map(len, parts)) <= 1
    assert Shard.parse(None) == Shard(1, 1) and Shard.parse("2/3") == Shard(2, 3)


def test_merged_shards_are_the_run_without_them(experiment):
    one = ["attack.recipes=[textbugger]", "attack.examples=5"]
    whole, parts = experiment(*one), experiment(*one, name="parts")
    scoring.run(whole)
    folder = parts.attack(1, "finetune") / "textbugger"
    with pytest.raises(UserError, match="clean is missing"):
        merge.merge(parts)
    scoring.run(experiment(*one, "attack.shard=1/2", name="parts"))
    with pytest.raises(UserError, match="attack.shard=2/2"):
        merge.merge(parts)
    scoring.run(experiment(*one, "attack.shard=2/2", name="parts"))
    (folder / "shard-1-of-3").mkdir()
    with pytest.raises(UserError, match="parts of 2 and of 3"):
        merge.merge(parts)
    (folder / "shard-1-of-3").rmdir()
    moved = folder / "shard-2-of-2" / "results.jsonl"
    saved = moved.read_text()
    moved.write_text((folder / "shard-1-of-2" / "results.jsonl").read_text())
    with pytest.raises(UserError, match="other examples"):
        merge.merge(parts)
    moved.write_text(saved)
    for part in ("shard-1-of-2", "shard-2-of-2"):  # pretend that each took 100 seconds
        edit_json(folder / part / "manifest.json", seconds=100.0)
    merge.merge(parts)
    assert results(parts, "textbugger") == results(whole, "textbugger")
    first, second = (read_json(run.attack(1, "finetune") / "textbugger" / "manifest.json") for run in (whole, parts))
    assert {**first, "finished": 0, "seconds": 0} == {**second, "finished": 0, "seconds": 0}
    assert 200 <= second["seconds"] < 300
    scoring.run(experiment(*one, name="parts"))  # nothing is left to do
    assert results(parts, "textbugger") == results(whole, "textbugger")


def test_budgets_end_attacks_as_timeouts(experiment):
    free, few = (
        experiment("attack.recipes=[bertattack]"),
        experiment("attack.recipes=[bertattack]", "attack.max_queries=3", name="few"),
    )
    quick = experiment("attack.recipes=[bertattack]", "attack.max_seconds=0.001", name="quick")
    for run_dir in (free, few, quick):
        scoring.run(run_dir)
    for a, b, c in zip(*(results(run, "bertattack") for run in (free, few, quick))):
        assert (a["outcome"] == "skipped") == (b["outcome"] == "skipped") == (c["outcome"] == "skipped")
        if a["outcome"] != "skipped":
            assert b["queries"] <= 3 and b["outcome"] == (a["outcome"] if a["queries"] < 3 else "timeout")
            assert c["outcome"] == "timeout" and c["perturbed"] == c["original"] and c["queries"] >= 1
            assert c["original_score"] == a["original_score"]
    figures = read_json(few.attack(1, "finetune") / "bertattack" / "manifest.json")["results"]
    assert figures["timeouts"] == figures["attacked"] > 0 and figures["aua"]["value"] == 0.0 < figures["aua"]["high"]


def test_a_time_budget_before_the_first_answer_skips_what_is_misclassified(experiment, monkeypatch):
    @contextlib.contextmanager
    def over(_seconds):
        raise OutOfBudget
        yield

    run_dir = experiment("attack.recipes=[textbugger]", "attack.examples=6", "attack.max_seconds=0.001")
    monkeypatch.setattr(example, "time_limit", over)
    scoring.run(run_dir)
    records = results(run_dir, "textbugger")
    for record in records:
        wrong = record["original_prediction"] != record["label"]
        assert (record["outcome"], record["queries"]) == ("skipped" if wrong else "timeout", 1)
    assert len({record["outcome"] for record in records}) == 2


def attack_one(run_dir, recipe="textbugger", **more):
    """Attack the first sentence, with the label that the victim gives it."""
    target = workers.Target(run_dir.model(1, "finetune"), 128)
    [label] = labels_by_victim(target, [(SENTENCES[0],)])
    spec = recipes.Spec(recipe, ("sentence",), ("sentence",), **more)
    text = {"sentence": SENTENCES[0], "label": label}
    return workers.attack_example(target, spec, 1, 0, text, 100)


def test_queries_that_the_time_budget_cut_off_are_not_counted(experiment, monkeypatch):
    run_dir, sizes, answer = experiment(), [], Victim.__call__

    def two_answers(victim, texts):
        sizes.append(len(texts))
        if len(sizes) == 4:  # the first one asks for the label
            raise OutOfBudget
        return answer(victim, texts)

    monkeypatch.setattr(Victim, "__call__", two_answers)
    record = attack_one(run_dir)
    assert (record["outcome"], record["queries"]) == ("timeout", sum(sizes[1:3])) and sizes[3] > 0


@pytest.mark.parametrize("recipe", ["textbugger", "bertattack", "deepwordbug", "pruthi"])
@pytest.mark.parametrize("queries", [1, 2, 7])
def test_a_budget_of_queries_holds_in_every_recipe(experiment, recipe, queries):
    # TextAttack beam search fails where no query is left; here the attack ends as a timeout.
    record = attack_one(experiment(), recipe, max_queries=queries, candidates=3)
    assert record["queries"] <= queries
    assert record["outcome"] == ("timeout" if record["queries"] == queries else "success")


def test_the_official_protocol_attacks_the_first_examples_at_length_512(experiment):
    run_dir = experiment("attack.protocol=official", "attack.recipes=[bertattack]")
    scoring.run(run_dir)
    settings = read_json(run_dir.attack(1, "finetune") / "bertattack" / "manifest.json")["settings"]
    assert (settings["protocol"], settings["max_length"], settings["indices"]) == ("official", 512, [0, 1, 2, 3])
    assert "masked language model" not in settings["resources"] and "tagger" in settings["resources"]


def test_temperature_is_fitted_on_dev_and_recorded(experiment):
    run_dir = experiment("attack.calibrate=true", "attack.recipes=[textbugger]")
    scoring.run(run_dir)
    folder = run_dir.attack(1, "finetune")
    fitted = read_json(folder / "calibration" / "manifest.json")["results"]
    assert fitted["nll_calibrated"] <= fitted["nll"] and fitted["temperature"] != 1.0
    assert read_json(folder / "textbugger" / "manifest.json")["settings"]["temperature"] == fitted["temperature"]
    with pytest.raises(UserError, match="attack.temperature"):
        scoring.run(experiment("attack.calibrate=true", "attack.temperature=2"))


def test_another_dtype_says_how_many_outcomes_it_changes(experiment, monkeypatch):
    """In float32 the attacks on even examples are made to end otherwise."""
    attack_example = scoring.attack_example

    def attack(target, spec, seed, index, *rest):
        record = attack_example(target, spec, seed, index, *rest)
        return record if target.dtype == "bfloat16" or index % 2 else {**record, "outcome": "another"}

    monkeypatch.setattr(scoring, "attack_example", attack)
    run_dir = experiment("attack.dtype=bfloat16", "attack.recipes=[textbugger]")
    scoring.run(run_dir)
    folder = run_dir.attack(1, "finetune") / "textbugger"
    effect = read_json(folder / "dtype.json")
    indices = read_json(folder / "manifest.json")["settings"]["indices"]
    changed = sum(index % 2 == 0 for index in indices)
    assert 0 < changed < 4 == len(indices)
    assert effect == {"dtype": "bfloat16", "outcomes_that_float32_changes": changed, "of": 4}
    (folder / "manifest.json").unlink()
    (folder / "dtype.json").unlink()
    for part in ("1/2", "2/2"):
        scoring.run(experiment("attack.dtype=bfloat16", "attack.recipes=[textbugger]", f"attack.shard={part}"))
    merge.merge(run_dir)
    assert read_json(folder / "dtype.json") == effect


def test_transfer_replays_every_text_on_every_model(experiment):
    run_dir = experiment("attack.recipes=[textbugger]", "methods=[finetune,freelb]", "attack.examples=6")
    with pytest.raises(UserError, match="no attack is finished"):
        transfer.run(run_dir)
    write_bert(run_dir.model(1, "freelb"), seed=7)
    scoring.run(run_dir)
    transfer.run(run_dir)
    transferred = read_json(run_dir.root / "transfer.json")
    assert transferred["models"] == [
        {"seed": 1, "model": name, "sha256": file_hash(run_dir.model(1, name))} for name in ("finetune", "freelb")
    ]
    files = {name: run_dir.attack(1, name) / "textbugger" / "results.jsonl" for name in ("finetune", "freelb")}
    assert transferred["attacks"] == [
        {"seed": 1, "model": name, "recipe": "textbugger", "sha256": file_hash(file)} for name, file in files.items()
    ]
    rows = {(row["source"], row["target"]): row for row in transferred["rows"]}
    assert set(rows) == {(a, b) for a in ("finetune", "freelb") for b in ("finetune", "freelb")}

    def right(model, text, records):
        victim = workers.Target(run_dir.model(1, model), run_dir.config.attack_length)
        labels = labels_by_victim(victim, [(record[text]["sentence"],) for record in records])
        return [label == record["label"] for label, record in zip(labels, records)]

    for (source, target), row in rows.items():
        fooling = [record for record in read_lines(files[source]) if record["outcome"] == "success"]
        assert fooling
        before, after = (right(target, text, fooling) for text in ("original", "perturbed"))
        fooled = [record["index"] for record, one, other in zip(fooling, before, after) if one and not other]
        assert (row["texts"], row["fooled"]) == (sum(before), fooled)
        assert row["share"] == len(fooled) / sum(before)
        assert source != target or len(fooled) == len(fooling)


def test_a_recipe_without_what_it_needs_is_left_out(experiment, capsys):
    run_dir = experiment("attack.recipes=[pwws,deepwordbug]")
    scoring.run(run_dir)
    reason = "attack.recipes: pwws needs NLTK's wordnet and omw-1.4 (nothing is downloaded: "
    assert f"seed 1, finetune: pwws: left out; {reason}" in capsys.readouterr().out
    assert reason in read_json(run_dir.attack(1, "finetune") / "pwws" / "missing.json")["reason"]
    assert len(results(run_dir, "deepwordbug")) == 4
    merge.merge(run_dir)
    assert "pwws: left out" in capsys.readouterr().out
