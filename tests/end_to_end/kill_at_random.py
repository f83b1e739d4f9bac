"""kill -9 at random moments, repeatedly: the files at the end are those of a run that was never killed.

    python tests/end_to_end/kill_at_random.py [--kills 50] [--seed 0] [--keep] [key=value ...]

runs the smallest experiment (`tiny`) once undisturbed. Then it runs it again, killing the whole process group of a
stage at a random moment of it and starting that stage anew, as ./run.sh does; long stages are killed more often. A
stage may end before its next kill, so there are as many such runs as all kills need. All files of each must be the
bytes of the undisturbed one: models, log alpha, tickets, splits, attacks, metrics, manifests, report.
Only what a clock says is left out: times and speeds, and TensorBoard's event files.
"""

import argparse
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from configs.contract.basics.processes import with_project
from configs.contract.experiment import schema
from configs.contract.run import jobs
from configs.contract.run.run_dir import RunDir
from tests.helpers.timeless import without_clock

SMALL = [
    "methods=[finetune,infobert,lth,random,robust]",
    "lth.share=0.2",
    "infobert.max_steps=3",
    "snapshots=2",
    "attack.recipes=[textfooler,bertattack]",
    "attack.examples=3",
    "attack.workers=1",
]
ENDED = "whole"


def start(stage: str, overrides: list[str]) -> subprocess.Popen:
    """A stage of `tiny` in a process group of its own."""
    command = [sys.executable, "-m", jobs.HALVES[stage], stage, "tiny", *overrides]
    environment = with_project({**os.environ, "GLOG_v": "3"})
    return subprocess.Popen(
        command,
        env=environment,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(stage: str, overrides: list[str]) -> float:
    """Seconds that the stage took."""
    began, process = time.monotonic(), start(stage, overrides)
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{stage} ended with {process.returncode}:\n{output[-3000:]}")
    return time.monotonic() - began


def killed(stage: str, overrides: list[str], seconds: float) -> bool:
    """Start a stage and kill its process group after so long; False if it had ended by then."""
    process = start(stage, overrides)
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    if process.returncode:
        raise SystemExit(f"{stage} ended with {process.returncode} after a kill:\n{output[-3000:]}")
    return False


def disturbed(overrides: list[str], seconds: dict[str, float], kills: int, moment: random.Random) -> int:
    """Run all stages; kill each in proportion to the time it took undisturbed, as long as it does not end before."""
    counts = dict.fromkeys(seconds, 0)
    for stage, duration in seconds.items():
        quota = math.ceil(kills * duration / sum(seconds.values()))
        while counts[stage] < quota and killed(stage, overrides, moment.uniform(0.0, duration)):
            counts[stage] += 1
        run(stage, overrides)
    print("killed: " + ", ".join(f"{stage} {count} times" for stage, count in counts.items()), flush=True)
    return sum(counts.values())


# --- comparing -----------------------------------------------------------------------------------------------


def contents(root: Path) -> dict[str, bytes]:
    """Path to content of every file of a run, without what a clock says."""
    files = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = str(path.relative_to(root))
        if path.name.endswith((".lock", ".log")) or path.parent.name == "tensorboard":
            continue
        files[name] = _timeless(path)
    return files


def _timeless(path: Path) -> bytes:
    raw = path.read_bytes()
    if path.suffix == ".json":
        return json.dumps(without_clock(json.loads(raw))).encode()
    if path.suffix == ".jsonl":
        return json.dumps([without_clock(json.loads(line)) for line in raw.splitlines()]).encode()
    if path.parent.name == "report":  # its table of stages shows how long each took
        return re.sub(rb"\d+ min( \d\d s)?|\d+(\.\d)? s\b|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", b"-", raw)
    return raw


def differences(reference: Path, other: Path) -> list[str]:
    """What differs between two runs, a line each."""
    one, two = contents(reference), contents(other)
    lines = [f"only undisturbed: {name}" for name in one.keys() - two.keys()]
    lines += [f"only killed: {name}" for name in two.keys() - one.keys()]
    for name in sorted(one.keys() & two.keys()):
        if one[name] != two[name]:
            at = len(os.path.commonprefix([one[name], two[name]]))
            around = slice(max(0, at - 60), at + 60)
            lines.append(f"differs: {name} at byte {at}: {one[name][around]!r}, killed {two[name][around]!r}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="leave both run directories")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args()
    overrides = [*SMALL, *options.overrides, f"name=kill-{options.seed}-{os.getpid()}"]
    run_dir, folder = RunDir(schema.load("tiny", overrides)), Path(tempfile.mkdtemp())
    try:
        stages = jobs.stages(run_dir)
        seconds = {stage: run(stage, overrides) for stage in stages}
        print("undisturbed: " + ", ".join(f"{stage} {took:.0f} s" for stage, took in seconds.items()), flush=True)
        # Under the same name, so that nothing differs by that.
        shutil.move(run_dir.root, folder / ENDED)
        kills, runs, differing, moment = 0, 0, [], random.Random(options.seed)
        while kills < options.kills and not differing:
            shutil.rmtree(run_dir.root, ignore_errors=True)
            kills += disturbed(overrides, seconds, options.kills - kills, moment)
            differing, runs = differences(folder / ENDED, run_dir.root), runs + 1
        print("\n".join(differing), flush=True)
        files = len(contents(run_dir.root))
        print(f"{kills} kills in {runs} runs, {files} files compared, {len(differing)} differ (seed {options.seed})")
        return bool(differing)
    finally:
        if not options.keep:
            shutil.rmtree(run_dir.root, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(folder / ENDED, run_dir.root)


if __name__ == "__main__":
    sys.exit(main())
