"""Restatement of the objectives in PyTorch: a float64 BERT of transformers, batches of pairs, AdamW and clipping."""

import numpy as np
import torch
from torch.func import functional_call
from transformers import BertConfig as TorchConfig
from transformers import BertForSequenceClassification

from mindspore_rt.cells.encoder_config import EncoderConfig
from mindspore_rt.data.batches import Batch
from mindspore_rt.training import adversary

CONFIG = EncoderConfig(60, 16, 2, 2, 32, 16, 2)
WORDS = "bert.embeddings.word_embeddings.weight"


def small_bert():
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        TorchConfig(
            vocab_size=60,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=16,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            initializer_range=0.3,
            attn_implementation="eager",
        )
    )
    return model.double()


def weights_of(model):
    return {n: p.detach().numpy().astype(np.float32) for n, p in model.named_parameters()}


def batch(step):
    random = np.random.default_rng(step)
    ids = random.integers(5, 60, (4, 8)).astype(np.int32)
    mask, types = np.ones((4, 8), np.float32), np.zeros((4, 8), np.int32)
    mask[1, 5:], types[2, 4:] = 0, 1
    targets = np.eye(2, dtype=np.float32)[random.integers(0, 2, 4)] / 4
    return Batch(ids, mask, types, targets, np.arange(4))


def forward(model, weights, b, delta=0.0):
    """Output of transformers' model, with `delta` on the word embeddings."""
    arguments = {
        "inputs_embeds": weights[WORDS][torch.tensor(b.ids)] + delta,
        "output_hidden_states": True,
        "attention_mask": torch.tensor(b.attention_mask),
        "token_type_ids": torch.tensor(b.token_types),
    }
    return functional_call(model, weights, (), arguments)


def cross_entropy(logits, b):
    return -(torch.log_softmax(logits, -1) * torch.tensor(b.targets)).sum()


def leaves_of(weights):
    return {n: w.detach().clone().requires_grad_() for n, w in weights.items()}


def start(b, settings, seed, step):
    shape = (*b.ids.shape, CONFIG.hidden_size)
    return torch.tensor(adversary.start(shape, b.attention_mask, settings.initial_norm, seed, step)).double()


def ascend(delta, slope, rate):
    length = slope.flatten(1).norm(dim=1).clamp(min=1e-8).reshape(-1, 1, 1)
    return (delta + rate * slope / length).detach()


def adamw(p, g, moments, t, lr, decay):
    """The reference form: bias-corrected, eps on the uncorrected root, decoupled decay after the step."""
    m, v = moments
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    p = p - lr * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t) * m / (v.sqrt() + 1e-8)
    return p - lr * decay * p, (m, v)


def decay_of(name, settings):
    return 0.0 if name.endswith("bias") or "LayerNorm" in name else settings.weight_decay


def norm_of(gradients):
    return sum((g * g).sum() for g in gradients.values()).sqrt().item()


def clipped(gradients, norm):
    factor = min(1.0, norm / (norm_of(gradients) + 1e-6))
    return {n: g * factor for n, g in gradients.items()}


def distance(ours, reference):
    """Return the l2 distance relative to the reference; single numbers near 0 are float32 noise."""
    reference = np.asarray(reference)
    return np.linalg.norm(np.asarray(ours) - reference) / max(np.linalg.norm(reference), 1e-12)
