"""The report's section on adversarial texts that were made on one model and given to the others (`transfer.json`)."""

from __future__ import annotations

import statistics
from itertools import product
from pathlib import Path

import numpy as np

from configs.contract.files import file_hash
from torch_eval.attack.records import Transfer, TransferRow
from torch_eval.report import figures
from torch_eval.report.figure_sections import file_name
from torch_eval.report.manifests import read_optional
from torch_eval.report.render import Block, Paragraph, Picture, section
from torch_eval.report.run_state import Run


def blocks(runs: list[Run], folder: Path) -> list[Block]:
    """Adversarial texts made on one model (rows) and given to the others (columns); means over seeds."""
    made: list[Block] = []
    for run in runs:
        rows, changed = transfer_rows(run)
        if changed:
            changed_names = ", ".join(f"{model} (seed {seed})" for seed, model in sorted(changed))
            command = f"`python -m torch_eval transfer {run.arguments}`"
            note = f"Left out, because these models were trained or attacked again since: {changed_names}."
            made.append(Paragraph(f"{note} {command} redoes it.", note=True))
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
                made.append(Picture(path, caption))
    return section("Transfer of adversarial texts", made)


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
    asked = {(seed, model) for seed, model, _ in run.paths.all_victims()}  # no others are drawn
    models = {(made.seed, made.model): made.sha256 for made in stated.models}
    attacks = {(made.seed, made.model, str(made.recipe)): made.sha256 for made in stated.attacks or []}
    trained = {key for key in asked & models.keys() if run.staleness.model_hash(*key) not in (None, models[key])}
    attacked = {
        key
        for key, digest in attacks.items()
        if key[:2] in asked and key[2] in run.recipes and _hash_of_results(run, *key) != digest
    }

    def holds(row: TransferRow) -> bool:
        models = {(row.seed, row.source), (row.seed, row.target)}
        return not trained & models and (row.seed, row.source, row.recipe) not in attacked

    return list(filter(holds, stated.rows)), trained | {key[:2] for key in attacked}


def _hash_of_results(run: Run, seed: int, model: str, recipe: str) -> str | None:
    path = run.paths.attack(seed, model) / recipe / "results.jsonl"
    return file_hash(path) if path.is_file() else None
