"""What a training stage reads: settings and hashes, the pre-trained model, the splits, and files of earlier stages."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from configs.contract.basics.errors import UserError
from configs.contract.experiment import schema
from configs.contract.inputs.tokenizer import load_tokenizer, sample_ids
from configs.contract.run import settings
from configs.contract.run.jobs import Job, TrainingJob
from configs.contract.run.run_dir import RunDir
from configs.contract.run.stage import Stage
from mindspore_rt.cells import backend, noise
from mindspore_rt.data import splits
from mindspore_rt.data.batches import Batches
from mindspore_rt.formats import huggingface
from mindspore_rt.ticket import divides

J = TypeVar("J", bound=Job)
PACKAGES = ("mindspore", "numpy", "tokenizers", "safetensors")


def stage_of(run: RunDir, job: Job, before: Path | None = None) -> Stage:
    """Describe the stage of a job by everything that decides its outcome.

    Args:
        run: Run that the stage belongs to.
        job: What is made.
        before: Ticket of the round before, in a round of pruning.
    """
    trains = job.stage not in ("prepare", "draw")
    inputs = settings.inputs_of(run, job, huggingface.resolve(run.config.model) if trains else Path())
    if before:
        inputs = {"model": inputs.pop("model"), "before": before, **inputs}
    values = settings.of_job(run, job, backend.current().value if trains else None)
    packages = {"prepare": (), "draw": ("numpy", "safetensors")}
    return Stage(job.directory, job.stage, values, inputs, packages.get(job.stage, PACKAGES))


def unless_done(work: Callable[[RunDir, J, Stage], None]) -> Callable[[RunDir, J], None]:
    """Decorate what a stage does: the stage of the job is described first, and a finished job is skipped."""

    @functools.wraps(work)
    def stage_function(run: RunDir, job: J) -> None:
        stage = stage_of(run, job)
        if not already_done(stage, job.leaves):
            work(run, job, stage)

    return stage_function


def already_done(stage: Stage, leaves: Sequence[Path] = ()) -> bool:
    """Tell whether a stage is finished, with the files that it leaves, and print whether it is skipped.

    Raises:
        Changed: The stage was made with other settings, inputs or versions.
    """
    if stage.is_done() and all(path.is_file() for path in leaves):
        stage.checkpoint.unlink(missing_ok=True)  # is there if the process was killed after it wrote the manifest
        print(f"{stage.name}: already done, skipped ({stage.directory})", flush=True)
        return True
    print(f"{stage.name}: {stage.directory}", flush=True)
    return False


def pretrained(config: schema.Experiment) -> huggingface.Model:
    """Load the pre-trained model of the experiment."""
    return huggingface.load(huggingface.resolve(config.model), config.layers)


def batches(run: RunDir, job: TrainingJob, split: str, batch_size: int, source: huggingface.Model) -> Batches:
    """Tokenise a split for a model.

    Args:
        run: Run whose split it is.
        job: Training that reads it; its seed decides the order of the sentences.
        split: `train` or `dev`.
        batch_size: Sentences in a batch, over all workers.
        source: Model whose tokenizer is taken.

    Raises:
        UserError: The model has fewer positions or segments than the data need.
    """
    texts, labels = load_split(run, job, split)
    summary, length = run.summary(), run.config.data.max_length
    positions, needed = source.config.positions, max(length, run.config.attack_length)
    if needed > positions:
        key = "data.max_length" if length > positions else "attack.protocol=official cuts to"
        raise UserError(f"{key}: {needed}, but {source.directory} has {positions} positions")
    reads_segments = source.config.family.reading.segments
    if len(summary.columns) > 1 and reads_segments and source.config.type_vocab_size < 2:
        raise UserError(f"{source.directory}: its type_vocab_size is 1, but pairs of texts need two segments")
    tokenizer = load_tokenizer(source.directory, length, source.config.vocab_size)
    return Batches(texts, labels, len(summary.labels), tokenizer, length, batch_size, job.seed)


def token_ids(run: RunDir, job: Job, source: huggingface.Model) -> dict:
    """Return a sample of dev with the ids that this training reads, for `TOKEN_IDS`.

    Raises:
        UserError: The trained model's tokenizer, once written, would give other ids.
    """
    length = run.config.data.max_length
    tokenizer = load_tokenizer(source.directory, length, source.config.vocab_size)
    return {"max_length": length, "texts": sample_ids(tokenizer, load_split(run, job, "dev")[0])}


def load_split(run: RunDir, job: Job, split: str) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """Read the texts and labels of `train` or `dev`.

    Under `compat: official` the test set serves as dev set, and training takes all other sentences. For IMDB and
    AG News every stage instead splits a new dev set off these: a tenth of them.

    Returns:
        Texts (one tuple of columns for each sentence), and labels (sentences,) int.
    """
    config = run.config
    if config.compat == "paper":
        return splits.read(run, split)
    cuts_dev = config.task in settings.CUTS_DEV
    if not cuts_dev and split == "dev":
        return splits.read(run, "test")
    train, dev = splits.read(run, "train"), splits.read(run, "dev")
    texts, labels = train[0] + dev[0], np.concatenate([train[1], dev[1]])
    if not cuts_dev:
        return texts, labels
    stage_number = zlib.crc32(job.stage.encode())
    order = noise.generator(config.data.seed, noise.SHUFFLE, stage_number).permutation(len(texts))
    cut = round(0.9 * len(texts))
    order = order[:cut] if split == "train" else order[cut:]
    return [texts[i] for i in order], labels[order]


def read_scores(path: Path, shapes: dict[str, tuple[int, int]]) -> dict[str, np.ndarray]:
    """Read the mask scores (log alpha) that a search saved, in the order of the prunable matrices.

    Args:
        path: File of one epoch.
        shapes: Name and shape of every prunable matrix.

    Raises:
        UserError: The file is missing or damaged, or its scores are not of a model with these matrices.
    """
    remedy = f"delete {path.parents[1]} to redo the search"
    try:
        arrays = huggingface.read_safetensors(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {remedy}") from None
    except UserError as error:
        raise UserError(f"{error}; {remedy}") from None
    for name, shape in shapes.items():
        score = arrays.get(name, np.zeros(0))
        if score.dtype != np.float32 or not divides(score.shape, shape) or not np.isfinite(score).all():
            raise UserError(f"{path}: scores of {name} are missing, misshapen or not finite; {remedy}")
    return {name: arrays[name] for name in shapes}
