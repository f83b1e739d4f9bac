"""Stop ./run.sh with two workers at random moments, and look for what is left.

    python tests/end_to_end/kill_workers.py [--kills 21] [--seed 0] [--way "kill -9"]

In turn as a terminal, a scheduler, `timeout` and `kill` do it (`WAYS` of tests/helpers/worker_runs.py), from the first
second to the report. After each stop no process may be left. After all but a kill of the whole process group the
checkpoint must hold every step that is in the log. The run is then resumed; at the end all of its files must be those
of a run that nobody stopped, but for times.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.end_to_end.kill_at_random import differences
from tests.helpers.worker_runs import WAYS, TwoWorkers


def wait(run: TwoWorkers, process, moment: random.Random, seconds: float, steps: int, sentences: int) -> str:
    """Wait for a random moment: of the whole run, of the rest of its training, or of the rest of its attack."""
    ahead = {"step": (run.steps, run.steps() + 1, steps), "sentence": (run.attacked, run.attacked() + 1, sentences)}
    kind = moment.choice(["time", *(name for name, (_, first, last) in ahead.items() if first <= last)])
    if kind == "time":
        time.sleep(moment.uniform(0, seconds))
    else:
        count, first, last = ahead[kind]
        run.wait_for(count, moment.randint(first, last), process)
    return kind


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=3 * len(WAYS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--way", choices=WAYS, action="append", help="only this one; may be given several times")
    options = parser.parse_args()
    ways, moment, faults, runs, kills = options.way or list(WAYS), random.Random(options.seed), [], 0, 0
    folder = Path(tempfile.mkdtemp())
    name = f"kill-{os.getpid()}"  # of every run, so that nothing differs by that
    with TwoWorkers(name) as whole:
        began = time.monotonic()
        if whole.start_all().wait():
            raise SystemExit(whole.messages())
        duration, steps, sentences = time.monotonic() - began, whole.steps(), whole.attacked()
        shutil.move(whole.run.root, folder / "whole")
    print(f"undisturbed: {duration:.0f} s, {steps} steps, {sentences} sentences attacked", flush=True)
    while kills < options.kills:
        with TwoWorkers(name) as stopped:
            while kills < options.kills:
                way, process = ways[kills % len(ways)], stopped.start_all()
                kind = wait(stopped, process, moment, duration, steps, sentences)
                status = process.poll()
                if status:
                    raise SystemExit(stopped.messages())
                if status is not None:
                    break
                seconds, kills = stopped.stop(process, way), kills + 1
                logged, saved, attacked = stopped.steps(), stopped.saved(), stopped.attacked()
                finished = (stopped.directory / "manifest.json").is_file()
                about = f"{kills}: {way} ({kind}), {logged} of {steps} steps, {'all' if finished else saved} saved"
                about += f", {attacked} of {sentences} sentences, status {process.returncode}"
                print(f"{about}, {'processes left' if seconds is None else f'{seconds:.1f} s to the end'}", flush=True)
                if seconds is None or not (finished or saved == logged or way == "kill -9 of all"):
                    faults.append(about)
            if stopped.start_all().wait():
                raise SystemExit(stopped.messages())
            runs += 1
            faults += [f"run {runs}: {line}" for line in differences(folder / "whole", stopped.run.root)]
            if "Traceback" in stopped.messages():
                faults.append(f"run {runs}: {stopped.messages()[-3000:]}")
    shutil.rmtree(folder)
    print("\n".join(faults))
    print(f"{kills} kills in {runs} runs, {len(faults)} faults (seed {options.seed})")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
