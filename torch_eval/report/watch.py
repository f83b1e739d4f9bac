"""`python -m torch_eval watch CONFIG [key=value ...] [--once] [--every SECONDS]`: the progress of a run.

Reads the files that a run writes while it works (metrics.jsonl, results.jsonl). It can be started and stopped at any
time, also on another machine that sees the files. It ends with the run, or with Ctrl-C.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from configs.contract.experiment import schema
from configs.contract.run import run_dir
from configs.contract.run.estimate import duration
from configs.contract.run.jobs import CLEAN, AttackJob, Job, TrainingJob, attack_jobs, jobs
from configs.contract.run.run_files import Summary, TrainingLine
from torch_eval.attack import metrics
from torch_eval.attack import records as attack_records
from torch_eval.report.manifests import read_optional, training_records
from torch_eval.report.scores import recipe_title

RECENT = 50  # records that a speed is taken over
SILENT = 600  # seconds without a new record after which work counts as interrupted


@dataclass
class Work:
    """Something unfinished that has written records.

    Attributes:
        title: What it is.
        done: Steps or sentences done.
        total: Steps or sentences in all; None if unknown.
        seconds_left: Estimate of the time it still takes; None if unknown.
        state: Its last measures, in words.
        changed: Time of the last record, in seconds since 1970.
    """

    title: str
    done: int
    total: int | None
    seconds_left: float | None
    state: str
    changed: float


# --- training ------------------------------------------------------------------------------------------------


def training_work(job: Job, data: Summary | None) -> Work | None:
    """Return the progress of a training job, or of its present round of pruning; None if it is not running."""
    logs = [path for path in job.directory.glob("**/metrics.jsonl") if not (path.parent / "manifest.json").is_file()]
    if not isinstance(job, TrainingJob) or job.done or not logs:
        return None
    log = max(logs, key=lambda path: path.stat().st_mtime)
    records = [record for record in training_records(log) if record.seconds is not None]
    if not records:
        return None
    last, part = records[-1], log.parent.relative_to(job.directory).as_posix()
    split = data.splits.get("train") if data else None
    total = job.steps(-(-split.count // job.settings.batch_size)) if split else job.settings.max_steps
    name = f"{job.stage} {job.name}" + ("" if part == "." else f", {part}")
    return Work(name, last.step, total, seconds_left(records, total), _measures(last), log.stat().st_mtime)


def seconds_left(records: list[TrainingLine], total: int | None) -> float | None:
    """Estimate the time left from the median pace of the last records, which ignores evaluations and interruptions."""
    recent = [(record.step, record.seconds) for record in records[-RECENT:] if record.seconds is not None]
    paces = [(t - s) / (b - a) for (a, s), (b, t) in zip(recent, recent[1:]) if b > a and t >= s]
    return statistics.median(paces) * max(0, total - records[-1].step) if paces and total else None


def _measures(record: TrainingLine) -> str:
    formats = {
        "loss": "loss {:.3f}",
        "adversarial_loss": "loss {:.3f}",
        "l0_term": "L0 term {:.3f}",
        "sparsity_at_threshold": "sparsity {:.1%}",
        "sentences_per_second": "sentences/s {:.0f}",
    }
    values = {key: getattr(record, key) for key in formats}
    return ", ".join(formats[key].format(value) for key, value in values.items() if value is not None)


# --- attacks -------------------------------------------------------------------------------------------------


def attacks(run: run_dir.RunDir) -> list[AttackJob]:
    """Return every attack of the experiment, those of the choice included while it is not made."""
    chosen = run.choice.is_file()
    return [job for job in attack_jobs(run) if job.recipe != CLEAN and not (job.stage == "choose" and chosen)]


def title(job: AttackJob, protocol: str) -> str:
    """Name of an attack, such as `attack seed-1/finetune TextFooler`."""
    recipe = recipe_title(job.recipe, protocol) if job.stage == "attack" else ""
    return f"{job.stage} {job.name} {recipe}".strip()


def attack_work(run: run_dir.RunDir, job: AttackJob, data: Summary | None) -> Work | None:
    """Return how far an attack is, its shards (`shard-1-of-4`) counted together; None if it is not running."""
    logs = list(job.directory.glob("**/results.jsonl"))
    if job.done or not logs:
        return None
    options, split = run.config.attack, data.splits.get(job.split) if data else None
    records = [record for log in logs for record in attack_records.read(log)]
    total = min(job.sentences, split.count) if split else job.sentences
    recent = [record["seconds"] for record in records[-RECENT:] if "seconds" in record]
    left = statistics.fmean(recent) * (total - len(records)) / (options.workers * len(logs)) if recent else None
    state = f"Aua {metrics.summarise(records).aua.percent()}" if records else ""
    changed = max(log.stat().st_mtime for log in logs)
    return Work(title(job, options.protocol), len(records), total, left, state, changed)


# --- showing it ----------------------------------------------------------------------------------------------


def look(run: run_dir.RunDir, now: float) -> tuple[str, bool]:
    """Return what the run is doing, and whether it has finished."""
    all_jobs, all_attacks = jobs(run), attacks(run)
    data = read_optional(run.data / "summary.json", Summary)
    work = [training_work(job, data) for job in all_jobs if job.stage not in ("prepare", "draw")]
    work += [attack_work(run, job, data) for job in all_attacks]
    waiting = [f"{job.stage} {job.name}" for job in all_jobs if not job.done]
    unfinished = [job for job in all_attacks if not job.done and not job.left_out.is_file()]
    waiting_attacks = [title(job, run.config.attack.protocol) for job in unfinished]
    done, scored = len(all_jobs) - len(waiting), len(all_attacks) - len(waiting_attacks)
    text = [
        f"{run.config.name}: {done} of {len(all_jobs)} training jobs and {scored} of {len(all_attacks)} attacks done"
    ]
    text += [_line(w, now) for w in sorted(filter(None, work), key=lambda w: -w.changed)]
    waiting += waiting_attacks
    if len(text) == 1:
        text.append(f"nothing is running; next: {waiting[0]}" if waiting else "everything is done")
    return "\n".join(text), not waiting


def _line(work: Work, now: float) -> str:
    """One line of the display."""
    share = f" {work.done / work.total:4.0%}" if work.total else ""
    count = f"{work.done:,} of {work.total:,}" if work.total else f"{work.done:,}"
    silence, ending = now - work.changed, ""
    if silence > SILENT:
        ending = f"no new record for {duration(silence)}"
    elif work.seconds_left is not None:
        ending = f"{duration(work.seconds_left)} left"
    return "  " + "  ".join(filter(None, (f"{work.title:48s}", f"{count:>16s}{share}", work.state, ending)))


def watch(config: schema.Experiment, once: bool = False, every: float = 5.0, runs: Path = run_dir.RUNS) -> None:
    """Print how far a run has got, until it is finished or Ctrl-C is pressed.

    Args:
        config: The experiment.
        once: Print the state of the moment only.
        every: Seconds between two looks.
        runs: Folder that holds the run directories.
    """
    shown, finished = "", False
    try:
        while not finished:
            # Which models there are depends on the choice, which may be made meanwhile.
            text, finished = look(run_dir.RunDir(config, runs), time.time())
            if sys.stdout.isatty() and not once:
                clock = time.strftime("%H:%M:%S")
                print(f"\x1b[H\x1b[J{text}\n\n{clock}; Ctrl-C ends this display, not the run", flush=True)
            elif text != shown:
                print(text, flush=True)
            shown, finished = text, finished or once
            if not finished:
                time.sleep(every)
    except KeyboardInterrupt:
        pass
