"""Stage `finetune`: the models that keep all their weights (fine-tuning, longer fine-tuning, FreeLB, InfoBERT)."""

from __future__ import annotations

from configs.contract.jobs import ModelJob
from configs.contract.run_dir import RunDir
from configs.contract.stage import Stage
from mindspore_rt.stages import classifier, inputs


@inputs.unless_done
def finetune(run: RunDir, job: ModelJob, stage: Stage) -> None:
    """Train all weights by the method of the job."""
    source = inputs.pretrained(run.config)
    weights = inputs.with_new_classifier(run, job, source)
    classifier.ClassifierTraining(run, job, stage, source, weights).run().export()
