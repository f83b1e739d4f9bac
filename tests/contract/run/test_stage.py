"""A finished stage knows what made it, and a changed one is refused or made again."""

import hashlib

import msgspec
import pytest

from configs.contract import VERSION
from configs.contract.basics.errors import UserError
from configs.contract.basics.files import atomic_write, file_hash, read_json, write_json
from configs.contract.experiment import schema
from configs.contract.run import stage as stages
from configs.contract.run.code import source_hashes
from configs.contract.run.run_files import Share
from configs.contract.run.stage import Stage, redo_changed, verified
from mindspore_rt.ticket import Ticket


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
    assert read_json(stage().manifest)["results"] == {"accuracy": 0.5}


def test_a_stage_with_other_settings_is_refused(stage):
    """The difference is named, old value and new one."""
    stage().finish({})
    with pytest.raises(UserError, match=r"search\.epochs: 2, now 3.*name=.*delete"):
        stage(search={"epochs": 3, "layers": [1, 1]}).is_done()
    with pytest.raises(UserError, match="settings.seed: 1, now 2"):
        stage(seed=2).is_done()


def test_the_manifest_states_the_version_of_the_project(stage, monkeypatch):
    """A release of other texts leaves results valid: the version is not compared."""
    stage().finish({})
    assert read_json(stage().manifest)["project"] == VERSION
    monkeypatch.setattr(stages, "VERSION", "another")
    assert stage().is_done()


def test_a_clock_that_was_set_back_leaves_a_whole_manifest(stage):
    one = stage()
    one.started += 3600
    one.finish({})
    assert stages.read_manifest(one.directory).seconds == 0


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


@pytest.mark.parametrize("name", ["model", "log_alpha/epoch-01.safetensors"])
def test_an_input_that_a_finished_stage_no_longer_has_is_made_again(tmp_path, name):
    """To run that stage would skip it."""
    made = Stage(tmp_path / "made", "finetune", {}, {})
    made.finish({})
    reader = Stage(tmp_path / "out", "search", {}, {"input": made.directory / name})
    with pytest.raises(UserError, match=f"{name} is missing: delete {made.directory} to redo its stage"):
        reader.begin()


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
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["shard-1-of-2"]
        stage(seed=2).finish({})
        return "made"

    with pytest.raises(UserError, match="settings.seed: 1, now 2.*on_change=redo"):
        redo_changed(schema.load("base"), work)
    redo = schema.load("base", ["on_change=redo"])
    if killed:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(stages.shutil, "rmtree", interrupted)
            redo_changed(redo, work)
    assert redo_changed(redo, work) == "made"
    assert "out was made with other settings (settings.seed: 1, now 2): made again" in capsys.readouterr().out
    assert redo_changed(redo, work) == "skipped"


def test_a_changed_stage_that_is_a_link_is_not_cleared(stage, tmp_path):
    stage().finish({})
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="out is a link, .*; delete the link"):
        redo_changed(schema.load("base", ["on_change=redo"]), stage(seed=2).is_done)
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["manifest.json"]


def test_an_interrupted_stage_never_goes_on_with_other_code(stage, tmp_path, monkeypatch):
    """The error names the files; a finished stage stays finished; one begun before code hashes were kept resumes."""
    begun, progress = stage(), tmp_path / "progress"
    begun.begin(progress)
    progress.write_text("half")
    stage().begin(progress)
    code = read_json(begun.begun)["code"]
    assert code == source_hashes("search")
    other = {**code, "mindspore_rt/training/objectives.py": "edited", "mindspore_rt/new.py": "added"}
    monkeypatch.setattr(stages, "source_hashes", lambda stage: other)
    changed = "out was begun with other code .mindspore_rt/new.py, mindspore_rt/training/objectives.py changed since"
    with pytest.raises(UserError, match=changed):
        stage().begin(progress)
    begun.finish({})
    assert stage().is_done()
    write_json(begun.begun, {name: value for name, value in read_json(begun.begun).items() if name != "code"})
    stage().begin(progress)


class Accuracy(msgspec.Struct):
    accuracy: Share


@pytest.mark.parametrize("value", [None, "0.5", True, float("nan"), float("inf"), [0.5], 1.5])
def test_a_figure_that_is_no_share_is_refused(stage, value):
    stage().finish({"accuracy": 1})
    assert stage().results(Accuracy).accuracy == 1.0
    stage().finish({"accuracy": value})
    with pytest.raises(UserError, match="out/manifest.json.*accuracy.*; delete .*/out to redo its stage"):
        stage().results(Accuracy)


def test_a_setting_that_only_one_side_has_is_a_difference(stage):
    stage(shape="round").finish({})
    with pytest.raises(UserError, match="settings.shape: round, now absent"):
        stage().is_done()
    stage().finish({})
    with pytest.raises(UserError, match="settings.shape: absent, now None"):
        stage(shape=None).is_done()


def test_an_input_is_verified_by_the_manifest_of_the_stage_that_left_it(tmp_path):
    """A folder without a manifest, and a snapshot, have no hash to compare with."""
    train = Stage(tmp_path / "finetune", "finetune", {}, {})
    write_json(train.directory / "model" / "config.json", {})
    write_json(train.directory / "snapshots" / "000010" / "config.json", {})
    train.finish({"model_sha256": file_hash(train.directory / "model")})
    search = Stage(tmp_path / "search", "search", {}, {})
    for epoch in (1, 2):
        atomic_write(tmp_path / "search" / "log_alpha" / f"epoch-{epoch}", f"{epoch}")
    search.finish({"scores_sha256": {"epoch-1": file_hash(tmp_path / "search" / "log_alpha" / "epoch-1")}})
    inputs = {"model": train.directory / "model", "scores": tmp_path / "search" / "log_alpha" / "epoch-1"}
    for path in (*inputs.values(), train.directory / "snapshots" / "000010"):
        assert verified(path) == path
    atomic_write(inputs["scores"], "other")
    write_json(inputs["model"] / "config.json", {"other": 1})
    for path in inputs.values():
        folder = tmp_path / path.relative_to(tmp_path).parts[0]
        with pytest.raises(UserError, match=f"{path} is damaged or was changed after it was made; delete {folder} and"):
            verified(path)
    inputs["scores"].unlink()
    with pytest.raises(UserError, match=f"epoch-1 is missing; delete {tmp_path}/.* and run again"):
        verified(inputs["scores"])


def test_a_stage_made_by_another_version_is_refused(stage, monkeypatch):
    stage().finish({})
    monkeypatch.setattr(stages, "version", lambda name: "0.0")
    with pytest.raises(UserError, match="versions.pyyaml: .*, now 0.0"):
        stage().is_done()


def test_files_that_are_named_like_ours_beside_the_users_are_not_read(tmp_path):
    """Web pages have a manifest.json, and data sets a summary.json: nobody is told to delete the folder they are in."""
    write_json(tmp_path / "manifest.json", {"name": "a web page"})
    write_json(tmp_path / "summary.json", {"mean": 3})
    for path in (tmp_path / "model" / "config.json", tmp_path / "train.jsonl", tmp_path / "robust.safetensors"):
        atomic_write(path, "{}")
    for path in (tmp_path / "model", tmp_path / "train.jsonl"):
        assert stages.current_hash(path) == file_hash(path)
    with pytest.raises(UserError, match="draw it again"):
        Ticket.load(tmp_path / "robust.safetensors")
    atomic_write(tmp_path / "manifest.json", '{"stage": ')  # one of ours, damaged
    with pytest.raises(UserError, match=f"manifest.json, line 1: not valid JSON .*delete {tmp_path} to redo its stage"):
        stages.current_hash(tmp_path / "model")
