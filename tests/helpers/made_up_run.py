"""The one builder of made-up runs. Nothing is trained or attacked; the product's own code writes the files."""

import collections
import dataclasses
import math
from unittest import mock

import numpy as np
from safetensors.numpy import save_file

from configs.contract.basics.errors import Missing, UserError
from configs.contract.basics.files import write_json, write_lines
from configs.contract.experiment import schema
from configs.contract.experiment.methods import METHODS
from configs.contract.experiment.model_id import ModelId
from configs.contract.inputs.matrices import prunable_shapes
from configs.contract.run import run_dir, settings
from configs.contract.run.jobs import Job, jobs
from configs.contract.run.stage import Stage, current_hash, versions
from mindspore_rt.ticket import Ticket
from torch_eval.attack import metrics
from torch_eval.attack import records as attack_records
from torch_eval.attack import settings as attack_settings
from torch_eval.recipes import recipes

EVIL = '<script>alert("x")</script> a | fine * film & more'
SHAPES = prunable_shapes(2, 8, 16)
# Clean and Aua of 100 sentences, in per cent, made up so that each method has a place of its own; new ones share one.
LEVELS = collections.defaultdict(lambda: (90, 14)) | {
    "finetune": (92, 10),
    "freelb": (91, 24),
    "infobert": (92, 28),
    "lth": (91, 8),
    "random": (82, 5),
    "robust": (90, 44),
    "transferred": (90, 30),
    "robust_no_mask_learning": (91, 16),
    "robust_no_adversary": (91, 7),
    "robust_no_initialization": (80, 3),
    "robust_no_structure": (90, 20),
}


class MadeUpStage(Stage):
    """A stage with made-up hashes of its inputs: nothing is hashed, and no input needs to exist."""

    def fingerprint(self):
        return {"settings": self.settings, "inputs": self.inputs, "versions": versions()}


def finish(directory, results, settings=None, inputs=None, seconds=60.0):
    """Finish a stage after so many seconds, however slow the machine is; `inputs` are hashes by name."""
    stage = MadeUpStage(directory, directory.name, settings or {}, inputs or {})
    with mock.patch("time.time", return_value=stage.started + seconds):
        stage.finish(results)


def record(index, outcome):
    fooled = outcome == "success"
    return {
        "index": index,
        "label": 1,
        "outcome": outcome,
        "queries": 10 * (index + 1),
        "original": {"sentence": EVIL},
        "perturbed": {"sentence": EVIL.replace("fine", "bonny") if fooled else EVIL},
        "original_prediction": 0 if outcome == "skipped" else 1,
        "perturbed_prediction": 0 if fooled else 1,
        "original_score": 0.9,
        "perturbed_score": 0.4,
        "words_changed": int(fooled),
        "words": 5,
        "seconds": 0.1,
    }


def attacked(success, failure, skipped, timeout=0):
    outcomes = ["success"] * success + ["failure"] * failure + ["skipped"] * skipped + ["timeout"] * timeout
    return [record(index, outcome) for index, outcome in enumerate(outcomes)]


def write_records(directory, records):
    """Write `results.jsonl`, each record with its check."""
    checked = [{**one, attack_records.CHECK: attack_records.checksum(one)} for one in records]
    write_lines(directory / "results.jsonl", checked)


def prepare(paths, test=100):
    splits = {
        name: {"count": count, "labels": {}, "length": {}, "sha256": name * 8}
        for name, count in (("train", 6000), ("dev", 600), ("test", test))
    }
    write_json(
        paths.data / "summary.json",
        {
            "task": paths.config.task,
            "columns": ["sentence"],
            "attacked": ["sentence"],
            "labels": ["negative", "positive"],
            "splits": splits,
            "note": "",
        },
    )
    finish_job(paths, Job("prepare", "data", paths.data), {})


def finish_job(paths, job, results, seconds=60.0):
    """The manifest that the stage of a job would write; what it would read has made-up hashes where it is not there."""
    model = settings.local_model(paths.config.model) or paths.root / "no model"
    try:
        files = settings.inputs_of(paths, job, model)
    except Missing:  # of a search that was left out
        files = {}
    inputs = {name: current_hash(path) or "0" * 64 for name, path in files.items()}
    finish(job.directory, results, settings.of_job(paths, job, "host"), inputs, seconds)


def job_of(paths, seed, model):
    return next(job for job in jobs(paths) if (job.seed, job.model) == (seed, model) and job.stage != "draw")


def clean(paths, seed, model, accuracy, **changes):
    """Accuracy on a whole test set of 100 sentences."""
    about, folder = attack_settings.clean(paths.config, paths.summary()), paths.attack(seed, model) / "clean"
    finish(
        folder,
        {"accuracy": accuracy, "n": 100, "median_margin": 1.5},
        {**about, **changes},
        inputs_of(paths, seed, model),
    )


def inputs_of(paths, seed, model):
    return {
        "model": current_hash(paths.victims(seed).get(model, paths.model(seed, model))) or "0" * 64,
        "test": "test" * 8,
    }


def attack(paths, seed, model, recipe, counts, **changes):
    """Whole results of one attack: `counts` are successes, failures, skipped, timeouts."""
    folder = paths.attack(seed, model) / recipe
    labels = [0] * paths.summary().splits["test"].count
    about = attack_settings.attack(paths.config, paths.summary(), seed, recipe, labels, 1.0, describe=describe)
    if len(about["indices"]) != sum(counts):
        about["indices"] = list(range(sum(counts)))
    records = [{**one, "index": index} for one, index in zip(attacked(*counts), about["indices"], strict=True)]
    write_records(folder, records)
    results = metrics.summarise(records).to_dict()
    finish(folder, results, {**about, **changes}, inputs_of(paths, seed, model))


def describe(spec):
    try:
        return recipes.describe(spec)
    except UserError:  # resources that are not here
        return {**recipes.describe_parameters(spec), "resources": {"from": spec.resources}}


def choose(paths, sparsity):
    rows = [
        {**c.record(), "seed": seed, "aua": 0.5 - abs(c.sparsity - sparsity) - 0.01 * c.epochs_back, "accuracy": 0.9}
        for c in paths.candidates()
        for seed in paths.config.seeds
    ]
    best = max(rows, key=lambda row: row["aua"])
    chosen = {key: best[key] for key in ("model", "sparsity", "epochs_back")}
    write_json(paths.choice, {"rule": "highest mean accuracy under textfooler", "candidates": rows, "chosen": chosen})


def transfer(paths):
    models = list(paths.models(paths.chosen()))
    rows = [
        {
            "recipe": recipe,
            "seed": seed,
            "source": a,
            "target": b,
            "texts": 50,
            "fooled": list(range(20 if a != b else 50)),
            "share": 0.4 if a != b else 1.0,
        }
        for recipe in paths.config.attack.recipes
        for seed in paths.config.seeds
        for a in models
        for b in models
    ]
    write_json(paths.root / "transfer.json", {"rows": rows, "models": []})


def search(paths, seed, name="search"):
    random = np.random.default_rng(seed)
    records, peak = [], paths.config.search.l0_weight
    for step in range(20, 401, 20):
        progress = step / 400
        weight = peak * min(1, max(0, (progress - 0.1) / 0.3))
        settled = 0.6 * progress * (0.4 + peak)
        records.append(
            {
                "step": step,
                "epoch": progress * 4,
                "l0_weight": weight,
                "l0_term": 0.96 - 0.4 * progress * (0.3 + peak),
                "adversarial_loss": 0.7 * math.exp(-2 * progress) + 0.2 + 0.05 * random.random(),
                "settled_zero": settled,
                "settled_one": 0.2 * progress,
                "sparsity_at_threshold": 0.8 * settled,
                "learning_rate": 0.1,
                "sentences_per_second": 100.0,
                "seconds": 1.7e9 + step,
            }
        )
        if step % 100 == 0:
            changed = {"ticket_distance": 0.32 / 4 ** (step // 100)} if step > 100 else {}
            masks = {name: records[-1][name] for name in ("l0_term", "settled_zero", "settled_one")}
            evaluation = {"step": step, "epoch": progress * 4, "dev_accuracy": 0.8 + 0.02 * progress}
            records.append({**evaluation, **masks, **changed})
    write_lines(paths.stage(seed, name) / "metrics.jsonl", records)
    scores = {
        n: random.normal(1.6 - 2.0 * (i % 3 == 0), 1.5, shape).astype(np.float32)
        for i, (n, shape) in enumerate(SHAPES.items())
    }
    path = paths.log_alpha(seed, 4, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(scores, path)
    finish_job(paths, job_of(paths, seed, name), {"steps": 400, "epochs": 4})
    return scores


def draw(paths, seed, job, scores):
    ticket = Ticket.from_scores(scores, job.sparsity)
    ticket.save(paths.ticket(seed, job.model))
    write_json(
        paths.ticket(seed, job.model).parent / "report.json",
        {
            "sparsity": ticket.sparsity,
            "pruned": ticket.pruned,
            "weights": ticket.weights,
            "layers": ticket.pruned_share(),
            "magnitude_overlap": 0.25,
            "chance_overlap": 0.1765,
        },
    )
    finish_job(paths, job, {})


def train(paths, seed, model, method, snapshots=0):
    curve = [{"step": s, "epoch": s / 70, "loss": 0.7 * math.exp(-s / 60) + 0.1} for s in range(10, 201, 10)]
    curve += [{"step": 200, "epoch": 200 / 70, "dev_accuracy": LEVELS[method][0] / 100}]
    write_lines(paths.stage(seed, model) / "metrics.jsonl", curve)
    finish_job(paths, job_of(paths, seed, model), {"steps": 200, "dev_accuracy": 0.9})
    for number in range(1, snapshots + 1):
        write_json(paths.stage(seed, model) / "snapshots" / f"{200 * number // snapshots:06d}" / "config.json", {})


def whole(root, *overrides, config="sst2", chosen=None):
    """A finished run of every job of a configuration, with all its attacks."""
    experiment = schema.load(config, overrides)
    paths = run_dir.RunDir(experiment, root)
    prepare(paths, test=100)
    choose(paths, chosen or experiment.sparsities[0])
    scores = {}
    at_random = {n: np.random.default_rng(0).random(s, np.float32) for n, s in SHAPES.items()}
    for job in jobs(paths):
        if job.stage == "search":
            scores[job.seed, job.model] = search(paths, job.seed, job.model)
        elif job.stage == "prune":
            finish_job(paths, job, {})
        elif job.stage == "draw":
            searched = scores.get((job.seed, "search")) if METHODS[job.method].source else None
            draw(paths, job.seed, job, searched or at_random)
        elif job.stage != "prepare":
            snapshots = 0 if METHODS[job.method].kind == "control" else experiment.snapshots
            train(paths, job.seed, job.model, job.method, snapshots)
    for seed in experiment.seeds:
        for model in paths.victims(seed):
            score(paths, seed, model)
    return paths


def score(paths, seed, model):
    model_id = ModelId.parse(model)
    method, step = model_id.method, model_id.snapshot
    right, aua = LEVELS[method]
    aua += (model_id.epochs or 0) // 2
    if METHODS[method].kind == "ticket":
        away = abs(model_id.sparsity - 0.3)
        right, aua = right - round(20 * away**2), aua - round(30 * away)
    if step:
        right, aua = right - round(6 * (1 - step / 200)), round(aua * (0.6 + 0.4 * step / 200))
    right, aua = right - seed % 2, max(1, aua + seed)
    clean(paths, seed, model, right / 100)
    for number, recipe in enumerate(paths.config.attack.recipes):
        held = max(1, min(right, round(aua * (1 + 0.2 * number))))
        attack(paths, seed, model, recipe, (right - held, held, 100 - right))


# successes, failures, skipped of 10 attacked sentences
OUTCOMES = {"finetune": (6, 2, 2), "robust-0.30": (3, 6, 1)}
SMALL = ("attack.examples=10", "attack.candidates=48")


def calibrated(paths):
    """The same run, configured for fitted temperatures."""
    config = dataclasses.replace(paths.config, attack=dataclasses.replace(paths.config.attack, calibrate=True))
    return run_dir.RunDir(config, paths.root.parent)


def attack_calibrated(paths, seed, model, recipe, counts):
    """Attack a model again with a fitted temperature."""
    finish(paths.attacks(seed, calibrated=True) / model / "calibration", {"temperature": 2.5})
    attack(calibrated(paths), seed, model, recipe, counts, temperature=2.5)


def small(tmp_path, *overrides, seeds=(1,)):
    """The demo's two models on ten sentences; only `seeds` are finished."""
    paths = run_dir.RunDir(schema.load("demo", [*SMALL, *overrides]), tmp_path)
    prepare(paths)
    choose(paths, 0.3)
    for seed in seeds:
        scores = search(paths, seed)
        for job in [job for job in jobs(paths) if job.seed == seed]:
            if job.stage == "draw":
                draw(paths, seed, job, scores)
            elif job.stage in ("finetune", "retrain"):
                train(paths, seed, job.model, job.method)
        for model, counts in OUTCOMES.items():
            clean(paths, seed, model, 0.8)
            for recipe in paths.config.attack.recipes:
                attack(paths, seed, model, recipe, counts)
    return paths
