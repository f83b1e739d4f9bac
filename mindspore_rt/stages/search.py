"""Stage `search`: learn the masks of the fine-tuned model on the adversarial loss (section 3.2)."""

from __future__ import annotations

from safetensors.numpy import save

from configs.contract.basics.files import atomic_write, file_hash
from configs.contract.experiment import schema
from configs.contract.inputs import matrices
from configs.contract.run import estimate
from configs.contract.run.jobs import TrainingJob
from configs.contract.run.run_dir import RunDir
from configs.contract.run.stage import Stage, verified
from mindspore_rt import parallel
from mindspore_rt.cells import gate
from mindspore_rt.cells.encoder import matrix_of
from mindspore_rt.formats import huggingface
from mindspore_rt.stages import classifier, inputs, tickets
from mindspore_rt.training.objectives import RobustSearch
from mindspore_rt.training.trainer import Evaluator, Trainer


@inputs.unless_done
def search(run: RunDir, job: TrainingJob[schema.MaskSearch], stage: Stage) -> None:
    """Learn one score (log alpha) for each mask and save the scores of every epoch.

    Without an adversary (w/o Adv of Table 3) a step makes one pass, without a perturbation.
    """
    config, settings = run.config, job.settings
    source = huggingface.load(verified(stage.inputs["model"]))
    tickets.highest_sparsity(config, source.config)
    train_batches = inputs.batches(run, job, "train", settings.batch_size, source)
    block = matrices.block(settings.granularity, source.config.hidden_size)
    masks = {"masked": True, "mask_p": settings.mask_p, "block": block}
    model = classifier.build(config, source, len(run.summary().labels), settings, **masks)
    model.load(source.weights)
    steps = job.steps(len(train_batches))
    objective = RobustSearch(model, settings, steps, job.seed, config.compat)
    evaluator = Evaluator(model, inputs.batches(run, job, "dev", classifier.EVALUATION_BATCH, source))
    scores, state = (sum(p.size for p in arrays) for arrays in (objective.scores, objective.state().values()))
    print(f"  {estimate.search_space(scores, state, settings)}", flush=True)

    def on_epoch(epoch: int, step: int) -> dict[str, float]:
        figures = {"dev_accuracy": evaluator.accuracy(), **objective.metrics()}
        return {**figures, **_save_scores(run, job, source, objective, epoch, step)}

    trainer = Trainer(
        stage,
        objective,
        train_batches,
        steps,
        config,
        f"search {job.name}",
        on_epoch=on_epoch,
        should_stop=lambda figures: figures.get("ticket_distance", 1.0) < settings.stop_distance,
    )
    done = trainer.run()
    if not parallel.rank():
        _finish(run, job, stage, source, done, epochs=-(-done // len(train_batches)))


def _save_scores(
    run: RunDir,
    job: TrainingJob[schema.MaskSearch],
    source: huggingface.Model,
    objective: RobustSearch,
    epoch: int,
    step: int,
) -> dict[str, float]:
    """Save the scores of an epoch and remove those that `search.keep_epochs` no longer keeps.

    Returns:
        From the second epoch on `ticket_distance`: the share of masks that differ between this epoch's ticket and the
        one before. A small one means that the masks have settled (early-bird tickets, You et al. 2020).
    """
    config, figures = run.config, {}
    scores = {matrix_of(p): p.asnumpy() for p in objective.scores}
    if epoch > 1:
        previous = inputs.read_scores(run.log_alpha(job.seed, epoch - 1, job.model), source.config.prunable())
        official = config.compat == "official"
        before, now = (
            tickets.from_scores(config, source, each, config.sparsities[0], official) for each in (previous, scores)
        )
        figures["ticket_distance"] = before.distance(now)
    if not parallel.rank():
        atomic_write(run.log_alpha(job.seed, epoch, job.model), save(scores, metadata={"step": str(step)}))
        if job.settings.keep_epochs:
            run.log_alpha(job.seed, epoch - job.settings.kept_epochs, job.model).unlink(missing_ok=True)
    return figures


def _finish(
    run: RunDir, job: TrainingJob[schema.MaskSearch], stage: Stage, source: huggingface.Model, done: int, epochs: int
) -> None:
    """Write the manifest: statistics of the last masks, and the hash of every epoch's scores."""
    final = inputs.read_scores(run.log_alpha(job.seed, epochs, job.model), source.config.prunable())
    paths = [run.log_alpha(job.seed, epoch, job.model) for epoch in range(1, epochs + 1)]
    hashes = {path.name: file_hash(path) for path in paths if path.is_file()}
    statistics = gate.mask_statistics(list(final.values()))
    stage.finish({"steps": done, "epochs": epochs, **statistics, "scores_sha256": hashes})
