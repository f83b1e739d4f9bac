"""TextAttack as it comes, on the same resources: what exactness and speed are measured against."""

from __future__ import annotations

from pathlib import Path

import torch
from textattack import Attack
from textattack.constraints.semantics.sentence_encoders.sentence_encoder import SentenceEncoder
from textattack.models.wrappers import HuggingFaceModelWrapper
from textattack.transformations import WordSwapMaskedLM
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from torch_eval.recipes import fast_textattack, packaged_resources, recipes


def victim(directory: Path, max_length: int) -> HuggingFaceModelWrapper:
    """TextAttack's wrapper, which pads every input to `max_length`."""
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    tokenizer.model_max_length = max_length
    model = AutoModelForSequenceClassification.from_pretrained(directory, local_files_only=True)
    return HuggingFaceModelWrapper(model.eval(), tokenizer)


class PlainEncoder(SentenceEncoder):
    """The packaged encoder as a stock constraint uses one: every text again."""

    def encode(self, sentences) -> torch.Tensor:
        return torch.from_numpy(packaged_resources.sentence_model().encode(list(sentences)))


class Stock(packaged_resources.Packaged):
    """The packaged resources in TextAttack's own classes. The tagger is in memory, as NLTK's is."""

    def sentence_similarity(self, **parameters):
        return PlainEncoder(**parameters)

    def masked_words(self, **parameters):
        model, tokenizer = packaged_resources.masked_model(packaged_resources.packaged_mlm())
        return WordSwapMaskedLM(method="bert-attack", masked_language_model=model, tokenizer=tokenizer, **parameters)


def build(spec: recipes.Spec, wrapper: HuggingFaceModelWrapper) -> Attack:
    """The recipe with TextAttack's batches of 32 and its own word splitter."""
    attack = recipes.build(spec, wrapper, Stock())
    attack.goal_function.batch_size = 32
    fast_textattack.remember_word_splits(False)
    return attack
