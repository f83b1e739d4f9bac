"""Small random classifiers to attack."""

import functools

import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from configs.contract import assets


def tiny_bert(folder, labels=2, seed=0, layers=2, positions=512):
    """A random BERT classifier with logits that differ clearly between texts."""
    torch.manual_seed(seed)
    model = BertForSequenceClassification(
        BertConfig(
            hidden_size=32,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=64,
            num_labels=labels,
            max_position_embeddings=positions,
            initializer_range=0.3,
        )
    )
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@functools.cache
def tokenizer():
    """The packaged tokenizer, read once."""
    return AutoTokenizer.from_pretrained(assets.path("minilm"))
