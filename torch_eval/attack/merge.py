"""Merge the results of attacks with `attack.shard=i/n`, made on one machine or copied from several.

python -m torch_eval merge CONFIG [key=value ...]     with the same keys as the attacks, `attack.shard` aside
"""

from __future__ import annotations

from pathlib import Path

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import locked, read_json, write_json, write_lines
from configs.contract.run.run_dir import RunDir
from configs.contract.run.stage import read_manifest
from torch_eval.attack import metrics
from torch_eval.attack.records import DtypeEffect, LeftOut
from torch_eval.attack.sampling import WHOLE, Shard
from torch_eval.attack.scoring import Scoring, finished, read_split


def merge(run_dir: RunDir) -> None:
    """Write `results.jsonl` and the manifest of every attack as one run without shards would have left them.

    Raises:
        UserError: As `merge_victim`, or `merge_recipe`.
    """
    task, examples = read_split(run_dir, "test")
    with locked(run_dir.root / ".attack.lock"):  # of an attack without shards, which writes the same files
        for seed, name, model in run_dir.all_victims():
            merge_victim(Scoring(None, run_dir, seed, name, model, task), examples)


def merge_victim(scoring: Scoring, examples: list[dict]) -> None:
    """Join the parts of all attacks on one victim.

    Raises:
        UserError: The clean accuracy is missing; or as `merge_recipe`.
    """
    if not scoring.clean_stage().is_done():
        raise UserError(f"{scoring.directory}/clean is missing: the first shard makes it")
    for recipe in scoring.options.recipes:
        missing = scoring.directory / recipe / "missing.json"
        if missing.is_file():
            reason = read_json(missing, LeftOut).reason
            print(f"{scoring.who}: {recipe}: left out; {reason}")
        else:
            merge_recipe(scoring, recipe, examples)


def merge_recipe(scoring: Scoring, recipe: str, examples: list[dict]) -> None:
    """Join the parts of one attack on one victim.

    Raises:
        UserError: A part is missing, unfinished, or of other settings, or there are parts of several divisions.
    """
    whole, indices = scoring.recipe_stage(recipe, examples, WHOLE)
    label = f"{scoring.who}: {recipe}"
    if whole.is_done():
        finished(whole, scoring.expected(indices, examples))
        print(f"{label}: already merged")
        return
    records: dict[int, dict] = {}
    shards = find_shards(whole.directory)
    for shard in shards:
        stage, part = scoring.recipe_stage(recipe, examples, shard)
        if not stage.is_done():
            raise UserError(f"{stage.directory} is missing or unfinished: run it with attack.shard={shard}")
        records.update((record["index"], record) for record in finished(stage, scoring.expected(part, examples)))
        whole.started -= read_manifest(stage.directory).seconds
    whole.begin(whole.directory / "results.jsonl")
    ordered = [records[index] for index in indices]
    write_lines(whole.directory / "results.jsonl", ordered)
    effects = [
        read_json(path, DtypeEffect)
        for shard in shards
        if (path := whole.directory / shard.folder / "dtype.json").is_file()
    ]
    if effects:
        keys = ("outcomes_that_float32_changes", "of")
        sums = {key: sum(getattr(effect, key) for effect in effects) for key in keys}
        write_json(whole.directory / "dtype.json", {"dtype": scoring.target.dtype, **sums})
    whole.finish(metrics.summarise(ordered).to_dict())
    print(f"{label}: {len(shards)} parts joined, {len(ordered)} examples")


def find_shards(directory: Path) -> list[Shard]:
    """Return all parts of the one division that a directory holds.

    Raises:
        UserError: It holds none, or several.
    """
    ends = {path.name.rpartition("-")[2] for path in directory.glob("shard-*-of-*")}
    counts = {int(end) for end in ends if end.isdecimal()}
    if len(counts) != 1:
        parts = f"parts of {' and of '.join(map(str, sorted(counts)))}" if counts else "no parts"
        raise UserError(f"{directory} holds {parts}: it needs those of one attack.shard=i/n")
    count = counts.pop()
    return [Shard(number, count) for number in range(1, count + 1)]
