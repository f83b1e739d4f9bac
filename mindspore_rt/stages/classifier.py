"""Training of one classifier, from given weights to a Hugging Face directory."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import numpy as np

from configs.contract.basics.files import file_hash, write_json
from configs.contract.experiment import schema
from configs.contract.experiment.model_id import ModelId
from configs.contract.inputs.tokenizer import TOKEN_IDS
from configs.contract.run import model_card
from configs.contract.run.jobs import TrainingJob
from configs.contract.run.run_dir import RunDir
from configs.contract.run.stage import Stage
from mindspore_rt import device, parallel
from mindspore_rt.cells.encoder import EncoderClassifier
from mindspore_rt.formats import huggingface
from mindspore_rt.stages import inputs
from mindspore_rt.ticket import Ticket
from mindspore_rt.training.trainer import Evaluator, Trainer

EVALUATION_BATCH = 32


def build(
    config: schema.Experiment,
    source: huggingface.Model,
    labels: int,
    settings: schema.Updates,
    **masks: Any,
) -> EncoderClassifier:
    """Build a classifier with the dropout and precision of a training.

    Args:
        config: Experiment, which states the precision.
        source: Model whose shape is taken; its weights are not loaded.
        labels: Number of labels.
        settings: Of the training.
        **masks: How the classifier is masked, if it is; see `EncoderClassifier`.
    """
    return EncoderClassifier(
        source.config,
        labels,
        settings.dropout,
        attention_dropout=getattr(settings, "attention_dropout", None),
        amp=None if device.rounds_products(config) else config.amp,
        **masks,
    )


def objective_class(name: str) -> type:
    """Import the class that `Method.objective` names by its module in `mindspore_rt.training` and its name."""
    module, _, class_name = name.rpartition(".")
    return getattr(importlib.import_module(f"mindspore_rt.training.{module}"), class_name)


class ClassifierTraining:
    """One training of a classifier.

    Args:
        run: Run that the training belongs to.
        job: What is trained.
        stage: Directory, settings and inputs of the training.
        source: Model whose shape and tokenizer are taken.
        weights: Initial weights, with a classifier.
        ticket: Weights to prune; they start and stay at zero. None trains all weights.
    """

    def __init__(
        self,
        run: RunDir,
        job: TrainingJob[schema.Training],
        stage: Stage,
        source: huggingface.Model,
        weights: dict[str, np.ndarray],
        ticket: Ticket | None = None,
    ) -> None:
        self.config, self.stage, self.source, self.ticket = run.config, stage, source, ticket
        self.job = job
        settings = job.settings
        self.labels = run.summary().labels
        train_batches = inputs.batches(run, job, "train", settings.batch_size, source)
        self.token_ids = inputs.token_ids(run, job, source)
        self.model = build(run.config, source, len(self.labels), settings)
        self.model.load(ticket.apply(weights) if ticket else weights)
        self.steps = job.steps(len(train_batches))
        masks = ticket.masks if ticket else None
        objective = objective_class(job.objective)(self.model, settings, self.steps, job.seed, masks)
        self.evaluator = Evaluator(self.model, inputs.batches(run, job, "dev", EVALUATION_BATCH, source))
        self.accuracies: list[float] = []
        self.trainer = Trainer(
            stage,
            objective,
            train_batches,
            self.steps,
            run.config,
            f"{job.stage} {job.name}",
            on_epoch=self._on_epoch,
            snapshot_steps={round(self.steps * i / job.snapshots) for i in range(1, job.snapshots)},
            on_snapshot=lambda step: self._save(stage.directory / "snapshots" / f"{step:06d}", step),
        )

    def run(self) -> ClassifierTraining:
        """Train to the end; returns itself."""
        self.trainer.run()
        return self

    def _on_epoch(self, epoch: int, step: int) -> dict[str, float]:
        self.accuracies.append(self.evaluator.accuracy())
        return {"dev_accuracy": self.accuracies[-1]}

    def weights(self) -> dict[str, np.ndarray]:
        """Return a copy of the weights by their Hugging Face names."""
        return {name: parameter.asnumpy() for name, parameter in self.model.weights().items()}

    def dev_accuracy(self) -> float:
        """Return the accuracy of the last epoch; evaluate again if an earlier process ran that epoch."""
        return self.accuracies[-1] if self.accuracies else self.evaluator.accuracy()

    def _save(self, target: Path, snapshot: int | None = None) -> None:
        """Write the model as it is, after `snapshot` updates or at its end."""
        weights, source = self.weights(), self.source
        if self.ticket and self.config.structured:
            weights, raw = huggingface.shrink(weights, source.raw, self.ticket)
            source = dataclasses.replace(source, raw=raw)
        model = dataclasses.replace(ModelId.parse(self.job.model), snapshot=snapshot)
        card = model_card.card(self.config, model, self.job.seed, self.labels)
        length = self.config.data.max_length
        huggingface.save_classifier(target, source, weights, self.labels, length, card)

    def export(self, **results: float) -> None:
        """Write the model and the manifest, on worker 0.

        Args:
            **results: More results for the manifest.
        """
        if parallel.rank():
            return
        target = self.stage.directory / "model"
        self._save(target)
        write_json(self.stage.directory / TOKEN_IDS, self.token_ids)
        results = {"dev_accuracy": self.dev_accuracy(), "steps": self.steps, **results}
        self.stage.finish({**results, "model_sha256": file_hash(target)})
