"""Adversarial sentences, with the words that the attack changed marked."""

from __future__ import annotations

from operator import itemgetter

from configs.contract.experiment.model_id import ModelId
from torch_eval.report.captions import remedies
from torch_eval.report.render import Block, Example, Heading, Paragraph, compare, section
from torch_eval.report.run_state import Run

Records = dict[str, dict[int, dict]]  # model to index to attack record
OUTCOMES = {
    "success": "Fooled as well, perhaps by other words",
    "failure": "Not fooled by the attack",
    "skipped": "Wrong from the start, not attacked",
    "timeout": "Attack stopped at its limit",
}


def examples(runs: list[Run]) -> list[Block]:
    """For each run and attack, a sentence that fools the first model but not the ticket, and one that fools another.

    All models of an example were attacked in one comparison group.
    """
    attacked = False
    blocks: list[Block] = []
    for run in runs:
        seed = run.config.seeds[0]
        models = [model for model in run.first_models() if not run.unlearned(model)]
        for recipe in run.recipes:
            scores = {m: run.scores[seed, m, recipe] for m in models if (seed, m, recipe) in run.scores}
            group = min((score.group for score in scores.values()), default=0)
            by_model = {m: {r["index"]: r for r in s.records} for m, s in scores.items() if s.group == group}
            attacked = attacked or bool(by_model)
            picked = pick(by_model)
            if picked:
                blocks.append(Heading(f"{run.task}, {run.attack_title(recipe)}", 3))
                blocks += [_example(run, by_model, index, model) for index, model in picked]
    if blocks:
        blocks.insert(0, Paragraph("Words that the attack changed are marked."))
    elif attacked:
        blocks.append(Paragraph("No attack has fooled a model yet.", note=True))
    return section("Adversarial sentences", blocks, remedies(runs, "attack"))


def pick(by_model: Records) -> list[tuple[int, str]]:
    """Choose up to two examples, those with few changed words first.

    Returns:
        (index, fooled model): one that fools the first model but not the ticket (or else the second model); then one
        that fools another model.
    """

    def fooled(model: str) -> list[dict]:
        records = [r for r in by_model[model].values() if r["outcome"] == "success"]
        return sorted(records, key=itemgetter("words_changed", "index"))

    if not by_model:
        return []
    first, *others = by_model
    others.sort(key=lambda model: ModelId.parse(model).method != "robust")
    withstood = [
        r["index"]
        for r in fooled(first)
        if any(by_model[other].get(r["index"], {}).get("outcome") == "failure" for other in others[:1])
    ]
    picked = [(index, first) for index in withstood[:1]]
    more = [(r["index"], other) for other in others for r in fooled(other) if (r["index"], first) not in picked]
    picked += more[:1]
    return picked or [(r["index"], first) for r in fooled(first)[:1]]


def _example(run: Run, by_model: Records, index: int, model: str) -> Example:
    record = by_model[model][index]
    texts = []
    for column, original in record["original"].items():
        before, after = compare(original, record["perturbed"][column])
        name = f" ({column})" if len(record["original"]) > 1 else ""
        texts += [(f"Original{name}", before)] + ([(f"Perturbed{name}", after)] if before != after else [])
    facts = (
        f"label {run.label(record['label'])}; {run.label(record['original_prediction'])} before (probability of the "
        f"true label {record['original_score']:.2f}), {run.label(record['perturbed_prediction'])} after "
        f"({record['perturbed_score']:.2f}); queries: {record['queries']}; "
        f"{record['words_changed']} of {record['words']} words changed"
    )
    texts.append((f"{run.title(model)}, fooled", [(facts, False)]))
    rivals: dict[str, list[str]] = {}
    for other, records in by_model.items():
        if other != model and index in records:
            name = f"{run.title(other)} (queries: {records[index]['queries']})"
            rivals.setdefault(records[index]["outcome"], []).append(name)
    texts += [(OUTCOMES[outcome], [(", ".join(names), False)]) for outcome, names in rivals.items()]
    return Example(f"Test sentence {index}", texts)
