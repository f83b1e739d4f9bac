"""An interrupted stage resumes after changes to code that decides no result, and refuses after others."""

import itertools
from pathlib import Path

import pytest

from configs.contract.basics.files import ROOT
from configs.contract.run import code
from configs.contract.run.stage import Changed, Stage

TRAININGS = ("finetune", "search", "prune", "retrain", "control")
ATTACKS = ("attack", "choice")
HARMLESS = (
    "configs/contract/run/estimate.py",
    "configs/contract/run/plan.py",
    "torch_eval/report/wording.py",
    "torch_eval/report/templates/new.html",
    "torch_eval/report/new.py",
    "torch_eval/bench/attacks.py",
    "mindspore_rt/compare/parity_worker.py",
    "configs/sst2.yaml",
)
DECISIVE = {
    TRAININGS: (
        "mindspore_rt/cells/encoder.py",
        "mindspore_rt/cells/kernels.cc",
        "mindspore_rt/data/batches.py",
        "mindspore_rt/training/objectives.py",
        "mindspore_rt/training/new.py",
        "mindspore_rt/ticket.py",
        "configs/contract/inputs/matrices.py",
    ),
    ATTACKS: (
        "torch_eval/recipes/recipes.py",
        "torch_eval/assets/stopwords.txt",
        "torch_eval/assets/synonyms.npz",
        "torch_eval/victim/classifier.py",
        "torch_eval/attack/workers.py",
        "configs/contract/inputs/classifiers.py",
    ),
    (*TRAININGS, *ATTACKS): ("configs/contract/inputs/families.py",),
}
NAMED = {*HARMLESS, *itertools.chain(*DECISIVE.values())}
CASES = [(stage, file) for stages, files in DECISIVE.items() for stage in stages for file in files]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with files of the names above, which a test may edit."""
    for file in (tmp_path / name for name in NAMED):
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.stem != "new":
            file.write_text("as it was\n")
    monkeypatch.setattr(code, "ROOT", tmp_path)
    code.source_hashes.cache_clear()
    yield tmp_path
    code.source_hashes.cache_clear()


def interrupted(name: str, folder: Path) -> Stage:
    """A stage that was begun and left the file that it resumes from."""
    stage = Stage(folder, name, {"seed": 1}, {})
    stage.begin(stage.checkpoint)
    stage.checkpoint.write_text("half")
    return stage


def edit(project: Path, file: str) -> None:
    """Add a line to a file, which may be new."""
    with open(project / file, "ab") as stream:
        stream.write(b"\n# other words\n")
    code.source_hashes.cache_clear()


@pytest.mark.parametrize("name", [*TRAININGS, *ATTACKS])
def test_a_stage_goes_on_after_changes_that_decide_nothing(project, tmp_path, name):
    stage = interrupted(name, tmp_path / "stage")
    for file in HARMLESS:
        edit(project, file)
    stage.begin(stage.checkpoint)


@pytest.mark.parametrize("name, file", CASES)
def test_a_stage_refuses_after_a_change_that_decides_its_result(project, tmp_path, name, file):
    """Only code of its own half counts: the other half is edited first."""
    stage = interrupted(name, tmp_path / "stage")
    for other in (other for stages, files in DECISIVE.items() if name not in stages for other in files):
        edit(project, other)
    stage.begin(stage.checkpoint)
    edit(project, file)
    with pytest.raises(Changed, match=f"begun with other code .{file} changed since.: restore that to resume"):
        stage.begin(stage.checkpoint)


def test_all_that_the_tables_name_is_there():
    assert not [name for name in NAMED if Path(name).stem != "new" and not (ROOT / name).exists()]
    assert not [name for names in code.DECIDES.values() for name in names if not (ROOT / name).exists()]
