"""Do adversarial texts found on one model fool the others? A matrix for each recipe, in `transfer.json`.

A robust model withstands texts that were made against others; one that merely hides its gradients or scores from
the search does not.
"""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from configs import schema
from configs.errors import UserError
from configs.run_dir import RUNS, RunDir, read_json, read_lines, write_json
from torch_eval.attack import Scoring
from torch_eval.workers import Workers


def main(arguments: list[str], runs: Path = RUNS) -> int:
    if not arguments:
        raise UserError("transfer: name a configuration, such as `python -m torch_eval transfer demo`")
    run(RunDir(schema.load(arguments[0], arguments[1:]), runs))
    return 0


def run(run_dir: RunDir) -> None:
    """Replay the adversarial texts of every finished attack on every victim of the same seed.

    `transfer.json`: {"rows": [{recipe, seed, source, target, texts, fooled, share}]}. `texts` are the source's
    adversarial texts whose unchanged form the target classifies rightly, `fooled` those that change its mind.
    Raises `UserError` if no attack is finished.
    """
    config, task = run_dir.config, read_json(run_dir.data / "summary.json")
    rows = []
    with Workers(config.attack.workers) as workers:
        for seed in config.seeds:
            victims = run_dir.victims(seed)
            found = {
                (recipe, name): adversarial_texts(run_dir.attack(seed, name) / recipe)
                for recipe in config.attack.recipes for name in victims
            }
            found = {key: records for key, records in found.items() if records is not None}
            for target, model in victims.items():
                scoring = Scoring(workers, run_dir, seed, target, model, task)
                for (recipe, source), records in tqdm(found.items(), desc=f"seed {seed}, {target}: transfer"):
                    counts = replay(scoring, records)
                    rows.append({"recipe": recipe, "seed": seed, "source": source, "target": target, **counts})
    if not rows:
        raise UserError(f"{run_dir.root}: no attack is finished: run `python -m torch_eval attack` first")
    write_json(run_dir.root / "transfer.json", {"rows": rows})
    print(f"{run_dir.root / 'transfer.json'}: {len(rows)} pairs of models")


def adversarial_texts(directory: Path) -> list[dict] | None:
    """Records of successful attacks, or None if the attack is not finished."""
    if not (directory / "manifest.json").is_file():
        return None
    return [record for record in read_lines(directory / "results.jsonl") if record["outcome"] == "success"]


def replay(scoring: Scoring, records: list[dict]) -> dict:
    def right(key: str) -> list[bool]:
        logits = scoring.logits([scoring.text_of(record[key]) for record in records])
        return [row.index(max(row)) == record["label"] for row, record in zip(logits, records)]

    kept = [after for before, after in zip(right("original"), right("perturbed")) if before]
    fooled = len(kept) - sum(kept)
    return {"texts": len(kept), "fooled": fooled, "share": fooled / len(kept) if kept else None}
