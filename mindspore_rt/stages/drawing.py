"""From scores to tickets: single weights or whole units, one score for each weight or one for several."""

from __future__ import annotations

import numpy as np

from configs.contract import schema
from configs.contract.errors import UserError
from mindspore_rt.formats import huggingface
from mindspore_rt.ticket import Ticket, most_structured, spread

Scores = dict[str, np.ndarray]


def ticket_of_search(
    config: schema.Experiment, source: huggingface.Model, scores: Scores, sparsity: float, **about: str
) -> Ticket:
    """Draw the ticket of a search's scores (section 3.3).

    Weights that share a score are pruned or kept together. Ties are broken by the order of the prunable matrices,
    which a safetensors file does not preserve.

    Args:
        config: Experiment; `structured` and `compat` matter.
        source: Model that was searched.
        scores: log alpha of every prunable matrix.
        sparsity: Share of weights to prune, 0 to 1.
        **about: Origin of the ticket, kept in its file.
    """
    shapes = source.config.prunable()
    if config.structured:
        per_weight = {name: spread(scores[name], shape) for name, shape in shapes.items()}
        return ticket_of_weights(config, source, per_weight, sparsity, **about)
    ordered, official = {name: scores[name] for name in shapes}, config.compat == "official"
    return Ticket.from_scores(ordered, sparsity, official, **about).spread(shapes)


def ticket_of_weights(
    config: schema.Experiment, source: huggingface.Model, scores: Scores, sparsity: float, **about: str
) -> Ticket:
    """Draw the ticket of one score for each weight: single weights, or whole heads and neurons (`structured`).

    See `ticket_of_search` for the arguments.
    """
    if config.structured:
        return Ticket.structured(scores, source.config.num_attention_heads, sparsity, **about)
    return Ticket.from_scores(scores, sparsity, official=False, **about)


def highest_sparsity(config: schema.Experiment, source: huggingface.Model) -> float:
    """Return the largest share of weights that a ticket of this model can prune.

    Raises:
        UserError: The experiment asks for more. Call before a long training, not after it.
    """
    if not config.structured:
        return 1.0
    most = most_structured(source.config.prunable(), source.config.num_attention_heads)
    if max(config.sparsities) > most:
        raise UserError(
            f"sparsities: {max(config.sparsities):g}, but a structured ticket of this model prunes {most:.4f} at most: "
            f"every layer keeps a head and a neuron, and a pooler stays; ask for less, or for structured=false"
        )
    return most
