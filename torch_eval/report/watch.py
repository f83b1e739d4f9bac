"""`python -m torch_eval watch CONFIG [key=value ...] [--once] [--every SECONDS]`: how far a run has got.

Reads the files that a run leaves while it works (metrics.jsonl, results.jsonl), so it can be started, stopped and
started again, also on another machine that sees them. It ends with the run, or with Ctrl-C.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from configs.contract import run_dir, schema
from configs.contract.jobs import Job, jobs
from configs.contract.methods import needs_robust_ticket
from torch_eval.attack import metrics
from torch_eval.attack import records as attack_records
from torch_eval.report.manifests import DATA, read, training_records
from torch_eval.report.scores import recipe_title

RECENT = 50  # records that a speed is taken over
QUIET = 600  # seconds without a new line after which work counts as interrupted


@dataclass
class Work:
    """Something unfinished that has left lines. `left` is in seconds, None if it cannot be told yet."""

    title: str
    done: int
    total: int | None
    left: float | None
    facts: str
    changed: float


# --- training ------------------------------------------------------------------------------------------------


def training(config: schema.Experiment, job: Job) -> Work | None:
    """The part of a job that is at work: a stage, or a round of pruning inside it."""
    logs = [path for path in job.directory.glob("**/metrics.jsonl") if not (path.parent / "manifest.json").is_file()]
    if job.done or not logs:
        return None
    log = max(logs, key=lambda path: path.stat().st_mtime)
    records = [record for record in training_records(log) if record.get("seconds") is not None]
    if not records:
        return None
    last, part = records[-1], log.parent.relative_to(job.directory).as_posix()
    total = total_steps(job, last)
    title = f"{job.stage} {job.name}" + ("" if part == "." else f", {part}")
    return Work(title, last["step"], total, left(records, total), facts(last), log.stat().st_mtime)


def total_steps(job: Job, record: dict) -> int | None:
    """Steps of the whole training, from how many of its epochs a record's steps make up."""
    if not record.get("epoch"):
        return job.settings.max_steps
    return job.steps(round(record["step"] / record["epoch"]))


def left(records: list[dict], total: int | None) -> float | None:
    """Seconds to go at the pace of the last lines: the median, which leaves out evaluations and interruptions."""
    recent = records[-RECENT:]
    paces = [
        (b["seconds"] - a["seconds"]) / (b["step"] - a["step"])
        for a, b in zip(recent, recent[1:])
        if b["step"] > a["step"] and b["seconds"] >= a["seconds"]
    ]
    return statistics.median(paces) * max(0, total - records[-1]["step"]) if paces and total else None


def facts(record: dict) -> str:
    shown = {
        "loss": ("loss", "{:.3f}"),
        "adversarial_loss": ("loss", "{:.3f}"),
        "l0_term": ("L0 term", "{:.3f}"),
        "sparsity_at_threshold": ("sparsity", "{:.1%}"),
        "sentences_per_second": ("sentences/s", "{:.0f}"),
    }
    found = [(name, form, record.get(key)) for key, (name, form) in shown.items()]
    return ", ".join(f"{name} {form.format(value)}" for name, form, value in found if value is not None)


# --- attacks -------------------------------------------------------------------------------------------------


def attacks(run: run_dir.RunDir) -> list[tuple[str, Path, int]]:
    """Title, directory and number of sentences of every attack of the experiment, those of the choice included."""
    config, found = run.config, []
    chosen = needs_robust_ticket(config.methods)
    candidates = run.candidates() if chosen and not run.choice.is_file() else []
    for seed in config.seeds:
        if len(candidates) > 1:
            found += [
                (f"choose seed-{seed}/{c}", run.seed(seed) / "choice" / str(c), config.choice.examples)
                for c in candidates
            ]
        for model in run.victims(seed):
            found += [
                (
                    f"attack seed-{seed}/{model} {recipe_title(recipe, config.attack.protocol)}",
                    run.attack(seed, model) / recipe,
                    config.attack.examples,
                )
                for recipe in config.attack.recipes
            ]
    return found


def attacking(config: schema.Experiment, title: str, directory: Path, total: int, sentences: int | None) -> Work | None:
    """An attack at work, its parts (`shard-1-of-4`) counted together."""
    logs = list(directory.glob("**/results.jsonl"))
    if (directory / "manifest.json").is_file() or not logs:
        return None
    records = [record for log in logs for record in attack_records.read(log)]
    total = min(total, sentences or total)
    recent = [record["seconds"] for record in records[-RECENT:] if "seconds" in record]
    to_go = statistics.fmean(recent) * (total - len(records)) / (config.attack.workers * len(logs)) if recent else None
    told = f"Aua {metrics.summarise(records).aua.percent()}" if records else ""
    return Work(title, len(records), total, to_go, told, max(log.stat().st_mtime for log in logs))


# --- showing it ----------------------------------------------------------------------------------------------


def look(run: run_dir.RunDir, now: float) -> tuple[str, bool]:
    """What stands there now, and whether the run is at its end."""
    all_jobs, all_attacks = jobs(run), attacks(run)
    splits = (read(run.data / "summary.json", DATA) or {}).get("splits", {})
    work = [training(run.config, job) for job in all_jobs if job.stage not in ("prepare", "draw")]
    for title, directory, total in all_attacks:
        split = "dev" if title.startswith("choose") else "test"
        work.append(attacking(run.config, title, directory, total, splits.get(split, {}).get("count")))
    done = sum(job.done for job in all_jobs)
    # An attack that was left out for a reason is as done as it will be.
    scored = sum(any((d / name).is_file() for name in ("manifest.json", "missing.json")) for _, d, _ in all_attacks)
    text = [
        f"{run.config.name}: {done} of {len(all_jobs)} training jobs and {scored} of {len(all_attacks)} attacks done"
    ]
    text += [told(w, now) for w in sorted(filter(None, work), key=lambda w: -w.changed)]
    finished = done == len(all_jobs) and scored == len(all_attacks)
    if len(text) == 1:
        waiting = [f"{job.stage} {job.name}" for job in all_jobs if not job.done]
        waiting += [title for title, d, _ in all_attacks if not (d / "manifest.json").is_file()]
        text.append("all is done" if finished else f"nothing is at work; next: {waiting[0]}")
    return "\n".join(text), finished


def told(work: Work, now: float) -> str:
    share = f" {work.done / work.total:4.0%}" if work.total else ""
    quiet = now - work.changed
    ending = (
        f"no new line for {span(quiet)}"
        if quiet > QUIET
        else f"{span(work.left)} left"
        if work.left is not None
        else ""
    )
    count = f"{work.done:,} of {work.total:,}" if work.total else f"{work.done:,}"
    return "  " + "  ".join(filter(None, (f"{work.title:48s}", f"{count:>16s}{share}", work.facts, ending)))


def span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


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
                print(f"\x1b[H\x1b[J{text}\n\n{clock}, Ctrl-C ends the watching, not the run", flush=True)
            elif text != shown:
                print(text, flush=True)
            shown, finished = text, finished or once
            if not finished:
                time.sleep(every)
    except KeyboardInterrupt:
        pass
