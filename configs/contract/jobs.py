"""What an experiment consists of, in order: the one place that knows which stage runs when, and for which models.

python -m configs.contract.plan stages CONFIG [key=value ...]     the commands of the two halves, one a line
python -m configs.contract.plan show CONFIG [key=value ...]       what will run, what is done, how long it may take
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from configs.contract import schema
from configs.contract.errors import UserError, command
from configs.contract.methods import SEARCHES, needs_robust_ticket, of_kind, sources
from configs.contract.model_id import ModelId
from configs.contract.run_dir import RUNS, RunDir

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
    """One thing to do in one directory. `model` is the directory's name under its seed (or the whole run); `leaves` are
    the files that it must have left, of a job whose asked results may grow."""

    stage: str
    model: str
    directory: Path
    seed: int | None = None
    method: str | None = None
    sparsity: float | None = None
    back: int = 0
    leaves: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        return self.model if self.seed is None else f"seed-{self.seed}/{self.model}"

    @property
    def done(self) -> bool:
        """True if its manifest is there; whether that fits the configuration, the stage itself checks."""
        return all(path.is_file() for path in (self.directory / "manifest.json", *self.leaves))


def jobs(run: RunDir) -> list[Job]:
    """All training jobs of an experiment, stage by stage: prepare, finetune, search, prune, draw, retrain, control."""
    config, methods, result = run.config, run.config.methods, []
    origins, controls = sources(methods), of_kind(methods, "control")
    dense = of_kind(methods, "dense")
    if "finetune" not in dense and set(origins) & set(SEARCHES):
        dense.insert(0, "finetune")  # its masks are searched

    def add(stage, model, seed, directory=None, **more):
        result.append(Job(stage, model, directory or run.stage(seed, model), seed, **more))

    result.append(Job("prepare", "data", run.data))
    for seed in config.seeds:
        for method in dense:
            add("finetune", method, seed, method=method)
        for origin in origins:
            tickets_of = () if origin in SEARCHES else (run.pruned(seed, origin, s) for s in config.sparsities)
            add("search" if origin in SEARCHES else "prune", origin, seed, leaves=tuple(tickets_of))
        for ticket in tickets(run):
            facts = {"method": ticket.method, "sparsity": ticket.sparsity, "back": ticket.epochs_back}
            add("draw", str(ticket), seed, run.ticket(seed, str(ticket)).parent, **facts)
            add("retrain", str(ticket), seed, **facts)
        for method in controls:
            sparsity = run.likely_choice().sparsity
            add("control", str(ModelId(method, sparsity)), seed, method=method, sparsity=sparsity)
    order = list(HALVES)
    return sorted(result, key=lambda job: order.index(job.stage))


def tickets(run: RunDir) -> list[ModelId]:
    """Every ticket of one seed that is drawn and retrained."""
    methods = [method for method in of_kind(run.config.methods, "ticket") if method != "robust"]
    others = [ModelId(method, sparsity) for method in methods for sparsity in run.config.sparsities]
    return others + (run.candidates() if needs_robust_ticket(run.config.methods) else [])


def stages(run: RunDir) -> list[str]:
    """Stages of the two halves that this experiment needs, in order."""
    needed = {job.stage for job in jobs(run)} | {"attack", "report"}
    if needs_robust_ticket(run.config.methods):
        needed.add("choose")
    return [stage for stage in HALVES if stage in needed]


# --- showing it ----------------------------------------------------------------------------------------------


def show(run: RunDir) -> str:
    from configs.contract import estimate

    counts = [
        f"{len(items)} {name}{'s' * (len(items) > 1)}"
        for items, name in ((run.config.methods, "method"), (run.config.seeds, "seed"))
    ]
    lines = [f"{run.config.name}: {', '.join(counts)}, {run.root}", ""]
    total = 0.0
    guess = estimate.Estimator(run)
    for job in jobs(run):
        seconds = 0.0 if job.done else guess.seconds(job)
        total += seconds
        state = "done" if job.done else f"about {estimate.duration(seconds)}"
        lines.append(f"  {job.stage:9s} {job.name:44s} {state}")
    for stage, count, seconds in guess.attacks():
        total += seconds
        lines.append(f"  {stage:9s} {count:44s} " + ("done" if not seconds else f"about {estimate.duration(seconds)}"))
    lines += ["", f"  left: about {estimate.duration(total)} on this machine ({guess.basis})", *guess.space()]
    return "\n".join(lines)


@command
def main(arguments: list[str]) -> int:
    if len(arguments) < 2 or arguments[0] not in ("stages", "show"):
        raise UserError("write: python -m configs.contract.plan stages|show CONFIG [key=value ...]")
    run = RunDir(schema.load(arguments[1], arguments[2:]), RUNS)
    if arguments[0] == "show":
        print(show(run))
    else:
        print("\n".join(f"{HALVES[stage]} {stage}" for stage in stages(run)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
