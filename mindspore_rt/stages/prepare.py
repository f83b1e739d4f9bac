"""Stage `prepare`: normalised train, dev and test splits."""

from __future__ import annotations

from pathlib import Path

from configs.contract import schema
from configs.contract.errors import UserError
from configs.contract.jobs import Job
from configs.contract.run_dir import RunDir
from configs.contract.stage import Stage
from mindspore_rt.data import prepare as data
from mindspore_rt.stages import inputs


def prepare(run: RunDir, job: Job) -> None:
    """Write the splits of the experiment's task."""
    config = run.config
    files = {key: file for key in ("train", "dev", "test") if (file := getattr(config.data, key))}
    for key, file in files.items():
        if not Path(file).exists():
            raise UserError(f"data.{key}: no file {file}")
    settings = {"task": config.task, **schema.to_dict(config.data)}
    settings.pop("max_length")
    stage = Stage(run.data, "prepare", settings, {key: Path(file) for key, file in files.items()})
    if inputs.already_done(stage):
        return
    summary = data.prepare(config, run)
    for name, split in summary["splits"].items():
        balance = ", ".join(f"{count} {label}" for label, count in split["labels"].items())
        print(f"  {name}: {split['count']} sentences ({balance})")
    for warning in summary["warnings"]:
        print(f"  warning: {warning}")
    stage.finish({name: split["count"] for name, split in summary["splits"].items()})
