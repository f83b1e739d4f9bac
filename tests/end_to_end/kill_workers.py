"""Kill runs of two workers at random moments, and look for what is left.

    python tests/end_to_end/kill_workers.py [--kills 20] [--seed 0]

In turn by Ctrl-C, SIGTERM and kill -9 of the process that was started. After each kill no process may be left, and the
checkpoint must hold every step that the log tells of. The run then goes on from there; its model and its log must be
those of a run that nobody stopped.
"""

import argparse
import os
import random
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

from worker_runs import WAYS, TwoWorkers  # noqa: E402  (its folder is on the path since the line above)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moment, faults, runs, kills = random.Random(options.seed), [], 0, 0
    with TwoWorkers(f"kill-whole-{os.getpid()}") as whole:
        began = time.monotonic()
        if whole.start().wait():
            raise SystemExit(whole.messages())
        duration, expected = time.monotonic() - began, whole.results()
        last = whole.steps()
    print(f"undisturbed: {duration:.0f} s, {last} steps", flush=True)
    while kills < options.kills:
        with TwoWorkers(f"kill-{os.getpid()}-{runs}") as stopped:
            while kills < options.kills:
                way, process = list(WAYS)[kills % len(WAYS)], stopped.start()
                if moment.random() < 0.5:  # half of them while steps are made
                    stopped.wait_for_step(moment.randint(stopped.steps(), last), process)
                else:
                    time.sleep(moment.uniform(0, duration))
                if process.poll():
                    raise SystemExit(stopped.messages())
                if process.poll() is not None:
                    break
                seconds, kills = stopped.stop(process, way), kills + 1
                logged, saved = stopped.steps(), stopped.saved()
                finished = (stopped.directory / "manifest.json").is_file()
                about = f"{kills}: {way} at step {logged} of {last}, saved {'all' if finished else saved}"
                print(f"{about}, {'processes left' if seconds is None else f'{seconds:.1f} s to the end'}", flush=True)
                if seconds is None or not (finished or saved == logged):
                    faults.append(about)
                if finished:
                    break
            if stopped.start().wait():
                raise SystemExit(stopped.messages())
            runs += 1
            if stopped.results() != expected:
                faults.append(f"run {runs} differs from the undisturbed one")
            if "Traceback" in stopped.messages():
                faults.append(f"run {runs}: {stopped.messages()[-3000:]}")
    print("\n".join(faults))
    print(f"{kills} kills in {runs} runs, {len(faults)} faults (seed {options.seed})")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
