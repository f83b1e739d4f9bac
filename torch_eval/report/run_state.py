"""What a run directory holds at the moment: scores of the attacked models, what is missing, what is stale.

Results of one attack, and accuracies on the test set, are compared only if they were made in the same *way*: the same
settings, test sentences and versions. Ways are numbered for each, 0 being the one that fits the configuration (or has
most results).
"""

from __future__ import annotations

import functools
import json
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.contract import run_dir, schema, shapes
from configs.contract.errors import UserError
from configs.contract.files import file_hash
from configs.contract.jobs import HALVES, jobs
from configs.contract.methods import METHODS, needs_robust_ticket
from configs.contract.model_id import ModelId
from configs.contract.shapes import COUNT, NUMBER, POSITIVE, SECONDS, SHARE, TEXT, Maybe
from torch_eval.attack import metrics
from torch_eval.attack import records as attack_records

# The paper's attacks in its order, then the others.
RECIPES = {
    "bertattack": "BERT-Attack",
    "textfooler": "TextFooler",
    "textbugger": "TextBugger",
    **{name: name for name in schema.RECIPES if name not in ("bertattack", "textfooler", "textbugger")},
}
TASKS = {
    "imdb": "IMDB",
    "agnews": "AGNEWS",
    "sst2": "SST-2",
    "qnli": "QNLI",
    "mnli": "MNLI",
    "qqp": "QQP",
    "snippets": "Rotten Tomatoes snippets",
}
CLEAN = "clean"  # stands where an attack's name does: unchanged sentences, the whole test set
# What is counted on in the files of a run; see configs/contract/shapes.py.
MANIFEST = {
    "settings": {section: Maybe({}) for section in ("finetune", "retrain", "search")},
    "inputs": {str: TEXT},
    "versions": {str: TEXT},
    "results": {"model_sha256": Maybe(TEXT), "steps": Maybe(COUNT), "temperature": Maybe(NUMBER)},
    "finished": TEXT,
    "seconds": SECONDS,
}
CLEAN_MANIFEST = {**MANIFEST, "results": {"accuracy": SHARE, "n": POSITIVE}}
ESTIMATE = dict.fromkeys(("value", "low", "high"), Maybe(NUMBER))
ATTACK_SETTINGS = {
    "indices": [COUNT],
    "resources": Maybe({"from": Maybe(TEXT)}),
    "protocol": Maybe(TEXT),
    "recipe": Maybe(TEXT),
    "attacked": Maybe([TEXT]),
    "temperature": Maybe(NUMBER),
    "dtype": Maybe(TEXT),
}
DTYPE = {"outcomes_that_float32_changes": COUNT, "of": COUNT}
CHOICE_MANIFEST = {**MANIFEST, "settings": ATTACK_SETTINGS}
ATTACK_MANIFEST = {
    **MANIFEST,
    "settings": ATTACK_SETTINGS,
    "results": {
        **dict.fromkeys(("examples", "attacked", "timeouts"), COUNT),
        **dict.fromkeys(("clean", "aua", "suc", "queries"), ESTIMATE),
    },
}
DATA = {"labels": Maybe([TEXT]), "note": Maybe(TEXT), "splits": {str: {"count": COUNT, "sha256": Maybe(TEXT)}}}
CHOICE = {"rule": TEXT, "candidates": [{"model": TEXT, "seed": COUNT, "aua": SHARE, "accuracy": SHARE}]}
LEFT_OUT = {"reason": Maybe(TEXT)}
FIGURES = (  # of a step or of an evaluation
    "epoch",
    "loss",
    "adversarial_loss",
    "l0_term",
    "l0_weight",
    "settled_zero",
    "settled_one",
    "sparsity_at_threshold",
    "sentences_per_second",
    "dev_accuracy",
)
LEARNING = {"step": COUNT, "seconds": Maybe(SECONDS), **dict.fromkeys(FIGURES, Maybe(NUMBER))}
MEASURES = {"aua": "Aua%", "suc": "Suc%", "queries": "#Query"}


@dataclass
class Score:
    """Results of one attack on one model, or its accuracy on the test set. `way` numbers how it was made; `stale` lists
    what differs from the configuration now."""

    directory: Path
    manifest: dict
    way: int = 0
    stale: tuple[str, ...] = ()

    @functools.cached_property
    def signature(self) -> dict:
        """How the result was made, model and seed apart. A temperature fitted on dev is each model's own."""
        settings = {k: v for k, v in self.manifest["settings"].items() if k not in ("seed", "shard")}
        fitted = fitted_temperature(self.directory.parent)
        if fitted and settings.get("temperature") == fitted:
            settings["temperature"] = "fitted on dev"
        test = self.manifest["inputs"].get("test")
        return {**settings, "test sentences": test, "versions": self.manifest["versions"]}

    @property
    def title(self) -> str:
        return recipe_title(self.directory.name, self.protocol)

    @property
    def both_texts(self) -> bool:
        """True for an attack that may change both texts of a pair."""
        return len(self.manifest["settings"].get("attacked") or []) > 1

    @property
    def resources(self) -> str:
        """Of an attack: packaged, original, or what a recipe of TextAttack's other ones brings itself."""
        return (self.manifest["settings"].get("resources") or {}).get("from") or "TextAttack's own"

    @property
    def protocol(self) -> str | None:
        return self.manifest["settings"].get("protocol")

    @property
    def has_budget(self) -> bool:
        """True if attacks may have ended as timeouts."""
        return any(self.manifest["settings"].get(key) is not None for key in ("max_queries", "max_seconds"))

    @property
    def temperature(self) -> float:
        """By which the victim's logits were divided."""
        return self.manifest["settings"].get("temperature") or 1.0

    @property
    def dtype(self) -> str:
        return self.manifest["settings"].get("dtype") or "float32"

    @functools.cached_property
    def dtype_effect(self) -> tuple[int, int] | None:
        """How many outcomes of so many another dtype than float32 changed."""
        found = read(self.directory / "dtype.json", DTYPE) if self.dtype != "float32" else None
        return (found["outcomes_that_float32_changes"], found["of"]) if found else None

    @property
    def examples(self) -> int:
        """Number of attacked sentences."""
        return len(self.manifest["settings"]["indices"])

    @property
    def candidates(self) -> int | None:
        """K of BERT-Attack; None for other attacks."""
        settings = self.manifest["settings"]
        shape = bertattack_with(COUNT)
        if settings.get("recipe") != "bertattack" or shapes.misfit(settings.get("parameters"), shape):
            return None
        return settings["parameters"]["masked words"]["max_candidates"]

    @functools.cached_property
    def records(self) -> list[dict]:
        """As `read_records` gives them; these are kept."""
        return self.read_records()

    def read_records(self) -> list[dict]:
        """Raises `UserError` if they are not those of all examples, in order."""
        path, indices = self.directory / "results.jsonl", self.manifest["settings"]["indices"]
        found = attack_records.read(path) if path.is_file() else []
        if [record["index"] for record in found] != indices:
            raise UserError(
                f"{path}: holds {len(found)} examples, not the {len(indices)} that its manifest says, in their order; "
                f"delete {self.directory} to redo the attack"
            )
        return found

    @functools.cached_property
    def summary(self) -> metrics.Metrics:
        """Counted from the records. Raises `UserError` if the manifest states other values."""
        stated, summary = self.manifest["results"], metrics.summarise(self.read_records())
        wrong = [key for key in ("examples", "attacked", "timeouts") if stated[key] != getattr(summary, key)]
        wrong += [key for key in ("clean", *MEASURES) if stated[key]["value"] != getattr(summary, key).value]
        if wrong:
            raise UserError(
                f"{self.directory / 'manifest.json'}: its {wrong[0]} is not what results.jsonl gives; "
                f"delete {self.directory} to redo the attack"
            )
        return summary

    @functools.cached_property
    def accuracy(self) -> metrics.Estimate:
        """On the whole test set; of `CLEAN` alone."""
        found = self.manifest["results"]
        return metrics.wilson(round(found["accuracy"] * found["n"]), found["n"])


@dataclass(frozen=True)
class Step:
    """One thing that a run consists of, and the command that makes it. `manifest` is None until it is whole."""

    stage: str
    title: str
    seed: int | None
    command: str
    directory: Path
    manifest: dict | None
    stale: tuple[str, ...] = ()


class Run:
    """One experiment. Absent files read as None or as empty."""

    def __init__(self, config: schema.Experiment, arguments: list[str], runs: Path = run_dir.RUNS):
        self.config, self.paths, self.arguments = config, run_dir.RunDir(config, runs), shlex.join(arguments)
        if not self.paths.root.is_dir():
            raise UserError(f"{self.paths.root} is missing: `{self.command('prepare')}` starts it")
        self.has_choice = self.paths.choice.is_file()
        first = config.sparsities[0]
        self.chosen = self.paths.chosen() if self.has_choice else ModelId("robust", first)
        self.models = self.paths.models(self.chosen)
        self.recipes = [recipe for recipe in RECIPES if recipe in config.attack.recipes]
        self.data = read(self.paths.data / "summary.json", DATA) or {}
        self.scores = self._scores()
        self.steps = [*self._training(), *self._choosing(), *self._attacking()]

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def task(self) -> str:
        return TASKS.get(self.config.task, self.config.name)

    def command(self, stage: str) -> str:
        return f"python -m {HALVES[stage]} {stage} {self.arguments}"

    # --- what there is ---------------------------------------------------------------------------------------

    def _scores(self) -> dict[tuple[int, str, str], Score]:
        """(seed, model, recipe or `CLEAN`) to what is whole, snapshots of trainings included."""
        scores = {}
        for seed in self.config.seeds:
            for model in self.paths.victims(seed):
                for recipe in (CLEAN, *self.recipes):
                    folder = self.paths.attack(seed, model) / recipe
                    shape = CLEAN_MANIFEST if recipe == CLEAN else ATTACK_MANIFEST
                    manifest = read(folder / "manifest.json", shape)
                    if manifest:
                        scores[seed, model, recipe] = Score(folder, manifest, stale=self._stale(seed, model, manifest))
        for recipe in (CLEAN, *self.recipes):
            _number_ways([score for key, score in scores.items() if key[2] == recipe])
        return scores

    def _stale(self, seed: int, model: str, manifest: dict, split="test", **more) -> tuple[str, ...]:
        """What the result of an attack on a split was made with and is otherwise now."""
        expected = {**self._expected(seed, "attack"), **more}
        if self.config.attack.calibrate:
            expected["temperature"] = fitted_temperature(self.paths.attack(seed, model)) or "fitted on dev"
        changed = unlike(manifest["settings"], expected)
        return (*self._changed_inputs(seed, model, manifest, split), *changed)

    def _changed_inputs(self, seed: int, model: str, manifest: dict, split: str) -> list[str]:
        """An attacked model or split that is another one by now."""
        inputs, data = manifest["inputs"], self.data.get("splits", {}).get(split, {})
        found = [
            f"{name}: was made again since, {inputs[name][:8]} is {now[:8]} now"
            for name, now in (("model", self.trained(seed, model)), (split, data.get("sha256")))
            if now and inputs.get(name, now) != now
        ]
        indices, now = manifest["settings"].get("indices"), self.sentences(split)
        if indices is not None and len(indices) != now:
            found.append(f"examples: {len(indices)}, now {now}")
        return found

    def sentences(self, split: str = "test") -> int:
        """Sentences that an attack on a split has: the asked number, if there are so many."""
        asked = self.config.attack.examples if split == "test" else self.config.choice.examples
        return min(self.data.get("splits", {}).get(split, {}).get("count", asked), asked)

    def trained(self, seed: int, model: str) -> str | None:
        """Hash of a model as its training left it, if that is finished; of one kept on the way, or of the user's own,
        as it is now."""
        own = self.paths.own_victims().get(model)
        if own or ModelId.parse(model).snapshot is not None:
            folder = own or self.paths.victims(seed).get(model)
            return _hash(folder) if folder and folder.is_dir() else None
        manifest = read(self.paths.stage(seed, model) / "manifest.json", MANIFEST)
        return manifest["results"].get("model_sha256") if manifest else None

    def _expected(self, seed: int | None, stage: str) -> dict:
        """What a manifest's settings would be under the configuration now, and more that no stage writes."""
        now = self._now
        if stage == "prepare":
            return {**now, **now["data"]}
        if stage == "attack":
            options = self.config.attack
            length = 512 if options.protocol == "official" else self.config.data.max_length  # pieces, as attacked there
            own = {"resources": {"from": options.resources}, "parameters": bertattack_with(options.candidates)}
            return {**now["attack"], "seed": seed, "max_length": length, **own}
        return {**now, "seed": seed, "max_length": self.config.data.max_length, "amp": self.config.amp}

    @functools.cached_property
    def _now(self) -> dict:
        return schema.to_dict(self.config)

    def _training(self) -> list[Step]:
        steps = []
        for job in jobs(self.paths):
            manifest = read(job.directory / "manifest.json", MANIFEST)
            expected = {**self._expected(job.seed, job.stage), "sparsity": job.sparsity}
            stale = unlike(manifest["settings"] if manifest else {}, expected)
            steps.append(
                Step(job.stage, job.title, job.seed, self.command(job.stage), job.directory, manifest, tuple(stale))
            )
        return steps

    def _choosing(self) -> list[Step]:
        if not needs_robust_ticket(self.config.methods):
            return []
        choice = read(self.paths.choice, CHOICE)
        stale = self._stale_choice(choice) if choice else ()
        return [Step("choose", "choose", None, self.command("choose"), self.paths.root, choice, stale)]

    def _stale_choice(self, choice: dict) -> tuple[str, ...]:
        """What a choice rests on and is otherwise now: candidates of all seeds, and the attacks on each."""
        candidates, options = self.paths.candidates(), self.config.choice
        if len(candidates) == 1 or not self.config.chooses_on_dev:
            return ()
        asked = {(str(c), seed) for c in candidates for seed in self.config.seeds}
        found = {(row["model"], row["seed"]) for row in choice["candidates"]}
        if found != asked:
            return (f"candidates of all seeds: {len(found)}, now {len(asked)}",)
        stale = []
        for model, seed in sorted(asked):
            manifest = read(self.paths.seed(seed) / "choice" / model / "manifest.json", CHOICE_MANIFEST)
            told = self._stale(seed, model, manifest, "dev", recipe=options.recipe) if manifest else ()
            stale += [f"{model}, seed {seed}: {what}" for what in told]
        return tuple(stale)

    def _attacking(self) -> list[Step]:
        steps = []
        for seed in self.config.seeds:
            for model in self.paths.victims(seed):
                for recipe in (CLEAN, *self.recipes):
                    folder, score = self.paths.attack(seed, model) / recipe, self.scores.get((seed, model, recipe))
                    manifest, stale = (score.manifest, score.stale) if score else (None, ())
                    parts = not manifest and any(folder.glob("shard-*-of-*"))
                    command = f"python -m torch_eval merge {self.arguments}" if parts else self.command("attack")
                    steps.append(Step("attack", f"attack {model} {recipe}", seed, command, folder, manifest, stale))
        return steps

    def missing(self) -> list[Step]:
        """What the commands named would make: not the attacks that cannot be run here."""
        return [step for step in self.steps if step.manifest is None and not self._left_out(step)]

    def stale(self) -> list[Step]:
        return [step for step in self.steps if step.stale]

    def left_out(self) -> dict[str, str]:
        """Attacks that could not be run as what their name says, and why."""
        found = {}
        for step in self.steps:
            told = self._left_out(step)
            if told:
                found[self.attack_title(step.directory.name)] = told.get("reason") or "no reason given"
        return found

    def _left_out(self, step: Step) -> dict | None:
        attack = step.manifest is None and step.stage == "attack"
        return read(step.directory / "missing.json", LEFT_OUT) if attack else None

    # --- how it was attacked ---------------------------------------------------------------------------------

    def attacks(self, way: int = 0, *recipes: str) -> list[Score]:
        """Results of attacks, of all recipes or some, that were made in a way. While the first way has none, what the
        configuration would make stands in for them."""
        recipes = recipes or tuple(self.recipes)
        found = [score for key, score in self.scores.items() if key[2] in recipes and score.way == way]
        settings = {**self._expected(None, "attack"), "indices": list(range(self.sentences()))}
        asked = [Score(self.paths.root / recipe, {"settings": {**settings, "recipe": recipe}}) for recipe in recipes]
        return found or ([] if way else asked)

    def attack_title(self, recipe: str, way: int = 0) -> str:
        return titles(self.attacks(way, recipe))

    def attack_facts(self, *recipes: str) -> str:
        """What the figures of attacks must not be read without: `TextFooler, packaged resources`."""
        attacks = self.attacks(0, *recipes)
        resources = " and ".join(dict.fromkeys(score.resources for score in attacks))
        return f"{titles(attacks)}, {resources} resources"

    def chosen_by(self, candidate: str) -> list[Score]:
        """The attacks on dev that a candidate for the choice withstood or not."""
        folders = [self.paths.seed(seed) / "choice" / candidate for seed in self.config.seeds]
        found = [(folder, read(folder / "manifest.json", CHOICE_MANIFEST)) for folder in folders]
        return [Score(folder, manifest) for folder, manifest in found if manifest]

    # --- figures over seeds ----------------------------------------------------------------------------------

    def ways(self) -> int:
        """Number of ways in which results were made; they must not be compared across."""
        return 1 + max((score.way for score in self.scores.values()), default=0)

    def difference(self, way: int) -> str:
        """What sets a way apart from the first one, attack by attack."""
        told = []
        for recipe in (CLEAN, *self.recipes):
            found = {s.way: s.signature for key, s in self.scores.items() if key[2] == recipe}
            if way in found:
                name = "Clean" if recipe == CLEAN else self.attack_title(recipe, way)
                told.append(f"{name}: {'; '.join(_differences(found[0], found[way])[:4])}")
        return ". ".join(told)

    def clean(self, model: str, way: int = 0) -> Value:
        """Accuracy on the whole test set."""
        return Value([(seed, score.accuracy) for seed, score in self.made(model, CLEAN, way)], self.seeds(model), 100)

    def seeds(self, model: str) -> list[int]:
        """Seeds that have a model: the user's own know none, and are attacked under the first."""
        return self.config.seeds[:1] if model in self.paths.own_victims() else self.config.seeds

    def value(self, model: str, recipe: str, measure: str, way: int = 0) -> Value:
        """`measure` is aua, suc, queries, or clean: the accuracy on the attacked sample."""
        found = [(seed, getattr(score.summary, measure)) for seed, score in self.made(model, recipe, way)]
        return Value(found, self.seeds(model), 1 if measure == "queries" else 100)

    def made(self, model: str, recipe: str, way: int) -> list[tuple[int, Score]]:
        """Seeds and their scores, of those that were made in a way."""
        scores = [(seed, self.scores.get((seed, model, recipe))) for seed in self.config.seeds]
        return [(seed, score) for seed, score in scores if score and score.way == way]

    def pick(self, method: str) -> str | None:
        """The model of a method that the tables show: the chosen sparsity's."""
        found = [model for model, of in self.models.items() if of == method]
        same = [
            model
            for model in found
            if METHODS[method].kind == "dense" or ModelId.parse(model).sparsity == self.chosen.sparsity
        ]
        return same[0] if same else None

    def title(self, model: str) -> str:
        """`robust-0.30` is `Robust ticket 30%`."""
        model_id = ModelId.parse(model)
        name = METHODS[model_id.method].title if model_id.method in METHODS else model_id.method
        return name + (f" {100 * model_id.sparsity:g}%" if model_id.sparsity is not None else "")

    def label(self, value) -> str:
        """Name of a class."""
        names = self.data.get("labels") or []
        return str(names[value]) if isinstance(value, int) and 0 <= value < len(names) else str(value)


class Value:
    """A measure over seeds, in the unit of the tables (per cent, or queries).

    `found` holds (seed, estimate) of those of the `asked` seeds that have a result.
    """

    def __init__(self, found: list[tuple[int, metrics.Estimate]], asked: Sequence[int] = (), scale: float = 1.0):
        self.asked = len(asked)
        self.seeds = [
            (seed, *(scale * x for x in (e.value, e.low, e.high))) for seed, e in found if e.value is not None
        ]
        self.values = [value for _, value, _, _ in self.seeds]

    def __bool__(self) -> bool:
        return bool(self.values)

    @property
    def mean(self) -> float | None:
        return statistics.mean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over seeds."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def span(self) -> tuple[float, float] | None:
        """Mean less and plus one standard deviation; of one seed alone its 95% interval."""
        if not self.values:
            return None
        if self.deviation is None:
            return self.seeds[0][2:]
        return self.mean - self.deviation, self.mean + self.deviation


def recipe_title(recipe: str, protocol: str | None) -> str:
    """Of an attack; what the official code calls BERT-Attack is another one."""
    return RECIPES[recipe] + (" (official code's)" if protocol == "official" and recipe == "bertattack" else "")


def titles(attacks: list[Score]) -> str:
    return " / ".join(dict.fromkeys(score.title for score in attacks))


def bertattack_with(candidates) -> dict:
    """Where the parameters of BERT-Attack hold its K; the official code's has other parts, and none."""
    return {"masked words": {"max_candidates": candidates}}


def fitted_temperature(directory: Path) -> float | None:
    """Of the victim whose attacks are in a directory, if its temperature was fitted on dev."""
    manifest = read(directory / "calibration" / "manifest.json", MANIFEST)
    return manifest["results"].get("temperature") if manifest else None


def unlike(settings: dict, expected: dict, prefix: str = "") -> list[str]:
    """`key: old, now new` for every setting that stands in both and differs; a group and a value are not compared."""
    found = []
    for key, old in settings.items():
        now = expected.get(key)
        if isinstance(old, dict) and isinstance(now, dict):
            found += unlike(old, now, f"{prefix}{key}.")
        elif key in expected and not isinstance(old, dict) and not isinstance(now, dict) and old != now:
            found.append(f"{prefix}{key}: {_short(old)}, now {_short(now)}")
    return found


@functools.cache
def _hash(folder: Path) -> str:
    """Of a model, which as many attacks as there are ask for."""
    return file_hash(folder)


def _number_ways(scores: list[Score]) -> None:
    kinds: dict[str, list[Score]] = {}
    for score in scores:
        kinds.setdefault(json.dumps(score.signature, sort_keys=True), []).append(score)
    order = sorted(kinds.values(), key=lambda same: (min(len(s.stale) for s in same), -len(same)))
    for number, same in enumerate(order):
        for score in same:
            score.way = number


def _differences(first: dict, other: dict, prefix: str = "") -> list[str]:
    found = []
    for key in {**first, **other}:
        old, new = first.get(key), other.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key} {_short(new)}, elsewhere {_short(old)}")
    return found


def _short(value) -> str:
    if isinstance(value, list) and len(value) > 6:
        return f"{len(value)} values"
    text = str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def read(path: Path, shape: dict) -> dict | None:
    return shapes.read(path, shape) if path.is_file() else None


def lines(path: Path) -> list[dict]:
    """Metrics of a training."""
    return shapes.lines(path, LEARNING) if path.is_file() else []
