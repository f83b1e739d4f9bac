"""What an experiment consists of, in order: the one place that knows which stage runs when, and for which models."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from configs.contract.experiment import schema
from configs.contract.experiment.methods import (
    FINE_TUNING,
    METHODS,
    SOURCES,
    TRAINED_BY,
    needs_robust_ticket,
    of_kind,
    sources,
)
from configs.contract.experiment.model_id import ModelId
from configs.contract.run.run_dir import RunDir

S = TypeVar("S", bound=schema.Updates, covariant=True)
CLEAN = "clean"  # stands where an attack's name does: the accuracy on unchanged sentences of the whole test set
# Stage to the half that runs it, in the order of an experiment.
HALVES = {
    "prepare": "mindspore_rt",
    "finetune": "mindspore_rt",
    "search": "mindspore_rt",
    "prune": "mindspore_rt",
    "draw": "mindspore_rt",
    "retrain": "mindspore_rt",
    "choose": "torch_eval",
    "control": "mindspore_rt",
    "attack": "torch_eval",
    "report": "torch_eval",
}


@dataclass(frozen=True)
class Job:
    """One thing that a stage does in one directory.

    Attributes:
        stage: A key of `HALVES`.
        model: Name of the directory under its seed, or under the run.
        directory: Where the job writes its results and its manifest.
        seed: Experiment seed; None for what all seeds share.
        leaves: Files that a finished job has left, beside its manifest.
    """

    stage: str
    model: str
    directory: Path
    seed: int | None = None
    leaves: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The directory below the run, such as `seed-1/freelb`."""
        return self.model if self.seed is None else f"seed-{self.seed}/{self.model}"

    @property
    def done(self) -> bool:
        """Whether its manifest is there. Whether that fits the configuration, the stage itself checks."""
        return all(path.is_file() for path in (self.directory / "manifest.json", *self.leaves))


@dataclass(frozen=True, kw_only=True)
class DrawingJob(Job):
    """The drawing of one ticket.

    Attributes:
        method: The method that the ticket belongs to.
        sparsity: Share of pruned weights that was asked for.
        epochs_back: Search epochs between the ticket's scores and the last ones.
    """

    seed: int
    method: str
    sparsity: float
    epochs_back: int = 0


@dataclass(frozen=True, kw_only=True)
class TrainingJob(Job, Generic[S]):
    """A search for masks, rounds of pruning, or the training of a model.

    Attributes:
        section: Section of the configuration with the hyper-parameters.
        settings: The values of that section, with what the job fixes.
        objective: What minimises the loss, as in `Method` and `Source`.
        backward_passes: Number of backward passes in each of the K passes of a step.
        rounds: Number of rounds of pruning, each a training of its own.
        snapshots: Number of equal parts of the training, after each of which the model is saved; 0 for the end alone.
    """

    seed: int
    section: str
    settings: S
    objective: str = FINE_TUNING
    backward_passes: int = 1
    rounds: int = 1
    snapshots: int = 0

    @property
    def passes(self) -> int:
        """Forward and backward passes over a sentence in each epoch, in all rounds of pruning together."""
        return getattr(self.settings, "ascent_steps", 1) * self.backward_passes * self.rounds

    def steps(self, batches: int) -> int:
        """Return the updates of one training (a round of pruning is one) with so many batches an epoch."""
        steps = self.settings.epochs * batches
        return min(steps, self.settings.max_steps or steps)


@dataclass(frozen=True, kw_only=True)
class ModelJob(TrainingJob[schema.Training]):
    """The training of a model that is attacked.

    Attributes:
        method: The method that the model belongs to.
    """

    method: str


@dataclass(frozen=True, kw_only=True)
class AttackJob(Job):
    """An attack on one model, or the measurement of its accuracy.

    Attributes:
        recipe: The attack, or `CLEAN`.
        split: Where the sentences come from.
        sentences: How many are asked for.
    """

    seed: int
    recipe: str
    split: str = "test"
    sentences: int

    @property
    def left_out(self) -> Path:
        """File that says why the attack cannot run here."""
        return self.directory / "missing.json"


def attack_jobs(run: RunDir, recipes: Sequence[str] = (), planned: bool = False) -> list[AttackJob]:
    """Return all attacks: on the candidates of the choice, then on each model, with `CLEAN` before the recipes.

    Args:
        run: Run of the experiment.
        recipes: Attacks on the test set in another order; empty for that of the configuration.
        planned: As for `RunDir.victims`.
    """
    config, choice = run.config, run.config.choice
    candidates = run.candidates() if needs_robust_ticket(config.methods) and config.chooses else []
    result = [
        AttackJob(
            "choose",
            name,
            run.choice_attack(seed, name),
            seed=seed,
            recipe=choice.recipe,
            split=config.choice_split,
            sentences=choice.examples,
        )
        for name in map(str, candidates)
        for seed in config.seeds
        if len(candidates) > 1
    ]
    for seed in config.seeds:
        for model in run.victims(seed, planned):
            for recipe in (CLEAN, *(recipes or config.attack.recipes)):
                folder, count = run.attack(seed, model) / recipe, config.attack.examples
                result.append(AttackJob("attack", model, folder, seed=seed, recipe=recipe, sentences=count))
    return result


def jobs(run: RunDir) -> list[Job]:
    """Return all jobs of an experiment but attacks and report, in the order of `HALVES`."""
    methods = run.config.methods
    result: list[Job] = [Job("prepare", "data", run.data)]
    origins, starts = _before_tickets(run, methods)
    dense = run.at_all_lengths([ModelId(method) for method in of_kind(methods, "dense")])
    dense = [model for model in starts if model not in dense] + dense
    drawn = tickets(run)
    controls = [ModelId(method, run.likely_choice().sparsity) for method in of_kind(methods, "control")]
    for seed in run.config.seeds:
        result += [_making_scores(run, origin, seed) for origin in origins]
        result += [_drawing(run, ticket, seed) for ticket in drawn]
        result += [_training(run, model, seed) for model in dense + run.at_all_lengths(drawn + controls)]
    order = list(HALVES)
    return sorted(result, key=lambda job: order.index(job.stage))


def trainings(run: RunDir, model: ModelId, seed: int) -> list[TrainingJob]:
    """Return all trainings that a model needs, in order: those of its ticket's scores, then its own."""
    origins, starts = _before_tickets(run, [model.method])
    before = [_making_scores(run, origin, seed) for origin in origins]
    return [*(_training(run, start, seed) for start in starts), *before, _training(run, model, seed)]


def _before_tickets(run: RunDir, methods: list[str]) -> tuple[list[str], list[ModelId]]:
    """Return the sources of the methods' tickets, and the models that their searches start from."""
    origins = [name for name in sources(methods) if (name, run.config.given_method) != ("search", "robust")]
    searches = any(SOURCES[origin].stage == "search" for origin in origins)
    return origins, [ModelId("finetune")] if searches else []


def _drawing(run: RunDir, ticket: ModelId, seed: int) -> DrawingJob:
    assert ticket.sparsity is not None  # every ticket has one
    return DrawingJob(
        "draw",
        str(ticket),
        run.ticket(seed, str(ticket)).parent,
        seed=seed,
        method=ticket.method,
        sparsity=ticket.sparsity,
        epochs_back=ticket.epochs_back,
    )


def _training(run: RunDir, model: ModelId, seed: int) -> ModelJob:
    method = METHODS[model.method]
    settings = getattr(run.config, method.section)
    return ModelJob(
        TRAINED_BY[method.kind],
        str(model),
        run.stage(seed, str(model)),
        seed=seed,
        section=method.section,
        settings=dataclasses.replace(settings, epochs=model.epochs or settings.epochs),
        objective=method.objective,
        backward_passes=method.backward_passes,
        snapshots=run.config.snapshots if method.snapshots else 0,
        method=model.method,
    )


def _making_scores(run: RunDir, name: str, seed: int) -> TrainingJob:
    """Describe the search or the pruning that gives tickets of all requested sparsities."""
    source, sparsities = SOURCES[name], run.config.sparsities
    settings = dataclasses.replace(getattr(run.config, source.section), **source.fixed)
    prunes = source.stage == "prune"
    return TrainingJob(
        source.stage,
        name,
        run.stage(seed, name),
        leaves=tuple(run.pruned(seed, name, sparsity) for sparsity in sparsities if prunes),
        seed=seed,
        section=source.section,
        settings=settings,
        objective=source.objective,
        # The last round prunes what is missing to the largest requested sparsity.
        rounds=max(1, math.ceil(max(sparsities) / settings.share - 1e-9)) if prunes else 1,
    )


def tickets(run: RunDir) -> list[ModelId]:
    """Return every ticket of one seed that is drawn and retrained."""
    methods = [method for method in of_kind(run.config.methods, "ticket") if method != "robust"]
    others = [ModelId(method, sparsity) for method in methods for sparsity in run.config.sparsities]
    return others + (run.candidates() if needs_robust_ticket(run.config.methods) else [])


def stages(run: RunDir) -> list[str]:
    """Return the stages of the two halves that this experiment needs, in order."""
    needed = {job.stage for job in jobs(run)} | {"attack", "report"}
    if needs_robust_ticket(run.config.methods):
        needed.add("choose")
    return [stage for stage in HALVES if stage in needed]
