"""Stages `draw` and `retrain`: the ticket of a model, and the model that is trained from it."""

from __future__ import annotations

from configs.contract.files import file_hash, write_json
from configs.contract.jobs import DrawingJob, ModelJob
from configs.contract.methods import METHODS, SOURCES
from configs.contract.run_dir import RunDir
from configs.contract.stage import Stage
from mindspore_rt.formats import huggingface
from mindspore_rt.stages import classifier, drawing, inputs
from mindspore_rt.ticket import Ticket


@inputs.unless_done
def draw(run: RunDir, job: DrawingJob, stage: Stage) -> None:
    """Draw the ticket of one model (or take the given one), and report where it prunes.

    Raises:
        UserError: The given ticket prunes another share of the weights than `sparsities` asks for.
    """
    config, origin = run.config, METHODS[job.method].source
    given = job.method == config.given_method
    searched = not given and SOURCES[origin].stage == "search"
    if searched:
        source = huggingface.load(stage.verified_input("model"))
        scores = inputs.read_scores(stage.verified_input("scores"), source.config.prunable())
        about = {"method": job.method, "seed": str(job.seed), "source_sha256": file_hash(stage.inputs["scores"])}
        ticket = drawing.ticket_of_search(config, source, scores, job.sparsity, **about)
    else:
        source = inputs.pretrained(config)
        path, shapes = stage.inputs["scores"], source.config.prunable()
        ticket = inputs.given_ticket(path, job.sparsity, shapes) if given else Ticket.load(path, shapes)
    ticket.save(run.ticket(job.seed, job.model))
    by_magnitude = Ticket.from_magnitudes({name: source.weights[name] for name in ticket.masks}, job.sparsity)
    report = _describe(ticket, by_magnitude)
    write_json(stage.directory / "report.json", report)
    print(f"  {ticket.pruned} of {ticket.weights} weights pruned, sparsity {ticket.sparsity:.6f}")
    stage.finish(report)


def _describe(ticket: Ticket, by_magnitude: Ticket) -> dict[str, object]:
    """Return what the report shows of a ticket.

    `magnitude_overlap` compares it with the ticket of the smallest weights; two random sets that prune a share s
    overlap by s / (2 - s), `chance_overlap`.
    """
    return {
        "sparsity": ticket.sparsity,
        "pruned": ticket.pruned,
        "weights": ticket.weights,
        "layers": ticket.pruned_share(),
        "magnitude_overlap": ticket.overlap(by_magnitude),
        "chance_overlap": ticket.sparsity / (2 - ticket.sparsity),
    }


@inputs.unless_done
def retrain(run: RunDir, job: ModelJob, stage: Stage) -> None:
    """Fine-tune a ticket from the pre-trained weights; the pruned ones stay exactly zero."""
    source = inputs.pretrained(run.config)
    ticket = Ticket.load(stage.inputs["ticket"], source.config.prunable())
    weights = inputs.with_new_classifier(run, job, source)
    training = classifier.ClassifierTraining(run, job, stage, source, weights, ticket).run()
    training.export(sparsity=ticket.sparsity)
