"""A report that is written and read back."""

import math

from configs.contract.experiment import schema
from tests.helpers.made_up_run import SMALL
from torch_eval.report import build


def written(tmp_path, *overrides):
    build.report(["demo"], [*SMALL, *overrides], runs=tmp_path)
    folder = tmp_path / schema.load("demo", overrides).name / "report"
    return folder, (folder / "report.html").read_text(), (folder / "report.md").read_text()


def row(markdown, name, number=0):
    lines = [line for line in markdown.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in lines[number].strip("|").split("|")]


def wilson(successes, trials):
    """The score interval as the two roots of (p - share)^2 = z^2 p (1 - p) / n."""
    z2, share = 1.959964**2, successes / trials
    a, b, c = 1 + z2 / trials, -(2 * share + z2 / trials), share * share
    root = math.sqrt(b * b - 4 * a * c)
    return f"{100 * (-b - root) / (2 * a):.1f}–{100 * (-b + root) / (2 * a):.1f}"
