"""Stage `control`: the chosen ticket with one thing changed (Random of Table 1; Table 4)."""

from __future__ import annotations

import numpy as np

from configs.contract.methods import METHODS
from configs.contract.plan import Job
from configs.contract.run_dir import RunDir
from mindspore_rt.cells import noise
from mindspore_rt.formats import huggingface
from mindspore_rt.stages import classifier, inputs
from mindspore_rt.ticket import Ticket


def control(run: RunDir, job: Job) -> None:
    """Train one control.

    `random` keeps the sparsity of every matrix and draws other positions; `robust_no_initialization` keeps the
    structure and draws new weights; `robust_no_structure` and its longer training keep all weights, those that the
    ticket prunes from random values.
    """
    section = METHODS[job.method].training
    stage = inputs.training_stage(run, job, section, {"ticket": run.ticket(job.seed, str(run.chosen()))})
    if inputs.already_done(stage):
        return
    source = inputs.pretrained(run.config)
    ticket = Ticket.load(stage.inputs["ticket"], source.config.prunable())
    weights = inputs.with_new_classifier(run, job, source)
    random = noise.generator(job.seed, noise.REINITIAL)
    if job.method == "random":
        if run.config.structured:
            ticket = Ticket.random_units_like(ticket, source.config.num_attention_heads, random)
        else:
            ticket = Ticket.from_random_like(ticket, random)
        ticket.save(run.ticket(job.seed, job.model))
    else:
        deviation = np.float32(huggingface.INITIALIZER_RANGE)
        new = {name: random.standard_normal(weights[name].shape, np.float32) * deviation for name in ticket.masks}
        if job.method == "robust_no_initialization":
            weights = {**weights, **new}
        else:
            mixed = {name: np.where(mask, weights[name], new[name]) for name, mask in ticket.masks.items()}
            weights, ticket = {**weights, **mixed}, None
    training = classifier.train(run, job, stage, section, source, weights, ticket)
    training.export(sparsity=ticket.sparsity if ticket else 0.0)
