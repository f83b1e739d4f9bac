"""`python -m torch_eval report CONFIG... [key=value ...] [--out FOLDER]`: tables and figures of runs, finished or not.

Reads runs/<experiment>/ of every named configuration; a file such as runs/sst2/config.yaml is a configuration too.
Writes report.html (one self-contained file), report.md, results.json, results.csv and figures/ (PNG, PDF, SVG) into
the run's report/, or for several runs into runs/report/. A result that does not exist yet is shown as missing, with
the command that makes it. Loads neither torch nor TextAttack.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import atomic_write, write_json
from configs.contract.experiment import schema
from configs.contract.run import run_dir
from torch_eval.report import (
    changes,
    early_tickets,
    figure_sections,
    published,
    text_sections,
    ticket_sections,
    transfer,
)
from torch_eval.report.adversarial_texts import examples
from torch_eval.report.data_files import as_csv, numbers
from torch_eval.report.render import Heading, TableOfContents, to_html, to_markdown
from torch_eval.report.run_state import Run


def write(runs: list[Run], folder: Path) -> Path:
    """Write the whole report into `folder` and return the path of its page."""
    title = "Robust tickets: " + (runs[0].name if len(runs) == 1 else f"{len(runs)} experiments")
    pictures = folder / "figures"
    blocks = [
        Heading(title, 1),
        *text_sections.answers(runs, pictures),
        TableOfContents(),
        *text_sections.results(runs),
        *text_sections.ablations(runs),
        *text_sections.paired_tests(runs),
        *changes.section(runs),
        *text_sections.missing(runs),
        *ticket_sections.choices(runs),
        *early_tickets.early(runs),
        *figure_sections.accuracies(runs, pictures),
        *figure_sections.learning(runs, pictures),
        *ticket_sections.tickets(runs, pictures),
        *transfer.blocks(runs, pictures),
        *figure_sections.training(runs, pictures),
        *examples(runs),
        *published.hyperparameters(runs),
        *text_sections.provenance(runs),
    ]
    data = [numbers(run) for run in runs]
    write_json(folder / "results.json", {"experiments": data})
    atomic_write(folder / "results.csv", as_csv(data))
    atomic_write(folder / "report.md", to_markdown(blocks, folder))
    atomic_write(folder / "report.html", to_html(title, blocks))
    return folder / "report.html"


def report(names: Sequence[str], overrides: Sequence[str], out: Path | None = None, runs: Path = run_dir.RUNS) -> None:
    """Write the report of one experiment or of several, and print where.

    Args:
        names: Configurations of the experiments.
        overrides: `key=value` changes to each of them.
        out: Folder to write to; None for the experiment's own, or `report` in `runs` for several.
        runs: Folder that holds the run directories.

    Raises:
        UserError: A run has not started, or two of the configurations are the same run.
    """
    states = [Run(schema.load(name, overrides), [name, *overrides], runs) for name in names]
    if len({run.paths.root for run in states}) < len(states):
        raise UserError("report: two configurations have the same name, so they are the same run")
    page = write(states, out or (states[0].paths.report if len(states) == 1 else Path(runs) / "report"))
    for run in states:
        if run.missing():
            count = f"{len(run.missing())} of {len(run.steps)}"
            print(f"{run.name}: {count} results are missing; the report says which commands make them")
    print(f"report: {page}")
