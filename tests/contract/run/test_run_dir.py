"""The run directory: names, the choice, what prepare states, and one process at a time."""

import json
import os
import subprocess
import sys
from dataclasses import asdict

import pytest

from configs.contract.basics import files
from configs.contract.basics.errors import STARTER, UserError
from configs.contract.basics.files import ROOT, append_line, write_lines
from configs.contract.experiment import schema
from configs.contract.run.run_dir import RunDir, only_one
from configs.contract.run.stage import verified
from tests.helpers.files import edit_json
from tests.helpers.prepared import write_choice, write_summary


def test_a_run_may_be_a_link_and_links_in_it_are_swept(tmp_path):
    """Their targets stay, and what a process of another machine may be writing on a shared disk."""
    run = RunDir(schema.load("base", ["name=mine"]), tmp_path / "runs")
    disk = tmp_path / "disk"
    (disk / "folder").mkdir(parents=True)
    run.root.parent.mkdir()
    run.root.symlink_to(disk)
    (disk / f".model.999999999-{files.MACHINE}.tmp").symlink_to(disk / "folder")
    (disk / ".model.999999999-other-machine.tmp").mkdir()
    with only_one(run):
        append_line(run.root / "metrics.jsonl", {"n": 1})
    assert sorted(path.name for path in disk.iterdir()) == [
        ".lock",
        ".model.999999999-other-machine.tmp",
        "folder",
        "metrics.jsonl",
    ]


def test_names_under_runs(tmp_path):
    config = schema.load("base", ["name=mine", "sparsities=[0.3,0.05]"])
    run = RunDir(config, tmp_path)
    assert run.split("dev") == tmp_path / "mine/data/dev.jsonl"
    assert run.log_alpha(2, 3) == tmp_path / "mine/seed-2/search/log_alpha/epoch-03.safetensors"
    for model in ("robust-0.30", "robust-0.30-epochs-10@000120"):  # one ticket, trained at any length, at any time
        assert run.ticket(1, model) == tmp_path / "mine/seed-1/tickets/robust-0.30/ticket.safetensors"
    assert run.victims(1) == {
        "finetune": tmp_path / "mine/seed-1/finetune/model",
        "robust-0.30": tmp_path / "mine/seed-1/robust-0.30/model",
        "robust-0.05": tmp_path / "mine/seed-1/robust-0.05/model",
    }


def test_the_chosen_ticket_stands_for_its_sparsity_and_gives_it_to_the_controls(tmp_path):
    overrides = ["methods=[robust,random,lth]", "sparsities=[0.3,0.5]", "choice.epochs=2"]
    run = RunDir(schema.load("base", overrides), tmp_path)
    assert [str(c) for c in run.candidates()] == [
        "robust-0.30",
        "robust-0.30-back-1",
        "robust-0.50",
        "robust-0.50-back-1",
    ]
    assert list(run.models()) == ["robust-0.30", "robust-0.50", "random-0.30", "lth-0.30", "lth-0.50"]
    with pytest.raises(UserError, match="choice.json is missing"):
        run.chosen()
    write_choice(run, "robust-0.50-back-1")
    assert list(run.victims(1)) == ["robust-0.30", "robust-0.50-back-1", "random-0.50", "lth-0.30", "lth-0.50"]


@pytest.fixture
def prepared(tmp_path):
    run = RunDir(schema.load("base", ["name=mine"]), tmp_path)
    write_lines(run.split("test"), [{"sentence": "fine", "label": 1}])
    write_summary(run)
    return run


def test_the_summary_states_what_is_needed(prepared):
    assert prepared.summary().labels == ["bad", "good"]


WRONG = {
    "columns": [None, [], "sentence", [1], {"sentence": 1}, ["sentence", "sentence"]],
    "attacked": [None, [], ["other"]],
    "labels": [None, [0, 1]],
    "splits": [None, [], {}],
}


@pytest.mark.parametrize("key, value", [(key, value) for key, values in WRONG.items() for value in values])
def test_a_broken_summary_is_refused(prepared, key, value):
    edit_json(prepared.data / "summary.json", **{key: value})
    with pytest.raises(UserError, match=f"summary.json: .*{key}.*; delete .*data and run prepare again"):
        prepared.summary()


def test_a_split_that_is_another_or_gone_is_refused(prepared):
    path = prepared.split("test")
    assert verified(path) == path
    write_lines(path, [{"sentence": "fine", "label": 0}])
    with pytest.raises(UserError, match="test.jsonl is damaged or was changed after it was made; delete .*data and"):
        verified(path)
    path.unlink()
    with pytest.raises(UserError, match="test.jsonl is missing; delete .*data and run again"):
        verified(path)
    write_lines(prepared.split("other"), [{"sentence": "fine", "label": 0}])  # which the summary does not state
    with pytest.raises(UserError, match="other.jsonl is damaged or was changed after it was made"):
        verified(prepared.split("other"))


def test_snapshots_are_victims_too(tmp_path):
    run = RunDir(schema.load("base", ["methods=[finetune]"]), tmp_path)
    for step in ("000120", "000060", "half"):
        folder = run.stage(1, "finetune") / "snapshots" / step
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    assert list(run.victims(1)) == ["finetune", "finetune@000060", "finetune@000120"]


def test_a_run_in_use_is_refused_with_its_owner(tmp_path):
    """The lock of a process that was killed is free again; a child of the owner may enter."""
    run = RunDir(schema.load("base", ["name=mine"]), tmp_path)
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from configs.contract.experiment import schema\nfrom configs.contract.run.run_dir import RunDir, only_one\n"
        "with only_one(RunDir(schema.load('base', ['name=mine']), Path(sys.argv[1]))):\n    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"process {owner.pid} of .*, started \d{{4}}-"):
            with only_one(run):
                pass
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(STARTER, str(owner.pid))
            with only_one(run):
                pass
        owner.kill()
    with only_one(run):
        assert f"process {os.getpid()} of" in (run.root / ".lock").read_text()


@pytest.mark.parametrize("name", ["mine", "0809", "010", "2026-08-09", "1e5", "no"])
def test_the_saved_configuration_loads_again(tmp_path, name):
    config = schema.load("demo", ["search.learning_rate=2e-5", f"name={name}"])
    run = RunDir(config, tmp_path)
    run.save_config()
    assert schema.load(str(run.root / "config.yaml")) == config
    assert json.dumps(asdict(config))


def test_a_renamed_run_is_called_as_its_folder(prepared, monkeypatch):
    """Otherwise commands on `runs/renamed/config.yaml` would work in the folder of the old name."""
    prepared.save_config()
    renamed = prepared.root.rename(prepared.root.with_name("renamed"))
    for name, file in ((".", renamed / "config.yaml"), (str(renamed), "config.yaml"), (".", "config.yaml")):
        monkeypatch.chdir(name)
        assert schema.load(str(file)).name == "renamed"
    assert schema.load("config.yaml", ["name=new"]).name == "new"
    (renamed / "data" / "summary.json").unlink()  # not a run's: the file says what it is called
    assert schema.load("config.yaml").name == prepared.config.name


def test_a_runs_configuration_without_a_name_has_that_of_its_folder(prepared):
    (prepared.root / "config.yaml").write_text("")
    assert schema.load(str(prepared.root / "config.yaml")).name == "mine"
    odd = prepared.root.rename(prepared.root.with_name("a:b"))
    with pytest.raises(UserError, match="^name in .*a:b: .* cannot be a folder name"):
        schema.load(str(odd / "config.yaml"))
