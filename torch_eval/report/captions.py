"""Lines that say what tables and figures show, how their attacks were made, and which commands make missing ones."""

from __future__ import annotations

from torch_eval.report.run_state import Run
from torch_eval.report.scores import Score, seeds_text


def heading(run: Run, group: int = 0) -> str:
    """The line above a run's rows of one comparison group."""
    return facts(run, run.attacks(group)) + (" · **made with other settings**" if group else "")


def facts(run: Run, attacks: list[Score]) -> str:
    """Data set, experiment, seeds, and what decides whether figures of attacks may be compared."""
    lengths = (
        [f"trained for {run.config.lengths[0]} epochs where no other number is given"] if run.config.lengths else []
    )
    return f"**{run.task}** ({run.name}) · {', '.join([*made_with(attacks), seeds_text(run.config.seeds), *lengths])}"


def made_with(attacks: list[Score]) -> list[str]:
    """How attacks were made, as their results state it: the configuration may be another one by now."""
    parts = []
    for words, values in (
        ("{} resources", [score.settings.source for score in attacks]),
        ("{} protocol", [score.settings.protocol for score in attacks]),
        ("{} attacked", [score.settings.examples for score in attacks]),
        ("K={}", [score.settings.candidates for score in attacks]),
    ):
        distinct = dict.fromkeys(str(value) for value in values if value is not None)
        parts += [words.format(" and ".join(distinct))] if distinct else []
    return parts + _victims(attacks)


def _victims(attacks: list[Score]) -> list[str]:
    """Temperature and number type of the attacked models, where they are not the usual ones."""
    parts, temperatures = [], sorted({score.settings.temperature for score in attacks})
    if set(temperatures) - {1.0}:
        ends = dict.fromkeys((temperatures[0], temperatures[-1]))
        parts.append(f"temperature {' to '.join(f'{end:g}' for end in ends)}")
    dtypes = dict.fromkeys(score.settings.dtype for score in attacks if score.settings.dtype != "float32")
    effects = [score.dtype_effect for score in attacks if score.dtype_effect]
    if dtypes:
        parts.append(f"victims in {' and '.join(dtypes)}")
    if effects:
        changed, tried = map(sum, zip(*effects))
        parts.append(f"float32 changes {changed} of {tried} outcomes")
    return parts


def bars(run: Run) -> str:
    """What the error bars of a figure show."""
    interval = "the 95% interval"
    several = len(run.config.seeds) > 1
    return f"one standard deviation over seeds, or {interval} where there is one seed" if several else interval


def remedies(runs: list[Run], stage: str) -> list[str]:
    """The commands that make what a section lacks, of the runs that have results of this stage to make."""
    lacking = [run for run in runs if any(step.stage == stage for step in run.missing())]
    return [f"`{run.command(stage)}` makes it ({run.task})." for run in lacking]


def shortened(items: list[str]) -> list[str]:
    """The first eleven items of a list of more than twelve, and how many more there are."""
    return items if len(items) <= 12 else [*items[:11], f"{len(items) - 11} more"]
