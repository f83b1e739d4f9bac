"""What a run directory holds at the moment: its steps, the scores of the attacked models, what is missing."""

from __future__ import annotations

import functools
import shlex
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import read_json
from configs.contract.experiment import schema
from configs.contract.experiment.methods import METHODS, needs_robust_ticket
from configs.contract.experiment.model_id import ModelId
from configs.contract.inputs.tasks import TASKS
from configs.contract.run import run_dir
from configs.contract.run.jobs import CLEAN, HALVES, attack_jobs, jobs, trainings
from configs.contract.run.run_files import ChoiceOnDev, Finished, Results, TrainingLine, TrainingManifest
from torch_eval.attack.metrics import Metrics
from torch_eval.attack.records import CleanResults, LeftOut
from torch_eval.report.manifests import AttackSettings, read_optional, training_records
from torch_eval.report.scores import RECIPES, Score, Value, differences, number_groups, seeds_text, titles
from torch_eval.report.staleness import Staleness


@dataclass(frozen=True)
class Step:
    """One result that a run consists of.

    Attributes:
        stage: Stage that makes it.
        model: Model that it is of; None for the data and the choice.
        seed: Seed that it is of; None for what all seeds share.
        command: Command that makes it.
        file: Its manifest, or the choice.
        manifest: What that file states; None until the stage is finished.
        recipe: Attack, or `CLEAN`; None for other stages.
        stale: What differs from the configuration now.
        left_out: Why an attack cannot run here; empty if it can.
    """

    stage: str
    model: str | None
    seed: int | None
    command: str
    file: Path
    manifest: Finished[Any] | ChoiceOnDev | None
    recipe: str | None = None
    stale: tuple[str, ...] = ()
    left_out: str = ""

    @functools.cached_property
    def content(self) -> dict[str, Any]:
        """All that `file` holds; of finished steps alone."""
        return read_json(self.file)

    @property
    def title(self) -> str:
        """Name of the step, such as `attack robust-0.30 textfooler`."""
        model = self.model if self.model != self.stage else None
        return " ".join(filter(None, (self.stage, model, self.recipe)))


class Run:
    """One experiment. Files that do not exist yet read as None or as empty.

    Args:
        config: The experiment.
        arguments: Words with which its commands are called: the configuration and overrides.
        runs: Folder that holds the run directories.

    Raises:
        UserError: The experiment has not begun.

    Attributes:
        paths: Its directory.
        choice: What `choose` stated; None before it has run.
        chosen: The robust ticket that was chosen on dev, or the first candidate.
        models: Directory name to method of every model that the tables know.
        recipes: Attacks, the paper's first.
        data: What `prepare` stated about the data; None before it has run.
        attack_jobs: Attacks on the test set that the run consists of, for each model `CLEAN` and the `recipes`.
        scores: (seed, model, recipe or `CLEAN`) to score, of finished ones.
        steps: Everything that the run consists of.
    """

    def __init__(self, config: schema.Experiment, arguments: list[str], runs: Path = run_dir.RUNS) -> None:
        self.config, self.paths, self.arguments = config, run_dir.RunDir(config, runs), shlex.join(arguments)
        if not self.paths.root.is_dir():
            raise UserError(f"{self.paths.root} is missing: `{self.command('prepare')}` starts it")
        self.choice = read_optional(self.paths.choice, ChoiceOnDev)
        self.chosen = self.paths.chosen() if self.choice else ModelId("robust", config.sparsities[0])
        self.models = self.paths.models(self.chosen)
        self.recipes = [recipe for recipe in RECIPES if recipe in config.attack.recipes]
        self.staleness = Staleness(self.paths)
        self.data = self.staleness.data
        self.attack_jobs = [job for job in attack_jobs(self.paths, self.recipes) if job.stage == "attack"]
        self.scores = self._scores()
        self.steps = [*self._training(), *self._choosing(), *self._attacking()]

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return self.config.name

    @property
    def task(self) -> str:
        """Name of the data set."""
        return TASKS[self.config.task].title or self.config.name

    @property
    def named_task(self) -> str:
        """Data set and experiment, such as `SST-2 (my-run)`."""
        return f"{self.task} ({self.name})"

    @property
    def sparsity(self) -> float:
        """Share of weights that the chosen ticket prunes."""
        return self.chosen.sparsity or 0.0

    def command(self, stage: str) -> str:
        """Command that runs a stage of this experiment."""
        return f"python -m {HALVES[stage]} {stage} {self.arguments}"

    # --- steps and scores ------------------------------------------------------------------------------------

    def _scores(self) -> dict[tuple[int, str, str], Score]:
        scores = {}
        for job in self.attack_jobs:
            score = Score.read(job.directory, CleanResults if job.recipe == CLEAN else Metrics)
            if score:
                score.stale = self.staleness.of_scoring(job.seed, job.model, job.recipe, score)
                scores[job.seed, job.model, job.recipe] = score
        for recipe in (CLEAN, *self.recipes):
            number_groups([score for key, score in scores.items() if key[2] == recipe])
        return scores

    def _training(self) -> list[Step]:
        steps = []
        for job in jobs(self.paths):
            file = job.directory / "manifest.json"
            manifest = read_optional(file, TrainingManifest)
            stale = self.staleness.of_training(job, read_json(file)) if manifest else ()
            model = None if job.stage == "prepare" else job.model
            steps.append(Step(job.stage, model, job.seed, self.command(job.stage), file, manifest, stale=stale))
        return steps

    def _choosing(self) -> list[Step]:
        if not needs_robust_ticket(self.config.methods):
            return []
        stale = self.staleness.of_choice(self.choice) if self.choice else ()
        return [Step("choose", None, None, self.command("choose"), self.paths.choice, self.choice, stale=stale)]

    def _attacking(self) -> list[Step]:
        steps = []
        for job in self.attack_jobs:
            score = self.scores.get((job.seed, job.model, job.recipe))
            manifest, stale = (score.manifest, score.stale) if score else (None, ())
            sharded = not manifest and any(job.directory.glob("shard-*-of-*"))
            command = f"python -m torch_eval merge {self.arguments}" if sharded else self.command("attack")
            stated = None if manifest else read_optional(job.left_out, LeftOut)
            left_out = (stated.reason or "no reason given") if stated else ""
            file = job.directory / "manifest.json"
            steps.append(Step("attack", job.model, job.seed, command, file, manifest, job.recipe, stale, left_out))
        return steps

    def has(self, stage: str) -> bool:
        """True if the run has a step of this stage."""
        return any(step.stage == stage for step in self.steps)

    def missing(self) -> list[Step]:
        """Steps that their commands would make: not the attacks that cannot run here."""
        return [step for step in self.steps if step.manifest is None and not step.left_out]

    def stale(self) -> list[Step]:
        """Steps that were made with other settings, models or sentences than now."""
        return [step for step in self.steps if step.stale]

    def left_out(self) -> dict[str, str]:
        """Attacks that cannot run here, and why."""
        return {self.attack_title(step.recipe): step.left_out for step in self.steps if step.recipe and step.left_out}

    # --- how the models were attacked ------------------------------------------------------------------------

    def attacks(self, group: int = 0, *recipes: str) -> list[Score]:
        """Scores of attacks (all, or some) in a comparison group.

        If group 0 has none, scores without results, with the settings of the configuration, are returned.
        """
        recipes = recipes or tuple(self.recipes)
        made = [score for key, score in self.scores.items() if key[2] in recipes and score.group == group]
        if made or group:
            return made
        options = self.config.attack
        asked = AttackSettings(
            indices=list(range(self.staleness.sentences())),
            resources={"from": options.resources},
            protocol=options.protocol,
            temperature=options.temperature,
            dtype=options.dtype,
            parameters={"masked words": {"max_candidates": options.candidates}},
        )
        return [Score(self.paths.root / recipe, replace(asked, recipe=recipe)) for recipe in recipes]

    def all_attacks(self, *recipes: str) -> list[Score]:
        """`attacks` of all comparison groups."""
        return [score for group in range(self.groups()) for score in self.attacks(group, *recipes)]

    def attack_title(self, recipe: str, group: int = 0) -> str:
        """Name of an attack as it was made."""
        return titles(self.attacks(group, recipe))

    def attack_facts(self, *recipes: str) -> str:
        """Names of attacks with their resources, such as `TextFooler, packaged resources`."""
        attacks = self.attacks(0, *recipes)
        resources = " and ".join(dict.fromkeys(score.settings.source for score in attacks))
        return f"{titles(attacks)}, {resources} resources"

    def dev_attacks(self, candidate: str) -> list[Score]:
        """Attacks on dev that the choice of a candidate rests on."""
        scores = [Score.read(self.paths.choice_attack(seed, candidate), Results) for seed in self.config.seeds]
        return [score for score in scores if score]

    # --- measures over seeds ---------------------------------------------------------------------------------

    def groups(self) -> int:
        """Number of comparison groups, of the attack that has most."""
        return 1 + max((score.group for score in self.scores.values()), default=0)

    def difference(self, group: int) -> str:
        """What sets a comparison group apart from group 0, attack by attack."""
        parts = []
        for recipe in (CLEAN, *self.recipes):
            signatures = {s.group: s.signature for key, s in self.scores.items() if key[2] == recipe}
            if group in signatures:
                name = "Clean" if recipe == CLEAN else self.attack_title(recipe, group)
                parts.append(f"{name}: {'; '.join(differences(signatures[0], signatures[group])[:4])}")
        return ". ".join(parts)

    def clean(self, model: str, group: int = 0) -> Value:
        """Accuracy on the whole test set."""
        scores = self.scores_of(model, CLEAN, group)
        return Value([(seed, score.accuracy) for seed, score in scores], len(self.seeds(model)), 100)

    def seeds(self, model: str) -> list[int]:
        """Seeds that have a model. The user's own have no seed, and are attacked under the first."""
        return self.config.seeds[:1] if model in self.paths.own_victims() else self.config.seeds

    def value(self, model: str, recipe: str, measure: str, group: int = 0) -> Value:
        """A measure of an attack: aua, suc, queries, or clean, the accuracy on the attacked sample."""
        estimates = [(seed, getattr(s.summary, measure)) for seed, s in self.scores_of(model, recipe, group)]
        return Value(estimates, len(self.seeds(model)), 1 if measure == "queries" else 100)

    def scores_of(self, model: str, recipe: str, group: int) -> list[tuple[int, Score]]:
        """(seed, score) of a model in a comparison group."""
        scores = [(seed, self.scores.get((seed, model, recipe))) for seed in self.config.seeds]
        return [(seed, score) for seed, score in scores if score and score.group == group]

    def records(self, seed: int, model: str) -> list[TrainingLine]:
        """Records of a training or a search; none if it has not begun."""
        return training_records(self.paths.stage(seed, model) / "metrics.jsonl")

    def training_loss(self, model: str) -> float | None:
        """Mean of the clean loss over the last epoch of all seeds; None where training logs no such loss."""
        losses = []
        for seed in self.config.seeds:
            logged = [(r.epoch, r.loss) for r in self.records(seed, model) if r.loss is not None]
            losses += [loss for epoch, loss in logged if epoch > logged[-1][0] - 1]
        return statistics.fmean(losses) if losses else None

    def passes(self, model: str) -> float | None:
        """Forward and backward passes over the training set, of all trainings that a model rests on."""
        if not self.data:
            return None
        total, count = 0.0, self.data.splits["train"].count
        for job in trainings(self.paths, ModelId.parse(model), self.config.seeds[0]):
            batches = -(-count // job.settings.batch_size)
            total += job.steps(batches) / batches * job.passes
        return total

    def median_margin(self, model: str) -> float | None:
        """Mean over seeds of the median margin on the test set; None where it was not measured."""
        results = [score.manifest.results for _, score in self.scores_of(model, CLEAN, 0)]
        margins = [result.median_margin for result in results if result.median_margin is not None]
        return statistics.fmean(margins) if margins else None

    # --- names -----------------------------------------------------------------------------------------------

    def models_of(self, method: str) -> list[str]:
        """The models of a method that the tables show: those of the chosen sparsity, one for each length."""
        sparsity = None if METHODS[method].kind == "dense" else self.chosen.sparsity
        return [
            model
            for model, other in self.models.items()
            if other == method and ModelId.parse(model).sparsity == sparsity
        ]

    def model_of(self, method: str) -> str | None:
        """The first of `models_of`: that of the first length."""
        return next(iter(self.models_of(method)), None)

    def first_models(self) -> list[str]:
        """The first model of every method that has one."""
        return [model for method in self.config.methods if (model := self.model_of(method))]

    def shown(self) -> list[str]:
        """The models that the tables show: those of each method, then the user's own."""
        return [*(m for method in self.config.methods for m in self.models_of(method)), *self.paths.own_victims()]

    def epochs(self, model: str) -> int:
        """Length of the training of a method's model."""
        model_id = ModelId.parse(model)
        return model_id.epochs or getattr(self.config, METHODS[model_id.method].section).epochs

    def title(self, model: str) -> str:
        """`robust-0.30` is `Robust ticket 30%`, `freelb-epochs-10` is `FreeLB, 10 epochs`."""
        model_id = ModelId.parse(model)
        name = METHODS[model_id.method].title if model_id.method in METHODS else model_id.method
        name += f" {100 * model_id.sparsity:g}%" if model_id.sparsity is not None else ""
        return name + (f", {model_id.epochs} epochs" if model_id.epochs else "")

    def unlearned(self, model: str) -> str:
        """Why a model has learned nothing, or an empty text; with the seeds, if it is so under some of them."""
        seeds: dict[str, list[int]] = {}
        for (seed, name, recipe), score in self.scores.items():
            if (name, recipe) == (model, CLEAN) and score.unlearned:
                seeds.setdefault(score.unlearned, []).append(seed)
        reasons = [
            reason if affected == self.seeds(model) else f"{reason} ({seeds_text(affected)})"
            for reason, affected in seeds.items()
        ]
        return ", ".join(reasons)

    def marked_title(self, model: str) -> str:
        """The title, and whether the model has learned nothing."""
        reason = self.unlearned(model)
        return self.title(model) + (f" ({reason})" if reason else "")

    def label(self, value: int) -> str:
        """Name of a class."""
        names = self.data.labels if self.data else []
        return str(names[value]) if 0 <= value < len(names) else str(value)
