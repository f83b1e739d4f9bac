"""What decides the outcome of a training stage: its settings, and the files that it reads.

The one place that says so: a stage writes these settings into its manifest, and the report compares a manifest with
them. What the attacks add is in `torch_eval.attack.settings`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from configs.contract.experiment import schema
from configs.contract.experiment.methods import METHODS, SOURCES
from configs.contract.inputs import assets, hub
from configs.contract.run.jobs import DrawingJob, Job, ModelJob, TrainingJob
from configs.contract.run.run_dir import RunDir
from configs.contract.run.run_files import Searched
from configs.contract.run.stage import read_manifest

CUTS_DEV = ("imdb", "agnews")  # tasks of which the official code makes a new dev set at every stage


def of_job(run: RunDir, job: Job, noise: str | None) -> dict[str, Any]:
    """Return the settings of a job.

    Args:
        run: Run that the job belongs to.
        job: What is made: data, a model, a search, rounds of pruning or a ticket.
        noise: Where training draws its random numbers from, which only the training half can tell.
    """
    config = run.config
    if isinstance(job, DrawingJob):
        ticket = {"seed": job.seed, "sparsity": job.sparsity}
        return {**ticket, "compat": config.compat, "structured": config.structured}
    if not isinstance(job, TrainingJob):  # prepare
        data = asdict(config.data)
        del data["max_length"]  # prepared texts are whole: trainings and attacks cut them
        return {"task": config.task, **data, "shared_texts": config.compat == "official", "choice": config.choice.split}
    values = asdict(job.settings if isinstance(job, ModelJob) else getattr(config, job.section))
    values.pop("keep_epochs", None)  # decides which files stay, not what is in them
    return {
        **_optional(config, job),
        job.section: values,
        "method": job.method if isinstance(job, ModelJob) else job.model,
        "seed": job.seed,
        "layers": config.layers,
        "max_length": config.data.max_length,
        "compat": config.compat,
        "device": config.device,
        "amp": config.amp,
        "workers": config.workers,
        "noise": noise,
    }


def _optional(config: schema.Experiment, job: TrainingJob) -> dict[str, Any]:
    """Return settings that only some kinds of training have, and those of the device that are not the default."""
    settings: dict[str, Any] = {key: True for key in ("deterministic", "tf32") if getattr(config, key)}
    if job.stage == "search" and config.search.stop_distance:
        settings |= {"stops_at": config.sparsities[0], "structured": config.structured}
    if job.stage == "prune" and config.structured:
        settings["structured"] = True
    if job.snapshots:
        settings["snapshots"] = job.snapshots
    return settings


def inputs_of(run: RunDir, job: Job, pretrained: Path) -> dict[str, Path]:
    """Return the files and directories that a job reads.

    Args:
        run: Run that the job belongs to.
        job: As for `of_job`.
        pretrained: Directory of the model that training starts from.

    Raises:
        UserError: A file that says which inputs these are (the manifest of a search, `choice.json`) or a ticket of
            `tickets_from` is missing or damaged.
    """
    config = run.config
    if not isinstance(job, DrawingJob | TrainingJob):  # prepare
        return {key: Path(file) for key in ("train", "dev", "test") if (file := getattr(config.data, key))}
    tuned = {"model": run.model(job.seed, "finetune")}
    if isinstance(job, DrawingJob):
        source = METHODS[job.method].source
        if job.method == config.given_method:
            return {"scores": run.given_ticket(job.seed, job.sparsity)}
        if SOURCES[source].stage != "search":
            return {"scores": run.pruned(job.seed, source, job.sparsity)}
        epochs = read_manifest(run.stage(job.seed, source), Searched).results.epochs
        return {**tuned, "scores": run.log_alpha(job.seed, max(1, epochs - job.epochs_back), source)}
    inputs = {"model": pretrained}
    if job.stage == "search":
        inputs = tuned
    elif job.stage == "retrain":
        inputs["ticket"] = run.ticket(job.seed, job.model)
    elif job.stage == "control":
        inputs["ticket"] = run.ticket(job.seed, str(run.chosen()))
    return {**inputs, **{name: run.split(name) for name in splits_read(config)}}


def splits_read(config: schema.Experiment) -> tuple[str, ...]:
    """Return the splits that a training reads.

    Under `compat: official` the test set serves as dev set of most tasks.
    """
    test_is_dev = config.compat == "official" and config.task not in CUTS_DEV
    return ("train", "dev", "test") if test_is_dev else ("train", "dev")


def local_model(model: str) -> Path | None:
    """Return the directory of a pre-trained model, without downloading anything; None if it is not on this machine."""
    if model == "packaged":
        return assets.folder("minilm")
    downloaded = hub.folder("model", *hub.model_key(model))
    return next((path for path in (Path(model), downloaded) if path.is_dir()), None)
