"""Stage `prune`: iterative magnitude pruning, the lottery tickets of BERT (LTH, Chen et al. 2020)."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from configs.contract.basics.files import atomic_write, file_hash
from configs.contract.experiment import schema
from configs.contract.run.jobs import TrainingJob
from configs.contract.run.run_dir import RunDir
from configs.contract.run.stage import Stage, read_manifest, verified
from mindspore_rt import parallel
from mindspore_rt.formats import huggingface
from mindspore_rt.stages import classifier, inputs, tickets
from mindspore_rt.ticket import Ticket

# Both sections have a `share`.
PruningJob = TrainingJob[schema.Pruning | schema.AdversarialPruning]


@inputs.unless_done
def prune(run: RunDir, job: PruningJob, stage: Stage) -> None:
    """Train and prune, round by round, until the largest requested sparsity.

    Every round trains the pre-trained weights under the mask so far, prunes `share` of the original weights more, and
    rewinds all but the classifier to the pre-trained values.

    Leaves ticket-0.30.safetensors and so on, one for each requested sparsity. If a sparsity is requested later, its
    round is trained again, from the mask and the classifier that the round before it left.
    """
    config = run.config
    pretrained, ticket, seconds = inputs.pretrained(config), None, 0.0
    sparsities: dict[str, float] = {}
    tickets.highest_sparsity(config, pretrained.config)
    new = huggingface.with_classifier(pretrained, len(run.summary().labels), job.seed)
    head = {name: new[name] for name in pretrained.config.family.fresh}
    for number in range(1, job.rounds + 1):
        directory = stage.directory / f"round-{number}"
        round_job = dataclasses.replace(job, model=f"{job.model}/round-{number}", directory=directory)
        before = stage.directory / f"round-{number - 1}" / "ticket.safetensors" if ticket else None
        round_stage = inputs.stage_of(run, round_job, before)
        asked = {
            run.pruned(job.seed, job.model, sparsity): sparsity
            for sparsity in config.sparsities
            if job.settings.share * (number - 1) < sparsity - 1e-9 <= job.settings.share * number
        }
        if not all(path.is_file() for path in asked) and round_stage.is_done():  # asked for after the round was made
            round_stage.manifest.unlink(missing_ok=True)
        if not inputs.already_done(round_stage):
            weights = {**pretrained.weights, **head}
            training = classifier.ClassifierTraining(run, round_job, round_stage, pretrained, weights, ticket).run()
            _end_round(run, job, training, ticket, number, asked)
            parallel.wait()
        ticket = Ticket.load(directory / "ticket.safetensors", pretrained.config.prunable())
        head = huggingface.read_safetensors(verified(directory / "classifier.safetensors"))
        sparsities[f"round {number}"] = ticket.sparsity
        seconds += read_manifest(directory).seconds
    if not parallel.rank():
        stage.started = time.time() - seconds  # the rounds may have been trained by earlier processes
        stage.finish(sparsities)


def _end_round(
    run: RunDir,
    job: PruningJob,
    training: classifier.ClassifierTraining,
    ticket: Ticket | None,
    number: int,
    asked: dict[Path, float],
) -> None:
    """Draw the tickets that the weights of a round give, and finish the round.

    Args:
        run: Run that the pruning belongs to.
        job: The whole pruning.
        training: Training of this round, at its end.
        ticket: Mask that it was trained under; None in the first round.
        number: Number of the round, from 1.
        asked: File of each requested ticket that this round gives, to its sparsity.
    """
    if parallel.rank():
        return
    config, source, weights = run.config, training.source, training.weights()
    # A pruned weight is zero and stays pruned: -1 ranks it below every magnitude.
    magnitudes = {
        name: np.where(ticket.masks[name], np.abs(weights[name]), -1.0) if ticket else np.abs(weights[name])
        for name in source.config.prunable()
    }
    about = {"method": job.model, "seed": str(job.seed), "round": str(number)}
    share = min(job.settings.share * number, tickets.highest_sparsity(config, source.config))
    directory = training.stage.directory
    for path, sparsity in {**asked, directory / "ticket.safetensors": share}.items():
        tickets.from_scores(config, source, magnitudes, sparsity, False, **about).save(path)
    path = directory / "classifier.safetensors"
    atomic_write(path, save({name: weights[name] for name in source.config.family.fresh}))
    training.stage.finish({"dev_accuracy": training.dev_accuracy(), "classifier_sha256": file_hash(path)})
