"""The command line of the plan: what will run, what is done, how long it may take.

python -m configs.contract.plan stages CONFIG [key=value ...]     the commands of the two halves, one a line
python -m configs.contract.plan show CONFIG [key=value ...]       every job, with its time
"""

from __future__ import annotations

import sys

from configs.contract import schema
from configs.contract.errors import UserError, command
from configs.contract.estimate import Estimator, duration
from configs.contract.jobs import HALVES, jobs, stages
from configs.contract.run_dir import RUNS, RunDir


def show(run: RunDir) -> str:
    """Return the plan of an experiment as text: a line for each job and for each stage of attacks."""
    counts = [
        f"{len(items)} {name}{'s' * (len(items) > 1)}"
        for items, name in ((run.config.methods, "method"), (run.config.seeds, "seed"))
    ]
    guess = Estimator(run)
    rows = [(job.stage, job.name, 0.0 if job.done else guess.seconds(job)) for job in jobs(run)] + guess.attacks()
    lines = [
        f"  {stage:9s} {what:44s} {f'about {duration(seconds)}' if seconds else 'done'}"
        for stage, what, seconds in rows
    ]
    total = duration(sum(seconds for _, _, seconds in rows))
    return "\n".join(
        [
            f"{run.config.name}: {', '.join(counts)}, {run.root}",
            "",
            *lines,
            "",
            f"  left: about {total} on this machine ({guess.basis})",
            *guess.space(),
        ]
    )


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
