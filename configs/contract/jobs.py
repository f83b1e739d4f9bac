"""What an experiment consists of, in order: the one place that knows which stage runs when, and for which models."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

from configs.contract import schema
from configs.contract.methods import METHODS, SOURCES, Method, Source, needs_robust_ticket, of_kind, sources
from configs.contract.model_id import ModelId
from configs.contract.run_dir import RunDir

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
        method: The method that the model belongs to; None if several methods share it.
        sparsity: Share of pruned weights that was asked for.
        back: Search epochs between the ticket's scores and the last ones.
        section: Section of the configuration that trains the model; None if the job trains nothing.
        settings: The values of that section, with what the job fixes.
        objective: What minimises the loss; see `Method.objective`.
        gradients: Gradients that each pass of a step computes.
        rounds: Trainings one after the other.
        leaves: Files that a finished job has left, beside its manifest.
    """

    stage: str
    model: str
    directory: Path
    seed: int | None = None
    method: str | None = None
    sparsity: float | None = None
    back: int = 0
    section: str | None = None
    settings: schema.Training | schema.Search | None = None
    objective: str | None = None
    gradients: int = 1
    rounds: int = 1
    leaves: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The directory below the run, such as `seed-1/freelb`."""
        return self.model if self.seed is None else f"seed-{self.seed}/{self.model}"

    @property
    def title(self) -> str:
        """Stage and model, such as `retrain lth-0.30`; the stage alone where the model says no more."""
        return self.stage if self.model in (self.stage, "data") else f"{self.stage} {self.model}"

    @property
    def done(self) -> bool:
        """Whether its manifest is there. Whether that fits the configuration, the stage itself checks."""
        return all(path.is_file() for path in (self.directory / "manifest.json", *self.leaves))

    def steps(self, batches: int) -> int:
        """Return the updates of one training (a round of pruning is one) with so many batches an epoch."""
        assert self.settings, f"{self.name} trains nothing"
        steps = self.settings.epochs * batches
        return min(steps, self.settings.max_steps or steps)


def jobs(run: RunDir) -> list[Job]:
    """Return all training jobs of an experiment, stage by stage: prepare, finetune, search, prune, draw, retrain,
    control."""
    methods, result = run.config.methods, [Job("prepare", "data", run.data)]
    origins, dense = sources(methods), of_kind(methods, "dense")
    if run.config.ticket:
        origins = [origin for origin in origins if origin != "search"]  # the robust ticket is given
    if "finetune" not in dense and any(SOURCES[origin].stage == "search" for origin in origins):
        dense.insert(0, "finetune")  # its masks are searched
    for seed in run.config.seeds:
        result += [_training(run, "finetune", ModelId(method), seed) for method in dense]
        result += [_making_scores(run, origin, seed) for origin in origins]
        for ticket in tickets(run):
            folder, facts = run.ticket(seed, str(ticket)).parent, (seed, ticket.method, ticket.sparsity)
            result.append(Job("draw", str(ticket), folder, *facts, ticket.epochs_back))
            result.append(_training(run, "retrain", ticket, seed))
        for method in of_kind(methods, "control"):
            result.append(_training(run, "control", ModelId(method, run.likely_choice().sparsity), seed))
    order = list(HALVES)
    return sorted(result, key=lambda job: order.index(job.stage))


def _training(run: RunDir, stage: str, model: ModelId, seed: int) -> Job:
    """The training of a model that is attacked."""
    method = METHODS[model.method]
    facts = (seed, model.method, model.sparsity, model.epochs_back)
    return Job(
        stage, str(model), run.stage(seed, str(model)), *facts, **_how(run.config, method), gradients=method.gradients
    )


def _making_scores(run: RunDir, name: str, seed: int) -> Job:
    """The search or the pruning that tickets of all asked sparsities come from."""
    source, config = SOURCES[name], run.config
    how = _how(config, source)
    if source.stage == "prune":
        # The last round prunes what is missing to the largest asked sparsity.
        how["rounds"] = max(1, math.ceil(max(config.sparsities) / how["settings"].share - 1e-9))
        how["leaves"] = tuple(run.pruned(seed, name, sparsity) for sparsity in config.sparsities)
    return Job(source.stage, name, run.stage(seed, name), seed, **how)


def _how(config: schema.Experiment, trained: Method | Source) -> dict:
    """Section, values and objective of a training."""
    settings = dataclasses.replace(getattr(config, trained.section), **getattr(trained, "fixed", {}))
    return {"section": trained.section, "settings": settings, "objective": trained.objective}


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
