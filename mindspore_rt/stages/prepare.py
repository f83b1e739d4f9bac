"""Stage `prepare`: normalised train, dev and test splits."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import product

from configs.contract import classifiers
from configs.contract.check_config import refuse_missing
from configs.contract.errors import UserError
from configs.contract.jobs import Job
from configs.contract.processes import run_module
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
    """Refuse tickets of `tickets_from` that are missing or prune another share, before anything is trained.

    Raises:
        UserError: With the file.
    """
    config = run.config
    for seed, sparsity in product(config.seeds, config.sparsities if config.tickets_from else ()):
        tickets.given_ticket(run.given_ticket(seed, sparsity), sparsity)


def check_victims(run: RunDir) -> None:
    """Refuse what cannot be attacked before anything is trained.

    Where the scoring half is installed it loads each classifier: a model without a head is a model of whole files.

    Raises:
        UserError: A folder of attack.victims is no classifier of this data.
    """
    victims, summary, length = run.own_victims(), run.summary(), run.config.attack_length
    for name, folder in victims.items():
        try:
            classifiers.check(folder, summary.labels, length)
        except UserError as error:
            raise UserError(f"attack.victims: {name}: {error}") from None
    if victims and find_spec("transformers"):
        folders = [str(folder.resolve()) for folder in victims.values()]
        try:
            run_module("torch_eval.attack.try_victims", [str(length), str(len(summary.columns)), *folders])
        except UserError as error:
            raise UserError(f"attack.victims: {error}") from None
