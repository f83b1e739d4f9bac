"""Stage `prepare`: normalised train, dev and test splits."""

from __future__ import annotations

from itertools import product

from configs.contract import classifiers
from configs.contract.check_config import refuse_missing
from configs.contract.errors import UserError
from configs.contract.jobs import Job
from configs.contract.run_dir import RunDir
from mindspore_rt.data import splits
from mindspore_rt.stages import inputs, tickets


def prepare(run: RunDir, job: Job) -> None:
    """Write the splits of the experiment's task."""
    refuse_missing(run.config)
    check_given_tickets(run)
    stage = inputs.stage_of(run, job)
    if not inputs.already_done(stage):
        summary = splits.write(run)
        for name, split in summary["splits"].items():
            balance = ", ".join(f"{count} {label}" for label, count in split["labels"].items())
            print(f"  {name}: {split['count']} sentences ({balance})")
        for warning in summary["warnings"]:
            print(f"  warning: {warning}")
        stage.finish({name: split["count"] for name, split in summary["splits"].items()})
    check_victims(run)


def check_given_tickets(run: RunDir) -> None:
    """Refuse tickets of `tickets_from` that are missing or cannot be used here, before anything is trained.

    Raises:
        UserError: With the file.
    """
    config = run.config
    for seed, sparsity in product(config.seeds, config.sparsities if config.tickets_from else ()):
        tickets.given_ticket(config, run.given_ticket(seed, sparsity), sparsity)


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
