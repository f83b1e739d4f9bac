"""The comparison with the official code, on a small case. Spoiled results show that every kind of row can fail.

Our restatement takes the place of the checkout, unless the environment variable OFFICIAL_REPO names one.
"""

import json
import os
import shutil
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from mindspore_rt.compare import parity_worker
from torch_eval.reference import parity, parity_case, parity_rows
from torch_eval.reference.parity_sides import Official, ParityCase, Restated


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Folders of two finished comparisons, by the settings of the MindSpore half.

    The fused kernels run in this process; the plain ones need a process of their own.
    """
    folders = {}

    def in_this_process(_module, arguments, *_):
        with mock.patch.object(sys, "argv", ["parity_worker", *arguments]):
            assert parity_worker.main() == 0

    with pytest.MonkeyPatch.context() as patch:
        for compat, layers, kernels in (("official", 1, "plain"), ("paper", 2, "fused")):
            narrow = {"num_hidden_layers": layers, "hidden_size": 16, "num_attention_heads": 2}
            patch.setattr(parity_case, "SMALL", {**parity_case.SMALL, **narrow})
            folders[compat] = folder = tmp_path_factory.mktemp(compat)
            (folder / "case").mkdir()
            parity_case.write_case(folder / "case", None, steps=3, seed=1)
            parity.run_all(folder, compat, kernels, checkout=None)
            patch.setattr(parity, "run_module", in_this_process)
    return folders


def by_name(folder, compat):
    return {row.name: row for row in parity_rows.compare(folder, compat)}


def test_every_row_passes_under_official(compared):
    rows = by_name(compared["official"], "official")
    assert {n: r.verdict for n, r in rows.items()} == dict.fromkeys(rows, "pass")
    searched = {"start", "ascent_1", "ascent_2", "gradient", "clipped", "norms", "scores_2", "scores_3", "ticket"}
    once = {"logits", "shared", "gates", "l0_term", "l0_gradient", "lambda", "rate", "retrained", "retrained_logits"}
    assert set(rows) == searched | once | {f"draw_{i / 10:.2f}" for i in range(1, 10)}
    # The yardstick is a measurement, not a tautology: float32 differs from float64.
    assert sum(1e-9 < r.official32 < 1e-2 for r in rows.values()) > 8


def test_rows_that_paper_moves_name_their_reason(compared):
    rows = by_name(compared["paper"], "paper")
    verdicts = {n: r.verdict for n, r in rows.items() if r.verdict != "pass"}
    assert not any(v.startswith("FAIL") for v in verdicts.values())
    moved = {"l0_term": "#13", "l0_gradient": "#13", "ascent_1": "#3", "gradient": "#3", "clipped": "#2, #3"}
    for name, numbers in {**moved, "lambda": "#1"}.items():
        assert verdicts[name] == f"differs: {numbers}"
    for name in ("logits", "gates", "start", "rate"):
        assert name not in verdicts
    text = parity_rows.report(list(rows.values()), {"compat": "paper"})
    assert "- #13: " in text and "- #1: " in text and "| lambda over a whole run |" in text


SPOILT = [
    "logits",
    "shared",
    "gates",
    "l0_term",
    "l0_gradient",
    "start",
    "ascent_1",
    "gradient",
    "clipped",
    "norms",
    "scores_3",
    "lambda",
    "rate",
    "retrained",
    "retrained_logits",
]


@pytest.mark.parametrize("name", SPOILT)
def test_an_error_of_a_thousandth_fails(compared, tmp_path, name):
    folder = shutil.copytree(compared["official"], tmp_path / "spoilt")
    path = folder / "ours" / f"{name}.safetensors"
    reference = load_file(folder / "official64" / f"{name}.safetensors")
    case = ParityCase(folder / "case", folder / "ours")
    arrays = load_file(path)
    for key, array in arrays.items():  # a thousandth of the update, where the row is one
        start = case.scores[key].numpy() if name.startswith("scores") else 0
        if name == "retrained":
            start = case.weights[key].numpy() * (case.masks[key].numpy() if key in case.masks else 1)
        arrays[key] = (array + 1e-3 * (reference[key].reshape(array.shape) - start)).astype(array.dtype)
    save_file(arrays, path)
    assert by_name(folder, "official")[name].verdict == "FAIL"


def test_a_wrong_draw_fails_but_a_tie_may_fall_either_way(compared, tmp_path):
    folder = shutil.copytree(compared["official"], tmp_path / "spoilt")
    path = folder / "ours" / "draw_0.90.safetensors"
    reference = load_file(folder / "official64" / "draw_0.90.safetensors")
    name = next(iter(reference))
    clear, tied = (tuple(np.argwhere(reference[name] == 1)[i]) for i in (0, 1))  # both kept by the reference
    grown = {n: np.zeros_like(m, np.float32) for n, m in reference.items()}
    grown[name][clear] = 5.0  # all other scores tie
    save_file(grown, folder / "case" / "grown.safetensors")
    mask = reference[name].copy()
    mask[tied] = 0
    save_file({**reference, name: mask}, path)
    row = by_name(folder, "official")["draw_0.90"]
    assert row.verdict == "pass" and row.ours > 0 and "1 differ, 0 of them elsewhere" in row.note
    mask[clear] = 0
    save_file({**reference, name: mask}, path)
    assert by_name(folder, "official")["draw_0.90"].verdict == "FAIL"


def test_a_restatement_that_differs_fails(compared, tmp_path):
    folder = shutil.copytree(compared["official"], tmp_path / "spoilt")
    path = folder / "restated64" / "l0_term.safetensors"
    save_file({"l0_term": load_file(path)["l0_term"] * (1 + 1e-8)}, path)
    assert by_name(folder, "official")["l0_term"].verdict == "FAIL: the restatement differs"


def test_flips_at_the_clamp_are_counted():
    reference = {"a": np.array([0.0, 0.2, 1.0, 0.999999])}
    assert parity_rows._flips({"a": np.array([1e-8, 0.2, 1.0, 1.0])}, reference) == 2


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["."], "masked_linear.py is missing"),
        ([".", "--steps", "2"], "at least 3"),
    ],
)
def test_refused_with_one_line(arguments, expected, capsys, tmp_path):
    assert parity.main([str(tmp_path) if a == "." else a for a in arguments]) == 2
    assert expected in capsys.readouterr().err


def test_a_model_that_is_none(tmp_path):
    from configs.contract.basics.errors import UserError

    for content in (None, {"model_type": "roberta"}):
        if content:
            (tmp_path / "config.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match="--model"):
            parity_case.write_case(tmp_path, tmp_path, 3, 1)


@pytest.mark.skipif("OFFICIAL_REPO" not in os.environ, reason="OFFICIAL_REPO names no checkout")
def test_the_restatement_is_the_checkout(compared, tmp_path):
    """The same rows from a checkout, float64 against float64."""
    from torch_eval.reference.official_checkout import Checkout

    folder = compared["official"]
    case = ParityCase(folder / "case", folder / "ours")
    checkout = Checkout(os.environ["OFFICIAL_REPO"])
    ours = dict(Restated(case, torch.float64).rows())
    compared_rows = 0
    for name, arrays in Official(case, torch.float64, checkout).rows():
        for key, value in arrays.items():
            result = ours[name][key].double().view_as(value)
            assert (result - value.double()).norm() <= 1e-9 * value.double().norm(), (name, key)
        compared_rows += 1
    assert compared_rows >= 16
