"""Stage `prepare`: normalised train, dev and test splits.

python -m mindspore_rt.stages.prepare CONFIG [key=value ...]    only checks the model and given tickets, for the plan
"""

from __future__ import annotations

import sys

from configs.contract.basics.errors import UserError, command
from configs.contract.experiment import schema
from configs.contract.experiment.check_config import refuse_missing
from configs.contract.inputs import classifiers, matrices
from configs.contract.run import settings
from configs.contract.run.jobs import DrawingJob, Job, attack_jobs, jobs
from configs.contract.run.run_dir import RUNS, RunDir
from mindspore_rt.data import splits
from mindspore_rt.formats import huggingface
from mindspore_rt.stages import inputs, tickets


def prepare(run: RunDir, job: Job) -> None:
    """Write the splits of the experiment's task."""
    refuse_missing(run.config)
    check_tickets(run)
    stage = inputs.stage_of(run, job)
    if not inputs.already_done(stage):
        summary = splits.write(run)
        counts = {name: split["count"] for name, split in summary["splits"].items()}
        for name, split in summary["splits"].items():
            balance = ", ".join(f"{count} {label}" for label, count in split["labels"].items())
            print(f"  {name}: {counts[name]} sentences ({balance})")
        for key, name, size in _requested_sizes(run):
            if size > counts[name]:
                print(f"  {key}: {size} requested, all {counts[name]} sentences of {name} are taken")
        for warning in summary["warnings"]:
            print(f"  warning: {warning}")
        stage.finish(counts)
    check_victims(run)


def _requested_sizes(run: RunDir) -> list[tuple[str, str, int]]:
    """Return key, split and number for each key that takes all sentences of a split if it has fewer than requested."""
    sections = {"choose": "choice", "attack": "attack"}
    attacks = {(f"{sections[job.stage]}.examples", job.split, job.sentences) for job in attack_jobs(run, planned=True)}
    return [("data.train_size", "train", run.config.data.train_size or 0), *sorted(attacks)]


def check_tickets(run: RunDir, download: bool = True) -> None:
    """Refuse tickets that are missing, or that a model of this shape cannot have, before anything is trained.

    Args:
        run: The experiment.
        download: Whether a model that tickets must fit is downloaded; if not, only one that is here is looked at.

    Raises:
        UserError: With the file or the key.
    """
    config, planned = run.config, jobs(run)
    drawn = [job for job in planned if isinstance(job, DrawingJob)]
    given = [
        (run.given_ticket(job.seed, job.sparsity), job.sparsity) for job in drawn if job.method == config.given_method
    ]
    shared = config.search.granularity != "weight" and any(job.stage == "search" for job in planned)
    needed = given or shared or config.structured and drawn
    if not (settings.local_model(config.model) or download and needed):
        return
    _, model = huggingface.read_shape(huggingface.resolve(config.model), config.layers)
    for file, sparsity in given:
        tickets.given_ticket(config, file, sparsity, model)
    tickets.highest_sparsity(config, model)
    for name, shape in model.prunable().items() if shared else ():
        matrices.groups(name, shape, matrices.block(config.search.granularity, model.hidden_size))


def check_victims(run: RunDir) -> None:
    """Refuse a folder of `attack.victims` that is no classifier of this data, before anything is trained.

    Raises:
        UserError: With its name.
    """
    for name, folder in run.own_victims().items():
        try:
            classifiers.check(folder, run.summary().labels, run.config.attack_length)
        except UserError as error:
            raise UserError(f"attack.victims: {name}: {error}") from None


@command
def main(config: str, *overrides: str) -> int:
    """Check the model and the given tickets of an experiment; returns the exit status."""
    check_tickets(RunDir(schema.load(config, overrides), RUNS), download=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
