"""Receipts: a finished stage is skipped only while nothing that it could have read has changed."""

import os
import subprocess
import sys
import time

import pytest

from configs.contract.basics.files import ROOT, write_json
from configs.contract.experiment import schema
from configs.contract.run import jobs, receipts
from configs.contract.run.receipts import Receipt, pending
from configs.contract.run.run_dir import RunDir
from tests.helpers.files import write_program

STAGES = ["prepare", "finetune", "attack", "report"]
FILES = {
    "prepare": "data/train.jsonl",
    "finetune": "seed-1/finetune/model/config.json",
    "attack": "seed-1/attacks/finetune/clean/manifest.json",
    "report": "report/report.html",
}


@pytest.fixture
def surroundings(tmp_path, monkeypatch):
    """The files outside a run that decide about it: a project, a model of the user's own, and assets."""
    for name in ("project/configs/code.py", "model/config.json", "cache/assets/words.txt"):
        write_json(tmp_path / name, {})
    (tmp_path / "site-packages" / "package-1.0.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    monkeypatch.setattr(receipts, "ROOT", tmp_path / "project")
    monkeypatch.setattr(receipts.assets, "CACHE", tmp_path / "cache")


def load(tmp_path, *overrides):
    own = ["methods=[finetune]", f"model={tmp_path / 'model'}", *overrides]
    return RunDir(schema.load("tiny", own), tmp_path / "runs")


@pytest.fixture
def run(tmp_path, surroundings):
    """A run whose stages have each written their file and their receipt."""
    run = load(tmp_path)
    assert jobs.stages(run) == STAGES == pending(run)
    for stage in STAGES:
        do(run, stage)
    assert pending(run) == []
    return run


def do(run, stage, meanwhile=lambda: None):
    receipt = Receipt(run, stage)
    time.sleep(0.01)  # the clock of files is coarser than the processor's
    write_json(run.root / FILES[stage], {"stage": stage})
    meanwhile()
    run.save_config()
    receipt.write()


def test_stages_are_pending_from_the_first_that_changed(run):
    """The file of a stage is seen by the stages that follow as well."""
    for number, stage in enumerate(STAGES):
        write_json(run.root / FILES[stage], {"stage": "another"})
        assert pending(run) == STAGES[number:]
        for later in STAGES[number:]:
            do(run, later)
        assert pending(run) == []


def test_bytes_of_the_same_size_and_time_are_seen(run):
    path = run.root / FILES["finetune"]
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"finetune", b"finetuna"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert pending(run) == STAGES[1:]


def test_a_file_that_is_gone_and_one_that_is_added_are_seen(run):
    (run.root / "seed-1/finetune/model/more.json").write_text("{}")
    assert pending(run) == STAGES[1:]
    do(run, "finetune"), do(run, "attack"), do(run, "report")
    (run.root / FILES["attack"]).unlink()
    assert pending(run) == STAGES[2:]


def test_the_report_shows_files_that_are_added_later(run):
    write_json(run.root / "transfer.json", {})
    assert pending(run) == ["report"]


@pytest.mark.parametrize("override", ["finetune.epochs=9", "attack.examples=3", "on_change=redo"])
def test_another_configuration_is_seen(run, tmp_path, override):
    assert pending(load(tmp_path, override)) == STAGES


@pytest.mark.parametrize("name", ["project/configs/code.py", "model/config.json", "cache/assets/words.txt"])
def test_files_outside_the_run_are_seen(run, tmp_path, name):
    write_json(tmp_path / name, {"another": 1})
    assert pending(run) == STAGES


def test_packages_and_variables_are_seen(run, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setitem(receipts.ENVIRONMENT, "ROBUST_TICKETS_KERNELS", "plain")
        assert pending(run) == STAGES
    package = tmp_path / "site-packages" / "package-1.0.dist-info"
    package.rename(package.with_name("package-1.1.dist-info"))
    assert pending(run) == STAGES


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"surroundings": 1, "files": 2}'])
def test_a_damaged_receipt_counts_for_nothing(run, text):
    (run.root / receipts.FOLDER / "finetune.json").write_text(text)
    assert pending(run) == STAGES[1:]


@pytest.mark.parametrize("name", ["runs/tiny/data/train.jsonl", "model/config.json", "project/configs/code.py"])
def test_what_changes_while_a_stage_runs_leaves_no_receipt(run, tmp_path, name):
    """The stage may have read it before."""
    receipt = run.root / receipts.FOLDER / "finetune.json"
    receipt.unlink()
    do(run, "finetune", lambda: write_json(tmp_path / name, {"another": 1}))
    assert not receipt.exists()


def test_an_attack_that_was_left_out_is_tried_again(run):
    do(run, "attack", lambda: write_json(run.root / "seed-1/attacks/finetune/pso/missing.json", {}))
    assert pending(run) == ["attack", "report"]


PYTHON = """#!/bin/bash
{python} -c 'from configs.contract.run import receipts; print(receipts.ENVIRONMENT)' >>environments
[ "$3" != pending ] || echo half stage
"""


def test_run_sh_gives_its_plan_and_its_stages_the_same_environment(tmp_path):
    """Otherwise a stage's receipt never holds, and a finished experiment starts all its processes again."""
    program = write_program(tmp_path / "python", PYTHON.format(python=sys.executable))
    environment = {**os.environ, "ROBUST_TICKETS_PYTHON": str(program)}
    subprocess.run(["bash", ROOT / "run.sh", "tiny"], cwd=tmp_path, env=environment, check=True)
    assert len(set((tmp_path / "environments").read_text().splitlines())) == 1


def test_plan_and_help_may_stand_anywhere_on_the_command_line(tmp_path):
    program = write_program(tmp_path / "python", '#!/bin/bash\necho "$*" >>commands\n')
    environment = {**os.environ, "ROBUST_TICKETS_PYTHON": str(program)}

    def last_command(*arguments):
        (tmp_path / "commands").unlink(missing_ok=True)
        subprocess.run(["bash", ROOT / "run.sh", *arguments], cwd=tmp_path, env=environment, check=True)
        return (tmp_path / "commands").read_text().splitlines()[-1]

    for words in (["tiny", "seeds=[2]", "--plan"], ["tiny", "--plan", "seeds=[2]"], ["--plan", "tiny", "seeds=[2]"]):
        assert last_command(*words) == "-m configs.contract.run.plan show tiny seeds=[2]"
    assert last_command("--plan") == "-m configs.contract.run.plan show demo"
    for words in (["tiny", "--help"], ["tiny", "-h", "seeds=[2]"]):
        assert last_command(*words) == "-m mindspore_rt --help"
