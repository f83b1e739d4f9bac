"""Rows, verdicts and the report of the comparison with the official code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from configs.contract.basics import markdown
from torch_eval.reference.parity_sides import SHIMS, ParityCase

MOVED = ("moved1", "moved2")  # the official float32 from weights moved by one rounding
SIDES = ("restated64", "official32", *MOVED, "ours")
# A row passes within the floor, or within this many times the official code's own error in float32.
FLOOR, FACTOR = 1e-5, 3.0
RESTATED = 1e-9  # most that the restatement may differ: float64 against float64
SWAPS = 1e-3  # share of weights in which tickets from two searches may differ
# Where the official code deviates from the paper.
DEVIATIONS = {
    1: "lambda rises three times too fast",
    2: "stale gradients of the weights count in the clip",
    3: "token types are dropped in the adversarial pass",
    9: "no clip in retraining",
    13: "the L0 term is a mean of the matrices' means",
    14: "the draw ranks float32 sigmoids",
}
# Title of each quantity, and the deviations that change it when ours follows the paper. Some have a number in their
# file's name, such as `draw_0.30`, which the title states.
QUANTITIES: dict[str, tuple[str, tuple[int, ...]]] = {
    "logits": ("deterministic masked model, logits", ()),
    "shared": ("the same, scores shared by neurons", ()),
    "gates": ("sampled gates, same noise", ()),
    "l0_term": ("L0 term", (13,)),
    "l0_gradient": ("gradient of the L0 term", (13,)),
    "start": ("perturbation, start", ()),
    "ascent": ("perturbation after ascent {:.0f}", (3,)),
    "gradient": ("mask gradients, all passes", (3,)),
    "clipped": ("mask gradients, clipped", (2, 3)),
    "norms": ("gradient norm that clips, every step", (2, 3)),
    "scores": ("scores, update of {:.0f} steps", (1, 2, 3, 13)),
    "lambda": ("lambda over a whole run", (1,)),
    "rate": ("learning rate over a whole run", ()),
    "draw": ("draw at {:.0%}", (14,)),
    "retrained": ("retraining, update of the weights", (9,)),
    "retrained_logits": ("retrained model, logits", (9,)),
    "ticket": ("tickets at 30% from the two searches", (1, 2, 3, 13)),
}
COLUMNS = "quantity|entries|restated|official float32|weights moved|ours|largest|verdict|".split("|")


@dataclass
class ParityRow:
    """One quantity and its differences from the official code in float64: relative l2; of masks, the share of weights.

    Attributes:
        name: File name of the quantity.
        title: The quantity in words.
        entries: How many numbers it has.
        restated: Difference of our restatement in float64.
        official32: Difference of the official code in float32.
        moved: The greater difference of the official code in float32 from weights moved by one rounding.
        ours: Difference of the MindSpore half.
        largest: Largest absolute difference of one entry of the MindSpore half.
        verdict: `pass`, `FAIL`, or `differs:` with the known deviations of the official code that explain it.
        note: More about this row.
    """

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


def compare(folder: Path, compat: str) -> list[ParityRow]:
    """Compare the files of all sides.

    Args:
        folder: Holds the case and a folder of results for each side (see `parity.run_all`).
        compat: `official` or `paper`: which settings the MindSpore half followed.

    Returns:
        A row for each quantity of the official side, and one for the tickets of the two searches.
    """
    case = ParityCase(folder / "case", folder / "ours")
    names = sorted((p.stem for p in (folder / "official64").iterdir()), key=_place)
    rows = [_draw_row(folder, case, n) if n.startswith("draw") else _value_row(folder, case, n) for n in names]
    rows.append(_ticket_row(folder, [name for name in names if name.startswith("scores_")][-1]))
    for row in rows:
        row.verdict = _verdict(row, compat)
    return rows


def _differences(of: dict[str, float]) -> tuple[float, float, float, float]:
    """Return the fields restated, official32, moved and ours of a row."""
    return of["restated64"], of["official32"], max(of[name] for name in MOVED), of["ours"]


def _read(folder: Path, side: str, name: str) -> dict[str, np.ndarray]:
    return load_file(folder / side / f"{name}.safetensors")


def _value_row(folder: Path, case: ParityCase, name: str) -> ParityRow:
    reference = _read(folder, "official64", name)
    base = {n: np.zeros_like(a) for n, a in reference.items()}
    if name.startswith("scores"):  # compare the update: beside the start's size it would not show
        base = {n: s.numpy() for n, s in case.scores.items()}
    if name == "retrained":
        base = {n: (w * case.masks[n] if n in case.masks else w).numpy() for n, w in case.weights.items()}
    exact = _joined(reference, reference)
    size = float(np.linalg.norm(exact - _joined(base, reference)))
    differences = {side: _joined(_read(folder, side, name), reference) - exact for side in SIDES}
    relative = {side: float(np.linalg.norm(values)) / size for side, values in differences.items()}
    row = ParityRow(name, _title(name), exact.size, *_differences(relative), float(np.abs(differences["ours"]).max()))
    if name == "gates":
        flips = [_flips(_read(folder, side, name), reference) for side in ("ours", "official32")]
        row.note = f"settled in one and not in the other: {flips[0]} (official float32: {flips[1]})"
    return row


def _joined(arrays: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> np.ndarray:
    """Return all entries in one float64 vector, in the order of the reference."""
    return np.concatenate([arrays[name].astype(np.float64).ravel() for name in reference])


def _flips(gates: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> int:
    """Count the gates that are exactly 0 or 1 on one side and not on the other."""

    def settled(mask: np.ndarray) -> np.ndarray:
        return (mask == 0) | (mask == 1)

    return sum(int((settled(gates[n]) != settled(a)).sum()) for n, a in reference.items())


def _draw_row(folder: Path, case: ParityCase, name: str) -> ParityRow:
    """Compare masks. They may differ only where float32 sigmoids tie at the threshold, up to the last bit."""
    reference = {n: m.astype(bool) for n, m in _read(folder, "official64", name).items()}
    sigmoid = {n: torch.sigmoid(case.grown[n]).numpy() for n in reference}
    threshold = max(float(sigmoid[n][~m].max(initial=0)) for n, m in reference.items())
    tied = {n: np.abs(s - threshold) <= 2 * np.spacing(np.float32(threshold)) for n, s in sigmoid.items()}
    total = sum(m.size for m in reference.values())
    masks = {side: _read(folder, side, name) for side in SIDES}
    unlike = {side: {n: masks[side][n].astype(bool) ^ m for n, m in reference.items()} for side in SIDES}
    differ = {side: sum(int(u.sum()) for u in unlike[side].values()) for side in SIDES}
    outside = sum(int((u & ~tied[n]).sum()) for n, u in unlike["ours"].items())
    count = sum(int(t.sum()) for t in tied.values())
    note = f"{count} scores tie at the threshold; {differ['ours']} differ, {outside} of them elsewhere"
    shares = _differences({side: number / total for side, number in differ.items()})
    return ParityRow(name, _title(name), total, *shares, outside / total, note=note)


def _ticket_row(folder: Path, scores: str) -> ParityRow:
    """Compare the tickets that the paper's rule (raw scores, 30%) draws from the final scores of each search."""
    masks = {}
    for side in ("official64", *SIDES):
        arrays = _read(folder, side, scores)
        flat = np.concatenate([arrays[name].ravel() for name in sorted(arrays)])
        masks[side] = np.ones(flat.size, bool)
        masks[side][np.argsort(flat, kind="stable")[: round(0.3 * flat.size)]] = False
    share = {side: float((mask ^ masks["official64"]).mean()) for side, mask in masks.items()}
    pruned = {side: ~mask for side, mask in masks.items()}
    overlap = (pruned["ours"] & pruned["official64"]).sum() / (pruned["ours"] | pruned["official64"]).sum()
    note = f"overlap of the pruned weights {overlap:.4f}"
    return ParityRow("ticket", QUANTITIES["ticket"][0], masks["ours"].size, *_differences(share), 0.0, note=note)


def _parted(name: str) -> tuple[str, float]:
    """Return the key of `QUANTITIES` in a file's name, and its number; 0 if it has none."""
    kind, _, number = name.partition("_")
    return (name, 0.0) if name in QUANTITIES else (kind, float(number))


def _title(name: str) -> str:
    kind, number = _parted(name)
    return QUANTITIES[kind][0].format(number)


def _place(name: str) -> tuple[int, float]:
    """Return the place of a quantity among the rows."""
    kind, number = _parted(name)
    return list(QUANTITIES).index(kind), number


def _verdict(row: ParityRow, compat: str) -> str:
    kind, _ = _parted(row.name)
    if row.restated > (SWAPS if kind == "ticket" else RESTATED):
        return "FAIL: the restatement differs"
    if kind == "draw":
        passed = row.largest == 0
    else:
        passed = row.ours <= max(SWAPS if kind == "ticket" else FLOOR, FACTOR * max(row.official32, row.moved))
    if passed:
        return "pass"
    known = QUANTITIES[kind][1] if compat == "paper" else ()
    return f"differs: {', '.join(f'#{number}' for number in known)}" if known else "FAIL"


def report(rows: list[ParityRow], about: dict[str, str | int]) -> str:
    """Return the comparison as Markdown, with `about` as its settings."""
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
    ]
    cells = []
    for r in rows:
        figures = (f"{x:.1e}" for x in (r.restated, r.official32, r.moved, r.ours, r.largest))
        cells.append((r.title, f"{r.entries:,}", *figures, r.verdict, r.note))
    lines.append(markdown.table(COLUMNS, cells))
    named = sorted({n for r in rows if r.verdict.startswith("differs") for n in QUANTITIES[_parted(r.name)[0]][1]})
    lines += ["", *(f"- #{number}: {DEVIATIONS[number]}" for number in named)]
    return "\n".join(lines).rstrip() + "\n"
