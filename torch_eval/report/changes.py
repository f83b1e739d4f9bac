"""Which changes of a text broke the models, and which of them the robust ticket withstands.

TextBugger changes characters, or takes one of the five nearest words; TextFooler takes nearest words alone. The kinds
are read off the texts: an inserted space, a dropped or swapped letter and a look-alike letter are characters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch_eval.report.captions import facts
from torch_eval.report.comparisons import Comparison, comparisons
from torch_eval.report.render import Block, Cell, Details, Paragraph, Row, Table
from torch_eval.report.run_state import Run

KINDS = ("characters", "words", "both")
NOTE = (
    "Sentences whose attack succeeded, by what it changed: characters alone, whole words alone, or both. The share "
    "behind each count says how many of these sentences the other model withstands under the same attack. The other "
    "model may have been asked about other changes: an attack chooses them by the model's answers."
)


def kind(original: dict[str, str], perturbed: dict[str, str]) -> str | None:
    """Return which of `KINDS` changed a text; None if nothing did."""
    kinds = {
        "characters" if _is_edit(before, after) else "words"
        for column, text in original.items()
        for before, after in _changed(text.split(), perturbed[column].split())
    }
    return "both" if len(kinds) > 1 else next(iter(kinds), None)


def _changed(before: list[str], after: list[str]) -> Iterator[tuple[str, str]]:
    """Pair the changed words. A word that a space cut in two is paired with both parts."""
    place = 0
    for word in before:
        parts = after[place : place + 2]
        split = len(parts) == 2 and "".join(parts) == word
        new = " ".join(parts) if split else "".join(parts[:1])
        place += 2 if split else 1
        if new != word:
            yield word, new


def _is_edit(before: str, after: str) -> bool:
    """Return whether a word has a space, a look-alike letter, two swapped letters, or one letter less inside."""
    if " " in after or any(not letter.isascii() and letter not in before for letter in after):
        return True
    shorter = {before[:place] + before[place + 1 :] for place in range(1, len(before) - 1)}
    swapped = {before[:i] + before[i + 1] + before[i] + before[i + 2 :] for i in range(len(before) - 1)}
    return after in shorter | swapped


def section(runs: list[Run]) -> list[Block]:
    """Return one table for each run that compares a robust ticket with fine-tuning, opened on demand."""
    blocks: list[Block] = []
    for run in runs:
        ticket, dense = run.model_of("robust"), run.model_of("finetune")
        made = [c for r in run.recipes for c in comparisons(run, ticket, dense, r)] if ticket and dense else []
        rows: list[Row] = [row for comparison in made for row in _rows(comparison)]
        if rows and ticket and dense:
            header = ["Attack", "Changed", *(f"broke {run.marked_title(model)}" for model in (dense, ticket))]
            table = Table(header, [facts(run, [s for c in made for s in c.scores]), *rows])
            blocks.append(Details(f"{run.named_task}: which changes the ticket withstands", [Paragraph(NOTE), table]))
    return blocks


def _rows(comparison: Comparison) -> list[list[Cell]]:
    """One row for each kind of change under one attack: ticket first in the comparison, Fine-tune second."""
    broke, withstood = Counter[tuple[str, int]](), Counter[tuple[str, int]]()
    for pair in comparison.pairs.values():
        for side, other in ((0, 1), (1, 0)):
            outcomes = {record["index"]: record["outcome"] for record in pair[other].records}
            for record in pair[side].records:
                if record["outcome"] == "success" and (changed := kind(record["original"], record["perturbed"])):
                    broke[changed, side] += 1
                    withstood[changed, side] += outcomes.get(record["index"]) == "failure"
    return [
        [
            comparison.attack,
            Cell(changed),
            *(Cell(_share(withstood[changed, side], broke[changed, side])) for side in (1, 0)),
        ]
        for changed in KINDS
        if broke[changed, 0] + broke[changed, 1]
    ]


def _share(withstood: int, broke: int) -> str:
    return f"{broke} ({100 * withstood / broke:.0f}% withstood)" if broke else "0"
