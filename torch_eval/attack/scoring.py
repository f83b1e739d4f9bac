"""The run: every recipe against every victim of an experiment, one JSON line an example.

seed-1/attacks/<model>/clean/                 manifest.json (accuracy on the whole test set)
seed-1/attacks/<model>/calibration/           manifest.json (temperature fitted on dev, if asked for)
seed-1/attacks/<model>/<recipe>/              results.jsonl manifest.json
                                              or missing.json, why there are no results;
                                              dtype.json, what another dtype than float32 changed
seed-1/attacks/<model>/<recipe>/shard-1-of-4/ the same for a part of the examples; see shards.py
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from configs.contract.errors import UserError
from configs.contract.files import locked, read_json, read_lines, write_json, write_lines
from configs.contract.run_dir import RunDir
from configs.contract.run_files import Summary
from configs.contract.stage import Stage, redo_changed, verified
from torch_eval.attack import metrics, records, settings
from torch_eval.attack.sampling import Shard
from torch_eval.attack.workers import Target, Workers, attack_example, logits_of
from torch_eval.recipes import recipes
from torch_eval.victim import calibration
from torch_eval.victim.token_ids import check_token_ids

PACKAGES = ("torch", "textattack", "transformers", "tokenizers", "numpy")
CHUNK = 128  # sentences handed to a worker at once for their logits
SPLIT_TOKEN = "<SPLIT>"  # TextAttack's `AttackedText` joins columns with it and fails on a text that holds it
DTYPE_SAMPLE = 50  # examples attacked again in float32 when the victims are of another dtype


def run(run_dir: RunDir) -> None:
    """Attack all victims of an experiment with all its recipes; finished stages are skipped."""
    config = run_dir.config
    task, examples = read_split(run_dir, "test")
    shard = Shard.parse(config.attack.shard)
    check_victims(run_dir, task)
    with locked(run_dir.root / f".attack{shard.suffix}.lock"), Workers(config.attack.workers) as workers:
        for seed in config.seeds:
            for name, model in run_dir.victims(seed).items():
                redo_changed(config, partial(score, workers, run_dir, seed, name, model, task, shard, examples))


def score(
    workers, run_dir: RunDir, seed: int, name: str, model: Path, task: Summary, shard: Shard, examples: list[dict]
):
    """One victim: clean accuracy, which the first shard makes, and all attacks."""
    scoring = Scoring(workers, run_dir, seed, name, model, task, shard)
    if shard.number == 1:
        scoring.clean(examples)
    for recipe in run_dir.config.attack.recipes:
        scoring.recipe(recipe, examples)


def check_victims(run_dir: RunDir, task: Summary) -> None:
    """Raises `UserError` for a model that is no BERT, or of other labels than the data's, before any is attacked."""
    for name, model in run_dir.own_victims().items():
        if not (model / "config.json").is_file():
            raise UserError(f"attack.victims: {name}: {model} has no config.json; give a Hugging Face directory")
    for seed in run_dir.config.seeds:
        for model in run_dir.victims(seed).values():
            if not (model / "config.json").is_file():
                continue  # its own turn says which stage makes it
            check_token_ids(model)
            config = read_json(model / "config.json")
            if config.get("model_type") != "bert":
                raise UserError(f"{model}: a {config.get('model_type')} model; only BERT classifiers are scored")
            for key, usual in (("position_embedding_type", "absolute"), ("is_decoder", False)):
                if config.get(key, usual) != usual:  # `packed` computes it otherwise
                    raise UserError(f"{model}: {key} is {config[key]!r}; only classifiers with {usual!r} are scored")
            names = config.get("id2label")
            count = len(names) if isinstance(names, dict) else 2  # where transformers leaves them out
            if count != len(task.labels):
                told = f"{run_dir.data / 'summary.json'} names {len(task.labels)} ({', '.join(task.labels)})"
                raise UserError(f"{model}: a classifier of {count} labels, {told}; give one of the data's labels")


def read_split(run_dir: RunDir, name: str) -> tuple[Summary, list[dict]]:
    """What `prepare` states, and the examples of a split. Raises `UserError` if one does not fit the other."""
    task, path = run_dir.summary(), run_dir.whole_split(name)
    examples = read_examples(path, task.columns)
    for number, example in enumerate(examples, 1):
        if not 0 <= example["label"] < len(task.labels):
            remedy = f"delete {run_dir.data} and run prepare again"
            raise UserError(f"{path}, line {number}: summary.json names no label {example['label']}; {remedy}")
    return task, examples


def read_examples(path: Path, columns: list[str]) -> list[dict]:
    """Examples of a split. Raises `UserError` naming the first that lacks a text or a label, or cannot be attacked."""
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

    def __init__(self, workers, run_dir: RunDir, seed: int, name: str, model: Path, task: Summary, shard=Shard()):
        if not (model / "config.json").is_file():
            raise UserError(f"{model} is missing: run the stage that writes it first")
        verified(model)
        self.workers, self.run_dir, self.seed, self.name, self.shard = workers, run_dir, seed, name, shard
        self.options, self.task, self.columns = run_dir.config.attack, task, tuple(task.columns)
        self.target = Target(model, temperature=self.options.temperature, **settings.victim(run_dir.config))
        self.directory = run_dir.attack(seed, name)
        if self.options.calibrate:
            self.target = replace(self.target, temperature=self.calibrate())

    def stage(self, directory: Path, name: str, values: dict, split: str = "test") -> Stage:
        inputs = {"model": self.target.model, split: self.run_dir.split(split)}
        return Stage(directory, name, values, inputs, PACKAGES)

    def logits(self, texts: list[tuple[str, ...]], label: str | None = None) -> list[list[float]]:
        """Logits of texts, a tuple of columns each; with a progress bar if there is a label for it."""
        chunks = [texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK)]
        parts = self.workers.map(logits_of, [self.target] * len(chunks), chunks)
        bar = tqdm(parts, desc=label, total=len(chunks), unit="batch", disable=label is None)
        return [row for part in bar for row in part]

    def accuracy(self, examples: list[dict], label: str) -> float:
        logits = self.logits([self.text_of(example) for example in examples], label)
        correct = sum(row.index(max(row)) == example["label"] for row, example in zip(logits, examples))
        return correct / len(examples)

    def text_of(self, example: dict) -> tuple[str, ...]:
        return tuple(example[column] for column in self.columns)

    def calibrate(self) -> float:
        """The victim's temperature, fitted on dev."""
        if self.options.temperature != 1.0:
            raise UserError("attack.calibrate fits the temperature: leave attack.temperature at 1.0")
        values = settings.calibrated(self.run_dir.config)
        stage = self.stage(self.directory / "calibration", "calibration", values, "dev")
        if not stage.is_done():
            if self.workers is None:
                raise UserError(f"{stage.directory} is missing: the first shard makes it")
            stage.begin()
            _, dev = read_split(self.run_dir, "dev")
            texts = [self.text_of(example) for example in dev]
            logits = self.logits(texts, f"seed {self.seed}, {self.name}: calibration")
            fitted = calibration.fit(logits, [example["label"] for example in dev])
            if fitted["temperature"] in calibration.RANGE:
                print(
                    f"seed {self.seed}, {self.name}: temperature {fitted['temperature']:g} is at the end of what is "
                    f"searched, {calibration.RANGE[0]:g} to {calibration.RANGE[1]:g}: calibration says little here"
                )
            stage.finish(fitted)
        return stage.results(records.Calibration).temperature

    def clean_stage(self) -> Stage:
        return self.stage(self.directory / "clean", "clean", settings.clean(self.run_dir.config, self.task))

    def clean(self, examples: list[dict]) -> None:
        """Accuracy on the whole test set."""
        stage = self.clean_stage()
        label = f"seed {self.seed}, {self.name}: clean accuracy"
        if stage.is_done():
            print(f"{label}: already done, {stage.results(records.CleanResults).accuracy:.1%}")
            return
        stage.begin()
        stage.finish({"accuracy": self.accuracy(examples, label), "n": len(examples)})

    def expected(self, indices: list[int], examples: list[dict]) -> list[dict]:
        """What is known of the records of examples before they are attacked."""
        return [
            {"index": i, "label": examples[i]["label"], "original": {c: examples[i][c] for c in self.columns}}
            for i in indices
        ]

    def recipe_stage(self, recipe: str, examples: list[dict], shard: Shard) -> tuple[Stage, list[int]]:
        """The stage of one recipe, and the indices of all examples that it attacks in this shard."""
        labels, temperature = [example["label"] for example in examples], self.target.temperature
        values = settings.attack(self.run_dir.config, self.task, self.seed, recipe, labels, temperature, shard)
        stage = self.stage(self.directory / recipe / shard.folder, "attack", values)
        return stage, shard.part(values["indices"])

    def recipe(self, recipe: str, examples: list[dict]) -> None:
        """Attack the sample with one recipe. If that cannot run here, the reason stands in place of results."""
        missing, label = self.directory / recipe / "missing.json", f"seed {self.seed}, {self.name}: {recipe}"
        missing.unlink(missing_ok=True)
        try:
            self.attack_sample(recipe, examples, label)
        except recipes.CannotRun as error:
            write_json(missing, {"reason": str(error)})
            print(f"{label}: left out; {error}")

    def attack_sample(self, recipe: str, examples: list[dict], label: str) -> None:
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
        """All records of a stage, from the first example that has none; it is left to the caller to finish it."""
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
                progress.set_postfix_str(f"Aua {metrics.summarise(done).aua.percent()}", refresh=False)
                progress.update()
        return done

    def attack(self, recipe: str, target: Target, examples: list[dict], indices: list[int], split: str = "test"):
        """Records of examples of a split, in the order of `indices`."""
        spec, source = settings.spec(self.run_dir.config, self.task, recipe), str(self.run_dir.split(split))
        tasks = [
            (target, spec, self.seed, index, examples[index], self.options.max_seconds, source) for index in indices
        ]
        return self.workers.map(attack_example, *zip(*tasks)) if tasks else ()

    def dtype_effect(self, recipe: str, examples: list[dict], done: list[dict]) -> dict:
        """How many outcomes of the first examples float32 changes."""
        some = done[:DTYPE_SAMPLE]
        exact = self.attack(recipe, replace(self.target, dtype="float32"), examples, [r["index"] for r in some])
        changed = sum(a["outcome"] != b["outcome"] for a, b in zip(some, exact))
        return {"dtype": self.target.dtype, "outcomes_that_float32_changes": changed, "of": len(some)}


def resume(stage: Stage, expected: list[dict], workers: int) -> list[dict]:
    """Records that an interrupted run of so many workers left. Raises `UserError` if they are not the beginning of this
    one's."""
    results = stage.directory / "results.jsonl"
    stage.begin(results)
    if not results.is_file():
        return []
    done = records.read(results, expected)
    write_lines(results, done)  # without the torn last line, if there is one
    stage.started -= sum(record.get("seconds", 0) for record in done) / workers
    return done


def finished(stage: Stage, expected: list[dict]) -> list[dict]:
    """Records of a finished attack. Raises `UserError` if they are not all there any more."""
    results = stage.directory / "results.jsonl"
    done = records.read(results, expected) if results.is_file() else []
    if len(done) < len(expected):
        raise UserError(
            f"{results}: holds {len(done)} of {len(expected)} examples although its manifest says that it is whole; "
            f"delete {stage.directory} to redo the attack"
        )
    return done
