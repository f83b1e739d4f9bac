"""The case that the comparison with the official code computes: weights, scores, a ticket, batches and settings."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import write_json
from torch_eval.reference import restatement

SEARCH = {
    "learning_rate": 0.1,
    "weight_decay": 1e-6,
    "warmup": 0.1,
    "clip_norm": 1.0,
    "ascent_steps": 3,
    "ascent_rate": 0.03,
    "initial_norm": 0.05,
    "l0_weight": 0.5,
    "l0_start": 0.1,
    "l0_ramp": 0.3,
}
RETRAIN = {"learning_rate": 2e-3, "weight_decay": 0.01, "warmup": 0.1}
SMALL = {
    "vocab_size": 200,
    "hidden_size": 32,
    "num_hidden_layers": 12,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
}
TOTAL_STEPS, RETRAIN_STEPS = 33, 15  # no multiples of ten: a rounded warm-up would show
BATCH, LENGTH = 4, 12


def write_case(folder: Path, model: Path | None, steps: int, seed: int) -> None:
    """Write everything that all implementations are given.

    Args:
        folder: Where the files go.
        model: Hugging Face directory of a BERT classifier; None for 12 narrow layers of random weights.
        steps: Steps of the short search.
        seed: Of weights, data and scores.
    """
    torch.manual_seed(seed)
    network = _load(model) if model else _random()
    network.config.save_pretrained(folder)
    weights = {name: p.detach().float().contiguous() for name, p in network.named_parameters()}
    save_tensors(weights, folder / "model.safetensors")
    shapes = {name: p.shape for name, p in restatement.MaskedBert(network.config).log_alpha().items()}
    draw = np.random.default_rng(seed)
    scores = {n: draw.normal(math.log(5), 1.0, s).astype(np.float32) for n, s in shapes.items()}
    # Scores as after a long search: many of their float32 sigmoids tie.
    grown = {n: draw.normal(6.0, 3.0, s).astype(np.float32) for n, s in shapes.items()}
    ticket = restatement.draw({n: torch.tensor(s) for n, s in scores.items()}, 0.3)
    save_file(scores, folder / "scores.safetensors")
    save_file(grown, folder / "grown.safetensors")
    # Neuron granularity: (hidden, 1) weights have one score.
    hidden = network.config.hidden_size
    save_file({n: s[: len(s) // hidden].copy() for n, s in scores.items()}, folder / "shared.safetensors")
    save_tensors({n: m.to(torch.uint8) for n, m in ticket.items()}, folder / "ticket.safetensors")
    save_file(_batches(draw, network.config, steps), folder / "batches.safetensors")
    settings = {
        "search": SEARCH,
        "total_steps": max(TOTAL_STEPS, steps),
        "seed": seed,
        "retrain": RETRAIN,
        "retrain_steps": min(4, steps),
        "retrain_total_steps": RETRAIN_STEPS,
        "sparsities": [i / 10 for i in range(1, 10)],
    }
    write_json(folder / "case.json", settings)


@torch.no_grad()
def _random() -> BertForSequenceClassification:
    """Return a small model with random biases: if they were 0, as BERT starts them, one left out would not show."""
    network = BertForSequenceClassification(BertConfig(**SMALL, initializer_range=0.15))
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(std=0.1)
    return network


def _load(model: Path) -> BertForSequenceClassification:
    try:
        network = AutoModelForSequenceClassification.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"--model {model}: {str(error).splitlines()[0]}; give a Hugging Face directory") from None
    if type(network) is not BertForSequenceClassification:
        raise UserError(
            f"--model {model}: a {type(network).__name__}, not a BERT classifier; the official code has BERT alone, "
            "no RoBERTa"
        )
    return network


def _batches(draw: np.random.Generator, config: BertConfig, steps: int) -> dict[str, np.ndarray]:
    """Return pairs of sentences of all lengths; the second half of each sentence is its second segment."""
    shape = (steps, BATCH, LENGTH)
    lengths = draw.integers(LENGTH // 2, LENGTH + 1, (steps, BATCH, 1))
    mask = np.arange(LENGTH) < lengths
    return {
        "input_ids": draw.integers(1, config.vocab_size, shape) * mask,
        "attention_mask": mask.astype(np.int64),
        "token_type_ids": (mask & (np.arange(LENGTH) >= lengths // 2)).astype(np.int64),
        "labels": draw.integers(0, config.num_labels, shape[:2]),
    }
