"""Small random classifiers to attack."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from configs.contract.inputs import assets


def write_bert(folder, labels=2, seed=0, layers=2, positions=512):
    """Write a random BERT classifier, with logits that differ clearly between texts; returns its folder."""
    # Not with the times of the files: hashes are remembered by them, and one model may take the place of another.
    source = _made(labels, seed, layers, positions)
    shutil.copytree(source, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)
    return folder


@functools.cache
def _made(labels, seed, layers, positions):
    """Make such a classifier once; returns a folder that is removed with the process."""
    folder = Path(tempfile.mkdtemp(prefix="bert-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with torch.random.fork_rng():
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
    return AutoTokenizer.from_pretrained(assets.fetched_folder("minilm"))
