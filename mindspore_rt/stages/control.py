"""The controls, each with one thing about the chosen ticket changed (Random of Table 1; Table 4)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from configs.contract.experiment.methods import METHODS
from configs.contract.run.jobs import ModelJob
from configs.contract.run.run_dir import RunDir
from mindspore_rt.cells import noise
from mindspore_rt.formats import huggingface
from mindspore_rt.ticket import Ticket

Weights = dict[str, np.ndarray]
Change = Callable[[Ticket, Weights, int | None, np.random.Generator], tuple[Ticket | None, Weights]]


def changed(
    run: RunDir, job: ModelJob, source: huggingface.Model, chosen: Ticket, weights: Weights
) -> tuple[Ticket | None, Weights]:
    """Change the chosen ticket, or the weights that training starts from, as `Method.change` says.

    A new ticket is saved in the run directory. See `random_ticket` for the weights and the result.
    """
    heads = source.config.num_attention_heads if run.config.structured else None
    random = noise.generator(job.seed, noise.REINITIAL)
    ticket, weights = CHANGES[METHODS[job.method].change](chosen, weights, heads, random)
    if ticket and ticket is not chosen:
        ticket.save(run.ticket(job.seed, job.model))
    return ticket, weights


def random_ticket(
    ticket: Ticket, weights: Weights, heads: int | None, random: np.random.Generator
) -> tuple[Ticket, Weights]:
    """Keep as many weights of every matrix as the ticket does, at random positions.

    Args:
        ticket: The chosen robust ticket.
        weights: The pre-trained weights and a new classifier, by Hugging Face name.
        heads: Attention heads of a layer if whole heads and neurons are pruned; None otherwise.
        random: Generator of the random draw.

    Returns:
        The ticket to train, None for the whole BERT, and the weights to start from.
    """
    if heads:
        return Ticket.random_units_like(ticket, heads, random), weights
    return Ticket.from_random_like(ticket, random), weights


def random_weights(
    ticket: Ticket, weights: Weights, heads: int | None, random: np.random.Generator
) -> tuple[Ticket, Weights]:
    """Keep the structure of the ticket, and start its matrices at random."""
    return ticket, {**weights, **_initial_values(ticket, weights, random)}


def no_ticket(ticket: Ticket, weights: Weights, heads: int | None, random: np.random.Generator) -> tuple[None, Weights]:
    """Train all weights; those that the ticket prunes start at random."""
    new = _initial_values(ticket, weights, random)
    mixed = {name: np.where(mask, weights[name], new[name]) for name, mask in ticket.masks.items()}
    return None, {**weights, **mixed}


def _initial_values(ticket: Ticket, weights: Weights, random: np.random.Generator) -> Weights:
    """Draw the ticket's matrices from BERT's initial distribution, float32."""
    deviation = np.float32(huggingface.INITIALIZER_RANGE)
    return {name: random.standard_normal(weights[name].shape, np.float32) * deviation for name in ticket.masks}


CHANGES: dict[str, Change] = {  # by the names that `Method.change` uses
    "random_ticket": random_ticket,
    "random_weights": random_weights,
    "no_ticket": no_ticket,
}
