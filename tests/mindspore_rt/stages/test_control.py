"""Controls: each changes one thing of the chosen ticket."""

import numpy as np
import pytest

from mindspore_rt.formats import huggingface
from mindspore_rt.stages.models import train_model
from mindspore_rt.ticket import Ticket
from tests.helpers.prepared import write_choice
from tests.helpers.stages import jobs_of, random_scores


def controls(run):
    ticket = Ticket.from_scores(random_scores(run, 3), 0.25)
    ticket.save(run.ticket(1, "robust-0.25"))
    write_choice(run, "robust-0.25")
    for one in jobs_of(run, "control"):
        train_model(run, one)
    return ticket, {c["model"].rpartition("-")[0]: c for c in run.recorder.calls}


def test_random_keeps_the_sparsity_of_every_matrix_and_shuffles_the_rest(run):
    ticket, calls = controls(run)
    control = calls["random"]["ticket"]
    for name, mask in ticket.masks.items():
        assert control.masks[name].sum() == mask.sum()
    # Two independent masks of density 3/4 agree on 5/8 of all weights.
    agree = 1 - control.distance(ticket)
    assert agree == pytest.approx(0.625, abs=0.06)


def test_no_initialization_keeps_the_structure_and_no_structure_keeps_the_initialization(run):
    ticket, calls = controls(run)
    pretrained = huggingface.load(huggingface.resolve(run.config.model)).weights
    structure, full = calls["robust_no_initialization"], calls["robust_no_structure"]
    assert full["ticket"] is None and structure["ticket"].distance(ticket) == 0
    values = []
    for name, mask in ticket.masks.items():
        assert not structure["weights"][name][~mask].any()
        assert not np.isclose(structure["weights"][name][mask], pretrained[name][mask]).any()
        np.testing.assert_array_equal(full["weights"][name][mask], pretrained[name][mask])
        values += [structure["weights"][name][mask], full["weights"][name][~mask]]
    flat = np.concatenate(values)
    assert flat.std() == pytest.approx(0.02, rel=0.1) and abs(flat.mean()) < 0.003
    for name, value in structure["weights"].items():
        if name not in ticket.masks and "classifier" not in name:
            np.testing.assert_array_equal(value, pretrained[name])


def test_a_control_of_every_length_reads_the_same_ticket(run):
    """It is drawn once for each length, from the same seed."""
    run.config.methods, run.config.lengths = ["random"], [3, 10]
    controls(run)
    short, long = run.recorder.calls
    assert short["ticket"].distance(long["ticket"]) == 0 and long["model"] == "random-0.25-epochs-10"
    assert (short["section"], long["section"]) == ("retrain", "retrain")
