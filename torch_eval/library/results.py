"""The figures of `score`: a table for the terminal, `results.json`, and a page."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter

import msgspec

from configs.contract.basics import markdown
from configs.contract.basics.files import atomic_write, read_json, write_json
from configs.contract.run.jobs import CLEAN, attack_jobs
from configs.contract.run.run_dir import RunDir
from configs.contract.run.run_files import Manifest
from torch_eval.attack import metrics, records
from torch_eval.attack.records import CleanResults
from torch_eval.report import render

HEADER = ("model", "attack", "Clean %", "Aua %", "Suc %", "#Query")
EXAMPLES = 5  # adversarial texts of each attack on the page
WORDS = (
    "Clean: accuracy on the unchanged texts of the sample. Aua: accuracy under attack. Suc: share of the attacked "
    "texts that the attack broke; texts that are wrong from the start are not attacked. #Query: mean number of times "
    "that the attack asked the model about one text. In brackets: 95% intervals (Wilson's for shares, bootstrap for "
    "#Query)."
)


@dataclass(frozen=True)
class AttackScore:
    """One attack on one model.

    Attributes:
        model: Name of the model.
        recipe: Name of the attack.
        metrics: Its figures with their intervals; None if the attack could not run.
        missing: Why it could not run.
    """

    model: str
    recipe: str
    metrics: metrics.Metrics | None
    missing: str | None = None

    @property
    def remark(self) -> str:
        """What the figures do not show: why there are none, or how many attacks stopped at their limit."""
        if self.metrics is None:
            return f"{self.model}, {self.recipe}: left out; {self.missing}"
        if not self.metrics.timeouts:
            return ""
        return (
            f"{self.model}, {self.recipe}: {self.metrics.timeouts} of {self.metrics.attacked} attacks stopped at "
            f"max_seconds or max_queries; Aua and Suc count their texts as broken, and the intervals reach to where "
            f"all of them are withstood"
        )

    def cells(self) -> list[str]:
        """Return the table's cells, without the model's name."""
        if self.metrics is None:
            return [self.recipe, "-", "-", "-", "-"]
        shares = (self.metrics.clean, self.metrics.aua, self.metrics.suc)
        return [self.recipe, *(share.text() for share in shares), self.metrics.queries.text(1.0)]


def read(run_dir: RunDir) -> tuple[list[AttackScore], dict[tuple[str, str], list[dict]]]:
    """Return the score of every attack of a run, and the records of those that ran, by model and recipe."""
    scores, lines = [], {}
    for job in (job for job in attack_jobs(run_dir) if job.recipe != CLEAN):
        if job.left_out.is_file():
            reason = read_json(job.left_out, records.LeftOut).reason
            scores.append(AttackScore(job.model, job.recipe, None, reason))
        else:
            made = lines[job.model, job.recipe] = records.read(job.directory / "results.jsonl")
            scores.append(AttackScore(job.model, job.recipe, metrics.summarise(made)))
    return scores, lines


def paired(lines: dict[tuple[str, str], list[dict]]) -> Iterator[dict]:
    """Yield the paired test of every two models under the same attack."""
    for recipe in dict.fromkeys(recipe for _, recipe in lines):
        models = [model for model, other in lines if other == recipe]
        for first, second in itertools.combinations(models, 2):
            test = metrics.paired([(lines[first, recipe], lines[second, recipe])])
            yield {"recipe": recipe, "first": first, "second": second, **test._asdict()}


def table(scores: Sequence[AttackScore]) -> str:
    """Return the table for the terminal."""
    return "\n".join(markdown.aligned([HEADER, *((score.model, *score.cells()) for score in scores)]))


def sentence(test: dict) -> str:
    """Say what a paired test has found."""
    return (
        f"{test['recipe']}: only {test['first']} withstands {test['only_first']}, only {test['second']} "
        f"{test['only_second']} of {test['tested']} texts (McNemar's exact test: p = {test['p']:.2g})"
    )


def write(run_dir: RunDir, note: str) -> None:
    """Write `results.json` and `score.html`, and print the table."""
    scores, lines = read(run_dir)
    tests, seed = list(paired(lines)), run_dir.config.seeds[0]
    about = {}
    for name, folder in run_dir.victims(seed).items():
        clean = read_json(run_dir.attack(seed, name) / "clean" / "manifest.json", Manifest[CleanResults])
        about[name] = {
            "folder": str(folder),
            "sha256": clean.inputs["model"],
            "clean_of_all": clean.results.accuracy,
            "warning": clean.results.unlearned or None,
            "max_length": clean.settings["max_length"],
        }
    summary = msgspec.to_builtins(run_dir.summary())
    settings = {f"{name}/{recipe}": _settings(run_dir, name, recipe) for name, recipe in lines}
    rows = list(map(asdict, scores))
    content = {"data": summary, "models": about, "scores": rows, "paired": tests, "settings": settings}
    write_json(run_dir.root / "results.json", content)
    page = _page(scores, tests, about, lines, note, settings)
    atomic_write(run_dir.root / "score.html", render.to_html(f"Robustness of {', '.join(about)}", page))
    print(f"\n{table(scores)}")
    for score in scores:
        if score.remark:
            print(score.remark)
    for test in tests:
        print(sentence(test))
    print(f"results: {run_dir.root / 'results.json'}, page: {run_dir.root / 'score.html'}")


def _settings(run_dir: RunDir, model: str, recipe: str) -> dict:
    file = run_dir.attack(run_dir.config.seeds[0], model) / recipe / "manifest.json"
    manifest = read_json(file, Manifest[metrics.Metrics])
    settings = {key: value for key, value in manifest.settings.items() if key != "indices"}
    return {**settings, "versions": manifest.versions, "finished": manifest.finished}


def _page(
    scores: Sequence[AttackScore],
    tests: Sequence[dict],
    about: dict,
    lines: dict[tuple[str, str], list[dict]],
    note: str,
    settings: dict,
) -> list[render.Block]:
    """Return the blocks of the page."""
    rows = [list(map(render.Cell, [score.model, *score.cells()])) for score in scores]
    notes = [f"{model}: {facts['warning']}" for model, facts in about.items() if facts["warning"]]
    notes += [score.remark for score in scores if score.remark]
    measured = [
        f"{model}: {fact['folder']}, SHA-256 {fact['sha256'][:12]}, inputs cut to {fact['max_length']} pieces; "
        f"accuracy on all texts {fact['clean_of_all']:.1%}"
        for model, fact in about.items()
    ]
    resources = sorted({records.source_of(facts["resources"]) for facts in settings.values()})
    measured.append(f"resources of the attacks: {', '.join(resources)}; every setting is in results.json")
    examples = []
    for (model, recipe), attacked in lines.items():
        broken = [record for record in attacked if record["outcome"] == "success"]
        broken.sort(key=itemgetter("words_changed", "index"))
        examples += [_example(f"{model}, {recipe}, text {record['index']}", record) for record in broken[:EXAMPLES]]
    return [
        render.Paragraph(f"Data: {note}. {WORDS}"),
        render.Table(list(HEADER), rows),
        *(render.Paragraph(text, note=True) for text in notes),
        *render.section("Paired tests", [render.Bullets([sentence(test) for test in tests])] if tests else []),
        *render.section("How this was measured", [render.Bullets(measured)]),
        *render.section(
            "Adversarial texts", [render.Paragraph("Words that the attack changed are marked."), *examples]
        ),
    ]


def _example(title: str, record: dict) -> render.Example:
    texts = []
    for column, original in record["original"].items():
        before, after = render.compare(original, record["perturbed"][column])
        texts += [(f"{column}, before", before), (f"{column}, after", after)]
    return render.Example(title, texts)
