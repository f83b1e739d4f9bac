"""The run: every recipe against every victim of an experiment, one JSON line for each example.

seed-1/attacks/<model>/clean/                 manifest.json (accuracy on the whole test set)
seed-1/attacks/<model>/<recipe>/              results.jsonl manifest.json
                                              or missing.json, why there are no results;
                                              dtype.json, what another dtype than float32 changed
seed-1/attacks/<model>/<recipe>/shard-1-of-4/ the same for a part of the examples; see merge.py
seed-1/attacks-calibrated/                    all of this with `attack.calibrate`, and for each model
seed-1/attacks-calibrated/<model>/calibration/    manifest.json (temperature fitted on dev)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from msgspec import to_builtins
from tqdm import tqdm

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import locked, read_lines, write_json, write_lines
from configs.contract.inputs import classifiers
from configs.contract.inputs.read_files import SPLIT_TOKEN
from configs.contract.run.jobs import CLEAN
from configs.contract.run.run_dir import RunDir
from configs.contract.run.run_files import Summary
from configs.contract.run.stage import Stage, redo_changed, verified
from torch_eval.attack import metrics, records, settings, victims
from torch_eval.attack.sampling import WHOLE, Shard
from torch_eval.attack.workers import Target, Workers, attack_example, logits_of
from torch_eval.recipes import recipes
from torch_eval.victim import calibration

PACKAGES = ("torch", "textattack", "transformers", "tokenizers", "numpy")
CHUNK = 128  # sentences handed to a worker at once for their logits
DTYPE_SAMPLE = 50  # examples attacked again in float32 when the victims are of another dtype


def run(run_dir: RunDir) -> None:
    """Attack all victims of an experiment with all its recipes; finished stages are skipped."""
    config = run_dir.config
    task, examples = read_split(run_dir, "test")
    shard = Shard.parse(config.attack.shard)
    with locked(run_dir.root / f".attack{shard.suffix}.lock"), Workers(config.attack.workers) as workers:
        everything = run_dir.all_victims()
        batchings = victims.check(run_dir, everything, task, examples, workers)

        def score(attacks: Sequence[str], seed: int, name: str, model: Path) -> None:
            """Run these attacks on one victim; `CLEAN` is its accuracy, which the first shard measures."""
            scoring = Scoring(workers, run_dir, seed, name, model, task, shard, batchings.get(model))
            for recipe in attacks:
                if recipe != CLEAN:
                    scoring.recipe(recipe, examples)
                elif shard.number == 1:
                    scoring.clean(examples)

        # What shows on unchanged texts shows for all victims before the first attack, which may take hours.
        for attacks in ([CLEAN], config.attack.recipes):
            for victim in everything:
                redo_changed(config, partial(score, attacks, *victim))


def read_split(run_dir: RunDir, name: str) -> tuple[Summary, list[dict]]:
    """Return what `prepare` states of the data, and the examples of a split.

    Raises:
        UserError: They do not fit each other.
    """
    task, path = run_dir.summary(), verified(run_dir.split(name))
    examples = read_examples(path, task.columns)
    for number, example in enumerate(examples, 1):
        if not 0 <= example["label"] < len(task.labels):
            remedy = f"delete {run_dir.data} and run prepare again"
            raise UserError(f"{path}, line {number}: summary.json names no label {example['label']}; {remedy}")
    return task, examples


def read_examples(path: Path, columns: list[str]) -> list[dict]:
    """Return the examples of a file.

    Raises:
        UserError: An example lacks a text or a label, or cannot be attacked; the message names the first such line.
    """
    examples = read_lines(path)
    if not examples:
        raise UserError(f"{path} holds no sentence")
    for number, example in enumerate(examples, 1):
        if not all(isinstance(example.get(column), str) for column in columns):
            raise UserError(f"{path}, line {number}: needs text in {', '.join(columns)}")
        if any(SPLIT_TOKEN in example[column] for column in columns):
            raise UserError(
                f"{path}, line {number}: TextAttack cannot attack a text with {SPLIT_TOKEN}; "
                f"take it out of the data, and run prepare again under another name=... if that wrote this file"
            )
        if type(example.get("label")) is not int:
            raise UserError(f"{path}, line {number}: its label must be a whole number")
    return examples


class Scoring:
    """The scoring of one victim."""

    def __init__(
        self,
        workers: Workers | None,
        run_dir: RunDir,
        seed: int,
        name: str,
        model: Path,
        task: Summary,
        shard: Shard = WHOLE,
        batching: str | None = None,
    ) -> None:
        """Check the files of a victim.

        Args:
            workers: Processes that attack and classify; None if everything is finished.
            run_dir: Run directory of the experiment.
            seed: Seed of the run that trained the victim.
            name: Name of the victim.
            model: Its Hugging Face directory.
            task: What `prepare` states of the data.
            shard: The part of the examples to attack.
            batching: How the model is run; see `classifier.BATCHINGS`.

        Raises:
            UserError: The victim cannot be attacked.
        """
        order = victims.check_files(run_dir, name, model, task.labels)
        self.workers, self.run_dir, self.seed, self.name, self.shard = workers, run_dir, seed, name, shard
        self.options, self.task, self.columns = run_dir.config.attack, task, tuple(task.columns)
        how = {**settings.victim(run_dir.config), "label_order": order, "batching": batching}
        self.target = Target(model, temperature=self.options.temperature, **how)
        self.directory, self.who = run_dir.attack(seed, name), f"seed {seed}, {name}"
        if self.options.calibrate:
            self.target = replace(self.target, temperature=self.calibrate())

    def stage(self, directory: Path, name: str, values: dict, split: str = "test") -> Stage:
        """Return a stage whose results depend on the victim and a split."""
        inputs = {"model": self.target.model, split: self.run_dir.split(split)}
        values = {**values, **settings.label_order(self.target.label_order)}  # the split holds numbers only
        return Stage(directory, name, values, inputs, PACKAGES)

    def logits(self, texts: list[tuple[str, ...]], label: str | None = None) -> list[list[float]]:
        """Return logits of texts, each a tuple of columns. A `label` is shown with a progress bar."""
        chunks = [texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK)]
        assert self.workers, "everything is finished"
        parts = self.workers.map(logits_of, [self.target] * len(chunks), chunks)
        bar = tqdm(parts, desc=label, total=len(chunks), unit="batch", disable=label is None)
        return [row for part in bar for row in part]

    def clean_results(self, examples: list[dict], label: str) -> records.CleanResults:
        """Classify unchanged examples."""
        logits = self.logits([self.text_of(example) for example in examples], label)
        return records.CleanResults.count(logits, [example["label"] for example in examples])

    def text_of(self, example: dict) -> tuple[str, ...]:
        """Return the columns of an example that the victim reads."""
        return tuple(example[column] for column in self.columns)

    def calibrate(self) -> float:
        """Return the victim's temperature, fitted on dev.

        Raises:
            UserError: `attack.temperature` is set too, or parts are joined of which none has fitted it.
        """
        if self.options.temperature != 1.0:
            raise UserError("attack.calibrate fits the temperature: leave attack.temperature at 1.0")
        values = settings.calibrated(self.run_dir.config)
        stage = self.stage(self.directory / "calibration", "calibration", values, "dev")
        if not stage.is_done():
            if self.workers is None:
                raise UserError(f"{stage.directory} is missing: every shard makes it")
            stage.begin()
            _, dev = read_split(self.run_dir, "dev")
            texts = [self.text_of(example) for example in dev]
            logits = self.logits(texts, f"{self.who}: calibration")
            fitted = calibration.fit(logits, [example["label"] for example in dev])
            if fitted["temperature"] in calibration.RANGE:
                print(
                    f"{self.who}: temperature {fitted['temperature']:g} is at the end of what is "
                    f"searched, {calibration.RANGE[0]:g} to {calibration.RANGE[1]:g}: calibration says little here"
                )
            stage.finish(fitted)
        return stage.results(records.Calibration).temperature

    def clean_stage(self) -> Stage:
        """Return the stage of the accuracy on the whole test set."""
        return self.stage(self.directory / "clean", "clean", settings.clean(self.run_dir.config, self.task))

    def clean(self, examples: list[dict]) -> None:
        """Write the accuracy on the whole test set, and warn of a model that has learned nothing."""
        stage = self.clean_stage()
        done = stage.is_done()
        if not done:
            stage.begin()
            stage.finish(to_builtins(self.clean_results(examples, f"{self.who}: clean accuracy")))
        result = stage.results(records.CleanResults)
        if done:
            print(f"{self.who}: clean accuracy: already done, {result.accuracy:.1%}")
        if reason := result.unlearned:
            print(f"warning: {self.who}: {reason}; its accuracy under attack means nothing")
        names = classifiers.label_names(self.target.model)
        if result.accuracy < 1 / len(self.task.labels) and classifiers.says_nothing(names):
            print(
                f"warning: {self.who}: accuracy {result.accuracy:.1%} is below chance, and its labels are called "
                f"{', '.join(names)}: are they in the order of the data's, {', '.join(self.task.labels)}?"
            )

    def expected(self, indices: list[int], examples: list[dict]) -> list[dict]:
        """Return what is known of the records of examples before they are attacked."""
        return [
            {"index": i, "label": examples[i]["label"], "original": {c: examples[i][c] for c in self.columns}}
            for i in indices
        ]

    def recipe_stage(self, recipe: str, examples: list[dict], shard: Shard) -> tuple[Stage, list[int]]:
        """Return the stage of one recipe, and the indices of all examples that it attacks in this shard."""
        labels, temperature = [example["label"] for example in examples], self.target.temperature
        values = settings.attack(self.run_dir.config, self.task, self.seed, recipe, labels, temperature, shard)
        stage = self.stage(self.directory / recipe / shard.folder, "attack", values)
        return stage, shard.part(values["indices"])

    def recipe(self, recipe: str, examples: list[dict]) -> None:
        """Attack the sample with one recipe. If it cannot run here, write the reason in place of results."""
        missing, label = self.directory / recipe / "missing.json", f"{self.who}: {recipe}"
        missing.unlink(missing_ok=True)
        try:
            self.attack_sample(recipe, examples, label)
        except recipes.CannotRun as error:
            write_json(missing, {"reason": str(error)})
            print(f"{label}: left out; {error}")

    def attack_sample(self, recipe: str, examples: list[dict], label: str) -> None:
        """Attack the sample with one recipe, and finish its stage."""
        stage, indices = self.recipe_stage(recipe, examples, self.shard)
        done = self.complete(stage, recipe, examples, indices, label)
        if stage.manifest.is_file():
            return
        if self.target.dtype != "float32":
            write_json(stage.directory / "dtype.json", self.dtype_effect(recipe, examples, done))
        stage.finish(metrics.summarise(done).to_dict())

    def complete(
        self, stage: Stage, recipe: str, examples: list[dict], indices: list[int], label: str, split: str = "test"
    ) -> list[dict]:
        """Attack the examples of a stage that have no record yet, and return all records.

        The caller finishes the stage.

        Args:
            stage: Stage of the attack.
            recipe: Name of the attack.
            examples: All examples of the split.
            indices: Those that are attacked.
            label: Name of the attack in messages.
            split: Name of the split.
        """
        expected = self.expected(indices, examples)
        if stage.is_done():
            done = finished(stage, expected)
            print(f"{label}: already done, Aua {metrics.summarise(done).aua.percent()}")
            return done
        done = resume(stage, expected, self.options.workers)
        with tqdm(total=len(indices), initial=len(done), desc=label, unit="text") as progress:
            for record in self.attack(recipe, self.target, examples, indices[len(done) :], split):
                records.append(stage.directory / "results.jsonl", record)
                done.append(record)
                survived = sum(one["outcome"] == "failure" for one in done)
                progress.set_postfix_str(f"Aua {survived / len(done):.1%}", refresh=False)
                progress.update()
        return done

    def attack(
        self, recipe: str, target: Target, examples: list[dict], indices: list[int], split: str = "test"
    ) -> Iterable[dict]:
        """Yield records of examples of a split, in the order of `indices`."""
        spec, source = settings.spec(self.run_dir.config, self.task, recipe), str(self.run_dir.split(split))
        tasks = [
            (target, spec, self.seed, index, examples[index], self.options.max_seconds, source) for index in indices
        ]
        if not tasks:
            return ()
        assert self.workers, "everything is finished"
        return self.workers.map(attack_example, *zip(*tasks))

    def dtype_effect(self, recipe: str, examples: list[dict], done: list[dict]) -> dict:
        """Count the outcomes of the first examples that float32 changes."""
        some = done[:DTYPE_SAMPLE]
        exact = self.attack(recipe, replace(self.target, dtype="float32"), examples, [r["index"] for r in some])
        changed = sum(a["outcome"] != b["outcome"] for a, b in zip(some, exact))
        return {"dtype": self.target.dtype, "outcomes_that_float32_changes": changed, "of": len(some)}


def resume(stage: Stage, expected: list[dict], workers: int) -> list[dict]:
    """Return the records that an interrupted run with so many workers left.

    Raises:
        UserError: They are not the beginning of this run's.
    """
    results = stage.directory / "results.jsonl"
    stage.begin(results)
    if not results.is_file():
        return []
    done = records.read(results, expected)
    write_lines(results, done)  # without the torn last line, if there is one
    stage.started -= sum(record.get("seconds", 0) for record in done) / workers
    return done


def finished(stage: Stage, expected: list[dict]) -> list[dict]:
    """Return the records of a finished attack.

    Raises:
        UserError: Some are missing.
    """
    results = stage.directory / "results.jsonl"
    done = records.read(results, expected) if results.is_file() else []
    if len(done) < len(expected):
        raise UserError(
            f"{results}: holds {len(done)} of {len(expected)} examples although its manifest says that it is whole; "
            f"delete {stage.directory} to redo the attack"
        )
    return done
