"""The run directory: writes are whole or not at all, and a finished stage knows what made it."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from configs import run_dir, schema
from configs.errors import UserError
from configs.run_dir import (
    OWNER, ROOT, RunDir, Stage, append_line, atomic_write, file_hash, only_one, read_json, read_lines, write_json,
    write_lines,
)


def failing(*_):
    raise OSError(28, "No space left on device")


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_atomic_write_replaces(tmp_path):
    path = tmp_path / "new" / "file.txt"
    atomic_write(path, "first é")
    atomic_write(path, b"second")
    assert path.read_bytes() == b"second"
    assert names(path.parent) == ["file.txt"]


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, broken):
    """And no temporary file."""
    path = tmp_path / "file.txt"
    atomic_write(path, "old")
    monkeypatch.setattr(run_dir.os, broken, failing)
    with pytest.raises(OSError):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    atomic_write(path, "old")
    replace, seen = run_dir.os.replace, []

    def watched(source, target):
        seen.append((path.read_text(), open(source).read()))
        replace(source, target)

    monkeypatch.setattr(run_dir.os, "replace", watched)
    atomic_write(path, "new")
    assert seen == [("old", "new")]


def test_lines_come_back(tmp_path):
    path, records = tmp_path / "a.jsonl", [{"text": "line\u2028 separator\nand é"}, {"n": 1}]
    write_lines(path, records)
    append_line(path, {"n": 2})
    assert read_lines(path) == [*records, {"n": 2}]


def test_a_torn_last_line_is_dropped(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"n": 1}\n{"n": 2}\n{"n": 3')
    assert read_lines(path) == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("middle", ['{"n": 2', "[2]", "\udcff", "[" * 100_000])
def test_a_broken_middle_line_is_refused(tmp_path, middle):
    path = tmp_path / "a.jsonl"
    path.write_bytes(f'{{"n": 1}}\n{middle}\n{{"n": 3}}\n'.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match="a.jsonl, line 2"):
        read_lines(path)


@pytest.mark.parametrize("content, expected", [(b'{"a":\n1,}', "line 2"), (b"[1]", "object"), (b"\xff", "UTF-8")])
def test_broken_json_names_file_and_line(tmp_path, content, expected):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=f"a.json.*{expected}"):
        read_json(tmp_path / "a.json")


def test_missing_files_say_what_to_do(tmp_path):
    for read in (read_json, read_lines):
        with pytest.raises(UserError, match="gone.* is missing: run the stage"):
            read(tmp_path / "gone")


def test_file_hash_of_a_file_is_its_sha256(tmp_path):
    content = bytes(range(256)) * 5000  # more than one block
    (tmp_path / "a").write_bytes(content)
    assert file_hash(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_file_hash_of_a_folder_sees_names_and_contents(tmp_path):
    def folder(name, **files):
        for file, content in files.items():
            atomic_write(tmp_path / name / file, content)
        return file_hash(tmp_path / name)

    first = folder("1", a="x", b="y")
    assert folder("2", b="y", a="x") == first
    others = [folder("3", a="y", b="x"), folder("4", a="x", c="y"), folder("5", a="xy", b=""), folder("6", a="x")]
    assert len({first, *others}) == 5


@pytest.mark.parametrize("write, name", [
    (lambda path: append_line(path, {"n": 1}), "metrics.jsonl"),
    (lambda path: atomic_write(path.with_name("file"), "new"), f".file.{os.getpid()}.tmp"),
    (lambda path: run_dir.locked(path).__enter__(), ".lock"),
], ids=["log", "temporary", "lock"])
def test_a_link_is_never_written_through(tmp_path, write, name):
    other, link = tmp_path / "other", tmp_path / "run" / name
    link.parent.mkdir()
    other.write_text("somebody's")
    link.symlink_to(other)
    with pytest.raises(UserError, match=f"{name} is a link, .*; delete the link"):
        write(link)
    assert other.read_text() == "somebody's"


def test_a_run_may_be_a_link_and_links_in_it_are_swept(tmp_path):
    """Their targets stay."""
    run = RunDir(schema.load("base", ["name=mine"]), tmp_path / "runs")
    disk = tmp_path / "disk"
    (disk / "folder").mkdir(parents=True)
    run.root.parent.mkdir()
    run.root.symlink_to(disk)
    (disk / ".model.999999999.tmp").symlink_to(disk / "folder")
    with only_one(run):
        append_line(run.root / "metrics.jsonl", {"n": 1})
    assert names(disk) == [".lock", "folder", "metrics.jsonl"]


@pytest.fixture
def stage(tmp_path):
    (tmp_path / "input.txt").write_text("words")

    def make(**settings):
        values = {"seed": 1, "search": {"epochs": 2, "layers": (1, 1)}, **settings}
        return Stage(tmp_path / "out", "search", values, {"text": tmp_path / "input.txt"}, ("pyyaml",))

    return make


def test_a_stage_is_done_once_finished(stage):
    assert not stage().is_done()
    stage().finish({"accuracy": 0.5})
    assert stage().is_done()
    assert stage().results() == {"accuracy": 0.5}


def test_a_stage_with_other_settings_is_refused(stage):
    """The difference is named, old value and new one."""
    stage().finish({})
    with pytest.raises(UserError, match=r"search\.epochs: 2, now 3.*name=.*delete"):
        stage(search={"epochs": 3, "layers": [1, 1]}).is_done()
    with pytest.raises(UserError, match="settings.seed: 1, now 2"):
        stage(seed=2).is_done()


def test_a_stage_with_changed_input_is_refused(stage, tmp_path):
    stage().finish({})
    (tmp_path / "input.txt").write_text("other words")
    with pytest.raises(UserError, match="inputs.text"):
        stage().is_done()


def test_a_stage_without_its_input_says_so(stage, tmp_path):
    (tmp_path / "input.txt").unlink()
    for ask in (stage().begin, lambda: stage().finish({})):
        with pytest.raises(UserError, match="input.txt is missing: run the stage that writes it first"):
            ask()


def test_a_stage_whose_input_changes_on_the_way_is_not_finished(stage, tmp_path):
    """With the old hash and the new one; a stage that was never begun has nothing to compare with."""
    begun = stage()
    begun.begin()
    (tmp_path / "input.txt").write_text("other words")
    before, after = hashlib.sha256(b"words").hexdigest()[:40], hashlib.sha256(b"other words").hexdigest()[:40]
    with pytest.raises(UserError, match=rf"out was begun with other settings \(inputs.text: {before}, now {after}\)"):
        begun.finish({})
    assert not begun.manifest.exists()
    (tmp_path / "input.txt").write_text("words")
    begun.finish({})
    assert stage().is_done()


@pytest.mark.parametrize("killed", [False, True])
def test_a_changed_stage_is_cleared_and_made_again_when_asked(stage, tmp_path, monkeypatch, capsys, killed):
    """Stages inside it stay, and a clearing that was killed is done again."""
    stage().begin()
    for name in ("model/weights", "shard-1-of-2/manifest.json", "results.jsonl"):
        atomic_write(tmp_path / "out" / name, "old")
    stage().finish({})

    def interrupted(path):
        raise KeyboardInterrupt

    def work():
        if stage(seed=2).is_done():
            return "skipped"
        assert names(tmp_path / "out") == ["shard-1-of-2"]
        stage(seed=2).finish({})
        return "made"

    with pytest.raises(UserError, match="settings.seed: 1, now 2.*on_change=redo"):
        run_dir.redo_changed(schema.load("base"), work)
    redo = schema.load("base", ["on_change=redo"])
    if killed:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(run_dir.shutil, "rmtree", interrupted)
            run_dir.redo_changed(redo, work)
    assert run_dir.redo_changed(redo, work) == "made"
    assert "out was made with other settings (settings.seed: 1, now 2): made again" in capsys.readouterr().out
    assert run_dir.redo_changed(redo, work) == "skipped"


def test_a_changed_stage_that_is_a_link_is_not_cleared(stage, tmp_path):
    stage().finish({})
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="out is a link, .*; delete the link"):
        run_dir.redo_changed(schema.load("base", ["on_change=redo"]), stage(seed=2).is_done)
    assert names(tmp_path / "elsewhere") == ["manifest.json"]


def test_an_interrupted_stage_never_goes_on_with_other_code(stage, tmp_path, monkeypatch):
    """The files that differ are named; one that is whole stays so, and one begun before codes were kept goes on."""
    begun, progress = stage(), tmp_path / "progress"
    begun.begin(progress)
    progress.write_text("half")
    stage().begin(progress)
    code = read_json(begun.begun)["code"]
    assert "mindspore_rt/kernels.cc" in code and "configs/run_dir.py" in code
    assert not any(name.startswith("torch_eval") for name in code)
    assert "torch_eval/packaged/synonyms.npz" in run_dir.source_hashes("torch_eval")
    other = {**code, "mindspore_rt/objectives.py": "edited", "mindspore_rt/new.py": "added"}
    monkeypatch.setattr(run_dir, "source_hashes", lambda half: other)
    changed = "out was begun with other code .mindspore_rt/new.py, mindspore_rt/objectives.py changed since.: put"
    with pytest.raises(UserError, match=changed):
        stage().begin(progress)
    begun.finish({})
    assert stage().is_done()
    write_json(begun.begun, {name: value for name, value in read_json(begun.begun).items() if name != "code"})
    stage().begin(progress)


@pytest.mark.parametrize("value", [None, "0.5", True, float("nan"), float("inf"), [0.5]])
def test_a_figure_that_is_no_number_is_refused(stage, value):
    stage().finish({"accuracy": value, "steps": 3})
    assert stage().number("steps") == 3
    for name in ("accuracy", "absent"):
        with pytest.raises(UserError, match=f"out/manifest.json: states no number {name}; delete .*/out to redo"):
            stage().number(name)


def test_a_stage_made_by_another_version_is_refused(stage, monkeypatch):
    stage().finish({})
    monkeypatch.setattr(run_dir.metadata, "version", lambda name: "0.0")
    with pytest.raises(UserError, match="versions.pyyaml: .*, now 0.0"):
        stage().is_done()


def test_names_under_runs(tmp_path):
    config = schema.load("base", ["name=mine", "sparsities=[0.3,0.05]"])
    run = RunDir(config, tmp_path)
    assert run.split("dev") == tmp_path / "mine/data/dev.jsonl"
    assert run.log_alpha(2, 3) == tmp_path / "mine/seed-2/search/log_alpha/epoch-03.safetensors"
    assert run.ticket(1, "robust-0.30") == tmp_path / "mine/seed-1/tickets/robust-0.30/ticket.safetensors"
    assert run.victims(1) == {
        "finetune": tmp_path / "mine/seed-1/finetune/model",
        "robust-0.30": tmp_path / "mine/seed-1/robust-0.30/model",
        "robust-0.05": tmp_path / "mine/seed-1/robust-0.05/model",
    }


def test_the_chosen_ticket_stands_for_its_sparsity_and_gives_it_to_the_controls(tmp_path):
    overrides = ["methods=[robust,random,lth]", "sparsities=[0.3,0.5]", "choice.epochs=2"]
    run = RunDir(schema.load("base", overrides), tmp_path)
    assert [c.model for c in run.candidates()] == [
        "robust-0.30", "robust-0.30-back-1", "robust-0.50", "robust-0.50-back-1"
    ]
    assert list(run.models()) == ["robust-0.30", "robust-0.50", "random-0.30", "lth-0.30", "lth-0.50"]
    with pytest.raises(UserError, match="choice.json is missing"):
        run.chosen()
    write_json(run.choice, {"chosen": {"model": "robust-0.50-back-1", "sparsity": 0.5, "epochs_back": 1}})
    assert list(run.victims(1)) == ["robust-0.30", "robust-0.50-back-1", "random-0.50", "lth-0.30", "lth-0.50"]


@pytest.fixture
def prepared(tmp_path):
    run = RunDir(schema.load("base", ["name=mine"]), tmp_path)
    write_lines(run.split("test"), [{"sentence": "fine", "label": 1}])
    splits = {"test": {"sha256": file_hash(run.split("test"))}}
    write_json(run.data / "summary.json", {"columns": ["sentence"], "labels": ["bad", "good"], "splits": splits})
    return run


def test_the_summary_states_what_is_needed(prepared):
    assert prepared.summary("columns", "labels")["labels"] == ["bad", "good"]
    assert prepared.whole_split("test") == prepared.split("test")
    with pytest.raises(UserError, match="summary.json: states no attacked; delete .*data and run prepare again"):
        prepared.summary("columns", "attacked")


@pytest.mark.parametrize("value", [None, [], "sentence", [1], {"sentence": 1}, ["sentence", "sentence"]])
def test_a_broken_summary_is_refused(prepared, value):
    write_json(prepared.data / "summary.json", {"columns": value})
    with pytest.raises(UserError, match="summary.json: states .* its columns twice|summary.json: states no columns"):
        prepared.summary("columns")


def test_a_split_that_is_another_or_gone_is_refused(prepared):
    with pytest.raises(UserError, match="dev.jsonl was changed after prepare"):
        prepared.whole_split("dev")
    write_lines(prepared.split("test"), [{"sentence": "fine", "label": 0}])
    with pytest.raises(UserError, match="test.jsonl was changed after prepare; delete .*data and run prepare again"):
        prepared.whole_split("test")
    prepared.split("test").unlink()
    with pytest.raises(UserError, match="test.jsonl was changed"):
        prepared.whole_split("test")


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
        "from configs import schema\nfrom configs.run_dir import RunDir, only_one\n"
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
            patch.setenv(OWNER, str(owner.pid))
            with only_one(run):
                pass
        owner.kill()
    with only_one(run):
        assert f"process {os.getpid()} of" in (run.root / ".lock").read_text()


def test_the_saved_configuration_loads_again(tmp_path):
    config = schema.load("demo", ["search.learning_rate=2e-5"])
    run = RunDir(config, tmp_path)
    run.save_config()
    assert schema.load(str(run.root / "config.yaml")) == config
    assert json.dumps(schema.to_dict(config))


@pytest.mark.parametrize("sparsity, name", [(0.3, "robust-0.30"), (0.05, "robust-0.05"), (0.875, "robust-0.875")])
def test_a_name_states_its_sparsity_exactly(sparsity, name):
    """Two decimals, and as many as it takes: 0.875 and 0.88 are two tickets."""
    assert run_dir.model_name("robust", sparsity) == name and float(name.partition("-")[2]) == sparsity
