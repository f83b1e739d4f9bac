"""The stages of an experiment: configuration in, run directory out."""

from __future__ import annotations

import dataclasses

import numpy as np
from safetensors.numpy import load_file, save

from configs import schema
from configs.errors import UserError
from configs.run_dir import RunDir, Stage, atomic_write, file_hash, model_name, write_json
from mindspore_rt import data, gate, huggingface
from mindspore_rt.bert import BertClassifier
from mindspore_rt.objectives import FineTuning, RobustSearch
from mindspore_rt.ticket import Ticket
from mindspore_rt.trainer import Evaluator, Trainer, total_steps

PACKAGES = ("mindspore", "numpy", "tokenizers", "safetensors")


def prepare(config: schema.Experiment, run: RunDir) -> None:
    """Normalised train, dev and test splits."""
    files = {k: v for k, v in (("train", config.data.train), ("dev", config.data.dev), ("test", config.data.test)) if v}
    for key, file in files.items():
        if not data.Path(file).is_file():
            raise UserError(f"data.{key}: no file {file}")
    settings = {"task": config.task, **schema.to_dict(config.data)}
    settings.pop("max_length")
    stage = Stage(run.data, "prepare", settings, {k: data.Path(v) for k, v in files.items()})
    if _skip(stage):
        return
    summary = data.prepare(config, run)
    for name, split in summary["splits"].items():
        balance = ", ".join(f"{count} {label}" for label, count in split["labels"].items())
        print(f"  {name}: {split['count']} sentences ({balance})")
    for pair, count in summary["duplicates"].items():
        if count:
            print(f"  warning: {count} sentences stand in both {pair}")
    stage.finish({name: split["count"] for name, split in summary["splits"].items()})


def finetune(config: schema.Experiment, run: RunDir, seed: int) -> None:
    """The fine-tuned model: a victim of its own, and the weights whose masks are searched."""
    inputs = {"model": huggingface.resolve(config.model), "train": run.split("train")}
    stage = _stage(config, run.finetune(seed), "finetune", seed, {"finetune": config.finetune}, inputs)
    if not _skip(stage):
        _train_classifier(config, run, seed, stage, config.finetune, None, f"finetune, seed {seed}")


def retrain(config: schema.Experiment, run: RunDir, seed: int, sparsity: float) -> None:
    """A ticket's weights at their pre-trained values, fine-tuned again; the pruned ones stay exactly zero."""
    ticket, name = run.ticket(seed, sparsity), model_name("robust", sparsity)
    inputs = {"model": huggingface.resolve(config.model), "train": run.split("train"), "ticket": ticket}
    stage = _stage(config, run.retrain(seed, sparsity), "retrain", seed, {"retrain": config.retrain}, inputs)
    if not _skip(stage):
        _train_classifier(config, run, seed, stage, config.retrain, Ticket.load(ticket), f"retrain {name}, seed {seed}")


def _train_classifier(config, run, seed, stage, settings, ticket, title) -> None:
    source = huggingface.load(huggingface.resolve(config.model), config.layers)
    train, summary = _batches(config, run, "train", settings.batch_size, seed, source)
    weights = huggingface.with_classifier(source, len(summary["labels"]), seed)
    model = BertClassifier(source.config, len(summary["labels"]), settings.dropout, seed=seed)
    model.load(ticket.apply(weights) if ticket else weights)
    steps = total_steps(settings, train)
    objective = FineTuning(model, settings, steps, seed, ticket.masks if ticket else None)
    evaluator = Evaluator(model, _batches(config, run, "dev", 32, seed, source)[0])
    accuracy = []

    def on_epoch(epoch, done):
        accuracy.append(evaluator.accuracy())
        return {"dev_accuracy": accuracy[-1]}

    Trainer(stage, objective, train, steps, config, title, on_epoch).run()
    trained = {name: p.asnumpy() for name, p in model.weights().items()}
    target = stage.directory / "model"
    huggingface.save_classifier(target, source, trained, summary["labels"], config.data.max_length)
    results = {"dev_accuracy": accuracy[-1] if accuracy else evaluator.accuracy(), "steps": steps}
    stage.finish({**results, "model_sha256": file_hash(target)})


def search(config: schema.Experiment, run: RunDir, seed: int) -> None:
    """Masks of the fine-tuned model, learned on the adversarial loss; log alpha of every epoch is kept."""
    inputs = {"model": run.finetune(seed) / "model", "train": run.split("train")}
    stage = _stage(config, run.search(seed), "search", seed, {"search": config.search}, inputs)
    if _skip(stage):
        return
    settings, source = config.search, huggingface.load(inputs["model"])
    train, summary = _batches(config, run, "train", settings.batch_size, seed, source)
    model = BertClassifier(
        source.config, len(summary["labels"]), settings.dropout, True, settings.mask_p, settings.block, seed
    )
    model.load(source.weights)
    steps = total_steps(settings, train)
    objective = RobustSearch(model, settings, steps, seed)
    evaluator = Evaluator(model, _batches(config, run, "dev", 32, seed, source)[0])

    def on_epoch(epoch, done):
        scores = {p.name.removesuffix(".log_alpha"): p.asnumpy() for p in objective.scores}
        atomic_write(run.log_alpha(seed, epoch), save(scores, metadata={"step": str(done)}))
        return {"dev_accuracy": evaluator.accuracy(), **objective.metrics()}

    Trainer(stage, objective, train, steps, config, f"search, seed {seed}", on_epoch).run()
    epochs = -(-steps // len(train))
    final = load_file(run.log_alpha(seed, epochs))
    stage.finish({"steps": steps, "epochs": epochs, **gate.mask_statistics(list(final.values()))})


def draw(config: schema.Experiment, run: RunDir, seed: int) -> None:
    """Tickets of every asked sparsity, from the scores of the last search epoch."""
    epochs = Stage(run.search(seed), "search", {}, {}).results()["epochs"]
    scores_file = run.log_alpha(seed, epochs)
    inputs = {"scores": scores_file, "model": run.finetune(seed) / "model"}
    stage = Stage(
        run.tickets(seed), "draw", {"seed": seed, "sparsities": config.sparsities}, inputs, ("numpy", "safetensors")
    )
    if _skip(stage):
        return
    tuned = huggingface.load(inputs["model"])
    shapes = tuned.config.prunable()
    scores = {name: _expand(load, shapes[name]) for name, load in load_file(scores_file).items()}
    magnitudes = {name: tuned.weights[name] for name in shapes}
    about = {"method": "robust", "seed": str(seed), "source_sha256": file_hash(scores_file)}
    report = {}
    for sparsity in config.sparsities:
        ticket = Ticket.from_scores(scores, sparsity, **about)
        ticket.save(run.ticket(seed, sparsity))
        report[model_name("robust", sparsity)] = _describe(ticket, Ticket.from_magnitudes(magnitudes, sparsity))
        print(f"  ticket at sparsity {ticket.sparsity:.6f}: {ticket.pruned} of {ticket.weights} weights pruned")
    write_json(run.tickets(seed) / "report.json", report)
    stage.finish(report)


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


def _expand(scores: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """One score for each weight from one for each block."""
    rows, columns = shape[0] // scores.shape[0], shape[1] // scores.shape[1]
    return np.repeat(np.repeat(scores, rows, 0), columns, 1)


def _stage(config, directory, name, seed, sections, inputs) -> Stage:
    settings = {
        **{key: dataclasses.asdict(section) for key, section in sections.items()},
        "seed": seed,
        "layers": config.layers,
        "max_length": config.data.max_length,
        "device": config.device,
    }
    return Stage(directory, name, settings, inputs, PACKAGES)


def _skip(stage: Stage) -> bool:
    if stage.is_done():
        print(f"{stage.name}: already done, skipped ({stage.directory})", flush=True)
        return True
    print(f"{stage.name}: {stage.directory}", flush=True)
    return False


def _batches(config, run, split, batch_size, seed, source) -> tuple[data.Batches, dict]:
    texts, labels, summary = data.load_split(run, split)
    length = config.data.max_length
    if length > source.config.max_position_embeddings:
        raise UserError(f"data.max_length: {length}, the model has {source.config.max_position_embeddings} positions")
    tokenizer = data.load_tokenizer(source.directory, length)
    if tokenizer.get_vocab_size() > source.config.vocab_size:
        raise UserError(f"{source.directory}: the tokenizer has {tokenizer.get_vocab_size()} pieces, the model "
                        f"{source.config.vocab_size} embeddings")
    return data.Batches(texts, labels, len(summary["labels"]), tokenizer, length, batch_size, seed), summary


def run_all(config: schema.Experiment, run: RunDir) -> None:
    """Every training stage that the configuration asks for, in order."""
    prepare(config, run)
    for seed in config.seeds:
        finetune(config, run, seed)
        if "robust" in config.methods:
            search(config, run, seed)
            draw(config, run, seed)
            for sparsity in config.sparsities:
                retrain(config, run, seed, sparsity)
