"""The report's section on adversarial texts that were made on one model and given to the others (`transfer.json`)."""

from __future__ import annotations

import statistics
from itertools import chain, product
from pathlib import Path

import numpy as np

from configs.contract.basics.files import file_hash
from torch_eval.attack.metrics import gain, paired, summarise
from torch_eval.attack.records import Transfer, TransferRow
from torch_eval.report import figures
from torch_eval.report.captions import heading
from torch_eval.report.comparisons import matches, p_text
from torch_eval.report.figure_sections import file_name
from torch_eval.report.manifests import read_optional
from torch_eval.report.render import Block, Cell, Paragraph, Picture, Table, section
from torch_eval.report.run_state import Run
from torch_eval.report.scores import Value
from torch_eval.report.tables import NONE, cell

REPLAYED = (
    "An attack that searches badly makes a model look robust: its scores mislead the search, and other texts would "
    "fool it. The columns **all texts** count a sentence as withstood only if neither the attack on this model nor a "
    "text made on another model of this table fools it. Compare them only within one table: more models make more "
    "texts."
)


def blocks(runs: list[Run], folder: Path) -> list[Block]:
    """Adversarial texts made on one model and given to the others: which fool them, and what each then withstands."""
    parts: list[Block] = []
    for run in runs:
        rows, changed = transfer_rows(run)
        if changed:
            changed_names = ", ".join(f"{model} (seed {seed})" for seed, model in sorted(changed))
            command = f"`python -m torch_eval transfer {run.arguments}`"
            note = f"Left out, because these models were trained or attacked again since: {changed_names}."
            parts.append(Paragraph(f"{note} {command} redoes it.", note=True))
        table = replay_table(run, rows)
        parts += [Paragraph(REPLAYED), table] if table else []
        models = run.first_models()
        for recipe in run.recipes:
            grid = _transfer_grid(rows, recipe, models)
            if np.isfinite(grid).any():
                path, attack = folder / file_name("transfer", run.name, recipe), run.attack_facts(recipe)
                names = [run.title(model) for model in models]
                title = f"{run.task}: fooled, in %\n{attack}"
                figures.square(grid, names, path, title, side="texts made on", bottom="given to")
                caption = (
                    f"{run.task}: share of the adversarial texts ({attack}) made on one model (row) that fool another "
                    "(column), of the texts whose original the other classifies correctly."
                )
                parts.append(Picture(path, caption))
    return section("Transfer of adversarial texts", parts)


def replay_table(run: Run, rows: list[TransferRow]) -> Table | None:
    """Compare accuracy under each attack with what is left when the texts made on the other models count too.

    Args:
        run: The run.
        rows: Rows of `transfer.json` that hold.

    Returns:
        The table, a row for each model; None if no seed has every text. Of several attacks the last columns count the
        texts of all.
    """
    tickets = {  # the robust ticket that each model is compared with
        rival: ticket
        for method in run.config.methods
        for ticket, rival, why in matches(run, "robust", method)
        if ticket != rival and (not why or "as many epochs" in why)
    }
    header, models = ["Method"], run.shown()
    table = [[Cell(run.title(model), run.unlearned(model))] for model in models]
    by_attack = {(recipe,): _outcomes(run, rows, (recipe,)) for recipe in run.recipes}
    for recipes, outcomes in (by_attack | {tuple(run.recipes): _outcomes(run, rows, tuple(run.recipes))}).items():
        alone = len(recipes) == 1
        header += [f"{run.attack_title(recipes[0])} Aua%", "all texts"] if alone else ["all texts of all attacks"]
        header += ["the ticket's gain"] if tickets else []
        for model, cells in zip(models, table):
            left = [(seed, summarise(records[model]).aua) for seed, records in outcomes.items() if model in records]
            cells += [cell(run.value(model, recipes[0], "aua"))] if alone else []
            cells.append(cell(Value(left, len(run.seeds(model)), 100)))
            if tickets:
                cells.append(Cell(_gain(outcomes, tickets[model], model) if model in tickets else NONE))
    return Table(header, [heading(run), *table]) if any(by_attack.values()) else None


def _outcomes(run: Run, rows: list[TransferRow], recipes: tuple[str, ...]) -> dict[int, dict[str, list[dict]]]:
    """Records in which a sentence is broken if any text of these attacks, made on any model, fools the model.

    Args:
        run: The run.
        rows: Rows of `transfer.json` that hold.
        recipes: The attacks.

    Returns:
        Records for each seed and model, of the sentences that all these attacks were given. Only seeds are there in
        which every model was attacked and given every text.
    """
    fooled = {
        (row.seed, row.source, row.target, row.recipe): row.fooled for row in rows if isinstance(row.fooled, list)
    }
    result = {}
    for seed in run.config.seeds:
        models = [model for model in run.shown() if seed in run.seeds(model)]
        scores = {(m, r): dict(run.scores_of(m, r, 0)) for m, r in product(models, recipes)}
        pairs = [(seed, *key) for key in product(models, models, recipes)]
        if not all(seed in by_seed for by_seed in scores.values()) or not fooled.keys() >= set(pairs):
            continue
        result[seed] = {
            target: _broken(
                [scores[target, recipe][seed].records for recipe in recipes],
                {index for pair in pairs if pair[2] == target for index in fooled[pair]},
            )
            for target in models
        }
    return result


def _broken(attacks: list[list[dict]], fooled: set[int]) -> list[dict]:
    """Merge a model's records of several attacks into one record for each sentence that all of them were given.

    The outcome is `success` if an attack broke the sentence or if it is in `fooled`. Otherwise it is `timeout` if an
    attack timed out.
    """
    by_sentence: dict[int, list[dict]] = {}
    for record in chain(*attacks):
        by_sentence.setdefault(record["index"], []).append(record)
    merged = []
    for index, records in sorted(by_sentence.items()):
        if len(records) == len(attacks):
            outcomes = {record["outcome"] for record in records} | ({"success"} if index in fooled else set())
            worst = next(outcome for outcome in ("success", "timeout", "failure", "skipped") if outcome in outcomes)
            merged.append({**records[0], "outcome": worst})
    return merged


def _gain(outcomes: dict[int, dict[str, list[dict]]], ticket: str, rival: str) -> str:
    """What the ticket withstands more than a rival, in points, with the p of the paired test."""
    pairs = [(records[ticket], records[rival]) for records in outcomes.values()]
    return f"{gain(pairs).text(sign='+')}, p {p_text(paired(pairs).p)}" if pairs else NONE


def _transfer_grid(rows: list[TransferRow], recipe: str, models: list[str]) -> np.ndarray:
    """Mean shares [source, target]; NaN where there is none."""
    shares: dict[tuple, list[float]] = {}
    for row in rows:
        if row.recipe == recipe and row.share is not None:
            shares.setdefault((row.source, row.target), []).append(row.share)
    means = [statistics.fmean(shares[pair]) if pair in shares else np.nan for pair in product(models, models)]
    return np.array(means).reshape(len(models), len(models))


def transfer_rows(run: Run) -> tuple[list[TransferRow], set[tuple[int, str]]]:
    """Rows of `transfer.json` that still hold, and the (seed, model) that were trained or attacked again since."""
    stated = read_optional(run.paths.root / "transfer.json", Transfer) or Transfer([], [])
    victims = {(seed, model) for seed, model, _ in run.paths.all_victims()}  # no others are drawn
    models = {(item.seed, item.model): item.sha256 for item in stated.models}
    attacks = {(item.seed, item.model, str(item.recipe)): item.sha256 for item in stated.attacks or []}
    trained = {key for key in victims & models.keys() if run.staleness.model_hash(*key) not in (None, models[key])}
    attacked = {
        key
        for key, digest in attacks.items()
        if key[:2] in victims and key[2] in run.recipes and _hash_of_results(run, *key) != digest
    }

    def holds(row: TransferRow) -> bool:
        models = {(row.seed, row.source), (row.seed, row.target)}
        made_again = trained & models or (row.seed, row.source, row.recipe) in attacked
        return row.seed in run.config.seeds and not made_again

    return list(filter(holds, stated.rows)), trained | {key[:2] for key in attacked}


def _hash_of_results(run: Run, seed: int, model: str, recipe: str) -> str | None:
    path = run.paths.attack(seed, model) / recipe / "results.jsonl"
    return file_hash(path) if path.is_file() else None
