"""Stage `prepare`: normalised train, dev and test splits."""

from __future__ import annotations

from configs.contract import classifiers
from configs.contract.errors import UserError
from configs.contract.jobs import Job
from configs.contract.run_dir import RunDir
from mindspore_rt.data import prepare as data
from mindspore_rt.stages import inputs


def prepare(run: RunDir, job: Job) -> None:
    """Write the splits of the experiment's task."""
    stage = inputs.stage_of(run, job)
    for key, file in stage.inputs.items():
        if not file.exists():
            raise UserError(f"data.{key}: no file {file}")
    if not inputs.already_done(stage):
        summary = data.prepare(run.config, run)
        for name, split in summary["splits"].items():
            balance = ", ".join(f"{count} {label}" for label, count in split["labels"].items())
            print(f"  {name}: {split['count']} sentences ({balance})")
        for warning in summary["warnings"]:
            print(f"  warning: {warning}")
        stage.finish({name: split["count"] for name, split in summary["splits"].items()})
    for name, folder in run.own_victims().items():  # what cannot be attacked is refused before any training
        try:
            classifiers.check(folder, run.summary().labels, run.config.attack_length)
        except UserError as error:
            raise UserError(f"attack.victims: {name}: {error}") from None
