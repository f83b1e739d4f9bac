"""The two halves never import each other, the contract imports neither, and no import goes in a circle."""

import ast
import graphlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {
    "configs": {"mindspore", "mindnlp", "torch", "textattack", "transformers", "mindspore_rt", "torch_eval"},
    "mindspore_rt": {"torch", "textattack", "torch_eval"},
    "torch_eval": {"mindspore", "mindnlp", "mindspore_rt"},
}


SHARED = {"mindspore_rt.ticket", "mindspore_rt.ticket.Ticket"}


def imports(path: Path, module_level=False) -> set[str]:
    """Dotted names that a file imports; `from a import b` gives a and a.b."""
    tree, found = ast.parse(path.read_text(encoding="utf-8")), set()
    inside = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if module_level and node in inside:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            found |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
    return found


def files(package: str) -> dict[str, Path]:
    """Dotted module name to file."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_halves_stay_apart(package):
    """Not even inside a function; other processes are started by command line only. The one thing that both read is
    the ticket, which needs NumPy alone."""
    modules = files(package)
    assert len(modules) > 5
    for name, path in modules.items():
        wrong = {i for i in imports(path) - SHARED if i.partition(".")[0] in FORBIDDEN[package]}
        assert not wrong, f"{name} imports {wrong}"


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_import_circles(package):
    """Imports at the top of modules run one way."""
    modules = files(package)
    graph = {name: imports(path, module_level=True) & set(modules) - {package} for name, path in modules.items()}
    assert any(graph.values())
    list(graphlib.TopologicalSorter(graph).static_order())


def test_training_layers_run_downwards():
    """__main__ > stages > trainer > bert > gate, noise: a lower room never imports a higher one, even lazily."""
    order = ("noise", "gate", "bert", "trainer", "stages", "__main__")
    for rank, name in enumerate(order):
        above = {f"mindspore_rt.{higher}" for higher in order[rank + 1 :]}
        assert not imports(files("mindspore_rt")[f"mindspore_rt.{name}"]) & above, name


def test_the_ticket_is_light():
    """It is read by the scoring half: neither framework may come with it."""
    code = "import sys, mindspore_rt.ticket; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"mindspore", "mindnlp", "torch", "transformers"} & set(result.stdout.split())


def test_the_contract_is_light():
    """Reading a configuration loads no framework."""
    code = "import sys, configs.schema, configs.tasks, configs.assets, configs.run_dir; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"mindspore", "mindnlp", "torch", "transformers", "numpy", "pandas", "safetensors"}
    assert not heavy & set(result.stdout.split())


def test_training_loads_no_torch():
    """Not through a library either: tensorboardX would bring it, and boto3, into every training process."""
    code = "import sys, mindspore_rt.stages, mindspore_rt.trainer; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert {"mindspore", "tensorboardX"} <= loaded
    assert not {"torch", "boto3", "transformers", "mindnlp", "textattack"} & loaded


def test_waiting_threads_sleep():
    """OpenMP reads how its threads wait when it is loaded: none may be before the command line has said so."""
    code = "import mindspore_rt.__main__, mindspore_rt.stages"
    environment = {**os.environ, "OMP_DISPLAY_ENV": "verbose"}
    environment.pop("OMP_WAIT_POLICY", None)
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
    assert re.findall(r"GOMP_SPINCOUNT = '(\d+)'", result.stderr) == ["0"]
