"""Files of a run may come from anywhere: none may run code, and none may name a place outside the run."""

import ast
import pickle
from pathlib import Path

import pytest
import torch

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import ROOT, write_json
from configs.contract.experiment import check_config, schema
from configs.contract.run.run_dir import RunDir
from tests.helpers.files import Malicious

FILES = sorted(p for folder in ("configs", "mindspore_rt", "torch_eval") for p in (ROOT / folder).rglob("*.py"))
FORBIDDEN_IMPORTS = {"marshal", "shelve", "dill", "joblib", "cloudpickle"}
UNPICKLERS = {"pickle.load", "pickle.loads", "pickle.Unpickler", "pd.read_pickle", "pandas.read_pickle"}


def calls(path):
    """Dotted name of each call in a file, and the call."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keywords(call) -> dict:
    return {word.arg: getattr(word.value, "value", None) for word in call.keywords}


def offences(path) -> list[str]:
    problems = []
    for name, call in calls(path):
        given, place = keywords(call), f"{path.name}:{call.lineno}: {name}"
        if name == "torch.load" and given.get("weights_only") is not True:
            problems.append(f"{place} without weights_only")
        if name in UNPICKLERS or name in ("eval", "exec"):
            problems.append(place)
        if name in ("np.load", "numpy.load") and given.get("allow_pickle"):
            problems.append(f"{place} with allow_pickle")
        if name.startswith("yaml.") and name not in ("yaml.safe_load", "yaml.safe_dump", "yaml.dump"):
            problems.append(place)
        # Without a word on it, transformers asks at the terminal whether it shall run the code of a folder.
        may_ask = name.startswith("Auto") and name.endswith(".from_pretrained")
        if given.get("trust_remote_code", may_ask) is not False:
            problems.append(f"{place} without trust_remote_code=False")
        if name.endswith(".extractall") and given.get("filter") != "data":
            problems.append(f"{place} without filter='data'")
        if given.get("shell"):
            problems.append(f"{place} through a shell")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            problems += [f"{path.name}:{node.lineno}: imports {name}" for name in names & FORBIDDEN_IMPORTS]
    return problems


def test_nothing_read_is_ever_run():
    assert len(FILES) > 40
    assert [offence for path in FILES for offence in offences(path)] == []


@pytest.mark.parametrize(
    "line",
    [
        "torch.load('a')",
        "torch.load('a', weights_only=False)",
        "pickle.load(f)",
        "yaml.load(t)",
        "yaml.full_load(t)",
        "np.load('a', allow_pickle=True)",
        "f(trust_remote_code=True)",
        "AutoTokenizer.from_pretrained('a')",
        "archive.extractall('.')",
        "import dill",
        "eval('1')",
        "subprocess.run('ls', shell=True)",
    ],
)
def test_the_check_finds_each_of_them(tmp_path, line):
    (tmp_path / "bad.py").write_text(line)
    assert offences(tmp_path / "bad.py")


def test_a_weight_file_with_code_in_it_is_refused_unrun(tmp_path):
    from torch_eval.victim.pytorch_weights import unpickle

    for name, save in (("torch.bin", torch.save), ("plain.bin", lambda o, p: Path(p).write_bytes(pickle.dumps(o)))):
        save({"weight": Malicious(tmp_path / "ran")}, tmp_path / name)
        with pytest.raises(UserError, match=name):
            unpickle(str(tmp_path / name))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../x", "a/b", "/x", "..", ".", ".hidden", "", "a\\b", "c:", "nul\0", "~/x"])
def test_an_experiment_cannot_be_named_out_of_its_folder(name):
    config = schema.Experiment(name=name)
    with pytest.raises(UserError, match="cannot be a folder name"):
        check_config.check_together(config, {"name": "test"})


@pytest.mark.parametrize("model", ["../../../etc", "/etc", "robust-0.30/../..", None, 3])
def test_a_choice_cannot_lead_out_of_the_run(tmp_path, model):
    run = RunDir(schema.load("tiny"), tmp_path)
    write_json(run.choice, {"chosen": {"model": model, "sparsity": 0.3, "epochs_back": 0}})
    expected = "states none of this experiment's tickets" if isinstance(model, str) else "chosen.model: expected text"
    with pytest.raises(UserError, match=f"choice.json: {expected}"):
        run.chosen()
    with pytest.raises(UserError):
        run.victims(1)


def test_no_archive_is_unpacked_to_the_names_in_it():
    """Members are read by the name that the code knows."""
    assert not [name for path in FILES for name, _ in calls(path) if name.endswith((".extractall", ".extract"))]
