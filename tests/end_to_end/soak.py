"""A search of thousands of steps: memory and open files stay flat, and the speed at the end is that of the start.

    python tests/end_to_end/soak.py [--steps 4000] [--parts 10] [key=value ...]

prints, for each part of the run, resident memory, open files and steps a second of the training process, and exits
with 1 if memory grew by more than 2%, a file stayed open, or the last third of the parts was more than 5% slower than
the first (the first part, in which graphs are compiled and memory is first touched, does not count).
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from configs.contract.basics.files import read_lines
from configs.contract.basics.processes import with_project
from configs.contract.experiment import schema
from configs.contract.run.run_dir import RunDir

LONG = ["data.train_size=2000", "search.epochs=100", "search.keep_epochs=2", "checkpoint_steps=200", "log_steps=20"]


def start(stage: str, overrides: list[str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "mindspore_rt", stage, "tiny", *overrides]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env=with_project(os.environ), **quiet)


def resident(pid: int) -> float:
    """MB of a process."""
    return int(Path("/proc", str(pid), "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def processor(pid: int) -> float:
    """Seconds of CPU time of a process: what other work on the machine does not lengthen much."""
    fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def open_files(pid: int) -> int:
    time.sleep(0.1)
    return len(os.listdir(f"/proc/{pid}/fd"))


def steps_done(metrics: Path) -> int:
    records = read_lines(metrics) if metrics.is_file() else []
    return records[-1]["step"] if records else 0


def watch(process: subprocess.Popen, metrics: Path, steps: int, parts: int) -> list[tuple]:
    """(step, MB, open files, steps a second, steps a second of CPU time) at the end of each part."""
    rows, last = [], (0, time.time(), processor(process.pid))
    for goal in (steps * (i + 1) // parts for i in range(parts)):
        while steps_done(metrics) < goal - 20 and process.poll() is None:
            time.sleep(0.5)
        if process.poll() is not None:
            break
        now = (steps_done(metrics), time.time(), processor(process.pid))
        made, seconds, cpu = (a - b for a, b in zip(now, last))
        last = now
        files = min(open_files(process.pid) for _ in range(5))  # one may just be written
        rows.append((now[0], resident(process.pid), files, made / seconds, made / cpu))
        text = "step {:5d}   {:6.0f} MB   {:3d} open files   {:5.2f} steps/s   {:5.2f} steps/CPU s"
        print(text.format(*rows[-1]), flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--parts", type=int, default=10)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args()
    overrides = [*LONG, f"search.max_steps={options.steps}", *options.overrides, f"name=soak-{os.getpid()}"]
    run = RunDir(schema.load("tiny", overrides))
    try:
        for stage in ("prepare", "finetune"):
            if start(stage, overrides).wait():
                raise SystemExit(f"{stage} failed")
        process = start("search", overrides)
        rows = watch(process, run.stage(1, "search") / "metrics.jsonl", options.steps, options.parts)[1:]
        if process.wait() or len(rows) < 3:
            raise SystemExit("the search failed")
    finally:
        shutil.rmtree(run.root, ignore_errors=True)
    third = max(1, len(rows) // 3)
    memory, files = rows[-1][1] / rows[0][1] - 1, rows[-1][2] - rows[0][2]
    speed = statistics.median(r[4] for r in rows[-third:]) / statistics.median(r[4] for r in rows[:third]) - 1
    print(f"memory {memory:+.1%}, open files {files:+d}, speed {speed:+.1%} (steps per second of CPU time)")
    return int(memory > 0.02 or files > 0 or speed < -0.05)


if __name__ == "__main__":
    sys.exit(main())
