"""Stage `finetune`: the models that keep all their weights (fine-tuning, longer fine-tuning, FreeLB, InfoBERT)."""

from __future__ import annotations

from configs.contract.methods import METHODS
from configs.contract.plan import Job
from configs.contract.run_dir import RunDir
from mindspore_rt.stages import classifier, inputs


def finetune(run: RunDir, job: Job) -> None:
    """Train all weights by the method of the job."""
    section = METHODS[job.method].training
    stage = inputs.training_stage(run, job, section)
    if not inputs.already_done(stage):
        source = inputs.pretrained(run.config)
        weights = inputs.with_new_classifier(run, job, source)
        classifier.train(run, job, stage, section, source, weights).export()
