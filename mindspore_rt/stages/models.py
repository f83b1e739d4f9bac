"""Stages `finetune`, `retrain` and `control`: train the models that are attacked, from the pre-trained weights."""

from __future__ import annotations

from configs.contract.run.jobs import ModelJob
from configs.contract.run.run_dir import RunDir
from configs.contract.run.stage import Stage
from mindspore_rt.formats import huggingface
from mindspore_rt.stages import classifier, control, inputs
from mindspore_rt.ticket import Ticket


@inputs.unless_done
def train_model(run: RunDir, job: ModelJob, stage: Stage) -> None:
    """Train all weights, or those of a ticket, whose pruned weights stay exactly zero."""
    source = inputs.pretrained(run.config)
    weights = huggingface.with_classifier(source, len(run.summary().labels), job.seed)
    ticket: Ticket | None = None
    results = {}
    if job.stage != "finetune":
        ticket = Ticket.load(stage.inputs["ticket"], source.config.prunable())
        if job.stage == "control":
            ticket, weights = control.changed(run, job, source, ticket, weights)
        results["sparsity"] = ticket.sparsity if ticket else 0.0
    classifier.ClassifierTraining(run, job, stage, source, weights, ticket).run().export(**results)
