"""Adversarial sentences, with the words that the attack changed marked."""

from __future__ import annotations

from configs.contract.model_id import ModelId
from torch_eval.report.render import Example, Heading, Text, compare
from torch_eval.report.run_state import Run

SAYS = {
    "success": "Fooled as well, perhaps by other words",
    "failure": "Not fooled by the attack",
    "skipped": "Wrong from the start, not attacked",
    "timeout": "Attack stopped at its limit",
}


def examples(runs: list[Run]) -> list:
    """For each run and attack, a sentence that fools the first model but not the ticket, and one that fools another;
    of models that were attacked in one way."""
    blocks, seen = [], False
    for run in runs:
        seed, models = run.config.seeds[0], [m for method in run.config.methods if (m := run.pick(method))]
        for recipe in run.recipes:
            scores = {m: run.scores[seed, m, recipe] for m in models if (seed, m, recipe) in run.scores}
            way = min((score.way for score in scores.values()), default=0)
            by_model = {m: {r["index"]: r for r in s.records} for m, s in scores.items() if s.way == way}
            seen = seen or bool(by_model)
            picked = pick(by_model)
            if picked:
                blocks.append(Heading(f"{run.task}, {run.attack_title(recipe)}", 3))
                blocks += [_example(run, by_model, index, model) for index, model in picked]
    if blocks:
        return [Heading("Adversarial sentences"), Text("Words that the attack changed are marked."), *blocks]
    line = "No attack has fooled a model yet." if seen else f"Missing; `{runs[0].command('attack')}` makes them."
    return [Heading("Adversarial sentences"), Text(line, note=True)]


def pick(by_model: dict) -> list[tuple[int, str]]:
    """(index, fooled model): the first model falls and the last one (the ticket) or another holds; then one at which
    another falls; few changed words first."""

    def fallen(model):
        records = [r for r in by_model[model].values() if r["outcome"] == "success"]
        return sorted(records, key=lambda r: (r.get("words_changed") or 0, r["index"]))

    if not by_model:
        return []
    first, *others = by_model
    others.sort(key=lambda model: ModelId.parse(model).method != "robust")
    holds = [
        r["index"]
        for r in fallen(first)
        if any(by_model[o].get(r["index"], {}).get("outcome") == "failure" for o in others[:1])
    ]
    picked = [(index, first) for index in holds[:1]]
    falls = [(r["index"], other) for other in others for r in fallen(other) if (r["index"], first) not in picked]
    picked += falls[:1]
    return picked or [(r["index"], first) for r in fallen(first)[:1]]


def _example(run: Run, by_model: dict, index: int, model: str) -> Example:
    record = by_model[model][index]
    texts = []
    for column, original in record["original"].items():
        before, after = compare(original, record["perturbed"].get(column, original))
        name = f" ({column})" if len(record["original"]) > 1 else ""
        texts += [(f"Original{name}", before)] + ([(f"Perturbed{name}", after)] if before != after else [])
    facts = (
        f"label {run.label(record['label'])}; {run.label(record['original_prediction'])} before (its probability "
        f"of the true label {record['original_score']:.2f}), {run.label(record['perturbed_prediction'])} after "
        f"({record['perturbed_score']:.2f}); queries: {record['queries']}; "
        f"{record['words_changed']} of {record['words']} words changed"
    )
    texts.append((f"{run.title(model)}, fooled", [(facts, False)]))
    rivals: dict[str, list[str]] = {}
    for other, records in by_model.items():
        if other != model and index in records:
            told = f"{run.title(other)} (queries: {records[index]['queries']})"
            rivals.setdefault(records[index]["outcome"], []).append(told)
    texts += [(SAYS[outcome], [(", ".join(names), False)]) for outcome, names in rivals.items()]
    return Example(f"Test sentence {index}", texts)
