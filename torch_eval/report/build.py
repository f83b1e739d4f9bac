"""`python -m torch_eval report CONFIG... [key=value ...] [--out FOLDER]`: tables and figures of runs, finished or not.

Reads runs/<experiment>/ of every named configuration (a file such as runs/sst2/config.yaml is one as well) and writes
into its report/, or for several into runs/report/: report.html (one self-contained file), report.md, results.json,
results.csv, figures/*.png, *.pdf and *.svg. What has no result yet is shown as missing, with the command that makes it.
Neither torch nor TextAttack is loaded.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from configs.contract import run_dir, schema
from configs.contract.errors import UserError
from configs.contract.files import atomic_write, write_json
from configs.contract.methods import METHODS
from configs.contract.model_id import ModelId
from configs.contract.stage import config_hash
from torch_eval.report import figure_sections, tables, wording
from torch_eval.report.adversarial_texts import examples
from torch_eval.report.render import Bullets, Cell, Details, Heading, Table, Text, to_html, to_markdown
from torch_eval.report.run_state import CLEAN, MEASURES, RECIPES, Run, titles
from torch_eval.report.ticket_sections import tickets

# --- sections without pictures -------------------------------------------------------------------------------


def introduction(runs: list[Run]) -> list:
    rows = []
    for run in runs:
        config, train = run.config, run.data.get("splits", {}).get("train", {})
        model = "packaged MiniLM BERT" if config.model == "packaged" else config.model
        shares = [f"{100 * s:g}%" for s in config.sparsities]
        done = sum(step.manifest is not None for step in run.steps)
        rows.append(
            [
                Cell(run.name),
                Cell(run.task),
                Cell(model + (f", layers 1 to {config.layers}" if config.layers else "")),
                Cell(f"{train['count']:,}" if "count" in train else "not prepared yet"),
                Cell(", ".join(shares)),
                Cell(", ".join(map(str, config.seeds))),
                Cell(", ".join(tables.made_with(run.attacks()))),
                Cell(f"{done} of {len(run.steps)} results"),
            ]
        )
    header = ["Experiment", "Task", "Model", "Training sentences", "Pruned", "Seeds", "Attacks", "State"]
    methods = [m for m in METHODS if any(m in run.config.methods for run in runs)]
    notes = [f"{run.task}: {run.data['note']}" for run in runs if run.data.get("note")]
    described = [f"**{METHODS[m].title}**: {METHODS[m].note}" for m in methods]
    return [
        Text(wording.IDEA),
        Table(header, rows, text=True),
        *([Text("Data: " + "; ".join(notes))] if notes else []),
        Details("The methods, one line each", [Bullets(described)]),
    ]


def results(runs: list[Run]) -> list:
    blocks = [Heading("Results"), Bullets(list(wording.MEASURED)), Text(wording.MEANING)]
    packaged = [
        f"{run.task} ({run.name})"
        for run in runs
        if any(score.resources == "packaged" for way in range(run.ways()) for score in run.attacks(way))
    ]
    if packaged:
        blocks.append(Text(wording.PACKAGED.format(", ".join(packaged)), note=True))
    blocks += [
        Text(wording.MIXED.format(run.name, ". ".join(run.difference(way) for way in range(1, run.ways()))), note=True)
        for run in runs
        if run.ways() > 1
    ]
    first, second = (
        [run for run in runs if (run.config.task in tables.TABLE2) is is_second] for is_second in (False, True)
    )
    for number, group, keys in (
        (1, first, [(r, m) for r in RECIPES for m in MEASURES]),
        (2, second, [("textfooler", "aua"), ("textbugger", "aua")]),
    ):
        if group:
            asked = [key for key in keys if any(key[0] in run.recipes for run in group)]
            blocks += [Heading(f"Methods compared (Table {number} of the paper)", 3), tables.result_table(group, asked)]
            if number == 2:
                every = [(r, m) for r in RECIPES for m in MEASURES if any(r in run.recipes for run in group)]
                blocks.append(Details("All measures of these data sets", [tables.result_table(group, every)]))
    for run in runs:
        both = [score for way in range(run.ways()) for score in run.attacks(way) if score.both_texts]
        blocks += [Text(wording.BOTH_TEXTS.format(f"{run.task} ({run.name})", titles(both)))] if both else []
    blocks += tables.reference_notes(runs)
    for run in runs:
        table = tables.sparsity_table(run)
        blocks += [Details(f"{run.task} ({run.name}): every sparsity", [table])] if table else []
    return blocks


def ablations(runs: list[Run]) -> list:
    blocks = []
    for number, title in ((3, "Without a part of the method"), (4, "Initialisation or structure")):
        table = tables.ablation_table(runs, number)
        if table:
            blocks += [Heading(f"{title} (Table {number} of the paper)", 3), table]
    return [Heading("Ablations"), *blocks] if blocks else []


def choosing(runs: list[Run]) -> list:
    asked = [run for run in runs if any(step.stage == "choose" for step in run.steps)]
    blocks = [block for run in asked for block in tables.choice(run)]
    return (
        [
            Heading("The choice of the ticket"),
            Text("No test sentence has a say in which ticket is reported; where there is a choice, it is made on dev."),
            *blocks,
        ]
        if blocks
        else []
    )


def paired(runs: list[Run]) -> list:
    found = [(run, tables.paired_table(run)) for run in runs]
    blocks = [block for run, table in found if table for block in (Heading(f"{run.task} ({run.name})", 3), table)]
    return [Heading("Paired tests"), Text(wording.PAIRED), *blocks] if blocks else []


def missing(runs: list[Run]) -> list:
    """The commands that complete the runs, in order, each once; attacks that were left out; stale results."""
    blocks = []
    for run in runs:
        wanted: dict[str, list[str]] = {}
        for step in run.missing():
            seed = f" (seed {step.seed})" if step.seed is not None and len(run.config.seeds) > 1 else ""
            # `retrain lth-0.30` is lth-0.30: the command names the stage.
            wanted.setdefault(step.command, []).append((step.title.partition(" ")[2] or step.title) + seed)
        if wanted:
            items = [f"`{line}`: {_listed(titles)}" for line, titles in wanted.items()]
            told = f"{run.name} is not finished. These commands, in this order, make what is missing:"
            blocks += [Text(told, note=True), Bullets(items)]
        blocks += [
            Text(f"{run.name}: {name} was left out: {reason}", note=True) for name, reason in run.left_out().items()
        ]
        stale = [
            f"{step.title}"
            + (f", seed {step.seed}" if step.seed is not None else "")
            + f" ({'; '.join(step.stale[:3])})"
            for step in run.stale()
        ]
        if stale:
            blocks += [
                Text(
                    f"{run.name}: **stale**, made with other settings, models or sentences than this report was called "
                    "with. Run the experiment again with on_change=redo, or choose another name:",
                    note=True,
                ),
                Bullets(_shortened(stale)),
            ]
    return [Heading("Missing and stale results"), *blocks] if blocks else []


def _listed(titles: list[str]) -> str:
    return ", ".join(_shortened(titles))


def _shortened(items: list[str], most: int = 12) -> list[str]:
    return items if len(items) <= most else [*items[: most - 1], f"{len(items) - most + 1} more"]


def how(runs: list[Run]) -> list:
    blocks = []
    for run in runs:
        shown = {run.pick(method) for method in run.config.methods}  # the others' stages stand in results.json
        done = [
            step
            for step in run.steps
            if step.manifest
            and step.stage != "choose"
            and (step.stage != "attack" or step.directory.parent.name in shown)
        ]
        if done:
            blocks.append(
                Details(
                    f"{run.task} ({run.name}): versions, inputs, times of {len(done)} stages",
                    [Bullets(_facts(run, done)), _stage_table(done)],
                )
            )
    return [Heading("How it was run"), *blocks] if blocks else []


def _facts(run: Run, done: list) -> list[str]:
    versions = {f"{name} {version}" for s in done for name, version in s.manifest["versions"].items()}
    items = [
        f"Versions: {', '.join(sorted(versions))}",
        f"Data split seed {run.config.data.seed}; device {run.config.device}; compat {run.config.compat}",
        f"Experiment: SHA-256 `{config_hash(run.config)[:16]}` of the settings",
        f"Time of the finished stages together: {_duration(sum(s.manifest.get('seconds') or 0 for s in done))}",
    ]
    items += [
        f"Split {name}: {split['count']} sentences"
        + (f", SHA-256 `{split['sha256'][:16]}`" if split.get("sha256") else "")
        for name, split in run.data.get("splits", {}).items()
    ]
    told = {}
    for step in done:
        resources = step.manifest["settings"].get("resources")
        for key, value in (
            resources.items() if isinstance(resources, dict) else [("set", resources)] if resources else []
        ):
            told[f"Attack resource, {key}: {_told(value)}"] = None
    return items + list(told)


def _told(value) -> str:
    """A description as plain words; hashes are cut."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_told(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_told, value))
    text = _short(value)
    return f"{text[:12]}…" if len(text) == 64 and " " not in text else text


def _stage_table(done: list) -> Table:
    rows = []
    for step in done:
        outcome = ", ".join(
            f"{key} {_short(value)}"
            for key, value in step.manifest["results"].items()
            if isinstance(value, (int, float))
        )
        inputs = ", ".join(f"{name} `{digest[:8]}`" for name, digest in step.manifest["inputs"].items())
        finished = step.manifest["finished"].replace("T", " ").rstrip("Z")
        rows.append(
            [
                Cell(step.title),
                Cell("all" if step.seed is None else str(step.seed)),
                Cell(finished),
                Cell(_duration(step.manifest["seconds"])),
                Cell(outcome or "done"),
                Cell(inputs or "none"),
            ]
        )
    return Table(["Stage", "Seed", "Finished (UTC)", "Time", "Outcome", "Inputs (SHA-256)"], rows, text=True)


def _short(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


# --- files ---------------------------------------------------------------------------------------------------


def numbers(run: Run) -> dict:
    """results.json of one run: everything in the tables, unrounded, with what is missing and stale."""
    rows = []
    for seed in run.config.seeds:
        for model in run.paths.victims(seed):
            score, attacks = run.scores.get((seed, model, CLEAN)), {}
            clean = {**score.manifest["results"], "way": score.way, "stale": list(score.stale)} if score else None
            for recipe in run.recipes:
                score = run.scores.get((seed, model, recipe))
                attacks[recipe] = (
                    {**score.summary.to_dict(), "way": score.way, "stale": list(score.stale)} if score else None
                )
            rows.append(
                {
                    "seed": seed,
                    "model": model,
                    "method": method if (method := ModelId.parse(model).method) in METHODS else None,
                    "clean": clean,
                    "attacks": attacks,
                }
            )
    return {
        "experiment": run.name,
        "config": schema.to_dict(run.config),
        "data": run.data,
        "chosen": run.chosen.record() if run.has_choice else None,
        "models": rows,
        "ways": {way: run.difference(way) for way in range(1, run.ways())},
        "missing": [{"seed": s.seed, "title": s.title, "command": s.command} for s in run.missing()],
        "stale": [{"seed": s.seed, "title": s.title, "differences": s.stale} for s in run.stale()],
        "stages": [
            {"seed": s.seed, "title": s.title, "manifest": _shorter(s.manifest)} for s in run.steps if s.manifest
        ],
    }


def _shorter(manifest: dict) -> dict:
    """Without the numbers of the attacked sentences, which every attack of a run repeats; results.jsonl has them."""
    settings = {key: value for key, value in manifest.get("settings", {}).items() if key != "indices"}
    return {**manifest, "settings": settings}


def as_csv(found: list[dict]) -> str:
    """results.csv: a line a measure; an empty value is a missing one. Shares are from 0 to 1; results of different
    `way` must not be compared."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow("experiment task seed model method attack measure value low high examples attacked way".split())
    for run in found:
        for row in run["models"]:
            start = [run["experiment"], run["config"]["task"], row["seed"], row["model"], row["method"]]
            clean = row["clean"] or {}
            accuracy, n, way = (clean.get(key, "") for key in ("accuracy", "n", "way"))
            writer.writerow([*start, "none", "clean", accuracy, "", "", n, "", way])
            for recipe, summary in row["attacks"].items():
                for measure in ("clean", *MEASURES):
                    three = [summary[measure][key] for key in ("value", "low", "high")] if summary else [""] * 3
                    rest = [summary[key] for key in ("examples", "attacked", "way")] if summary else [""] * 3
                    writer.writerow([*start, recipe, measure, *three, *rest])
    return file.getvalue()


def write(runs: list[Run], folder: Path) -> Path:
    """Write the whole report into `folder` and return the HTML file."""
    title = "Robust ticket report: " + (runs[0].name if len(runs) == 1 else f"{len(runs)} experiments")
    pictures = folder / "figures"
    blocks = [
        Heading(title, 1),
        *introduction(runs),
        *results(runs),
        *ablations(runs),
        *choosing(runs),
        *paired(runs),
        *missing(runs),
        *figure_sections.accuracies(runs, pictures),
        *figure_sections.learning(runs, pictures),
        *tickets(runs, pictures),
        *figure_sections.transfer(runs, pictures),
        *figure_sections.training(runs, pictures),
        *examples(runs),
        *tables.hyperparameters(runs),
        *how(runs),
    ]
    found = [numbers(run) for run in runs]
    write_json(folder / "results.json", {"experiments": found})
    atomic_write(folder / "results.csv", as_csv(found))
    atomic_write(folder / "report.md", to_markdown(blocks, folder))
    atomic_write(folder / "report.html", to_html(title, blocks))
    return folder / "report.html"


def report(names: Sequence[str], overrides: Sequence[str], out: Path | None = None, runs: Path = run_dir.RUNS) -> None:
    """Write the report of one experiment or of several, and print where.

    Args:
        names: Configurations of the experiments.
        overrides: `key=value` changes to each of them.
        out: Folder to write to; None for the experiment's own, or `report` in `runs` for several.
        runs: Folder that holds the run directories.

    Raises:
        UserError: A run has not started, or two of the configurations are the same run.
    """
    found = [Run(schema.load(name, overrides), [name, *overrides], runs) for name in names]
    if len({run.paths.root for run in found}) < len(found):
        raise UserError("report: two configurations have the same name, so they are the same run")
    page = write(found, out or (found[0].paths.report if len(found) == 1 else Path(runs) / "report"))
    for run in found:
        if run.missing():
            count = f"{len(run.missing())} of {len(run.steps)}"
            print(f"{run.name}: {count} results are missing; the report says which commands make them")
    print(f"report: {page}")
