"""The two halves never import each other, the contract imports neither, and no import goes in a circle."""

import ast
import graphlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from configs.contract.basics.files import ROOT
from configs.contract.run import code
from tests.helpers.commands import run_python

# What each folder may import, beside its own modules. This table is the architecture: arrows point down the list.
ARROWS = {
    "configs.contract": (),  # in the other rows: all of its folders
    "configs.contract.basics": (),
    "configs.contract.inputs": ("configs.contract.basics",),
    "configs.contract.experiment": ("configs.contract.basics", "configs.contract.inputs"),
    "configs.contract.run": ("configs.contract",),
    "mindspore_rt.units": ("configs.contract",),
    "mindspore_rt.ticket": ("configs.contract", "mindspore_rt.units"),
    "mindspore_rt.launch": ("configs.contract",),
    "mindspore_rt.parallel": ("mindspore_rt.launch",),
    "mindspore_rt.device": ("configs.contract", "mindspore_rt.launch", "mindspore_rt.parallel"),
    "mindspore_rt.cells": ("configs.contract",),
    "mindspore_rt.formats": ("configs.contract", "mindspore_rt.ticket", "mindspore_rt.cells"),
    "mindspore_rt.data": ("configs.contract", "mindspore_rt.cells", "mindspore_rt.formats"),
    "mindspore_rt.training": ("configs.contract", "mindspore_rt.parallel", "mindspore_rt.cells", "mindspore_rt.data"),
    "mindspore_rt.stages": (
        "configs.contract",
        "mindspore_rt.units",
        "mindspore_rt.ticket",
        "mindspore_rt.parallel",
        "mindspore_rt.device",
        "mindspore_rt.cells",
        "mindspore_rt.formats",
        "mindspore_rt.data",
        "mindspore_rt.training",
    ),
    "mindspore_rt.compare": (
        "configs.contract",
        "mindspore_rt.ticket",
        "mindspore_rt.device",
        "mindspore_rt.cells",
        "mindspore_rt.formats",
        "mindspore_rt.data",
        "mindspore_rt.training",
    ),
    "mindspore_rt.__main__": (
        "configs.contract",
        "mindspore_rt.launch",
        "mindspore_rt.device",
        "mindspore_rt.formats",
        "mindspore_rt.stages",
    ),
    "torch_eval.assets": ("configs.contract",),
    "torch_eval.recipes": ("configs.contract", "torch_eval.assets"),
    "torch_eval.victim": ("configs.contract",),
    "torch_eval.attack": ("configs.contract", "torch_eval.recipes", "torch_eval.victim"),
    "torch_eval.report": ("configs.contract", "mindspore_rt.ticket", "torch_eval.attack"),
    "torch_eval.library": ("configs.contract", "torch_eval.victim", "torch_eval.attack", "torch_eval.report"),
    "torch_eval.reference": ("configs.contract",),
    "torch_eval.bench": (
        "configs.contract",
        "torch_eval.assets",
        "torch_eval.recipes",
        "torch_eval.attack",
        "torch_eval.reference",
    ),
    "torch_eval.__main__": (
        "configs.contract",
        "torch_eval.assets",
        "torch_eval.attack",
        "torch_eval.report",
        "torch_eval.library",
        "torch_eval.reference",
        "torch_eval.bench",
    ),
}
FRAMEWORKS = {
    "configs": {"mindspore", "mindnlp", "torch", "textattack", "transformers"},
    "mindspore_rt": {"torch", "textattack"},
    "torch_eval": {"mindspore", "mindnlp"},
}


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, inside functions too; `from a import b` gives a and a.b."""
    tree, names = ast.parse(path.read_text(encoding="utf-8")), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            names |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
    return names


def modules() -> dict[str, Path]:
    """Dotted name to file, of all modules of the three packages."""
    names = {}
    for package in FRAMEWORKS:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def folder_of(module: str) -> str | None:
    """The row of the table that a module belongs to; None for a package that holds nothing itself."""
    return max(rows_of(module), key=len, default=None)


def rows_of(module: str) -> set[str]:
    """All rows of the table that a module belongs to: its folder's, and those of the folders around it."""
    return {folder for folder in ARROWS if module == folder or module.startswith(f"{folder}.")}


def arrows() -> set[tuple[str, str]]:
    """(module, module that it imports), within the three packages."""
    paths = modules()
    return {(name, target) for name, path in paths.items() for target in imports(path) & set(paths) if target != name}


def test_every_module_stands_in_the_table():
    rooms = {name for name in modules() if folder_of(name) is None}
    assert rooms == {"configs", "mindspore_rt", "torch_eval"}


def test_imports_between_folders_follow_the_table():
    """Not even inside a function. The halves never import each other; what both read is the contract and the ticket."""
    across = {(folder_of(a), b) for a, b in arrows() if folder_of(b) not in (folder_of(a), None)}
    wrong = sorted((a, b) for a, b in across if not rows_of(b) & set(ARROWS[a]))
    assert not wrong
    used = {(a, row) for a, b in across for row in rows_of(b)}
    assert not sorted((a, b) for a, allowed in ARROWS.items() for b in allowed if (a, b) not in used), "unused arrow"


def test_the_table_itself_runs_downwards():
    order = list(ARROWS)
    assert all(order.index(target) < order.index(folder) for folder, targets in ARROWS.items() for target in targets)


def test_no_import_circles():
    """Inside folders too, and through imports inside functions."""
    graph = {}
    for module, target in arrows():
        graph.setdefault(module, set()).add(target)
    list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("listed", [code.TRAINING, code.ATTACKING])
def test_what_decisive_code_imports_of_its_half_is_decisive_too(listed):
    """So that an interrupted stage does not resume after a change of it. How workers are started decides nothing."""
    names = tuple(name.removesuffix(".py").replace("/", ".") for name in listed)
    own = {module for module in modules() if module.startswith(names)}
    halves = {module.partition(".")[0] for module in own} - {"configs"}
    imported = {target for module, target in arrows() if module in own and target.partition(".")[0] in halves}
    assert not sorted(imported - own - {"mindspore_rt", "torch_eval", "mindspore_rt.launch"})


@pytest.mark.parametrize("package", FRAMEWORKS)
def test_frameworks_stay_on_their_side(package):
    for name, path in modules().items():
        if name.partition(".")[0] == package:
            wrong = {i for i in imports(path) if i.partition(".")[0] in FRAMEWORKS[package]}
            assert not wrong, f"{name} imports {wrong}"


def test_scripts_find_what_tests_share(tmp_path):
    """Although some environments have a package of another project that is named `tests`."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").touch()
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import tests.helpers.commands"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=True)


def test_no_module_is_longer_than_400_lines():
    long = {name: n for name, path in modules().items() if (n := len(path.read_text().splitlines())) > 400}
    assert not long


def test_every_folder_says_what_belongs_there():
    for path in {path.parent for path in modules().values()}:
        assert ast.get_docstring(ast.parse((path / "__init__.py").read_text())), path


def test_the_ticket_is_light():
    """It is read by the scoring half: neither framework may come with it."""
    code = "import sys, mindspore_rt.ticket; print(*sys.modules)"
    assert not {"mindspore", "mindnlp", "torch", "transformers"} & set(run_python(code).stdout.split())


def test_the_contract_is_light():
    """Reading a configuration loads no framework."""
    modules = "configs.contract.inputs.assets, configs.contract.run.run_dir, configs.contract.inputs.tasks"
    code = f"import sys, {modules}; print(*sys.modules)"
    heavy = {"mindspore", "mindnlp", "torch", "transformers", "numpy", "pandas", "safetensors"}
    assert not heavy & set(run_python(code).stdout.split())


def test_what_leads_the_attacks_is_light():
    """The processes that attack load PyTorch and transformers. The one that waits for them would take ten seconds."""
    modules = "torch_eval.attack.choose, torch_eval.report.build, torch_eval.report.watch"
    code = f"import sys, {modules}; print(*sys.modules)"
    assert not {"torch", "transformers", "textattack", "sklearn"} & set(run_python(code).stdout.split())


@pytest.fixture(scope="module")
def training_half():
    """A process that has loaded all that trains: its modules, and what OpenMP says of its settings."""
    code = "import sys, mindspore_rt.__main__, mindspore_rt.stages.runner; print(*sys.modules)"
    environment = {**os.environ, "OMP_DISPLAY_ENV": "verbose"}
    environment.pop("OMP_WAIT_POLICY", None)
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)


def test_training_loads_no_torch(training_half):
    """Not through a library either: TensorBoard's writers, for example, load it where it is installed."""
    loaded = set(training_half.stdout.split())
    assert {"mindspore", "mindspore_rt.training.trainer"} <= loaded
    assert not {"torch", "boto3", "transformers", "mindnlp", "textattack"} & loaded


def test_waiting_threads_sleep(training_half):
    """OpenMP reads how its threads wait when it is loaded: none may be before the command line has said so."""
    assert re.findall(r"GOMP_SPINCOUNT = '(\d+)'", training_half.stderr) == ["0"]
