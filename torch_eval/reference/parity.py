"""The comparison with the official code: python -m torch_eval parity OFFICIAL_DIR

Three implementations compute the same case: a checkout of the official repository, our restatement of it in PyTorch
(`official.py`), and the MindSpore half, in a process of its own. Weights, data and noise are the same, dropout is off.
Every quantity is held against the checkout in float64; how far the checkout in float32 is from that says how far
float32 can be expected to be. One such run is a chance draw, where Adam divides by gradients near zero: two more start
from weights moved by one rounding (2^-23).
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_tensors
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from configs.contract.errors import UserError, command
from configs.contract.files import ROOT, atomic_write, write_json
from configs.contract.run_dir import RUNS
from torch_eval.reference import restatement
from torch_eval.reference.official_checkout import Checkout
from torch_eval.reference.parity_sides import SHIMS, Case, Official, Restated

FLOOR, FACTOR = 1e-5, 3.0  # a row passes within the greater of the floor and so many times the official float32's error
MOVED = ("moved1", "moved2")  # the official float32 from weights moved by one rounding
RESTATED = 1e-9  # float64 against float64
SWAPS = 1e-3  # share of weights in which tickets from two searches may differ
SEARCH = {
    "learning_rate": 0.1,
    "weight_decay": 1e-6,
    "warmup": 0.1,
    "clip_norm": 1.0,
    "ascent_steps": 3,
    "ascent_rate": 0.03,
    "initial_norm": 0.05,
    "max_norm": 0.0,
    "l0_weight": 0.5,
    "l0_start": 0.1,
    "l0_ramp": 0.3,
}
RETRAIN = {"learning_rate": 2e-3, "weight_decay": 0.01, "warmup": 0.1}
SMALL = {
    "vocab_size": 200,
    "hidden_size": 32,
    "num_hidden_layers": 12,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
}
TOTAL_STEPS, RETRAIN_STEPS = 33, 15  # no multiples of ten: a rounded warm-up would show
BATCH, LENGTH = 4, 12
TITLES = {
    "logits": "deterministic masked model, logits",
    "shared": "the same, scores shared by neurons",
    "gates": "sampled gates, same noise",
    "l0_term": "L0 term",
    "l0_gradient": "gradient of the L0 term",
    "start": "perturbation, start",
    "ascent": "perturbation after ascent {}",
    "gradient": "mask gradients, all passes",
    "clipped": "mask gradients, clipped",
    "norms": "gradient norm that clips, every step",
    "scores": "scores, update of {} steps",
    "lambda": "lambda over a whole run",
    "rate": "learning rate over a whole run",
    "draw": "draw at {}",
    "retrained": "retraining, update of the weights",
    "retrained_logits": "retrained model, logits",
    "ticket": "tickets at 30% from the two searches",
}
# Rows that `compat: paper` moves, and the deviations of the official code that they come from.
DEVIATIONS = {
    1: "lambda rises three times too fast",
    2: "stale gradients of the weights count in the clip",
    3: "token types are dropped in the adversarial pass",
    9: "no clip in retraining",
    13: "the L0 term is a mean of the matrices' means",
    14: "the draw ranks float32 sigmoids",
}
COME_FROM = {
    "l0_term": (13,),
    "l0_gradient": (13,),
    "ascent": (3,),
    "gradient": (3,),
    "clipped": (2, 3),
    "norms": (2, 3),
    "scores": (1, 2, 3, 13),
    "lambda": (1,),
    "draw": (14,),
    "retrained": (9,),
    "retrained_logits": (9,),
    "ticket": (1, 2, 3, 13),
}


# --- the case --------------------------------------------------------------------------------------------------


def write_case(folder: Path, model: Path | None, steps: int, seed: int) -> None:
    """Model, scores, a ticket, batches and settings. Without `model`: 12 narrow layers of random weights."""
    torch.manual_seed(seed)
    if model is None:
        network = BertForSequenceClassification(BertConfig(**SMALL, initializer_range=0.15))
    else:
        network = _load(model)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if model is None and name.endswith("bias"):  # they start at 0, where a forgotten one would not show
                parameter.normal_(std=0.1)
    network.config.save_pretrained(folder)
    weights = {name: p.detach().float().contiguous() for name, p in network.named_parameters()}
    save_tensors(weights, folder / "model.safetensors")
    shapes = {name: p.shape for name, p in restatement.MaskedBert(network.config).log_alpha().items()}
    draw = np.random.default_rng(seed)
    scores = {n: draw.normal(math.log(5), 1.0, s).astype(np.float32) for n, s in shapes.items()}
    # Scores as a long search leaves them: many of their float32 sigmoids tie.
    grown = {n: draw.normal(6.0, 3.0, s).astype(np.float32) for n, s in shapes.items()}
    ticket = restatement.draw({n: torch.tensor(s) for n, s in scores.items()}, 0.3)
    save_file(scores, folder / "scores.safetensors")
    save_file(grown, folder / "grown.safetensors")
    # Neuron granularity: (hidden, 1) weights have one score.
    hidden = network.config.hidden_size
    save_file({n: s[: len(s) // hidden].copy() for n, s in scores.items()}, folder / "shared.safetensors")
    save_tensors({n: m.to(torch.uint8) for n, m in ticket.items()}, folder / "ticket.safetensors")
    save_file(_batches(draw, network.config, steps), folder / "batches.safetensors")
    settings = {
        "search": SEARCH,
        "total_steps": max(TOTAL_STEPS, steps),
        "seed": seed,
        "retrain": RETRAIN,
        "retrain_steps": min(4, steps),
        "retrain_total_steps": RETRAIN_STEPS,
        "sparsities": [i / 10 for i in range(1, 10)],
    }
    write_json(folder / "case.json", settings)


def _load(model: Path):
    try:
        network = AutoModelForSequenceClassification.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise UserError(f"--model {model}: {str(error).splitlines()[0]}; give a Hugging Face directory") from None
    if type(network) is not BertForSequenceClassification:
        raise UserError(f"--model {model}: a {type(network).__name__}, not a BERT classifier")
    return network


def _batches(draw: np.random.Generator, config: BertConfig, steps: int) -> dict[str, np.ndarray]:
    """Pairs of sentences of all lengths: the second half of each is its second segment."""
    shape = (steps, BATCH, LENGTH)
    lengths = draw.integers(LENGTH // 2, LENGTH + 1, (steps, BATCH, 1))
    mask = np.arange(LENGTH) < lengths
    return {
        "input_ids": draw.integers(1, config.vocab_size, shape) * mask,
        "attention_mask": mask.astype(np.int64),
        "token_type_ids": (mask & (np.arange(LENGTH) >= lengths // 2)).astype(np.int64),
        "labels": draw.integers(0, config.num_labels, shape[:2]),
    }


# --- running the three sides -----------------------------------------------------------------------------------


def run_mindspore(case: Path, out: Path, compat: str, kernels: str) -> None:
    """The MindSpore half in its own process. Raises `UserError` with its last line if it fails."""
    out.mkdir()
    command = [sys.executable, "-m", "mindspore_rt.compare.parity_worker", str(case), str(out), compat]
    environment = {**os.environ, "ROBUST_TICKETS_KERNELS": "plain" if kernels == "plain" else "", "GLOG_v": "3"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        reason = next((line for line in reversed(lines) if "Error" in line or line.startswith("error:")), lines[-1])
        raise UserError(f"the MindSpore half failed: {reason.removeprefix('error: ')}")


def run_torch(side: Restated, out: Path) -> None:
    out.mkdir()
    for name, arrays in side.rows():
        save_tensors({key: tensor.contiguous() for key, tensor in arrays.items()}, out / f"{name}.safetensors")


def run_all(folder: Path, compat: str, kernels: str, checkout: Checkout | None) -> None:
    """Leaves the results of each side beside the case in `folder`.

    Without a checkout, the restatement stands in for it.
    """
    print("  MindSpore half ...", flush=True)
    run_mindspore(folder / "case", folder / "ours", compat, kernels)
    case = Case(folder / "case", folder / "ours")
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


# --- comparing -------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """One quantity. Differences are against the official code in float64: relative l2, and the largest of one entry;
    for masks the share of weights that differ. `official32` is the official code's own in float32, `moved` the greater
    of its two from moved weights."""

    name: str
    title: str
    entries: int
    restated: float
    official32: float
    moved: float
    ours: float
    largest: float
    verdict: str = ""
    note: str = ""


def compare(folder: Path, compat: str) -> list[Row]:
    """One row for each quantity that the official side left, and one for the tickets of the two searches."""
    case = Case(folder / "case", folder / "ours")
    names = sorted((p.stem for p in (folder / "official64").iterdir()), key=_order)
    rows = [_draw_row(folder, case, n) if n.startswith("draw") else _value_row(folder, case, n) for n in names]
    last = max((n for n in names if n.startswith("scores_")), key=lambda n: int(n.partition("_")[2]))
    rows.append(_ticket_row(folder, last))
    for row in rows:
        row.verdict = _verdict(row, compat)
    return rows


SIDES = ("restated64", "official32", *MOVED, "ours")


def _figures(of: dict[str, float]) -> tuple[float, ...]:
    return of["restated64"], of["official32"], max(of[name] for name in MOVED), of["ours"]


def _read(folder: Path, side: str, name: str) -> dict[str, np.ndarray]:
    return load_file(folder / side / f"{name}.safetensors")


def _value_row(folder: Path, case: Case, name: str) -> Row:
    reference = _read(folder, "official64", name)
    base = {}
    if name.startswith("scores"):  # the update counts: next to the start it would not show
        base = {n: s.numpy() for n, s in case.scores.items()}
    if name == "retrained":
        base = {n: (w * case.masks[n] if n in case.masks else w).numpy() for n, w in case.weights.items()}
    updates = {n: _shaped(a, a) - _shaped(base.get(n, 0), a) for n, a in reference.items()}
    size = math.sqrt(sum(float((u * u).sum()) for u in updates.values()))
    differences = {
        side: {n: _shaped(found[n], a) - _shaped(a, a) for n, a in reference.items()}
        for side in SIDES
        for found in [_read(folder, side, name)]
    }
    relative = {
        side: math.sqrt(sum(float((d * d).sum()) for d in parts.values())) / size for side, parts in differences.items()
    }
    largest = max(float(np.abs(d).max()) for d in differences["ours"].values())
    entries = sum(a.size for a in reference.values())
    row = Row(name, _title(name), entries, *_figures(relative), largest)
    if name == "gates":
        flips = [_flips(_read(folder, side, name), reference) for side in ("ours", "official32")]
        row.note = f"settled in one and not in the other: {flips[0]} (official float32: {flips[1]})"
    return row


def _shaped(array, like: np.ndarray) -> np.ndarray:
    """float64, of the shape of `like`: the official scores have two axes more."""
    return np.broadcast_to(np.asarray(array, np.float64).reshape(like.shape if np.ndim(array) else ()), like.shape)


def _flips(found: dict, reference: dict) -> int:
    def settled(mask):
        return (mask == 0) | (mask == 1)

    return sum(int((settled(found[n]) != settled(a)).sum()) for n, a in reference.items())


def _draw_row(folder: Path, case: Case, name: str) -> Row:
    """Masks must agree but for the weights whose float32 sigmoids tie, give or take the last bit, at the threshold."""
    reference = {n: m.astype(bool) for n, m in _read(folder, "official64", name).items()}
    sigmoid = {n: torch.sigmoid(case.grown[n]).numpy() for n in reference}
    threshold = max(float(sigmoid[n][~m].max(initial=0)) for n, m in reference.items())
    tied = {n: np.abs(s - threshold) <= 2 * np.spacing(np.float32(threshold)) for n, s in sigmoid.items()}
    total, shares, outside = sum(m.size for m in reference.values()), {}, 0
    for side in SIDES:
        different = {n: _read(folder, side, name)[n].astype(bool) ^ m for n, m in reference.items()}
        shares[side] = sum(int(d.sum()) for d in different.values()) / total
        outside = sum(int((d & ~tied[n]).sum()) for n, d in different.items())  # of ours, the last
    count = sum(int(t.sum()) for t in tied.values())
    row = Row(name, _title(name), total, *_figures(shares), outside / total)
    differ = round(shares["ours"] * total)
    row.note = f"{count} scores tie at the threshold; {differ} differ, {outside} of them elsewhere"
    return row


def _ticket_row(folder: Path, scores: str) -> Row:
    """The tickets that the paper's rule (raw scores, 30%) draws from the scores that each search ended with."""
    kept = {}
    for side in ("official64", *SIDES):
        arrays = _read(folder, side, scores)
        flat = np.concatenate([arrays[name].ravel() for name in sorted(arrays)])
        kept[side] = np.ones(flat.size, bool)
        kept[side][np.argsort(flat, kind="stable")[: round(0.3 * flat.size)]] = False
    share = {side: float((mask ^ kept["official64"]).mean()) for side, mask in kept.items()}
    pruned = {side: ~mask for side, mask in kept.items()}
    overlap = (pruned["ours"] & pruned["official64"]).sum() / (pruned["ours"] | pruned["official64"]).sum()
    note = f"overlap of the pruned weights {overlap:.4f}"
    return Row("ticket", TITLES["ticket"], kept["ours"].size, *_figures(share), 0.0, note=note)


def _title(name: str) -> str:
    if name in TITLES:
        return TITLES[name]
    kind, _, number = name.partition("_")
    return TITLES[kind].format(f"{float(number):.0%}" if kind == "draw" else number)


def _order(name: str) -> tuple[int, float]:
    return list(TITLES).index(_kind(name)), 0.0 if name in TITLES else float(name.partition("_")[2])


def _kind(name: str) -> str:
    return name if name in TITLES else name.partition("_")[0]


def _verdict(row: Row, compat: str) -> str:
    kind = _kind(row.name)
    if row.restated > (SWAPS if kind == "ticket" else RESTATED):
        return "FAIL: the restatement differs"
    if kind == "draw":
        passed = row.largest == 0
    else:
        passed = row.ours <= max(SWAPS if kind == "ticket" else FLOOR, FACTOR * max(row.official32, row.moved))
    if passed:
        return "pass"
    known = COME_FROM.get(kind, ()) if compat == "paper" else ()
    return f"differs: {', '.join(f'#{number}' for number in known)}" if known else "FAIL"


# --- the report ------------------------------------------------------------------------------------------------


def report(rows: list[Row], about: dict) -> str:
    lines = [
        "# Parity with the official code",
        "",
        *(f"- {key}: {value}" for key, value in about.items()),
        f"- a row passes if ours is within the greater of {FLOOR:g} and {FACTOR:g} times what the official code is off "
        f"in float32, from the same weights or from weights moved by one rounding; the restatement (float64) within "
        f"{RESTATED:g}; tickets may differ in {SWAPS:g} of all weights",
        "- differences are relative l2 against the official code in float64; for masks, the share of weights",
        "- supplied in memory for the official code: " + "; ".join(SHIMS),
        "",
        "| quantity | entries | restated | official float32 | weights moved | ours | largest | verdict | |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for r in rows:
        figures = " | ".join(f"{x:.1e}" for x in (r.restated, r.official32, r.moved, r.ours, r.largest))
        lines.append(f"| {r.title} | {r.entries:,} | {figures} | {r.verdict} | {r.note} |")
    named = sorted({n for r in rows if r.verdict.startswith("differs") for n in COME_FROM[_kind(r.name)]})
    lines += ["", *(f"- #{number}: {DEVIATIONS[number]}" for number in named)]
    return "\n".join(lines).rstrip() + "\n"


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="python -m torch_eval parity",
        description="Hold the MindSpore half against a checkout of the official repository (ruizheng20/robust_ticket), "
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
        help="which way of ours is compared; rows in which the paper's differs name the reason (default: %(default)s)",
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
