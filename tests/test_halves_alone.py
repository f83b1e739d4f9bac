"""Each half runs with the packages of its own requirements file: all others are hidden, as if not installed."""

import json
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from configs.contract.basics import environment
from configs.contract.basics.files import ROOT
from tests.helpers.commands import run_python

# Runs in a fresh process: hides packages from Python's search for modules, then imports every module of a package.
IMPORT_ALL = """
import importlib, json, os, pathlib, sys
from importlib.machinery import PathFinder

package, hidden = json.loads(sys.argv[1])
hidden = set(hidden)

class Installed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Installed
for path in sorted(pathlib.Path(package).rglob("*.py")):
    importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
"""


def installed_with(path: Path) -> set[str]:
    """The distributions that `pip install -r path` brings: those it names, and all that they need."""
    distributions, queue = set(), [(name, "") for name, _ in environment.requirements(path)]
    while queue:
        name, extra = queue.pop()
        if (canonicalize_name(name), extra) in distributions:
            continue
        distributions.add((canonicalize_name(name), extra))
        for need in map(Requirement, metadata.requires(name) or []):
            if not need.marker or need.marker.evaluate({"extra": extra}):
                queue += [(need.name, wanted) for wanted in ("", *need.extras)]
    return {name for name, _ in distributions}


@pytest.mark.parametrize("package, file", [("mindspore_rt", "training"), ("torch_eval", "scoring")])
def test_imports_with_its_own_packages_alone(package, file, tmp_path):
    own = installed_with(ROOT / f"requirements-{file}.txt")
    hidden = {
        module
        for module, distributions in metadata.packages_distributions().items()
        if not own & set(map(canonicalize_name, distributions))
    }
    other = {"mindspore_rt": {"torch", "transformers", "textattack", "mindnlp"}, "torch_eval": {"mindspore", "mindnlp"}}
    assert other[package] <= hidden
    stopwords = tmp_path / "corpora" / "stopwords" / "english"  # `import textattack` fails without it
    stopwords.parent.mkdir(parents=True)
    stopwords.write_text("the")
    tmp_path.chmod(0o700)  # NLTK refuses data that a group may write
    run_python(IMPORT_ALL, json.dumps([package, sorted(hidden)]), NLTK_DATA=str(tmp_path))
