"""The bench of training steps: ratios, targets, options, the protocol with real processes, and what workers compute.

Nothing here depends on how fast anything is.
"""

import io
import itertools
import json
import os
import sys
from importlib import metadata

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForSequenceClassification

from configs.contract.basics import bench_case as contract
from configs.contract.basics.bench_case import StepCase
from configs.contract.basics.errors import UserError
from configs.contract.basics.files import read_lines
from configs.contract.experiment.options import read_options
from torch_eval.bench import step_results, torch_step_worker, training_steps
from torch_eval.bench.step_groups import CONTENDERS, GROUPS, Contender, Group
from torch_eval.bench.step_process import Worker
from torch_eval.bench.training_steps import Options
from torch_eval.reference import restatement

TINY = {"layers": 2, "hidden": 24, "batch": 4, "length": 8, "vocabulary": 60}


def answers(wall, cpu=None, memory=1e9, first=5.0, **more):
    return {"wall": wall, "cpu": cpu or wall, "memory": memory, "first": first, "title": "reference", **more}


def test_ratio_is_taken_round_by_round():
    """A time in which everything takes ten times as long moves both medians, but no ratio."""
    reference = [1.0, 1.0, 10.0, 10.0, 10.0]
    ours = [0.5, 0.5, 5.0, 6.0, 4.0]
    assert step_results.median_ratio(ours, reference) == 0.5
    with pytest.raises(ValueError):
        step_results.median_ratio([1.0], reference)


def group(**targets):
    return Group("a step", StepCase("finetune", **TINY), "transformers", targets, 10, 1.0, first_step=4)


@pytest.mark.parametrize("wall, memory, met", [(0.7, 0.8e9, True), (0.71, 0.8e9, False), (0.7, 0.91e9, False)])
def test_a_figure_is_met_when_time_and_memory_are(wall, memory, met):
    result = step_results.figure(
        "g",
        group(fused={"ratio": 0.7, "memory_ratio": 0.9}),
        "fused",
        answers([9.0, wall, wall], [9.0, 0.6, 0.6], memory, kernels="fused"),
        answers([1.0, 1.0], [2.0, 2.0]),
        2,
    )
    assert result["name"] == "g/fused" and result["ours"] == "MindSpore, fused kernels" and result["kernels"] == "fused"
    assert (result["ratio"], result["cpu_ratio"], result["memory_ratio"]) == (wall, 0.3, round(memory / 1e9, 3))
    assert result["target"] == {"ratio": 0.7, "memory_ratio": 0.9} and result["met"] is met
    assert "time <= 0.7, memory <= 0.9" in step_results.table([result])


def test_without_target_nothing_is_met_or_missed():
    result = step_results.figure("g", group(frozen={}), "frozen", answers([0.9]), answers([1.0]), 1)
    assert result["target"] == {} and result["met"] is None
    assert "met" not in step_results.table([result]).replace("transformers", "").splitlines()[3].lower()


def test_first_step_has_a_limit_in_seconds():
    for first, met in ((3.9, True), (4.1, False)):
        result = step_results.first_step("g", group(fused={}), "fused", answers([1.0], first=first))
        assert (result["seconds"], result["met"], result["target"]) == (first, met, {"seconds": 4})


def test_options():
    assert read_options(Options, [], "bench") == Options(None, [*GROUPS], None, False)
    result = read_options(Options, ["only=[retrain,evaluate]", "rounds=3", "markdown=yes"], "bench")
    assert (result.only, result.rounds, result.markdown) == (["retrain", "evaluate"], 3, True)


@pytest.mark.parametrize(
    "argument, message",
    [
        ("official=/nowhere", "no masked_bert.py"),
        ("only=[retrain,speed]", "bench: only: 'speed' is not one of search-minilm,"),
        ("rounds=0", "1 or more"),
        ("rounds=many", "expected a whole number"),
        ("markdown=please", "expected true or false"),
        ("round=3", "unknown key round; known are official, only, rounds, markdown"),
    ],
)
def test_wrong_options_are_refused_in_one_line(argument, message):
    with pytest.raises(UserError, match=message) as error:
        training_steps.main([argument])
    assert "\n" not in str(error.value)


def test_every_contender_of_every_group_exists_and_the_whole_fits_in_ten_minutes():
    for one in GROUPS.values():
        assert {one.reference, *one.others} <= set(CONTENDERS)
    assert sum(one.seconds for one in GROUPS.values()) < 600


# --- the protocol -----------------------------------------------------------------------------------------


def test_serve_runs_once_unasked_then_once_a_line(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n\n"))
    stream, turns = io.StringIO(), 0
    for _ in contract.serve(stream, {"kernels": "fused"}):
        turns += 1
    result = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert turns == 3 and len(result) == 3
    assert result[0]["kernels"] == "fused" and "kernels" not in result[1]
    assert all(f["wall"] > 0 and f["memory"] > 1e7 for f in result)


SCRIPT = """
import os, sys, time
from configs.contract.basics import bench_case
case, others, answers = bench_case.start()
print("libraries chatter")
os.write(1, b"so do kernels\\n")
about = {"who": case.task, "kernels": os.environ["ROBUST_TICKETS_KERNELS"]}
for turn, _ in enumerate(bench_case.serve(answers, about)):
    if turn == 0:
        block = bytearray(200 << 20)
        block[:: 1 << 12] = b"x" * len(block[:: 1 << 12])
        del block
    if turn == 2:
        sys.exit("out of luck")
    until = time.process_time() + 0.02
    while time.process_time() < until:
        pass
    time.sleep(0.05)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "worker.py"
    path.write_text(SCRIPT)
    return [sys.executable, str(path), StepCase("search", **TINY).to_json()]


def test_worker_process_answers_steps_and_reports_its_end(script):
    worker = Worker(Contender("someone", "", "", "odd"), script)
    try:
        assert worker.answers["who"] == "search" and worker.answers["kernels"] == "odd"
        worker.step()
        (wall,), (cpu,) = worker.answers["wall"], worker.answers["cpu"]
        assert wall >= 0.065 and 0.015 < cpu < wall  # sleeping costs no processor time
        assert worker.answers["memory"] > 200e6  # the peak, though the block is gone
        with pytest.raises(UserError, match="someone: stopped with status 1: out of luck"):
            worker.step()
    finally:
        worker.close()


@pytest.mark.parametrize("version, possible", [("2.10.0", True), ("2.9.1", False), ("3.0.0rc1", True), (None, False)])
def test_a_contender_needs_a_version_or_a_later_one(monkeypatch, version, possible):
    def installed(package):
        if version is None:
            raise metadata.PackageNotFoundError(package)
        return version

    monkeypatch.setattr(metadata, "version", installed)
    assert Contender("", "", "", needs=("mindspore", "2.10")).is_possible() is possible
    assert Contender("", "", "").is_possible()


QUICK = """
from configs.contract.basics import bench_case
_, _, answers = bench_case.start()
for _ in bench_case.serve(answers, {}):
    sum(range(1000))
"""


def test_a_group_from_start_to_results(monkeypatch, tmp_path, capsys):
    """Workers in turns, of PyTorch and one that loads nothing; little memory lets one beside the reference at a time,
    and one that cannot be started is left out."""
    (tmp_path / "quick_worker.py").write_text(QUICK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tiny = Group(
        "a tiny step",
        StepCase("search", **TINY, passes=2),
        "official",
        {"frozen": {}, "gone": {}, "fused": {"ratio": 1e3, "memory_ratio": 1e3}, "absent": {}},
        3,
        1.0,
        first_step=1e3,
    )
    monkeypatch.setitem(GROUPS, "tiny", tiny)
    gone = Contender("a lost step", "no_such_module", "")
    absent = Contender("a later step", "", "", needs=("numpy", "99.5"))
    others = {"fused": Contender("a quick step", "quick_worker", ""), "gone": gone, "absent": absent}
    monkeypatch.setattr(training_steps, "CONTENDERS", {**CONTENDERS, **others})
    monkeypatch.setattr(training_steps, "available_memory", lambda: 2.5)
    alive = []
    monkeypatch.setattr(training_steps, "Worker", lambda *a: alive.append(Worker(*a)) or alive[-1])
    options = ["only=tiny", "rounds=2", "markdown=yes"]
    assert training_steps.main(options, tmp_path) == 1
    assert [w.process.poll() is not None for w in alive] == [True] * 3
    frozen, again, first = read_lines(tmp_path / "bench.jsonl")
    assert [r["name"] for r in (frozen, again, first)] == ["tiny/frozen", "tiny/fused", "tiny/fused/first-step"]
    assert frozen["met"] is None and again["met"] is True and again["rounds"] == 2
    assert again["reference"] == "official PyTorch" and again["reference_seconds"] > 0
    assert len(alive[0].answers["wall"]) == 4  # the reference was there in both turns
    assert {"cpu", "cores", "memory_gb"} <= set(again["machine"]) and "torch" in again["versions"] and again["date"]
    streams = capsys.readouterr()
    assert "a tiny step" in streams.out and "left" in streams.out
    assert "[tiny] left out: a later step; it needs numpy 99.5" in streams.out
    assert streams.err.count("\n") == 1 and "a lost step: stopped with status 1" in streams.err
    assert (tmp_path / "bench.md").read_text().count("| a tiny step |") == 2


def test_a_group_that_fails_does_not_stop_the_others(monkeypatch, tmp_path, capsys):
    """Nor does a package that is not installed, as mindnlp on Python 3.12."""
    monkeypatch.setattr(training_steps, "PACKAGES", ("torch", "no-such-package"))
    broken = Group("a step", StepCase("retrain", **TINY), "transformers", {"frozen": {}}, 3, 0.1)
    monkeypatch.setitem(GROUPS, "broken", broken)
    monkeypatch.setitem(GROUPS, "huge", Group("", broken.case, "", {}, 3, 1e6))
    assert training_steps.main(["only=[broken,huge]"], tmp_path) == 1
    streams = capsys.readouterr()
    assert "transformers has no retrain step" in streams.err and "huge: needs 2000000 GB" in streams.err
    assert not (tmp_path / "bench.jsonl").exists()


# --- what the workers compute -----------------------------------------------------------------------------


def test_evaluation_is_transformers():
    case = StepCase("evaluate", **TINY)
    ids, _ = case.inputs()
    model = BertForSequenceClassification(BertConfig(**case.config())).eval()
    model.load_state_dict({n: torch.tensor(contract.weight(n, tuple(p.shape))) for n, p in model.state_dict().items()})
    with torch.no_grad():
        expected = model(input_ids=torch.tensor(ids)).logits.sum().item()
    assert torch_step_worker.transformers_step(case)() == pytest.approx(expected, abs=1e-6) and abs(expected) > 1e-3


def test_retraining_starts_as_fine_tuning_of_the_pruned_weights():
    """Without dropout the first loss is that of transformers with zeros for the pruned weights."""
    case = StepCase("retrain", **TINY, dropout=0.0)
    (ids, labels), model = case.inputs(), BertForSequenceClassification(BertConfig(**case.config()))
    masked = restatement.MaskedBert(BertConfig(**case.config())).log_alpha()
    weights = {}
    for name, p in model.named_parameters():
        value = contract.weight(name, tuple(p.shape))
        weights[name] = torch.tensor(value * contract.mask(name, value.shape) if name in masked else value)
    model.load_state_dict(weights)
    expected = cross_entropy(model(input_ids=torch.tensor(ids)).logits, torch.tensor(labels)).item()
    assert torch_step_worker.restated_step(case, freeze=False)() == pytest.approx(expected, abs=1e-6)
    assert 0.25 < 1 - np.mean(contract.mask("x", (100, 100))) < 0.35


def test_checkout_takes_one_step_for_each_turn():
    """With OFFICIAL_REPO, its own loops as well as ours."""
    case = StepCase("search", **TINY, passes=2, dropout=0.0)
    losses = [torch_step_worker.restated_step(case, freeze)() for freeze in (False, True)]
    assert all(np.isfinite(losses)) and abs(losses[0] - np.log(2)) < 0.1
    if "OFFICIAL_REPO" in os.environ:
        for task in ("search", "retrain"):
            turns = iter(range(5))
            torch_step_worker.run_checkout(
                os.environ["OFFICIAL_REPO"], StepCase(task, **TINY), False, itertools.islice(turns, 3)
            )
            assert next(turns) == 3


def test_a_task_a_library_does_not_have_is_refused():
    with pytest.raises(ValueError, match="no search step"):
        torch_step_worker.transformers_step(StepCase("search", **TINY))
    with pytest.raises(ValueError, match="no finetune step"):
        torch_step_worker.restated_step(StepCase("finetune", **TINY), False)
