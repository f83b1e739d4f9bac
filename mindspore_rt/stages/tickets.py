"""Stage `draw`, and how tickets are drawn from scores, wherever the scores come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import file_hash, write_json
from configs.contract.experiment import schema
from configs.contract.experiment.methods import METHODS, SOURCES
from configs.contract.run.jobs import DrawingJob
from configs.contract.run.run_dir import RunDir
from configs.contract.run.stage import Stage, verified
from mindspore_rt.cells.encoder_config import EncoderConfig
from mindspore_rt.formats import huggingface
from mindspore_rt.stages import inputs
from mindspore_rt.ticket import Ticket, spread
from mindspore_rt.units import most_structured

# A ticket of shared scores, or of whole heads and neurons, reaches the requested sparsity only approximately.
SPARSITY_TOLERANCE = 5e-3


@inputs.unless_done
def draw(run: RunDir, job: DrawingJob, stage: Stage) -> None:
    """Draw the ticket of one model (or take the given one), and report where it prunes.

    Raises:
        UserError: The given ticket prunes another share of the weights than `sparsities` asks for.
    """
    config, origin = run.config, METHODS[job.method].source
    given = job.method == config.given_method
    if not given and SOURCES[origin].stage == "search":
        source = huggingface.load(verified(stage.inputs["model"]))
        scores = inputs.read_scores(verified(stage.inputs["scores"]), source.config.prunable())
        about = {"method": job.method, "seed": str(job.seed), "source_sha256": file_hash(stage.inputs["scores"])}
        ticket = from_scores(config, source, scores, job.sparsity, config.compat == "official", **about)
    else:
        source = inputs.pretrained(config)
        path, model = stage.inputs["scores"], source.config
        ticket = given_ticket(config, path, job.sparsity, model) if given else Ticket.load(path, model.prunable())
    ticket.save(run.ticket(job.seed, job.model))
    by_magnitude = Ticket.from_magnitudes({name: source.weights[name] for name in ticket.masks}, ticket.sparsity)
    report = {
        "sparsity": ticket.sparsity,
        "pruned": ticket.pruned,
        "weights": ticket.weights,
        "layers": ticket.pruned_share(),
        "magnitude_overlap": ticket.overlap(by_magnitude),
        "chance_overlap": ticket.chance_overlap,
    }
    write_json(stage.directory / "report.json", report)
    print(f"  {ticket.pruned} of {ticket.weights} weights pruned, sparsity {ticket.sparsity:.6f}")
    stage.finish(report)


def from_scores(
    config: schema.Experiment,
    source: huggingface.Model,
    scores: dict[str, np.ndarray],
    sparsity: float,
    official: bool,
    **about: str,
) -> Ticket:
    """Draw a ticket (section 3.3): single weights, or whole heads and neurons if the experiment is `structured`.

    Weights that share a score are pruned or kept together. Ties are broken by the order of the prunable matrices,
    which a safetensors file does not preserve.

    Args:
        config: Experiment.
        source: Model that is pruned.
        scores: Scores of every prunable matrix; those of lowest score are pruned.
        sparsity: Share of weights to prune, 0 to 1.
        official: Rank the scores of single weights as the official code ranks those of its search.
        **about: Origin of the ticket, kept in its file.
    """
    shapes = source.config.prunable()
    if config.structured:
        per_weight = {name: spread(scores[name], shape) for name, shape in shapes.items()}
        return Ticket.structured(per_weight, source.config.num_attention_heads, sparsity, **about)
    return Ticket.from_scores({name: scores[name] for name in shapes}, sparsity, official, **about).spread(shapes)


def highest_sparsity(config: schema.Experiment, model: EncoderConfig) -> float:
    """Return the largest share of weights that a ticket of a model of this shape can prune.

    Raises:
        UserError: The experiment asks for more. Call before a long training, not after it.
    """
    if not config.structured:
        return 1.0
    most = most_structured(model.prunable(), model.num_attention_heads)
    if max(config.sparsities) > most:
        raise UserError(
            f"sparsities: {max(config.sparsities):g}, but a structured ticket of this model prunes {most:.4f} at most: "
            f"every layer keeps a head and a neuron, and a pooler stays; ask for less, or for structured=false"
        )
    return most


def given_ticket(config: schema.Experiment, path: Path, sparsity: float, model: EncoderConfig) -> Ticket:
    """Read the ticket that `tickets_from` gives.

    Args:
        config: Experiment.
        path: Its file.
        sparsity: Share of weights that the experiment asks for.
        model: Shape of the model that it must fit.

    Raises:
        UserError: The file is no ticket of this model, prunes another share, or does not suit a structured experiment.
    """
    ticket = Ticket.load(path, model.prunable())
    if abs(ticket.sparsity - sparsity) > SPARSITY_TOLERANCE:
        raise UserError(f"sparsities: {path} prunes {ticket.sparsity:.4f} of the weights; ask for that sparsity")
    # A random ticket with as many heads would keep those whole, and prune less.
    if config.structured and not ticket.is_structured(model.num_attention_heads):
        raise UserError(
            f"tickets_from: {path} prunes weights or rows, not whole heads and neurons, or all heads of a layer; "
            "give a structured ticket, or set structured=false"
        )
    return ticket
