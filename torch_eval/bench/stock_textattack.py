"""Unmodified TextAttack on the same resources: the reference of exactness and speed.

This module imports TextAttack: call `textattack_offline.prepare` first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from textattack import Attack
from textattack.constraints.grammaticality import PartOfSpeech
from textattack.constraints.semantics.sentence_encoders.sentence_encoder import SentenceEncoder
from textattack.goal_functions import GoalFunction, UntargetedClassification
from textattack.models.wrappers import HuggingFaceModelWrapper
from textattack.search_methods import GreedyWordSwapWIR
from textattack.transformations import WordSwapMaskedLM
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from torch_eval.recipes import packaged_resources, recipes


def victim(directory: Path, max_length: int, device: str = "cpu") -> HuggingFaceModelWrapper:
    """Return TextAttack's wrapper, which pads every input to `max_length`, of a model on a device."""
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    tokenizer.model_max_length = max_length
    model = AutoModelForSequenceClassification.from_pretrained(
        directory, local_files_only=True, trust_remote_code=False
    )
    return HuggingFaceModelWrapper(model.eval().to(device), tokenizer)


class PlainEncoder(SentenceEncoder):
    """The packaged encoder in a stock constraint, which encodes every text again."""

    def encode(self, sentences: Sequence[str]) -> torch.Tensor:
        """Return the vectors of sentences."""
        return torch.from_numpy(packaged_resources.sentence_model().encode(list(sentences)))


class PlainTags(PartOfSpeech):
    """The packaged tagger in a stock constraint, which tags all words around every candidate."""

    def __init__(self, **parameters: Any) -> None:
        super().__init__(tagger_type="packaged", **parameters)

    def _get_pos(self, before_ctx: list[str], word: str, after_ctx: list[str]) -> str:
        words = before_ctx + [word] + after_ctx
        key = " ".join(words)
        if key not in self._pos_tag_cache:
            tags = [packaged_resources.universal(fine) for fine in packaged_resources.tagger().tag(words)]
            self._pos_tag_cache[key] = (words, tags)
        return super()._get_pos(before_ctx, word, after_ctx)


class Stock(packaged_resources.Packaged):
    """The packaged resources in TextAttack's own classes. They are in memory, as those that it downloads are."""

    def goal(
        self, victim: HuggingFaceModelWrapper, similarity: SentenceEncoder | None, query_budget: float
    ) -> GoalFunction:
        """Return TextAttack's goal function."""
        return UntargetedClassification(victim, query_budget=query_budget)

    def search(self, **parameters: Any) -> GreedyWordSwapWIR:
        """Return TextAttack's search."""
        return GreedyWordSwapWIR(**parameters)

    def sentence_similarity(self, **parameters: Any) -> PlainEncoder:
        """Return the stock constraint."""
        return PlainEncoder(**parameters)

    def part_of_speech(self, **parameters: Any) -> PartOfSpeech:
        """Return the stock constraint."""
        return PlainTags(**parameters)

    def masked_words(self, **parameters: Any) -> WordSwapMaskedLM:
        """Return the stock transformation."""
        model, tokenizer = packaged_resources.masked_model(packaged_resources.packaged_mlm())
        return WordSwapMaskedLM(method="bert-attack", masked_language_model=model, tokenizer=tokenizer, **parameters)


def build(spec: recipes.Spec, wrapper: HuggingFaceModelWrapper) -> Attack:
    """Build a recipe of TextAttack's own classes, with its batches of 32."""
    return recipes.build(spec, wrapper, Stock())
