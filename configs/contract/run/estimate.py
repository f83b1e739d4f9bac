"""A rough estimate of the time and disk space of an experiment, before it starts.

Operations are counted and divided by the speed that this machine has reached in finished jobs.
"""

from __future__ import annotations

import math
from collections import Counter

import msgspec

from configs.contract.basics.files import read_json, read_lines
from configs.contract.basics.processes import usable_cores
from configs.contract.experiment import schema
from configs.contract.inputs.matrices import block
from configs.contract.run.jobs import CLEAN, Job, TrainingJob, attack_jobs, jobs
from configs.contract.run.run_dir import RunDir
from configs.contract.run.run_files import Positive, Seconds
from configs.contract.run.settings import local_model
from configs.contract.run.stage import read_manifest

START = 12.0  # seconds to start a process and to compile its graphs
# Operations a second of one core, until a job has finished: a training of sst2_effect reached 79e9 with AVX-512, and
# older cores have half of that. Timing a matrix product of NumPy is no better guide: its library does not know every
# processor, and was six times too slow on the one measured.
CORE_RATE = 50e9
# Victim queries for each token of an attacked sentence: #Query of the paper's Table 1 on SST-2 and IMDB, divided by the
# lengths of their sentences.
QUERIES_PER_TOKEN = {"textfooler": 4.5, "textbugger": 2.5, "bertattack": 6.0}
QUERIES_OF_OTHERS = 6.0


class ModelShape(msgspec.Struct):
    """Sizes in a model's `config.json`; BERT-base's where it states none."""

    num_hidden_layers: Positive = 12
    hidden_size: Positive = 768
    intermediate_size: Positive = 3072


class Timed(msgspec.Struct):
    """The time that one example took, in a line of `results.jsonl`."""

    seconds: Seconds | None = None


def duration(seconds: float) -> str:
    """Return a time in the unit that reads best."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def search_space(scores: int, state: int, settings: schema.MaskSearch) -> str:
    """Describe the memory and the disk space of a search.

    Args:
        scores: Number of mask scores, float32.
        state: Number of values that a checkpoint holds: scores and the optimizer's moments.
        settings: Hyper-parameters of the search.
    """
    return (
        f"{scores:,} masks: {4 * (state + scores) / 1e9:.2f} GB for scores, gradients and moments, "
        f"{4 * scores / 1e6:.0f} MB on disk for each kept epoch ({settings.kept_epochs}, by search.keep_epochs), "
        f"{4 * state / 1e6:.0f} MB for the checkpoint"
    )


class Estimator:
    """Times of the jobs of one experiment.

    Args:
        run: Run of the experiment; the speed is that of its finished jobs.

    Attributes:
        weights: Weights that multiply each token: all matrices of the encoder, and the pooler.
        scores: Mask scores of a search.
        sentences: Training sentences.
        tokens: Mean number of padded tokens of a sentence.
        rate: Operations a second.
        basis: Where `rate` comes from.
    """

    def __init__(self, run: RunDir) -> None:
        self.run, self.config = run, run.config
        shape = _model_shape(self.config)
        hidden, layers = shape.hidden_size, self.config.layers or shape.num_hidden_layers
        self.weights = layers * (4 * hidden * hidden + 2 * hidden * shape.intermediate_size) + hidden * hidden
        self.scores = self.weights // math.prod(block(self.config.search.granularity, hidden))
        self.sentences, self.tokens = _data(run)
        self.rate, self.basis = self._rate()
        if not (run.data / "summary.json").is_file() and not self.config.data.train_size:
            self.basis += f"; the training set is taken to have {self.sentences:,} sentences until `prepare` counts it"

    def work(self, job: Job) -> float:
        """Return the operations of a training job: two for each weight and token forwards, four backwards."""
        if not isinstance(job, TrainingJob):
            return 0.0
        steps = job.steps(-(-self.sentences // job.settings.batch_size))
        return 6.0 * self.weights * self.tokens * steps * job.settings.batch_size * job.passes

    def seconds(self, job: Job) -> float:
        """Return the time of a job from its beginning."""
        return START + self.work(job) / self.rate if self.work(job) else 5.0

    def attacks(self) -> list[tuple[str, str, float]]:
        """Return the stages that attack, each with its description and the seconds that it still takes."""
        attacks = [job for job in attack_jobs(self.run, planned=True) if job.recipe != CLEAN]
        waiting = Counter((job.stage, job.recipe, job.sentences) for job in attacks if not job.done)
        left = {"choose": 0.0, "attack": 0.0}
        for (stage, recipe, sentences), count in waiting.items():
            left[stage] += count * sentences * self._attack_seconds(recipe)
        sentences = sum(job.sentences for job in attacks if job.stage == "choose")
        rows = [("choose", f"{sentences} {self.config.choice_split} sentences", left["choose"])] if sentences else []
        models = len({job.name for job in attacks if job.stage == "attack"})
        options = self.config.attack
        text = (
            f"{models} model{'s' * (models > 1)}, {options.examples} sentences, "
            f"{len(options.recipes)} attack{'s' * (len(options.recipes) > 1)}"
        )
        return [*rows, ("attack", text, left["attack"])]

    def _attack_seconds(self, recipe: str) -> float:
        """Return the time of one sentence: the mean of finished attacks, or else the time of its queries."""
        folders = [self.run.attacks(seed) for seed in self.config.seeds]
        files = [path for folder in folders for path in folder.glob(f"*/{recipe}/results.jsonl")]
        lines = [line for file in files for line in read_lines(file, Timed)]
        times = [line.seconds for line in lines if line.seconds is not None]
        if times:
            return sum(times) / len(times) / self.config.attack.workers
        queries = QUERIES_PER_TOKEN.get(recipe, QUERIES_OF_OTHERS) * self.tokens
        idle = max(1.0, usable_cores() / self.config.attack.workers)  # each process has one thread
        return idle * queries * 2.0 * self.weights * self.tokens / self.rate

    def space(self) -> list[str]:
        """Describe the disk space of the searches, if there are any and it is more than a tenth of a gigabyte."""
        epochs, searches = self.config.search.kept_epochs, sum(job.stage == "search" for job in jobs(self.run))
        size = 4 * self.scores * epochs * searches / 1e9
        if size < 0.1:
            return []
        return [
            f"  disk: about {size:.1f} GB of mask scores: each search keeps its last epochs, {epochs} of them "
            f"(search.keep_epochs keeps fewer)"
        ]

    def _rate(self) -> tuple[float, str]:
        """Return `rate` and `basis`."""
        done = [(self.work(job), read_manifest(job.directory).seconds) for job in jobs(self.run) if job.done]
        done = [(work, seconds - START) for work, seconds in done if work and seconds > 2 * START]
        if done:
            return sum(w for w, _ in done) / sum(s for _, s in done), f"measured on {len(done)} finished jobs"
        cores = usable_cores()
        note = "" if self.config.device == "CPU" else f" of the CPU; {self.config.device} was not measured"
        return cores * CORE_RATE, f"guessed from its number of cores, {cores}{note}"


def _model_shape(config: schema.Experiment) -> ModelShape:
    """Read the shape of the pre-trained model, or assume BERT-base's while it is not on this machine."""
    directory = local_model(config.model)
    if directory is None or not (directory / "config.json").is_file():
        return ModelShape()
    return read_json(directory / "config.json", ModelShape, "model must name the directory of a Hugging Face BERT")


def _data(run: RunDir) -> tuple[int, float]:
    """Return the number of training sentences and their mean padded tokens, guessed before `prepare`."""
    config = run.config.data
    if not (run.data / "summary.json").is_file():
        return config.train_size or 60_000, config.max_length / 2
    split = run.summary().splits["train"]
    words = sum((int(name.split("-")[0]) + 5) * count for name, count in split.length.items()) / split.count
    # About 1.4 word pieces a word; the rest is special pieces and padding.
    return split.count, min(config.max_length, 1.4 * words + 10)
