"""Tickets of every origin: shared scores, whole units, and the refusal of tickets that do not fit the model."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import read_json
from configs.contract.run.jobs import jobs
from configs.contract.run.run_dir import RunDir
from mindspore_rt.formats import huggingface
from mindspore_rt.stages import prepare, runner
from mindspore_rt.stages.models import train_model
from mindspore_rt.stages.prepare import check_tickets
from mindspore_rt.stages.prune import prune
from mindspore_rt.stages.tickets import draw
from mindspore_rt.ticket import Ticket
from tests.helpers.models import write_encoder
from tests.helpers.prepared import write_choice
from tests.helpers.stages import jobs_of, random_scores, run_search


@pytest.mark.parametrize("granularity, block", [("weight", (1, 1)), ("neuron", (8, 1)), ("matrix", (8, 8))])
@pytest.mark.parametrize("compat", ["paper", "official"])
def test_weights_that_share_a_score_are_pruned_or_kept_together(run, monkeypatch, compat, granularity, block):
    """At the threshold too: the sparsity comes as near to the asked one as whole groups allow. Only the official draw
    ranks float32 sigmoids, which tie."""
    run.config.compat, run.config.search.granularity = compat, granularity
    scores = random_scores(run, 1, block)
    scores = {n: v + np.float32(30 if "output" in n else 0) for n, v in scores.items()}  # sigmoids tie at 1
    run_search(run, monkeypatch, [scores])
    draw(run, jobs_of(run, "draw")[-1])
    ticket = Ticket.load(run.ticket(1, jobs_of(run, "draw")[-1].model))
    assert ("tied" in ticket.about) == (compat == "official")
    for name, mask in ticket.masks.items():  # row i shares the score of row i mod groups, and so do columns
        rows, columns = scores[name].shape
        assert (mask == np.tile(mask[:rows, :columns], (len(mask) // rows, mask.shape[1] // columns))).all()
    groups = sum(score.size for score in scores.values())
    assert ticket.pruned == round(0.25 * groups) * block[0] * block[1]


def test_a_ticket_of_a_file_or_of_another_experiment_is_transferred(run, monkeypatch):
    """Nothing is searched or fine-tuned for it; its masks are trained as they are."""
    run_search(run, monkeypatch, [random_scores(run, 1)])
    draw(run, jobs_of(run, "draw")[-1])
    given = run.root.parent / "given.safetensors"
    shutil.copy(run.ticket(1, "robust-0.25"), given)
    config = dataclasses.replace(run.config, name="again", methods=["transferred"], tickets_from=str(given))
    again = RunDir(config, run.root.parent)
    shutil.copytree(run.data, again.data)
    assert [(job.stage, job.model) for job in jobs(again)] == [
        ("prepare", "data"),
        ("draw", "transferred-0.25"),
        ("retrain", "transferred-0.25"),
    ]
    draw(again, jobs_of(again, "draw")[0])
    assert again.ticket(1, "transferred-0.25").read_bytes() == given.read_bytes()
    run.save_config()
    config.tickets_from = run.config.name
    assert again.given_ticket(1, 0.25) == run.ticket(1, "robust-0.25")
    for own in (run.config.name, run.ticket(1, "robust-0.25")):  # to make it again would delete it first
        itself = RunDir(dataclasses.replace(run.config, tickets_from=str(own)), run.root.parent)
        with pytest.raises(UserError, match="tickets_from: .*ticket.safetensors is a ticket of this run itself"):
            check_tickets(itself)
    write_choice(run, "robust-0.25-back-1")
    run.config.choice.epochs, run.config.search.epochs = 2, 2
    run.save_config()
    with pytest.raises(UserError, match="robust-0.25-back-1/ticket.safetensors is missing; run tiny with seed 1"):
        again.given_ticket(1, 0.25)
    config.layers = 2
    with pytest.raises(UserError, match="tiny has layers=None, not 2: its tickets are of another model"):
        again.given_ticket(1, 0.25)
    config.tickets_from = "nowhere"
    for read in (lambda: again.given_ticket(1, 0.25), lambda: check_tickets(again)):
        with pytest.raises(UserError, match="nowhere is neither a file nor an experiment"):
            read()
    config.tickets_from, config.layers = str(given), None
    check_tickets(again)
    config.sparsities = [0.5]
    for read in (lambda: draw(again, jobs_of(again, "draw")[0]), lambda: check_tickets(again)):
        with pytest.raises(UserError, match="given.safetensors prunes 0.25"):
            read()


def test_structured_tickets_of_every_origin_prune_whole_units(run, monkeypatch):
    """Robust, LTH and Random alike, as many heads and neurons each, in every layer."""
    run.config.structured, run.config.methods = True, ["lth", "random", "robust"]
    run_search(run, monkeypatch, [random_scores(run, 1)])
    prune(run, jobs_of(run, "prune")[0])
    for one in jobs_of(run, "draw"):
        draw(run, one)
    write_choice(run, "robust-0.25")
    train_model(run, jobs_of(run, "control")[0])
    neurons = {}
    for model in ("robust-0.25", "lth-0.25", "random-0.25"):
        mask = Ticket.load(run.ticket(1, model)).masks["bert.encoder.layer.0.intermediate.dense.weight"]
        assert (mask.all(1) == mask.any(1)).all()
        neurons[model] = mask.all(1)
    assert len({int(rows.sum()) for rows in neurons.values()}) == 1 and neurons["robust-0.25"].sum() < 16
    assert (neurons["robust-0.25"] != neurons["random-0.25"]).any()


def test_overlaps_are_those_of_the_sparsity_that_a_ticket_has(run):
    """Which may differ a little from the one that was asked for."""
    weights = huggingface.load(huggingface.resolve(run.config.model)).weights
    ticket = Ticket.from_magnitudes({name: weights[name] for name in random_scores(run, 1)}, 0.2535)
    given = run.root.parent / "given.safetensors"
    ticket.save(given)
    run.config.methods, run.config.tickets_from = ["robust"], str(given)
    draw(run, jobs_of(run, "draw")[0])
    report = read_json(run.ticket(1, "robust-0.25").with_name("report.json"))
    assert report["sparsity"] == ticket.sparsity > 0.25
    assert (report["magnitude_overlap"], report["chance_overlap"]) == (1, ticket.chance_overlap)


def test_a_given_ticket_of_single_weights_is_refused_where_whole_units_are_pruned(run, monkeypatch):
    """A random ticket with as many whole heads and neurons would prune nothing, and pass for its control."""
    run_search(run, monkeypatch, [random_scores(run, 1)])
    draw(run, jobs_of(run, "draw")[-1])
    given = run.ticket(1, "robust-0.25")
    config = dataclasses.replace(run.config, name="again", tickets_from=str(given))
    again = RunDir(config, run.root.parent)
    check_tickets(again)
    config.structured = True
    with pytest.raises(UserError, match="tickets_from: .*ticket.safetensors prunes weights or rows, not whole heads"):
        check_tickets(again)


def test_a_given_ticket_without_a_head_in_a_layer_is_refused(run):
    """A model without one cannot be shrunk: its whole training would end in an error."""
    shapes = huggingface.load(huggingface.resolve(run.config.model)).config.prunable()
    ticket = Ticket({name: np.full(shape, ".attention." not in name) for name, shape in shapes.items()})
    given = run.root.parent / "given.safetensors"
    ticket.save(given)
    run.config.tickets_from, run.config.structured = str(given), True
    run.config.sparsities = [round(ticket.sparsity, 4)]
    with pytest.raises(UserError, match="tickets_from: .*given.safetensors prunes .* all heads of a layer"):
        check_tickets(run)


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("part", ["bert.encoder.layer.0.attention.self.key.weight", "bert.pooler.dense.weight"])
def test_a_given_ticket_of_another_model_is_refused_before_the_data_are_prepared(run, structured, part):
    """Such as one that lacks a matrix of the model, whose whole units cannot even be counted."""
    scores = random_scores(run, 1)
    ticket = Ticket.structured(scores, 2, 0.25)
    given = run.root.parent / "given.safetensors"
    config = dataclasses.replace(run.config, name="again", tickets_from=str(given), structured=structured)
    again = RunDir(config, run.root.parent)
    ticket.save(given)
    check_tickets(again)
    del ticket.masks[part]
    ticket.save(given)
    config.sparsities = [round(ticket.sparsity, 2)]
    with pytest.raises(UserError, match="given.safetensors: a ticket of another model"):
        check_tickets(again)


def test_the_plan_checks_what_is_here_and_downloads_nothing(run, monkeypatch, capsys):
    """A path to a ticket that is wrong is refused although the model that it must fit is not here."""
    monkeypatch.setattr(huggingface, "resolve", lambda model: pytest.fail(f"{model} would be downloaded"))
    run.config.model, run.config.tickets_from = "owner/never-downloaded", "gone"
    with pytest.raises(UserError, match="tickets_from: gone is neither a file"):
        check_tickets(run, download=False)
    (run.root.parent / "given.safetensors").touch()
    run.config.tickets_from = str(run.root.parent / "given.safetensors")
    check_tickets(run, download=False)
    monkeypatch.undo()
    assert prepare.main("tiny", "layers=99") == 2
    assert "error: layers: 99 requested, " in capsys.readouterr().err


def test_scores_that_a_model_cannot_share_are_refused_before_the_data_are_prepared(run):
    """As in TinyBERT, whose 1,200 intermediate neurons are no multiple of its 312 hidden units."""
    config = json.loads(Path(run.config.model, "config.json").read_text())
    write_encoder(Path(run.config.model), {**config, "intermediate_size": 20}, labels=None)
    check_tickets(run)
    run.config.search.granularity = "neuron"
    with pytest.raises(UserError, match=r"search.granularity: \[8, 1\] does not divide the 20 x 8 matrix bert.encoder"):
        check_tickets(run)
    run.config.methods = ["lth"]  # searches for nothing
    check_tickets(run)


@pytest.mark.parametrize("stage", ["prepare", "search", "prune"])
def test_a_structured_sparsity_out_of_reach_is_refused_before_the_training(run, monkeypatch, stage):
    run.config.structured, run.config.sparsities = True, [0.9]
    with pytest.raises(UserError, match="sparsities: 0.9, but a structured ticket of this model prunes 0.6"):
        if stage == "prepare":
            check_tickets(run)
        elif stage == "search":
            run_search(run, monkeypatch, [random_scores(run, 1)])
        else:
            prune(run, jobs_of(run, "prune")[0])
    assert not run.recorder.calls


@pytest.mark.parametrize("stage, model", [("retrain", "robust-0.25"), ("control", "robust-0.25")])
def test_a_ticket_of_another_model_is_refused_before_training(run, stage, model):
    Ticket({"bert.pooler.dense.weight": np.eye(4) > 0}).save(run.ticket(1, model))
    write_choice(run, model)
    one = next(one for one in jobs_of(run, stage) if one.model in (model, "random-0.25"))
    with pytest.raises(UserError, match="ticket.safetensors: a ticket of another model"):
        runner.run_job(run, one)
    assert not run.recorder.calls
