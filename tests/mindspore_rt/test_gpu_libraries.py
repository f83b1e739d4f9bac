"""requirements-gpu.txt brings every library that MindSpore's GPU plugin asks the dynamic linker for."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from configs.contract.basics.files import ROOT
from tests.helpers.files import write_program

DRIVER = {"libcuda.so.1", "libnvidia-ml.so.1"}  # come with NVIDIA's kernel module
SYSTEM = re.compile(r"lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+|gomp|z|util)\.so|ld-linux")


def needed(library):
    listing = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"\(NEEDED\).*\[(.+)\]", listing))


def test_the_wheels_hold_what_the_gpu_plugin_needs():
    folders = [Path(folder) / "nvidia" for folder in sys.path]
    cuda = next((folder for folder in folders if (folder / "cublas" / "lib" / "libcublas.so.11").is_file()), None)
    if not cuda:
        pytest.skip("requirements-gpu.txt is not installed")
    own = Path(find_spec("mindspore").submodule_search_locations[0]) / "lib"
    plugin = own / "plugin"
    libraries = [
        plugin / "libmindspore_gpu.so.11.6",
        *(plugin / "gpu").glob("*.so*"),
        *(plugin / "gpu11.6").glob("*.so*"),
    ]
    there = {path.name for path in [*own.rglob("*.so*"), *cuda.glob("*/lib/*.so*")]} | DRIVER
    wanted = {name for library in libraries for name in needed(library)}
    assert "libcublas.so.11" in wanted
    assert not {name for name in wanted - there if not SYSTEM.match(name)}


@pytest.mark.parametrize("before", [{"LD_LIBRARY_PATH": "/before"}, {}], ids=["set", "unset"])
def test_run_sh_lets_mindspore_find_the_wheels(tmp_path, before):
    """The library path holds their folders before Python starts, and no empty part, which is the working directory."""
    libraries = tmp_path / "lib" / "python3.11" / "site-packages" / "nvidia"
    for name in ("cublas/lib/libcublas.so.11", "cudnn/lib/libcudnn.so.8"):
        (libraries / name).parent.mkdir(parents=True)
        (libraries / name).touch()
    program = tmp_path / "bin" / "python"
    program.parent.mkdir()
    write_program(program, '#!/bin/bash\necho "$LD_LIBRARY_PATH"\n')
    environment = {"PATH": "/usr/bin:/bin", "ROBUST_TICKETS_PYTHON": str(program), **before}
    result = subprocess.run(["bash", ROOT / "run.sh", "help"], env=environment, capture_output=True, text=True)
    path = result.stdout.splitlines()[-1].split(":")
    wheels = [libraries / "cublas" / "lib", libraries / "cudnn" / "lib"]
    assert all(path) and [Path(folder).resolve() for folder in path] == wheels + list(map(Path, before.values()))
