"""TextFooler, TextBugger and BERT-Attack: TextAttack 0.3.11's recipes over packaged resources.

What differs from TextAttack's own recipes, beside where the resources come from:

- All: exactly the columns that the task attacks may change. TextFooler's recipe protects the premise of
  MNLI only, the other two protect nothing. `MaxWordsPerturbed` still counts the words of all columns.
- All: stop words are those of TextFooler's authors; TextBugger and BERT-Attack take NLTK's list otherwise.
- TextFooler: smallest cosine of a synonym 0.4, not 0.5, because cosines of the packaged vectors are lower
  (at 0.4 they keep about 15 neighbours a word).
- Sentence encoder: multilingual USE v3, not v3 English; the thresholds are kept.
- Tagger: a packaged averaged perceptron, not NLTK's.
- BERT-Attack: the masked language model is a small one made in set-up. K is the experiment's, 48 in the
  paper and 8 in 0.3.11.

This module is light; TextAttack is imported when a recipe is built.
"""

from __future__ import annotations

from importlib import metadata
from typing import Sequence

from configs.errors import UserError
from torch_eval import packaged


class TooPoor(UserError):
    """A resource is there but not good enough for the recipe's name: its results are left out, not the whole run."""


NEEDED_TOP1 = 0.25  # below it the masked model is too poor for the attack to be called BERT-Attack
BATCH = 512  # texts handed to the victim at once, which sorts them by length

CHARACTERS = {"random_one": True, "skip_first_char": True, "skip_last_char": True}
PARAMETERS = {
    "textfooler": {
        "search": {"wir_method": "delete"},
        "synonyms": {"max_candidates": 50},
        "word distance": {"min_cos_sim": 0.4},
        "part of speech": {"allow_verb_noun_swap": True},
        "sentence similarity": {
            "threshold": 0.840845057, "metric": "angular", "compare_against_original": False,
            "window_size": 15, "skip_text_shorter_than_window": True,
        },
    },
    "textbugger": {
        "search": {"wir_method": "delete"},
        "insertion": {**CHARACTERS, "letters_to_insert": " "},
        "deletion": CHARACTERS,
        "swap": CHARACTERS,
        "synonyms": {"max_candidates": 5},
        "sentence similarity": {
            "threshold": 0.8, "metric": "angular", "compare_against_original": True,
            "window_size": None, "skip_text_shorter_than_window": False,
        },
    },
    "bertattack": {
        "search": {"wir_method": "unk"},
        "masked words": {"max_length": 512},
        "words perturbed": {"max_percent": 0.4},
        "sentence similarity": {
            "threshold": 0.2, "metric": "cosine", "compare_against_original": True,
            "window_size": None, "skip_text_shorter_than_window": False,
        },
    },
}
RESOURCES = {
    "textfooler": ("synonyms", "stop words", "sentence encoder", "tagger"),
    "textbugger": ("synonyms", "stop words", "sentence encoder"),
    "bertattack": ("masked language model", "stop words", "sentence encoder"),
}


def describe(recipe: str, columns: Sequence[str], attacked: Sequence[str], candidates: int) -> dict:
    """Everything that decides what a recipe does, for manifests (JSON values only).

    Raises `UserError` if a resource is missing, and its `TooPoor` if the masked model is below NEEDED_TOP1.
    """
    resources = {name: packaged.describe(name) for name in RESOURCES[recipe]}
    parameters = {name: dict(values) for name, values in PARAMETERS[recipe].items()}
    if recipe == "bertattack":
        top1 = resources["masked language model"]["top1"]
        if top1 < NEEDED_TOP1:
            raise TooPoor(
                f"bertattack: its masked language model finds {top1:.1%} of hidden pieces, below the "
                f"{NEEDED_TOP1:.0%} that a result called BERT-Attack needs"
            )
        parameters["masked words"]["max_candidates"] = candidates
    return {
        "recipe": recipe,
        "textattack": metadata.version("textattack"),
        "parameters": parameters,
        "columns": list(columns),
        "attacked": list(attacked),
        "resources": resources,
    }


def build(recipe: str, victim, columns: Sequence[str], attacked: Sequence[str], candidates: int):
    """A `textattack.Attack` on `victim` (a model wrapper). Raises `UserError` as `describe` does."""
    from torch_eval import resources  # first: it sets the environment that textattack's import wants

    from textattack import Attack
    from textattack.constraints.pre_transformation import (
        InputColumnModification, RepeatModification, StopwordModification,
    )
    from textattack.goal_functions import UntargetedClassification
    from textattack.search_methods import GreedyWordSwapWIR

    parameters = describe(recipe, columns, attacked, candidates)["parameters"]
    resources.remember_word_splits()
    transformation, constraints = PARTS[recipe](parameters)
    return Attack(
        UntargetedClassification(victim, model_batch_size=BATCH),
        [
            RepeatModification(),
            StopwordModification(stopwords=resources.stop_words()),
            InputColumnModification(list(columns), set(columns) - set(attacked)),
            *constraints,
            resources.PackagedSentenceEncoder(**parameters["sentence similarity"]),
        ],
        transformation,
        GreedyWordSwapWIR(**parameters["search"]),
    )


def _textfooler(parameters: dict):
    from textattack.constraints.semantics import WordEmbeddingDistance
    from textattack.transformations import WordSwapEmbedding

    from torch_eval import resources

    synonyms = resources.synonyms()
    return WordSwapEmbedding(embedding=synonyms, **parameters["synonyms"]), [
        WordEmbeddingDistance(embedding=synonyms, **parameters["word distance"]),
        resources.PackagedPartOfSpeech(**parameters["part of speech"]),
    ]


def _textbugger(parameters: dict):
    from textattack import transformations

    from torch_eval import resources

    bugs = [
        transformations.WordSwapRandomCharacterInsertion(**parameters["insertion"]),
        transformations.WordSwapRandomCharacterDeletion(**parameters["deletion"]),
        transformations.WordSwapNeighboringCharacterSwap(**parameters["swap"]),
        resources.HomoglyphSwap(),
        transformations.WordSwapEmbedding(embedding=resources.synonyms(), **parameters["synonyms"]),
    ]
    return transformations.CompositeTransformation(bugs), []


def _bertattack(parameters: dict):
    from textattack.constraints.overlap import MaxWordsPerturbed

    from torch_eval import resources

    model, tokenizer = resources.masked_model()
    transformation = resources.FastMaskedLM(
        masked_language_model=model, tokenizer=tokenizer, **parameters["masked words"]
    )
    return transformation, [MaxWordsPerturbed(**parameters["words perturbed"])]


PARTS = {"textfooler": _textfooler, "textbugger": _textbugger, "bertattack": _bertattack}
