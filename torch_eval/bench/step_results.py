"""Results of the bench of training steps: ratios, targets, and the tables that show them."""

from __future__ import annotations

import os
import platform
import statistics
from pathlib import Path
from typing import Any

from configs.contract.basics import bench_case
from configs.contract.basics.markdown import aligned
from configs.contract.basics.markdown import table as markdown_table
from configs.contract.basics.processes import usable_cores
from torch_eval.bench.step_groups import CONTENDERS, Group


def median_ratio(ours: list[float], reference: list[float]) -> float:
    """Return the median over the rounds of ours / reference, so that a slow spell of the machine cancels out."""
    return statistics.median(a / b for a, b in zip(ours, reference, strict=True))


def figure(name: str, group: Group, key: str, ours: dict, reference: dict, rounds: int) -> dict[str, Any]:
    """Compare the answers of two workers.

    Args:
        name: Name of the group.
        group: The group.
        key: The contender that is compared with the reference.
        ours: Its answers (see `step_process.Worker`).
        reference: The reference's answers.
        rounds: How many of the last steps were measured in turns and belong together.

    Returns:
        One line of the results: ratios, seconds, memory, targets and whether they are met.
    """
    walls = [worker["wall"][-rounds:] for worker in (ours, reference)]
    ratios = {"ratio": median_ratio(*walls), "memory_ratio": ours["memory"] / reference["memory"]}
    target = group.others[key]
    return {
        "name": f"{name}/{key}",
        "figure": group.title,
        "ours": CONTENDERS[key].title,
        "reference": reference["title"],
        "ratio": round(ratios["ratio"], 3),
        "cpu_ratio": round(median_ratio(ours["cpu"][-rounds:], reference["cpu"][-rounds:]), 3),
        "memory_ratio": round(ratios["memory_ratio"], 3),
        "seconds": round(statistics.median(walls[0]), 4),
        "reference_seconds": round(statistics.median(walls[1]), 4),
        "memory_gb": round(ours["memory"] / 1e9, 2),
        "reference_memory_gb": round(reference["memory"] / 1e9, 2),
        "first_step_seconds": round(ours["first"], 1),
        "rounds": rounds,
        "target": target,
        "met": all(ratios[name] <= most for name, most in target.items()) if target else None,
        "kernels": ours.get("kernels"),
    }


def first_step(name: str, group: Group, key: str, ours: dict) -> dict[str, Any]:
    """Return the line of the results for the time from a built model to the end of its first step."""
    assert group.first_step is not None
    return {
        "name": f"{name}/{key}/first-step",
        "figure": f"compiling and first step: {group.title}",
        "ours": CONTENDERS[key].title,
        "seconds": round(ours["first"], 1),
        "target": {"seconds": group.first_step},
        "met": ours["first"] <= group.first_step,
        "kernels": ours.get("kernels"),
    }


def machine() -> dict[str, Any]:
    """Return the processor, the cores that may be used, and the memory in GB."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]  # none on ARM
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = usable_cores()
    return {"cpu": (names or [platform.machine()])[0], "cores": cores, "memory_gb": round(memory / 1e9, 1)}


def in_words(machine: dict[str, Any]) -> str:
    """Return what `machine` found in words."""
    return f"{machine['cpu']}, {machine['cores']} cores"


def available_memory() -> float:
    """Return the GB that new processes can take without swapping."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024 / 1e9


def shown_target(record: dict) -> str:
    """Return the targets of one line of the results in words."""
    forms = {"ratio": "time <= {:.4g}", "memory_ratio": "memory <= {:.4g}", "seconds": "time <= {:.4g} s"}
    return ", ".join(forms[key].format(value) for key, value in record["target"].items()) or "none"


def row(record: dict) -> list[str]:
    """Return the cells of one line of the results, under `COLUMNS`."""
    met = {True: "met", False: "NOT met", None: ""}[record["met"]]
    if "ratio" not in record:
        return [record["ours"], "", f"{record['seconds']:.1f} s", "", "", "", shown_target(record), met]
    return [
        record["ours"],
        record["reference"],
        f"{record['seconds']:.3g} / {record['reference_seconds']:.3g} s",
        f"{record['ratio']:.2f}",
        f"{record['cpu_ratio']:.2f}",
        f"{record['memory_ratio']:.2f}",
        shown_target(record),
        met,
    ]


COLUMNS = ["ours", "reference", "ours / reference", "time", "processor", "memory", "target", ""]
LEGEND = (
    "Time, processor seconds and peak memory are ratios, ours / reference: below 1 is faster, or smaller. "
    f"Float32 where a row does not name bfloat16, processors of each: {bench_case.THREADS}, "
    "median over rounds in which all take turns."
)


def table(records: list[dict]) -> str:
    """Return the results for a terminal: lines under their step, columns aligned."""
    head, *rows = (f"  {line}" for line in aligned([COLUMNS, *map(row, records)]))
    lines, figure_before = [head], None
    for record, line in zip(records, rows, strict=True):
        if record["figure"] != figure_before:
            lines += ["", record["figure"]]
            figure_before = record["figure"]
        lines.append(line)
    return "\n".join([*lines, "", LEGEND])


def markdown(records: list[dict]) -> str:
    """Return the results as a Markdown table, with the machine and versions they hold for."""
    about = records[0]
    packages = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    rows = markdown_table(["step", *COLUMNS[:-1], "met"], [[record["figure"], *row(record)] for record in records])
    return f"{in_words(about['machine'])}; {packages}; {about['date'][:10]}. {LEGEND}\n\n{rows}\n"
