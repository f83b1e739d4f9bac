"""The comparison with the official code.

    python -m torch_eval parity OFFICIAL_DIR

Three implementations compute the same case: a checkout of the official repository, our restatement of it in PyTorch
(`restatement.py`), and the MindSpore half, in a process of its own. Weights, data and noise are the same; dropout is
off. Every quantity is compared with the checkout in float64. The checkout's own error in float32 says how close float32
can come. One float32 run says so only by chance, because Adam divides by gradients near zero. So two more runs start
from weights that are moved by one rounding (2^-23).
"""

from __future__ import annotations

import functools
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file as save_tensors

from configs.contract.basics.errors import UserError, command
from configs.contract.basics.files import ROOT, atomic_write, write_json
from configs.contract.basics.processes import run_module
from configs.contract.run.cli import Parser
from configs.contract.run.run_dir import RUNS
from torch_eval.reference.official_checkout import Checkout
from torch_eval.reference.parity_case import write_case
from torch_eval.reference.parity_rows import MOVED, compare, report
from torch_eval.reference.parity_sides import SHIMS, Official, ParityCase, Restated


def run_mindspore(case: Path, out: Path, compat: str, kernels: str) -> None:
    """Run the MindSpore half in its own process.

    Args:
        case: Folder of the case.
        out: Folder for its results, which is made.
        compat: `official` or `paper`: the settings to follow.
        kernels: `fused` or `plain`.

    Raises:
        UserError: It failed; repeats its error.
    """
    out.mkdir()
    environment = {"ROBUST_TICKETS_KERNELS": "plain" if kernels == "plain" else "", "GLOG_v": "3"}
    try:
        run_module("mindspore_rt.compare.parity_worker", [str(case), str(out), compat], environment, ROOT)
    except UserError as error:
        raise UserError(f"the MindSpore half failed: {error}") from None


def run_torch(side: Restated, out: Path) -> None:
    """Write the results of a PyTorch side into `out`, which is made."""
    out.mkdir()
    for name, arrays in side.rows():
        save_tensors({key: tensor.contiguous() for key, tensor in arrays.items()}, out / f"{name}.safetensors")


def run_all(folder: Path, compat: str, kernels: str, checkout: Checkout | None) -> None:
    """Write the results of each side beside the case.

    Args:
        folder: Holds the folder `case`, and gets one for each side.
        compat: `official` or `paper`: the settings that the MindSpore half follows.
        kernels: `fused` or `plain`.
        checkout: Of the official repository; None to let the restatement take its place.
    """
    print("  MindSpore half ...", flush=True)
    run_mindspore(folder / "case", folder / "ours", compat, kernels)
    case = ParityCase(folder / "case", folder / "ours")
    reference = functools.partial(Official, checkout=checkout) if checkout else Restated
    sides = {
        "official32": reference(case, torch.float32),
        "official64": reference(case, torch.float64),
        "restated64": Restated(case, torch.float64),
        **{name: reference(case.moved(seed), torch.float32) for seed, name in enumerate(MOVED)},
    }
    for name, side in sides.items():
        print(f"  {name} ...", flush=True)
        run_torch(side, folder / name)


def parser() -> Parser:
    """Return the command line."""
    result = Parser(
        prog="python -m torch_eval parity",
        description="Compare the MindSpore half with a checkout of the official repository (ruizheng20/robust_ticket)\n"
        "on the same weights, data and noise. Writes parity.md and parity.json.",
    )
    add = result.add_argument
    add("official", type=Path, metavar="OFFICIAL_DIR", help="the checkout; it is not changed")
    add(
        "--model",
        type=Path,
        metavar="DIR",
        help="Hugging Face directory of a BERT classifier (default: 12 narrow layers, random weights); the official "
        "draw needs 12 layers, its rows are left out for others",
    )
    add(
        "--compat",
        choices=("official", "paper"),
        default="official",
        help="settings of the MindSpore half; under `paper`, rows that differ name the reason (default: %(default)s)",
    )
    add(
        "--kernels",
        choices=("plain", "fused"),
        default="plain",
        help="MindSpore's primitives, or our kernels where they can be built (default: %(default)s)",
    )
    add("--steps", type=int, default=10, help="steps of the short search (default: %(default)s)")
    add("--seed", type=int, default=1, help="of weights, data and noise (default: %(default)s)")
    add("--out", type=Path, default=RUNS / "parity", metavar="DIR", help="where to write (default: runs/parity)")
    return result


@command
def main(arguments: list[str]) -> int:
    """Run the comparison; 1 if a row fails."""
    options = parser().parse_args(arguments)
    if options.steps < 3:
        raise UserError(f"--steps {options.steps}: give at least 3; the learning rate is 0 in the first")
    checkout = Checkout(options.official)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "case").mkdir()
        write_case(folder / "case", options.model, options.steps, options.seed)
        run_all(folder, options.compat, options.kernels, checkout)
        rows = compare(folder, options.compat)
    about = {
        "compat": options.compat,
        "kernels": options.kernels,
        "steps": options.steps,
        "seed": options.seed,
        "model": str(options.model or "12 narrow layers, random weights"),
    }
    text = report(rows, about)
    atomic_write(options.out / "parity.md", text)
    write_json(options.out / "parity.json", {**about, "shims": SHIMS, "rows": [asdict(row) for row in rows]})
    print(text + f"\nwritten to {options.out}")
    return int(any(row.verdict.startswith("FAIL") for row in rows))
