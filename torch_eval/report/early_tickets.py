"""Early tickets: what `search.stop_distance` would have saved in a finished search, and what it would have cost.

The choice attacks the tickets of the last `choice.epochs` search epochs. If these are all epochs of the search, every
epoch's ticket has an accuracy under attack.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from configs.contract.run.run_files import Manifest, Searched
from torch_eval.report.captions import heading
from torch_eval.report.manifests import read_optional
from torch_eval.report.render import Block, Cell, Heading, Paragraph, Row, Table
from torch_eval.report.run_state import Run
from torch_eval.report.tables import NONE

THRESHOLDS = (0.1, 0.03, 0.01)  # of `search.stop_distance`


@dataclass(frozen=True)
class FinishedSearch:
    """The finished search of one seed.

    Attributes:
        epochs: Number of its epochs.
        distances: Epoch to the share of the ticket's mask that changed in it.
        auas: Epoch to the accuracy under attack of its ticket, retrained, in the choice.
    """

    epochs: int
    distances: dict[int, float]
    auas: dict[int, float]

    def stop(self, threshold: float) -> int:
        """Return the epoch after which the search stops at a threshold; the last one if it never does."""
        return next((epoch for epoch, distance in sorted(self.distances.items()) if distance < threshold), self.epochs)


def searches(run: Run) -> list[FinishedSearch]:
    """Return the searches whose epochs were candidates of the choice, at the first requested sparsity."""
    if not run.choice:
        return []
    result = []
    back = {str(c): c.epochs_back for c in run.paths.candidates() if c.sparsity == run.config.sparsities[0]}
    for seed in run.config.seeds:
        manifest = read_optional(run.paths.stage(seed, "search") / "manifest.json", Manifest[Searched])
        if manifest:
            epochs, rows = manifest.results.epochs, [row for row in run.choice.candidates if row.seed == seed]
            auas = {epochs - back[row.model]: row.aua for row in rows if row.model in back}
            changed = [(r.epoch, r.ticket_distance) for r in run.records(seed, "search")]
            # max_steps may cut the last epoch
            distances = {math.ceil(epoch): share for epoch, share in changed if share is not None}
            if len(auas) > 1 and distances:
                result.append(FinishedSearch(epochs, distances, auas))
    return result


def early(runs: list[Run]) -> list[Block]:
    """Say for three thresholds when a finished search would have stopped, and how robust its ticket then was."""
    rows: list[Row] = []
    for run in runs:
        made = searches(run)
        rows += [heading(run)] if made else []
        for threshold in THRESHOLDS if made else ():
            stops = [(one, one.stop(threshold)) for one in made]
            after, whole = (statistics.fmean(epochs) for epochs in zip(*((stop, one.epochs) for one, stop in stops)))
            rows.append(
                [
                    Cell(f"{threshold:g}"),
                    Cell(f"{after:.1f} of {whole:g}"),
                    _aua([one.auas.get(stop) for one, stop in stops]),
                    _aua([one.auas.get(one.epochs) for one in made]),
                    Cell(f"{statistics.fmean(1 - stop / one.epochs for one, stop in stops):.1%}"),
                ]
            )
    if not rows:
        return []
    explanation = (
        "`search.stop_distance` stops a search when the mask of its ticket changes by less than this share in an "
        "epoch. The table says what it would have saved in these finished searches, mean over seeds. Aua% is that of "
        "the choice; all epochs of a search take the same time."
    )
    header = ["search.stop_distance", "Stops after epoch", "Aua% of its ticket", "Aua% of the last", "Search saved"]
    return [Heading("Early tickets", 3), Paragraph(explanation), Table(header, rows)]


def _aua(values: list[float | None]) -> Cell:
    known = [value for value in values if value is not None]
    return Cell(f"{100 * statistics.fmean(known):.1f}") if len(known) == len(values) else Cell(NONE)
