"""Do adversarial texts made against one model fool the others? A matrix for each recipe, in `transfer.json`.

A robust model withstands texts made against others. A model whose scores only mislead an attack's search does not.
"""

from __future__ import annotations

from tqdm import tqdm

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import file_hash, write_json
from configs.contract.run.run_dir import RunDir
from torch_eval.attack.sampling import WHOLE
from torch_eval.attack.scoring import Scoring, finished, read_split
from torch_eval.attack.workers import Workers
from torch_eval.recipes import recipes


def run(run_dir: RunDir) -> None:
    """Replay the adversarial texts of every finished attack on every victim of the same seed.

    `transfer.json`: {"rows": [{recipe, seed, source, target, texts, fooled, share}], and what they were made of:
    "models": [{seed, model, sha256}], "attacks": [{seed, model, recipe, sha256 of results.jsonl}]}. `texts` counts the
    source's adversarial texts whose original the target classifies correctly; `fooled` lists the numbers of the test
    sentences whose text it gets wrong, and `share` is their share of `texts`.

    Raises:
        UserError: No attack is finished, or one was made with another model, test set or setting.
    """
    config, (task, examples) = run_dir.config, read_split(run_dir, "test")
    rows, models, attacks = [], [], []
    with Workers(config.attack.workers) as workers:
        for seed in config.seeds:
            victims = {
                name: Scoring(workers, run_dir, seed, name, model, task)
                for name, model in run_dir.victims(seed).items()
            }
            texts = {
                (recipe, name): adversarial_texts(scoring, recipe, examples)
                for recipe in config.attack.recipes
                for name, scoring in victims.items()
            }
            texts = {key: records for key, records in texts.items() if records is not None}
            for recipe, name in texts:
                digest = file_hash(run_dir.attack(seed, name) / recipe / "results.jsonl")
                attacks.append({"seed": seed, "model": name, "recipe": recipe, "sha256": digest})
            models += [{"seed": seed, "model": n, "sha256": file_hash(v.target.model)} for n, v in victims.items()]
            for target, scoring in victims.items():
                for (recipe, source), records in tqdm(texts.items(), desc=f"seed {seed}, {target}: transfer"):
                    counts = replay(scoring, records)
                    rows.append({"recipe": recipe, "seed": seed, "source": source, "target": target, **counts})
    if not rows:
        raise UserError(f"{run_dir.root}: no attack is finished: run `python -m torch_eval attack` first")
    write_json(run_dir.root / "transfer.json", {"rows": rows, "models": models, "attacks": attacks})
    print(f"{run_dir.root / 'transfer.json'}: {len(rows)} pairs of models")


def adversarial_texts(scoring: Scoring, recipe: str, examples: list[dict]) -> list[dict] | None:
    """Return the records of successful attacks, or None if the attack is not finished."""
    try:
        stage, indices = scoring.recipe_stage(recipe, examples, WHOLE)
    except recipes.CannotRun:
        return None
    if not stage.is_done():
        return None
    done = finished(stage, scoring.expected(indices, examples))
    return [record for record in done if record["outcome"] == "success"]


def replay(scoring: Scoring, records: list[dict]) -> dict:
    """Find the adversarial texts that fool a victim, of those whose original it classifies correctly."""

    def right(key: str) -> list[bool]:
        logits = scoring.logits([scoring.text_of(record[key]) for record in records])
        return [row.index(max(row)) == record["label"] for row, record in zip(logits, records)]

    outcomes = zip(records, right("original"), right("perturbed"))
    survived = {record["index"]: after for record, before, after in outcomes if before}
    fooled = [index for index, after in survived.items() if not after]
    return {"texts": len(survived), "fooled": fooled, "share": len(fooled) / len(survived) if survived else None}
