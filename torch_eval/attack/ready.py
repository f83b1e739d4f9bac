"""Check what the attacks of an experiment will need. Stage `prepare` asks for it, before anything is trained.

python -m torch_eval.attack.ready CONFIG [key=value ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

from configs.contract.basics.errors import command
from configs.contract.experiment import schema
from configs.contract.run.jobs import CLEAN, attack_jobs
from configs.contract.run.run_dir import RUNS, RunDir
from torch_eval.attack import scoring, settings, victims
from torch_eval.attack.workers import Workers
from torch_eval.recipes import recipes


def check_device(run: RunDir) -> None:
    """Look for the device of the attacks.

    Raises:
        UserError: PyTorch does not find it.
    """
    if run.config.attack.device != "cpu":
        from torch_eval.victim import classifier  # only here: it loads PyTorch, which takes seconds

        classifier.check_device(run.config.attack.device)


def check_resources(run: RunDir) -> None:
    """Describe the resources of each recipe.

    A recipe that cannot run here is left out of the attacks, but the choice on dev cannot do without its own.

    Raises:
        UserError: Files or packages are missing.
    """
    for stage, recipe in dict.fromkeys((job.stage, job.recipe) for job in attack_jobs(run, planned=True)):
        if recipe == CLEAN:
            continue
        try:
            recipes.describe_resources(settings.spec(run.config, run.summary(), recipe))
        except recipes.CannotRun:
            if stage == "choose":
                raise


def check_victims(run: RunDir) -> None:
    """Let each classifier in `attack.victims` classify a sample of the test set.

    Raises:
        UserError: One cannot.
    """
    if own := [(run.config.seeds[0], name, folder) for name, folder in run.own_victims().items()]:
        with Workers(1) as one:
            victims.check(run, own, *scoring.read_split(run, "test"), one)


@command
def main(config: str, *overrides: str, runs: Path = RUNS) -> int:
    """Check an experiment whose data are prepared; returns the exit status."""
    run = RunDir(schema.load(config, overrides), runs)
    check_device(run)
    check_resources(run)
    check_victims(run)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
