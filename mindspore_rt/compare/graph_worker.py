"""The MindSpore worker of `python -m torch_eval bench device`: what the device form of a step asks for.

    python -m mindspore_rt.compare.graph_worker CASE GPU|Ascend

The step is built as on that device, and its graphs are compiled on the CPU, but no kernel is launched. The counts
are those of the graphs that MindSpore dumps (`graph_counts.py`). One JSON object goes to standard output: the bytes of
all `parameters`, and for each of `graphs` its `name` and the counts of one run.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from unittest.mock import patch

os.environ["MS_SIMULATION_LEVEL"] = "1"  # compile, and launch nothing
os.environ["MS_DEV_DUMP_IR_PASSES"] = "validate"  # dumped after this pass alone, when no optimisation follows

import mindspore as ms

from configs.contract.basics import bench_case
from mindspore_rt.cells import backend
from mindspore_rt.cells.backend import Backend
from mindspore_rt.cells.encoder_config import EncoderConfig
from mindspore_rt.compare import graph_counts, step_worker


def main() -> None:
    """Count one case."""
    case, (form,), answers = bench_case.start()
    shapes = EncoderConfig.from_dict(case.config(), "the bench's case").prunable().values()
    scores = {math.prod(shape) for shape in shapes} if case.task == "search" else set()
    with tempfile.TemporaryDirectory() as folder, patch.object(backend, "current", lambda: Backend(form)):
        ms.set_context(save_graphs=1, save_graphs_path=folder)
        step_worker.ours(case)[0]()
        graphs = graph_counts.read_graphs(Path(folder), scores)
    parameters = {name: size for graph in graphs for name, size in graph.parameters.items()}
    counts = [{"name": graph.name, **graph.counts} for graph in graphs]
    answers.write(json.dumps({"parameters": sum(parameters.values()), "graphs": counts}) + "\n")


if __name__ == "__main__":
    main()
