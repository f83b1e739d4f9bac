"""The search: its objective without an adversary, its early stop, and the epochs that it keeps."""

import dataclasses

import numpy as np
import pytest

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import read_json
from configs.contract.inputs import matrices
from mindspore_rt.stages.search import search
from mindspore_rt.stages.tickets import draw
from mindspore_rt.ticket import Ticket
from mindspore_rt.training import adversary
from tests.helpers.stages import jobs_of, random_scores, run_search


def test_the_search_without_an_adversary_is_one_clean_pass(run, monkeypatch):
    run.config.methods = ["robust", "robust_no_adversary"]
    scores = [random_scores(run, 1)]
    with_adversary = run_search(run, monkeypatch, scores)["settings"]
    assert with_adversary == run.config.search
    clean = run_search(run, monkeypatch, scores, "search_no_adversary")["settings"]
    assert clean == dataclasses.replace(run.config.search, ascent_steps=1, initial_norm=0.0)
    assert not adversary.start((2, 3, 4), np.ones((2, 3), np.float32), clean.initial_norm, 1, 1).any()


@pytest.mark.parametrize("structured", [False, True])
def test_a_search_stops_once_its_ticket_has_settled(run, monkeypatch, structured):
    """The third epoch's scores are the second's, moved together. Those of the pooler are others where tickets are
    structured: it has no units, so that ticket stays as it was, and one of single weights would not."""
    run.config.structured, run.config.search.stop_distance = structured, 0.01
    two = random_scores(run, 2)
    three = {n: v + np.float32(1) for n, v in two.items()}
    if structured:
        three["bert.pooler.dense.weight"] = -three["bert.pooler.dense.weight"]
    record = run_search(run, monkeypatch, [random_scores(run, 1), two, three, random_scores(run, 4)])
    assert record["figures"]["ticket_distance"] == 0
    assert read_json(run.stage(1, "search") / "manifest.json")["results"]["epochs"] == 3
    assert sorted(path.stem for path in run.log_alpha(1, 1).parent.iterdir()) == ["epoch-01", "epoch-02", "epoch-03"]


def test_a_search_goes_on_to_its_end_unless_asked_to_stop(run, monkeypatch):
    run_search(run, monkeypatch, [random_scores(run, 1)] * 4)
    assert read_json(run.stage(1, "search") / "manifest.json")["results"]["epochs"] == 4


def test_earlier_epochs_can_be_asked_for_after_the_search(run, monkeypatch):
    """Their scores are there; the number of epochs to keep does not change a search's results."""
    run_search(run, monkeypatch, [random_scores(run, seed) for seed in (1, 2, 3)])
    run.config.choice.epochs, run.config.search.keep_epochs = 2, 3
    search(run, jobs_of(run, "search")[0])  # done
    for one in jobs_of(run, "draw"):
        if one.method == "robust":
            draw(run, one)
    last, earlier = (Ticket.load(run.ticket(1, f"robust-0.25{back}")) for back in ("", "-back-1"))
    assert last.distance(earlier) > 0


@pytest.mark.parametrize("keep, left", [(1, [3, 4]), (3, [2, 3, 4]), (9, [1, 2, 3, 4]), (None, [1, 2, 3, 4])])
def test_scores_of_earlier_epochs_are_removed_only_if_asked(run, monkeypatch, keep, left):
    run.config.search.epochs, run.config.search.keep_epochs = 4, keep
    run_search(run, monkeypatch, [random_scores(run, seed) for seed in (1, 2, 3, 4)])
    assert sorted(run.log_alpha(1, 1).parent.iterdir()) == [run.log_alpha(1, epoch) for epoch in left]
    hashes = read_json(run.stage(1, "search") / "manifest.json")["results"]["scores_sha256"]
    assert sorted(hashes) == [run.log_alpha(1, epoch).name for epoch in left]


@pytest.mark.parametrize("raw", [None, b"", b"{}"])
def test_a_search_that_has_lost_an_epoch_is_redone(run, monkeypatch, raw):
    """Each epoch's scores are compared with the ones before; the message says to delete the search."""

    def lose(path, _):
        path.parent.mkdir(parents=True, exist_ok=True)
        if raw is not None:
            path.write_bytes(raw)

    monkeypatch.setattr("mindspore_rt.stages.search.atomic_write", lose)
    with pytest.raises(UserError, match=f"epoch-01.safetensors.*; delete {run.stage(1, 'search')} to redo the search"):
        run_search(run, monkeypatch, [random_scores(run, 1)] * 2)


def test_granularities():
    assert matrices.block("weight", 8) == (1, 1)
    assert matrices.block("neuron", 8) == (8, 1) and matrices.block("matrix", 8) == (8, 8)
