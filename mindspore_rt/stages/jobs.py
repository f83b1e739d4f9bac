"""The stages of an experiment: configuration in, run directory out.

`configs.contract.plan` says which run, in which order.
"""

from __future__ import annotations

import dataclasses
import functools
import time
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from configs.contract import estimate, matrices, schema
from configs.contract.errors import UserError
from configs.contract.files import atomic_write, file_hash, write_json
from configs.contract.methods import KEPT_ON_THE_WAY, METHODS, SEARCHES
from configs.contract.plan import Job
from configs.contract.run_dir import RunDir
from configs.contract.stage import Stage, redo_changed, stated_results
from mindspore_rt import parallel
from mindspore_rt.cells import gate, noise
from mindspore_rt.cells.bert import BertClassifier
from mindspore_rt.data import prepare as data
from mindspore_rt.formats import huggingface
from mindspore_rt.ticket import Ticket, most_structured, spread
from mindspore_rt.training.infobert import InfoBert
from mindspore_rt.training.objectives import FineTuning, FreeLB, RobustSearch
from mindspore_rt.training.trainer import Evaluator, Trainer, total_steps

PACKAGES = ("mindspore", "numpy", "tokenizers", "safetensors")
EVALUATION_BATCH = 32
OBJECTIVES = {
    schema.Training: FineTuning,
    schema.LongTraining: FineTuning,
    schema.Pruning: FineTuning,
    schema.AdversarialTraining: FreeLB,
    schema.AdversarialPruning: FreeLB,
    schema.InfoBert: InfoBert,
}


def do(config: schema.Experiment, run: RunDir, job: Job) -> None:
    """Run one job, unless it is done. Raises `Changed` if it is done otherwise and `on_change` is refuse."""
    stages = {
        "prepare": prepare,
        "finetune": finetune,
        "search": search,
        "prune": prune,
        "draw": draw,
        "retrain": retrain,
        "control": control,
    }
    work = functools.partial(stages[job.stage], config, run, job)
    redo_changed(config, work, leads=not parallel.rank(), wait=parallel.wait)


def prepare(config: schema.Experiment, run: RunDir, job: Job) -> None:
    """Normalised train, dev and test splits."""
    files = {k: v for k, v in (("train", config.data.train), ("dev", config.data.dev), ("test", config.data.test)) if v}
    for key, file in files.items():
        if not Path(file).exists():
            raise UserError(f"data.{key}: no file {file}")
    settings = {"task": config.task, **schema.to_dict(config.data)}
    settings.pop("max_length")
    stage = Stage(run.data, "prepare", settings, {k: Path(v) for k, v in files.items()})
    if _skip(stage):
        return
    summary = data.prepare(config, run)
    for name, split in summary["splits"].items():
        balance = ", ".join(f"{count} {label}" for label, count in split["labels"].items())
        print(f"  {name}: {split['count']} sentences ({balance})")
    for warning in summary["warnings"]:
        print(f"  warning: {warning}")
    stage.finish({name: split["count"] for name, split in summary["splits"].items()})


# --- dense models --------------------------------------------------------------------------------------------


def finetune(config: schema.Experiment, run: RunDir, job: Job) -> None:
    """A model that keeps all its weights, trained by the method that it is named after."""
    section = METHODS[job.method].training
    stage = _stage(config, run, job, [section])
    if not _skip(stage):
        source = _pretrained(config)
        weights = huggingface.with_classifier(source, _labels(run), job.seed)
        _train(config, run, job, stage, section, source, weights).export()


def _train(config, run, job, stage, section, source, weights, ticket=None) -> Training:
    training = Training(config, run, job, stage, getattr(config, section), source, weights, ticket)
    training.run()
    return training


class Training:
    """One training of a classifier, from given weights to a Hugging Face directory."""

    def __init__(self, config, run, job, stage, settings, source, weights, ticket):
        self.config, self.run_dir, self.stage, self.source, self.ticket = config, run, stage, source, ticket
        batches = functools.partial(_batches, config, run, job, source=source)
        train, self.summary = batches("train", settings.batch_size)
        self.model = _classifier(config, source, len(self.summary["labels"]), settings, job.seed)
        self.model.load(ticket.apply(weights) if ticket else weights)
        self.steps = total_steps(settings, train)
        masks = {"masks": ticket.masks} if ticket else {}
        objective = OBJECTIVES[type(settings)](
            self.model, settings, self.steps, job.seed, rank=parallel.rank(), **masks
        )
        self.evaluator = Evaluator(self.model, batches("dev", EVALUATION_BATCH)[0])
        self.accuracy = []
        title = f"{job.stage} {job.name}"
        self.trainer = Trainer(stage, objective, train, self.steps, config, title, self._on_epoch)
        if config.snapshots and job.method in KEPT_ON_THE_WAY:
            points = {round(self.steps * i / config.snapshots) for i in range(1, config.snapshots)}
            self.trainer.snapshots = (points, lambda done: self._save(stage.directory / "snapshots" / f"{done:06d}"))

    def run(self) -> None:
        self.trainer.run()

    def _on_epoch(self, epoch: int, done: int) -> dict:
        self.accuracy.append(self.evaluator.accuracy())
        return {"dev_accuracy": self.accuracy[-1]}

    def weights(self) -> dict[str, np.ndarray]:
        return {name: p.asnumpy() for name, p in self.model.weights().items()}

    def dev_accuracy(self) -> float:
        """Of the last epoch; evaluated again if that ended before this process began."""
        return self.accuracy[-1] if self.accuracy else self.evaluator.accuracy()

    def _save(self, target: Path) -> None:
        labels, length = self.summary["labels"], self.config.data.max_length
        weights, source = self.weights(), self.source
        if self.ticket and self.config.structured:
            weights, raw = huggingface.shrink(weights, source.raw, self.ticket)
            source = dataclasses.replace(source, raw=raw)
        huggingface.save_classifier(target, source, weights, labels, length)

    def export(self, **results) -> None:
        """Write the model and the manifest."""
        if parallel.rank():
            return
        target = self.stage.directory / "model"
        self._save(target)
        results = {"dev_accuracy": self.dev_accuracy(), "steps": self.steps, **results}
        self.stage.finish({**results, "model_sha256": file_hash(target)})


# --- where tickets come from ---------------------------------------------------------------------------------


def search(config: schema.Experiment, run: RunDir, job: Job) -> None:
    """Masks of the fine-tuned model, learned on the adversarial loss (or, without an adversary, on the clean one)."""
    settings = config.search
    if job.model == "search_no_adversary":
        settings = dataclasses.replace(settings, ascent_steps=1, initial_norm=0.0)
    stops = {"stops_at": config.sparsities[0], "structured": config.structured} if settings.stop_distance else {}
    stage = _stage(config, run, job, ["search"], {"model": run.model(job.seed, "finetune")}, **stops)
    if _skip(stage):
        return
    _unchanged_model(stage.inputs["model"])
    source = huggingface.load(stage.inputs["model"])
    _highest_sparsity(config, source)
    train, summary = _batches(config, run, job, "train", settings.batch_size, source)
    model = _classifier(config, source, len(summary["labels"]), settings, job.seed, masked=True)
    model.load(source.weights)
    steps = total_steps(settings, train)
    objective = RobustSearch(model, settings, steps, job.seed, config.compat, parallel.rank())
    evaluator = Evaluator(model, _batches(config, run, job, "dev", EVALUATION_BATCH, source)[0])
    masks, state = (sum(p.size for p in some) for some in (objective.scores, objective.state().values()))
    print(f"  {estimate.search_space(masks, state, settings)}", flush=True)

    def on_epoch(epoch, done):
        scores = {p.name.removesuffix(".log_alpha"): p.asnumpy() for p in objective.scores}
        figures = {"dev_accuracy": evaluator.accuracy(), **objective.metrics()}
        if epoch > 1:
            before = _scores(run.log_alpha(job.seed, epoch - 1, job.model), source.config.prunable())
            # Early-bird tickets (You et al. 2020): masks that have settled.
            tickets = [_searched(config, source, found, config.sparsities[0]) for found in (before, scores)]
            figures["ticket_distance"] = tickets[0].distance(tickets[1])
            trainer.stop = figures["ticket_distance"] < settings.stop_distance
        if not parallel.rank():
            atomic_write(run.log_alpha(job.seed, epoch, job.model), save(scores, metadata={"step": str(done)}))
            if settings.keep_epochs:
                run.log_alpha(job.seed, epoch - max(settings.keep_epochs, 2), job.model).unlink(missing_ok=True)
        return figures

    trainer = Trainer(stage, objective, train, steps, config, f"search {job.name}", on_epoch)
    done = trainer.run()
    if not parallel.rank():
        epochs = -(-done // len(train))
        final = _scores(run.log_alpha(job.seed, epochs, job.model), source.config.prunable())
        kept = (run.log_alpha(job.seed, epoch, job.model) for epoch in range(1, epochs + 1))
        hashes = {path.name: file_hash(path) for path in kept if path.is_file()}
        statistics = gate.mask_statistics(list(final.values()))
        stage.finish({"steps": done, "epochs": epochs, **statistics, "scores_sha256": hashes})


def prune(config: schema.Experiment, run: RunDir, job: Job) -> None:
    """Iterative magnitude pruning (LTH for BERT). Every round trains the pre-trained weights under the mask so far and
    prunes `share` of the original weights more; all but the classifier is then rewound, to copies.

    Leaves ticket-0.30.safetensors and so on, one for each asked sparsity. If one is asked for later, the round that it
    comes from is trained again, from the mask and the classifier that the round before has left.
    """
    settings = getattr(config, job.model)
    shape = {"structured": True} if config.structured else {}
    stage = _stage(config, run, job, [job.model], **shape)
    if stage.is_done() and job.done:
        _skip(stage)
        return
    pretrained, ticket, report, spent = _pretrained(config), None, {}, 0.0
    _highest_sparsity(config, pretrained)
    classifier = huggingface.with_classifier(pretrained, _labels(run), job.seed)
    for number in range(1, pruning_rounds(config.sparsities, settings.share) + 1):
        directory = stage.directory / f"round-{number}"
        part = dataclasses.replace(job, model=f"{job.model}/round-{number}", directory=directory)
        before = {"before": stage.directory / f"round-{number - 1}" / "ticket.safetensors"} if ticket else {}
        round_stage = _stage(config, run, part, [job.model], before, **shape)
        drawn = {
            run.pruned(job.seed, job.model, sparsity): sparsity
            for sparsity in config.sparsities
            if settings.share * (number - 1) < sparsity <= settings.share * number + 1e-9
        }
        if not all(path.is_file() for path in drawn) and round_stage.is_done():
            round_stage.manifest.unlink(missing_ok=True)
        if not _skip(round_stage):
            weights = {**pretrained.weights, **{n: classifier[n] for n in ("classifier.weight", "classifier.bias")}}
            training = _train(config, run, part, round_stage, job.model, pretrained, weights, ticket)
            _end_round(config, training, ticket, number, job, drawn)
            parallel.wait()
        ticket = Ticket.load(part.directory / "ticket.safetensors", pretrained.config.prunable())
        classifier = _classifier_of(part.directory / "classifier.safetensors", classifier)
        report[f"round {number}"] = ticket.sparsity
        spent += round_stage.spent()
    stage.started = time.time() - spent  # whichever process trained the rounds
    stage.finish(report)


def pruning_rounds(sparsities: list[float], share: float) -> int:
    """Rounds until the largest asked sparsity; the last one prunes what is missing."""
    return max(1, int(np.ceil(max(sparsities) / share - 1e-9)))


def _end_round(config, training: Training, ticket: Ticket | None, number: int, job: Job, drawn: dict[Path, float]):
    """The tickets that the round's weights give: `drawn`, those of asked sparsities between this round's and the one
    before, and the mask of the next round, if there can be one."""
    if parallel.rank():
        return
    directory, weights = training.stage.directory, training.weights()
    # A weight that is pruned is zero and stays so: magnitudes rank it first.
    magnitudes = {
        name: np.where(ticket.masks[name], np.abs(weights[name]), -1.0) if ticket else np.abs(weights[name])
        for name in training.source.config.prunable()
    }
    about = {"method": job.model, "seed": str(job.seed), "round": str(number)}
    for target, sparsity in drawn.items():
        _ticket(config, training.source, magnitudes, sparsity, **about).save(target)
    share = min(getattr(config, job.model).share * number, _highest_sparsity(config, training.source))
    _ticket(config, training.source, magnitudes, share, **about).save(directory / "ticket.safetensors")
    head = {name: weights[name] for name in ("classifier.weight", "classifier.bias")}
    atomic_write(directory / "classifier.safetensors", save(head))
    hashed = file_hash(directory / "classifier.safetensors")
    training.stage.finish({"dev_accuracy": training.dev_accuracy(), "classifier_sha256": hashed})


# --- tickets and what is trained from them -------------------------------------------------------------------


def draw(config: schema.Experiment, run: RunDir, job: Job) -> None:
    """The ticket of one model, with a report on where it prunes."""
    origin = METHODS[job.method].source
    inputs = {"model": run.model(job.seed, "finetune")} if origin in SEARCHES else {}
    if origin in SEARCHES:
        searched = stated_results(run.stage(job.seed, origin))
        epochs = searched.get("epochs")
        if type(epochs) is not int or epochs < 1:
            raise UserError(f"{run.stage(job.seed, origin)}/manifest.json: states no epochs; delete that folder")
        inputs["scores"] = run.log_alpha(job.seed, max(1, epochs - job.back), origin)
        hashes = searched.get("scores_sha256")
        _unchanged(inputs["scores"], hashes.get(inputs["scores"].name) if isinstance(hashes, dict) else None)
        _unchanged_model(inputs["model"])
    else:
        inputs["scores"] = run.pruned(job.seed, origin, job.sparsity)
    settings = {"seed": job.seed, "sparsity": job.sparsity, "compat": config.compat, "structured": config.structured}
    stage = Stage(job.directory, "draw", settings, inputs, ("numpy", "safetensors"))
    if _skip(stage):
        return
    about = {"method": job.method, "seed": str(job.seed), "source_sha256": file_hash(inputs["scores"])}
    if origin in SEARCHES:
        tuned = huggingface.load(inputs["model"])
        ticket = _searched(config, tuned, _scores(inputs["scores"], tuned.config.prunable()), job.sparsity, **about)
        weights = tuned.weights
    else:
        pretrained = _pretrained(config)
        ticket, weights = Ticket.load(inputs["scores"], pretrained.config.prunable()), pretrained.weights
    ticket.save(run.ticket(job.seed, job.model))
    magnitude = Ticket.from_magnitudes({name: weights[name] for name in ticket.masks}, job.sparsity)
    report = _describe(ticket, magnitude)
    write_json(stage.directory / "report.json", report)
    print(f"  {ticket.pruned} of {ticket.weights} weights pruned, sparsity {ticket.sparsity:.6f}")
    stage.finish(report)


def _searched(config, source: huggingface.Model, scores: dict, sparsity: float, **about) -> Ticket:
    """The ticket of a search's scores. Weights that share one are pruned or kept together; ties fall by the order of
    the matrices, which a file does not keep."""
    shapes = source.config.prunable()
    if config.structured:
        return _ticket(config, source, {n: spread(scores[n], shape) for n, shape in shapes.items()}, sparsity, **about)
    ordered, official = {name: scores[name] for name in shapes}, config.compat == "official"
    return Ticket.from_scores(ordered, sparsity, official=official, **about).spread(shapes)


def _ticket(config, source: huggingface.Model, scores: dict, sparsity: float, **about) -> Ticket:
    """The ticket of one score for each weight: single weights, or whole heads and neurons."""
    if config.structured:
        return Ticket.structured(scores, source.config.num_attention_heads, sparsity, **about)
    return Ticket.from_scores(scores, sparsity, **about)


def _highest_sparsity(config, source: huggingface.Model) -> float:
    """What a ticket can prune. Raises `UserError` if more is asked for: before a long training, not after it."""
    if not config.structured:
        return 1.0
    most = most_structured(source.config.prunable(), source.config.num_attention_heads)
    if max(config.sparsities) > most:
        raise UserError(
            f"sparsities: {max(config.sparsities):g}, but a structured ticket of this model prunes {most:.4f} at most: "
            f"every layer keeps a head and a neuron, and the pooler stays; ask for less, or for structured=false"
        )
    return most


def _describe(ticket: Ticket, magnitude: Ticket) -> dict:
    """What the report shows of a ticket. Two random sets of share s overlap by s / (2 - s)."""
    return {
        "sparsity": ticket.sparsity,
        "pruned": ticket.pruned,
        "weights": ticket.weights,
        "layers": ticket.pruned_share(),
        "magnitude_overlap": ticket.overlap(magnitude),
        "chance_overlap": ticket.sparsity / (2 - ticket.sparsity),
    }


def retrain(config: schema.Experiment, run: RunDir, job: Job) -> None:
    """A ticket's weights at their pre-trained values, fine-tuned again; the pruned ones stay exactly zero."""
    section = METHODS[job.method].training
    stage = _stage(config, run, job, [section], {"ticket": run.ticket(job.seed, job.model)})
    if not _skip(stage):
        source = _pretrained(config)
        ticket = Ticket.load(stage.inputs["ticket"], source.config.prunable())
        weights = huggingface.with_classifier(source, _labels(run), job.seed)
        _train(config, run, job, stage, section, source, weights, ticket).export(sparsity=ticket.sparsity)


def control(config: schema.Experiment, run: RunDir, job: Job) -> None:
    """The chosen ticket with one thing changed (Random of Table 1; Table 4)."""
    section, chosen = METHODS[job.method].training, run.chosen()
    stage = _stage(config, run, job, [section], {"ticket": run.ticket(job.seed, str(chosen))})
    if _skip(stage):
        return
    source = _pretrained(config)
    ticket = Ticket.load(stage.inputs["ticket"], source.config.prunable())
    weights = huggingface.with_classifier(source, _labels(run), job.seed)
    random = noise.generator(job.seed, noise.REINITIAL)
    if job.method == "random":
        if config.structured:
            ticket = Ticket.random_units_like(ticket, source.config.num_attention_heads, random)
        else:
            ticket = Ticket.from_random_like(ticket, random)
        ticket.save(run.ticket(job.seed, job.model))
    else:
        size = np.float32(huggingface.INITIALIZER_RANGE)
        fresh = {n: random.standard_normal(weights[n].shape, np.float32) * size for n in ticket.masks}
        if job.method == "robust_no_initialization":
            weights = {**weights, **fresh}
        else:  # the whole BERT; what the ticket prunes starts at random instead
            weights = {**weights, **{n: np.where(ticket.masks[n], weights[n], fresh[n]) for n in ticket.masks}}
            ticket = None
    training = _train(config, run, job, stage, section, source, weights, ticket)
    training.export(sparsity=ticket.sparsity if ticket else 0.0)


# --- shared --------------------------------------------------------------------------------------------------


def _pretrained(config: schema.Experiment) -> huggingface.Model:
    return huggingface.load(huggingface.resolve(config.model), config.layers)


def _labels(run: RunDir) -> int:
    return len(run.summary("labels")["labels"])


def _unchanged(path: Path, stated: str | None) -> None:
    """Raises `UserError` if a file or directory has not the hash that the stage which wrote it states."""
    if not path.exists():
        raise UserError(f"{path} is missing: run the stage that writes it again, without its folder")
    if not isinstance(stated, str):
        raise UserError(f"{path}: the manifest of its stage states no hash of it; delete that folder and run again")
    if file_hash(path) != stated:
        raise UserError(f"{path} is damaged or was changed after it was made; delete its stage's folder and run again")


def _unchanged_model(path: Path) -> None:
    _unchanged(path, stated_results(path.parent).get("model_sha256"))


def _scores(path: Path, shapes: dict[str, tuple[int, int]]) -> dict[str, np.ndarray]:
    """The scores that a search left, in the order of the matrices. Raises `UserError` if they are not of this model."""
    found = huggingface.read_safetensors(path)
    for name, shape in shapes.items():
        score = found.get(name, np.zeros(0))
        if (
            score.dtype != np.float32
            or not np.isfinite(score).all()
            or score.ndim != 2
            or any(not shared or size % shared for size, shared in zip(shape, score.shape))
        ):
            raise UserError(f"{path}: scores of {name} are missing, misshapen or not finite; redo the search")
    return {name: found[name] for name in shapes}


def _classifier_of(path: Path, like: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The classifier that a round of pruning left."""
    stated = stated_results(path.parent).get("classifier_sha256")
    if stated is not None:  # rounds of older runs state none
        _unchanged(path, stated)
    found, names = huggingface.read_safetensors(path), ("classifier.weight", "classifier.bias")
    for name in names:
        value = found.get(name, np.zeros(0))
        if value.shape != like[name].shape or value.dtype != np.float32 or not np.isfinite(value).all():
            raise UserError(f"{path}: {name} is missing, misshapen or not finite; delete {path.parent} and run again")
    return {name: found[name] for name in names}


def _classifier(config, source, labels, settings, seed, masked=False) -> BertClassifier:
    masks = {}
    if masked:
        masks = {"mask_p": settings.mask_p, "block": matrices.block(settings.granularity, source.config.hidden_size)}
    return BertClassifier(
        source.config,
        labels,
        settings.dropout,
        masked,
        **masks,
        seed=seed,
        attention_dropout=getattr(settings, "attention_dropout", None),
        amp=config.amp,
    )


def _stage(config, run, job, sections, inputs=None, **more) -> Stage:
    """A training stage, with what decides its outcome. Without a model among its inputs it starts pre-trained."""
    if config.snapshots and job.method in KEPT_ON_THE_WAY:
        more["snapshots"] = config.snapshots
    parts = {key: dataclasses.asdict(getattr(config, key)) for key in sections}
    parts.get("search", {}).pop("keep_epochs", None)  # decides what stays, not what it is
    settings = {
        **more,
        **parts,
        "method": job.method or job.model,
        "seed": job.seed,
        "layers": config.layers,
        "max_length": config.data.max_length,
        "compat": config.compat,
        "device": config.device,
        "amp": config.amp,
        "workers": config.workers,
        "noise": noise.source(),
    }
    splits = {name: run.split(name) for name in _splits_read(config)}
    inputs = {"model": huggingface.resolve(config.model), **(inputs or {}), **splits}
    return Stage(job.directory, job.stage, settings, inputs, PACKAGES)


def _skip(stage: Stage) -> bool:
    if stage.is_done():
        stage.checkpoint.unlink(missing_ok=True)  # killed between the manifest and this
        print(f"{stage.name}: already done, skipped ({stage.directory})", flush=True)
        return True
    print(f"{stage.name}: {stage.directory}", flush=True)
    return False


def _batches(config, run, job, split, batch_size, source) -> tuple[data.Batches, dict]:
    texts, labels, summary = _split(config, run, job, split)
    length = config.data.max_length
    if length > source.config.max_position_embeddings:
        longest = source.config.max_position_embeddings
        raise UserError(f"data.max_length: {length}, but {source.directory} has {longest} positions")
    if len(summary["columns"]) > 1 and source.config.type_vocab_size < 2:
        raise UserError(f"{source.directory}: its type_vocab_size is 1, but pairs of texts need two segments")
    tokenizer = data.load_tokenizer(source.directory, length, source.config.vocab_size)
    return data.Batches(texts, labels, len(summary["labels"]), tokenizer, length, batch_size, job.seed), summary


def _splits_read(config) -> tuple[str, ...]:
    """Files that `_split` takes the training and dev sentences from."""
    official = config.compat == "official" and config.task not in ("imdb", "agnews")
    return ("train", "dev", "test") if official else ("train", "dev")


def _split(config, run, job, split) -> tuple[list, np.ndarray, dict]:
    """Texts and labels. Under `compat: official` the test set serves as dev set and all the rest is trained on; for
    IMDB and AG News a dev set of a tenth is cut off anew in every stage."""
    if config.compat == "paper":
        return data.load_split(run, split)
    if config.task not in ("imdb", "agnews") and split == "dev":
        return data.load_split(run, "test")
    train, dev = data.load_split(run, "train"), data.load_split(run, "dev")
    texts, labels = train[0] + dev[0], np.concatenate([train[1], dev[1]])
    if config.task not in ("imdb", "agnews"):
        return texts, labels, train[2]
    place = zlib.crc32(job.stage.encode())
    order = noise.generator(config.data.seed, noise.SHUFFLE, place).permutation(len(texts))
    cut = round(0.9 * len(texts))
    order = order[:cut] if split == "train" else order[cut:]
    return [texts[i] for i in order], labels[order], train[2]
