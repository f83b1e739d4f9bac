"""`python -m torch_eval report CONFIG [key=value ...]`: tables and figures of a run, finished or not.

Reads runs/<experiment>/ and writes report/ in it: report.html (one self-contained file), report.md,
results.json, results.csv, figures/*.png. What has no result yet is shown as missing, with the command
that makes it. Neither torch nor TextAttack is loaded.
"""

from __future__ import annotations

import csv
import io
import json
import shlex
import statistics
import sys
from pathlib import Path

from configs import run_dir, schema
from configs.errors import UserError, command
from torch_eval import figures, metrics
from torch_eval.page import Bullets, Cell, Example, Heading, Picture, Table, Text, compare, to_html, to_markdown

RECIPES = {"bertattack": "BERT-Attack", "textfooler": "TextFooler", "textbugger": "TextBugger"}
METHODS = {"finetune": "Fine-tune", "robust": "RobustT"}
MEASURES = {"aua": "Aua%", "suc": "Suc%", "queries": "#Query"}


class Run:
    """What a run directory holds at the moment; absent files read as None or as empty."""

    def __init__(self, config: schema.Experiment, arguments: list[str], runs: Path = run_dir.RUNS):
        self.config, self.paths = config, run_dir.RunDir(config, runs)
        self.arguments = shlex.join(arguments)
        self.models = list(self.paths.victims(config.seeds[0]))
        # The paper's order of attacks, and only those that the experiment asks for.
        self.recipes = [recipe for recipe in RECIPES if recipe in config.attack.recipes]
        self.data = _json(self.paths.data / "summary.json")
        self.stages = self._stages()
        self.tickets = {seed: _json(self.paths.tickets(seed) / "report.json") or {} for seed in config.seeds}
        self.records = {key: _lines(self.attack(*key) / "results.jsonl") for key in self._attacks()}
        self.summaries = {key: metrics.summarise(found) for key, found in self.records.items() if self.is_whole(*key)}
        self.unlike = self._unlike()

    def _attacks(self):
        return [(s, m, r) for s in self.config.seeds for m in self.models for r in self.recipes]

    def attack(self, seed: int, model: str, recipe: str) -> Path:
        return self.paths.attack(seed, model) / recipe

    def left_out(self) -> dict[str, str]:
        """Attacks that could not be run as what their name says, and why (the attack stage leaves the reason)."""
        found = {}
        for key in self.records:
            told = _json(self.attack(*key) / "missing.json")
            if told and not self.is_whole(*key):
                found[key[2]] = told.get("reason", "no reason given")
        return found

    def is_whole(self, *key) -> bool:
        return bool(self.records.get(key)) and (self.attack(*key) / "manifest.json").is_file()

    def _stages(self) -> list[dict]:
        """Every stage that the experiment has: seed, title, command, manifest (None: not finished)."""
        steps = [(None, "prepare", self.paths.data, "mindspore_rt prepare")]
        for seed in self.config.seeds:
            steps.append((seed, "finetune", self.paths.finetune(seed), "mindspore_rt finetune"))
            if "robust" in self.config.methods:
                steps.append((seed, "search", self.paths.search(seed), "mindspore_rt search"))
                steps.append((seed, "draw", self.paths.tickets(seed), "mindspore_rt draw"))
            for model in self.models:
                if model != "finetune":
                    steps.append((seed, f"retrain {model}", self.paths.seed(seed) / model, "mindspore_rt retrain"))
            for model in self.models:
                for recipe in ("clean", *self.recipes):
                    folder = self.attack(seed, model, recipe)
                    steps.append((seed, f"attack {model} {recipe}", folder, "torch_eval attack"))
        return [
            {"seed": seed, "title": title, "command": self.command(what), "manifest": _json(folder / "manifest.json")}
            for seed, title, folder, what in steps
        ]

    def _unlike(self) -> list[str]:
        """Attacks that were not the same for all models and seeds, by their manifests: never to be compared."""
        found = []
        for recipe in self.recipes:
            ways = set()
            for seed, model, of in self.summaries:
                if of == recipe:
                    manifest = self.manifest(seed, f"attack {model} {recipe}")
                    settings = {k: v for k, v in manifest.get("settings", {}).items() if k not in ("seed", "model")}
                    test = manifest.get("inputs", {}).get("test")
                    ways.add(json.dumps([settings, test, manifest.get("versions")], sort_keys=True))
            if len(ways) > 1:
                found.append(RECIPES[recipe])
        return found

    def command(self, what: str) -> str:
        return f"python -m {what} {self.arguments}"

    def manifest(self, seed: int | None, title: str) -> dict | None:
        return next((s["manifest"] for s in self.stages if (s["seed"], s["title"]) == (seed, title)), None)

    def clean(self, seed: int, model: str) -> metrics.Estimate | None:
        """Accuracy on the whole test set."""
        results = (self.manifest(seed, f"attack {model} clean") or {}).get("results")
        return metrics.wilson(round(results["accuracy"] * results["n"]), results["n"]) if results else None

    def label(self, value) -> str:
        names = (self.data or {}).get("labels", [])
        return str(names[value]) if isinstance(value, int) and 0 <= value < len(names) else str(value)

    def name(self, model: str) -> str:
        """A model's name in the tables: `robust-0.30` is `RobustT 30%`."""
        method, _, sparsity = model.partition("-")
        return METHODS.get(method, method) + (f" {100 * float(sparsity):g}%" if sparsity else "")


def _json(path: Path) -> dict | None:
    return run_dir.read_json(path) if path.is_file() else None


def _lines(path: Path) -> list[dict]:
    return run_dir.read_lines(path) if path.is_file() else []


# ---------------------------------------------------------------- the main table


def main_table(run: Run) -> Table:
    """Table 1 of the paper for one task: a row a model."""
    header = ["Model", "whole test set", "sample", *(name for _ in run.recipes for name in MEASURES.values())]
    groups = [("Clean%", 2), *((RECIPES[recipe], len(MEASURES)) for recipe in run.recipes)]
    columns = [[_over_seeds([run.clean(seed, model) for seed in run.config.seeds], 100) for model in run.models]]
    columns.append([_over_seeds([_sample_clean(run, seed, model) for seed in run.config.seeds], 100)
                    for model in run.models])
    for recipe in run.recipes:
        for measure in MEASURES:
            columns.append([_measured(run, model, recipe, measure) for model in run.models])
    for name, column in zip(header[1:], columns):
        _mark_best(column, lowest=name == MEASURES["suc"])
    rows = [[Cell(run.name(model)), *cells] for model, cells in zip(run.models, zip(*columns))]
    return Table(header, rows, groups)


def _sample_clean(run: Run, seed: int, model: str) -> metrics.Estimate | None:
    """Every attack starts from the same sentences, so any finished one tells the sample's accuracy."""
    found = [run.summaries[seed, model, r] for r in run.recipes if (seed, model, r) in run.summaries]
    return found[0].clean if found else None


def _measured(run: Run, model: str, recipe: str, measure: str) -> Cell:
    whole = [run.summaries.get((seed, model, recipe)) for seed in run.config.seeds]
    cell = _over_seeds([getattr(w, measure) if w else None for w in whole], 1 if measure == "queries" else 100)
    if RECIPES[recipe] in run.unlike and len([w for w in whole if w]) > 1:
        return Cell("not averaged", missing=True)
    if measure == "queries" and any(whole):
        cell.small += f"\nn = {sum(w.attacked for w in whole if w)}"
    if cell.missing and measure == "aua":
        done = sum(len(run.records[seed, model, recipe]) for seed in run.config.seeds)
        cell.small = f"{done} of {run.config.attack.examples * len(run.config.seeds)} done" if done else ""
    return cell


def _over_seeds(estimates: list, scale: float) -> Cell:
    """One seed: the value and its interval. Several: mean, standard deviation, how many there are."""
    values = [scale * e.value for e in estimates if e and e.value is not None]
    if not values:
        return Cell("missing", missing=True)
    if len(estimates) == 1:
        return Cell(f"{values[0]:.1f}", f"{scale * estimates[0].low:.1f}–{scale * estimates[0].high:.1f}")
    spread = f"± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    count = f"{len(values)} of {len(estimates)} seeds" if len(values) < len(estimates) else ""
    return Cell(f"{statistics.mean(values):.1f}", "\n".join(filter(None, (spread, count))))


def _mark_best(column: list[Cell], lowest: bool) -> None:
    """Values that look the same in the table are equally good; a lone value is the best of nothing."""
    values = [float(cell.text) for cell in column if not cell.missing]
    if len(values) > 1 and len(set(values)) > 1:
        best = min(values) if lowest else max(values)
        for cell in column:
            cell.best = not cell.missing and float(cell.text) == best


# ---------------------------------------------------------------- sections of the page


def introduction(run: Run) -> list:
    config, train = run.config, ((run.data or {}).get("splits") or {}).get("train", {})
    shares = " and ".join(f"{100 * s:g}%" for s in config.sparsities)
    steps = [
        (verb, manifest["results"]["steps"])
        for verb, title in (("fine-tuning", "finetune"), ("the mask search", "search"))
        if (manifest := run.manifest(config.seeds[0], title)) and "steps" in manifest.get("results", {})
    ]
    model = "the packaged MiniLM BERT" if config.model == "packaged" else f"`{config.model}`"
    layers = f", first {config.layers} layers" if config.layers else ""
    what = (
        f"This run: task **{config.task}**, model {model}{layers}, {shares} of the weights pruned, "
        f"{train.get('count', 'an unknown number of')} training sentences"
        + "".join(f", {count} steps of {verb}" for verb, count in steps)
        + f", {'seeds' if len(config.seeds) > 1 else 'seed'} {', '.join(map(str, config.seeds))}."
    )
    blocks = [
        Text(
            "A text classifier can be fooled by swapping a few words for others of the same meaning. A **robust "
            "ticket** is a part of a pre-trained BERT that is meant to be harder to fool: a mask over its weights is "
            "learned on a fine-tuned model while its word embeddings are disturbed on purpose (adversarial training "
            "with a penalty on the number of weights kept). The weights with the lowest mask scores are removed for "
            "good, and what is left is trained again from its pre-trained values. Below, it stands beside the ordinary "
            "fine-tuned model."
        ),
        Text(what),
    ]
    if run.data and run.data.get("note"):
        blocks.append(Text(f"Data: {run.data['note']}"))
    return blocks


MEANING = (
    "**Clean**: accuracy on unchanged sentences, on the whole test set and on the sample that is attacked. "
    "**Aua** (accuracy under attack): share of the sample still classified correctly after the attack. "
    "**Suc**: share of the attacked sentences (those classified correctly at first) that the attack turned into "
    "errors. "
    "**#Query**: how often the attack had to ask the model about one sentence, on average. A robust model has high "
    "Clean, Aua and #Query and a low Suc. The best value of a column is bold."
)
PACKAGED = (
    "**Not comparable with the paper's figures.** The attacks here use **packaged** resources (synonyms, sentence "
    "encoder, tagger and masked language model that work offline) in place of the originals; compare only the rows of "
    "this table with each other."
)


def results(run: Run) -> list:
    config = run.config
    if len(config.seeds) == 1:
        small = "Small print: 95% intervals (Wilson for shares, bootstrap for #Query); n: sentences attacked."
    else:
        small = f"Mean over {len(config.seeds)} seeds; small print: standard deviation; n: sentences attacked in all."
    sizes = sorted({summary.examples for summary in run.summaries.values()})
    if sizes:
        small += f" Sample: {' or '.join(map(str, sizes))} test sentences."
    blocks = [Heading("Results"), Text(MEANING)]
    if config.attack.resources == "packaged":
        blocks.append(Text(PACKAGED, note=True))
    blocks += [main_table(run), Text(small)]
    differ = "**Do not compare the rows of {}**: their settings or versions differ."
    return blocks + [Text(differ.format(name), note=True) for name in run.unlike]


def missing(run: Run) -> list:
    """The commands that complete the run, in order, each once; and the attacks that were left out, with the reason."""
    absent = [stage for stage in run.stages if stage["manifest"] is None]
    if not absent:
        return []
    wanted = {}
    for stage in absent:
        seed = f" (seed {stage['seed']})" if stage["seed"] is not None and len(run.config.seeds) > 1 else ""
        wanted.setdefault(stage["command"], []).append(stage["title"].removeprefix("attack ") + seed)
    items = [f"`{line}` for {', '.join(titles)}" for line, titles in wanted.items()]
    reasons = [f"{RECIPES[recipe]} was left out: {reason}" for recipe, reason in run.left_out().items()]
    blocks = [Text("This run is not finished. In this order:", note=True), Bullets(items)]
    return [Heading("Still missing"), *(blocks + [Bullets(reasons)] if reasons else blocks)]


def tickets(run: Run) -> list:
    """Figure 3 for each ticket, all on one colour scale, and the tickets' facts."""
    found = [(seed, name, facts) for seed in run.config.seeds for name, facts in run.tickets[seed].items()]
    if not found:
        return _absent(run, "Tickets", "draw")
    top = max((share for _, _, facts in found for share in facts.get("layers", {}).values()), default=1.0)
    blocks, rows = [Heading("Tickets: what was pruned")], []
    for seed, name, facts in found:
        rows.append([Cell(run.name(name)), Cell(str(seed)), *_facts(name, facts)])
        if seed != found[0][0]:
            continue  # one seed's pictures show the pattern; the table has all
        path = run.paths.report / "figures" / f"sparsity-seed-{seed}-{name}.png"
        figures.sparsity_pattern(facts["layers"], path, f"{run.name(name)}, seed {seed}: pruned weights in %", top)
        caption = f"Sparsity pattern of {run.name(name)} (seed {seed}): share of pruned weights for each layer and "
        caption += f"matrix type; over all matrices {_percent(facts['sparsity'])}."
        blocks.append(Picture(path, caption))
    blocks.append(Text(
        "A **magnitude ticket** of the same sparsity prunes the weights closest to zero. Overlap is the number of "
        "weights that both prune over the number that either prunes; chance is what two random tickets would give."
    ))
    header = ["Ticket", "Seed", "Sparsity", "Pruned", "Weights", "From the asked number", "Magnitude overlap", "Chance"]
    return [*blocks, Table(header, rows)]


def _facts(name: str, facts: dict) -> list[Cell]:
    pruned, weights = facts["pruned"], facts["weights"]
    away = round(pruned - float(name.partition("-")[2]) * weights, 2)
    overlap, chance = (facts.get(key) for key in ("magnitude_overlap", "chance_overlap"))
    return [
        Cell(f"{100 * pruned / weights:.5f}%"), Cell(f"{pruned:,}"), Cell(f"{weights:,}"), Cell(f"{away:+g}"),
        *(Cell("missing", missing=True) if v is None else Cell(_percent(v)) for v in (overlap, chance)),
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _absent(run: Run, title: str, stage: str) -> list:
    return [Heading(title), Text(f"Missing; `{run.command('mindspore_rt ' + stage)}` makes it.", note=True)]


def learning(run: Run) -> list:
    """Figure 1 for each seed."""
    blocks = []
    for seed in run.config.seeds:
        records = _lines(run.paths.search(seed) / "metrics.jsonl")
        trained = [record for record in records if "l0_term" in record]
        if not trained:
            continue
        path = run.paths.report / "figures" / f"mask-learning-seed-{seed}.png"
        figures.mask_learning(trained, path)
        last = trained[-1]
        caption = (
            f"Mask learning, seed {seed}: R(m), the expected share of weights kept, went from "
            f"{trained[0]['l0_term']:.3f} to {last['l0_term']:.3f} in {last['step']} steps; at the end "
            f"{_percent(last['settled_zero'])} of the masks are settled near 0 and {_percent(last['settled_one'])} "
            "near 1 (sigmoid of log alpha below 1/12 or above 11/12)."
        )
        accuracy = [record["dev_accuracy"] for record in records if "dev_accuracy" in record]
        if accuracy:
            caption += f" With the masks at the end, dev accuracy is {_percent(accuracy[-1])}."
        blocks.append(Picture(path, caption))
    return [Heading("Learning the masks"), *blocks] if blocks else _absent(run, "Learning the masks", "search")


def training(run: Run) -> list:
    blocks = []
    for seed in run.config.seeds:
        curves = {run.name(model): _lines(folder.parent / "metrics.jsonl")
                  for model, folder in run.paths.victims(seed).items()}
        curves = {name: records for name, records in curves.items() if records}
        if not curves:
            continue
        path = run.paths.report / "figures" / f"training-seed-{seed}.png"
        figures.training_curves(curves, path)
        last = {name: [r["dev_accuracy"] for r in records if "dev_accuracy" in r] for name, records in curves.items()}
        ends = ", ".join(f"{name} {_percent(values[-1])}" for name, values in last.items() if values)
        blocks.append(Picture(path, f"Training, seed {seed}. Dev accuracy at the end: {ends or 'not measured yet'}."))
    title = "Fine-tuning and retraining"
    return [Heading(title), *blocks] if blocks else _absent(run, title, "finetune")


# ---------------------------------------------------------------- adversarial sentences


def examples(run: Run) -> list:
    """For each attack, a sentence that fools only the first model and one that fools a ticket."""
    blocks, seed = [], run.config.seeds[0]
    for recipe in run.recipes:
        by_model = {m: {r["index"]: r for r in run.records[seed, m, recipe]} for m in run.models}
        picked = _pick(by_model, run.models)
        if picked:
            blocks.append(Heading(RECIPES[recipe], 3))
            blocks += [_example(run, by_model, index, model) for index, model in picked]
    if not blocks:
        line = f"Missing; `{run.command('torch_eval attack')}` makes them."
        if run.summaries:
            line = "No attack has fooled a model yet."
        return [Heading("Adversarial sentences"), Text(line, note=True)]
    return [Heading("Adversarial sentences"), Text("Words that the attack changed are marked."), *blocks]


def _pick(by_model: dict, models: list[str]) -> list[tuple[int, str]]:
    """(index, fooled model): first model falls and a ticket holds, then a ticket falls; few changed words first."""

    def fallen(model):
        records = [r for r in by_model[model].values() if r["outcome"] == "success"]
        return sorted(records, key=lambda r: (r.get("words_changed") or 0, r["index"]))

    first, others = models[0], models[1:]
    holds = [r["index"] for r in fallen(first)
             if any(by_model[o].get(r["index"], {}).get("outcome") == "failure" for o in others)]
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
        f"label {run.label(record['label'])}; {run.label(record['original_prediction'])} before, "
        f"{run.label(record['perturbed_prediction'])} after; {record['queries']} queries; "
        f"{record['words_changed']} of {record['words']} words changed"
    )
    texts.append((f"{run.name(model)}, fooled", [(facts, False)]))
    says = {"success": "fooled as well, perhaps by other words", "failure": "not fooled by the attack",
            "skipped": "wrong from the start, not attacked"}
    for other in by_model:
        if other != model and index in by_model[other]:
            rival = by_model[other][index]
            texts.append((run.name(other), [(f"{says[rival['outcome']]}; {rival['queries']} queries", False)]))
    return Example(f"Test sentence {index}", texts)


# ---------------------------------------------------------------- how it was run


def how(run: Run) -> list:
    done = [stage for stage in run.stages if stage["manifest"]]
    if not done:
        return []
    versions = {f"{name} {version}" for s in done for name, version in (s["manifest"].get("versions") or {}).items()}
    config = run.config
    items = [
        f"Versions: {', '.join(sorted(versions))}",
        f"Seeds: {', '.join(map(str, config.seeds))}; data split seed {config.data.seed}; device {config.device}",
        f"Experiment: SHA-256 `{run_dir.config_hash(config)[:16]}` of the settings",
        f"Time of the finished stages together: {_duration(sum(s['manifest'].get('seconds') or 0 for s in done))}",
    ]
    items += [f"Split {name}: {split['count']} sentences"
              + (f", SHA-256 `{split['sha256'][:16]}`" if split.get("sha256") else "")
              for name, split in ((run.data or {}).get("splits") or {}).items()]
    rows = [_stage_row(stage) for stage in done]
    blocks = [Heading("How it was run"), Bullets(items)]
    blocks += _resources(done)
    return [*blocks, Table(["Stage", "Seed", "Finished (UTC)", "Time", "Outcome", "Inputs (SHA-256)"], rows, text=True)]


def _resources(done: list[dict]) -> list:
    """What the attacks worked with, as their manifests say it; each description once."""
    found = {}
    for stage in done:
        manifest = stage["manifest"]
        told = manifest.get("resources") or manifest.get("results", {}).get("resources") \
            or manifest.get("settings", {}).get("resources")
        for key, value in (told.items() if isinstance(told, dict) else [("attack resources", told)] if told else []):
            found[f"{key}: {_told(value)}"] = None
    return [Text("Attack resources:"), Bullets(list(found))] if found else []


def _told(value) -> str:
    """A description as plain words; hashes are cut."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_told(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_told, value))
    text = _short(value)
    return f"{text[:12]}…" if len(text) == 64 and " " not in text else text


def _stage_row(stage: dict) -> list[Cell]:
    manifest = stage["manifest"]
    outcome = ", ".join(f"{key} {_short(value)}" for key, value in (manifest.get("results") or {}).items()
                        if isinstance(value, (int, float)))
    inputs = ", ".join(f"{name} `{digest[:8]}`" for name, digest in (manifest.get("inputs") or {}).items())
    seed = "all" if stage["seed"] is None else str(stage["seed"])
    return [Cell(stage["title"]), Cell(seed), Cell(str(manifest.get("finished", "")).replace("T", " ").rstrip("Z")),
            Cell(_duration(manifest.get("seconds") or 0)), Cell(outcome or "done"), Cell(inputs or "none")]


def _short(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


# ---------------------------------------------------------------- files


def numbers(run: Run) -> dict:
    """results.json: everything in the tables, unrounded, with what is missing."""
    rows = []
    for seed in run.config.seeds:
        for model in run.models:
            clean = run.clean(seed, model)
            attacks = {r: run.summaries[seed, model, r].to_dict() if (seed, model, r) in run.summaries else None
                       for r in run.recipes}
            rows.append({"seed": seed, "model": model, "clean": vars(clean) if clean else None, "attacks": attacks})
    return {
        "experiment": run.config.name,
        "config": schema.to_dict(run.config),
        "data": run.data,
        "models": rows,
        "tickets": {str(seed): found for seed, found in run.tickets.items()},
        "not_comparable": run.unlike,
        "missing": [{k: s[k] for k in ("seed", "title", "command")} for s in run.stages if s["manifest"] is None],
        "stages": [s for s in run.stages if s["manifest"]],
    }


def as_csv(found: dict) -> str:
    """results.csv: a line a measure; an empty value is a missing one."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow("experiment seed model attack measure value low high examples attacked".split())
    for row in found["models"]:
        start = [found["experiment"], row["seed"], row["model"]]
        writer.writerow([*start, "none", "clean", *_three(row["clean"]), "", ""])
        for recipe, summary in row["attacks"].items():
            counts = [summary["examples"], summary["attacked"]] if summary else ["", ""]
            for measure in ("clean", *MEASURES):
                writer.writerow([*start, recipe, measure, *_three(summary and summary[measure]), *counts])
    return file.getvalue()


def _three(estimate: dict | None) -> list:
    return [estimate[key] for key in ("value", "low", "high")] if estimate else ["", "", ""]


def write(run: Run) -> Path:
    """Write the whole report and return the HTML file."""
    title = f"Robust ticket report: {run.config.name}"
    sections = (introduction, results, missing, tickets, learning, training, examples, how)
    blocks = [Heading(title, 1), *(block for section in sections for block in section(run))]
    found, folder = numbers(run), run.paths.report
    run_dir.write_json(folder / "results.json", found)
    run_dir.atomic_write(folder / "results.csv", as_csv(found))
    run_dir.atomic_write(folder / "report.md", to_markdown(blocks, folder))
    run_dir.atomic_write(folder / "report.html", to_html(title, blocks))
    return folder / "report.html"


@command
def main(argv: list[str] | None = None, runs: Path = run_dir.RUNS) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        raise UserError("report: name a configuration, such as `python -m torch_eval report demo`")
    run = Run(schema.load(argv[0], argv[1:]), argv, runs)
    if not run.paths.root.is_dir():
        raise UserError(f"{run.paths.root} is missing: `{run.command('mindspore_rt prepare')}` starts it")
    page = write(run)
    absent = sum(stage["manifest"] is None for stage in run.stages)
    if absent:
        print(f"{absent} of {len(run.stages)} results are missing; the report says which commands make them")
    print(f"report: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
