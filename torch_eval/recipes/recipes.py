"""TextFooler, TextBugger and BERT-Attack: TextAttack 0.3.11's recipes, and twelve others of its recipes by name.

`protocol: paper` attacks exactly the columns that the task attacks. `protocol: official` is what the code of the
paper's authors runs. Its `bertattack` is the recipe BAE, with synonyms in place of a masked model's words and a looser
sentence constraint. Every column may change, except MNLI's premise under TextFooler.

What differs from TextAttack's own recipes, beside where the resources come from:

- protocol paper: the columns, see above. TextFooler's recipe protects the premise of MNLI only, the other two protect
  nothing. `MaxWordsPerturbed` still counts the words of all columns. K of BERT-Attack is the experiment's, 48 in its
  paper and 8 in 0.3.11.
- pairs of texts: each column is split into words by itself (`attacked_text.Text`).
- kuleshov: a success is another label, as for all attacks; TextAttack asks for a probability of the label below 0.7.
- words of many pieces or letters: the number of candidates is bounded (`fast_classes.COMBINATIONS`, `LETTERS`).
- packaged resources: stop words are those of TextFooler's authors (TextBugger and BERT-Attack take NLTK's list
  otherwise). TextFooler's smallest cosine of a synonym is 0.4, not 0.5, because cosines of the packaged vectors are
  lower (at 0.4 they keep about 15 neighbours a word). The sentence encoder is multilingual USE v3, not v3 English;
  the thresholds are kept. The tagger is a packaged averaged perceptron. The masked language model is a small one
  made in set-up.

This module loads fast: TextAttack is imported when a recipe is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from configs.contract.basics.errors import UserError
from torch_eval.assets import original, packaged
from torch_eval.recipes import textattack_offline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from textattack import Attack
    from textattack.constraints import Constraint
    from textattack.constraints.pre_transformation import InputColumnModification
    from textattack.transformations import Transformation

    from torch_eval.recipes.fast_classes import Resources

    Victim = Callable[[Sequence[str | Sequence[str]]], torch.Tensor]
    Parts = tuple[Transformation, list[Constraint]]


class CannotRun(UserError):
    """A recipe cannot run here under its name. Its results are left out; the other recipes of the run continue."""


@dataclass(frozen=True)
class Spec:
    """What decides an attack, beside the victim and the text.

    Attributes:
        recipe: One of `sections.RECIPES`.
        columns: Text columns that the victim reads, in order.
        attacked: The columns that the task lets an attack change.
        protocol: Paper, or official: what the code of the paper's authors runs.
        resources: Packaged or original.
        resources_dir: Folder of the original resources, if those are taken.
        candidates: K of BERT-Attack, the replacements for one word or piece.
        max_queries: Budget of victim queries for one example; None for no limit.
    """

    recipe: str
    columns: tuple[str, ...]
    attacked: tuple[str, ...]
    protocol: str = "paper"
    resources: str = "packaged"
    resources_dir: str = ""
    candidates: int = 48
    max_queries: int | None = None

    @property
    def changeable(self) -> tuple[str, ...]:
        """Columns that this attack may change."""
        if self.protocol == "paper":
            return self.attacked
        protects = self.recipe == "textfooler" and self.columns == ("premise", "hypothesis")
        return ("hypothesis",) if protects else self.columns

    @property
    def key(self) -> str:
        """Key in `OWN`: the BERT-Attack of the official code is another attack than BERT-Attack."""
        return "official bertattack" if (self.protocol, self.recipe) == ("official", "bertattack") else self.recipe


@dataclass(frozen=True)
class OwnRecipe:
    """A recipe that is put together here.

    Attributes:
        parts: Makes the transformation and the recipe's own constraints from `parameters` and the resources.
        resources: Names of the resources that it uses.
        parameters: Settings of each part, by its name: of the `search`, of the `sentence similarity` if it has that
            constraint, and of what `parts` makes.
    """

    parts: Callable[[dict, Resources], Parts]
    resources: tuple[str, ...]
    parameters: dict[str, dict[str, Any]]


NEEDED_TOP1 = 0.25  # below it the masked model is too poor for the attack to be called BERT-Attack

# TextAttack's other recipes that attack classifiers of English text, under the names of its command line. One that
# also stands in `OWN` is put together here.
OTHERS = {
    "a2t": "A2TYoo2021",
    "alzantot": "GeneticAlgorithmAlzantot2018",
    "bae": "BAEGarg2019",
    "checklist": "CheckList2020",
    "clare": "CLARE2020",
    "deepwordbug": "DeepWordBugGao2018",
    "faster-alzantot": "FasterGeneticAlgorithmJia2019",
    "iga": "IGAWang2019",
    "kuleshov": "Kuleshov2017",
    "pruthi": "Pruthi2019",
    "pso": "PSOZang2020",
    "pwws": "PWWSRen2019",
}
VECTORS, ENCODER = "TextAttack's word_embeddings/paragramcf", "tensorflow_hub with the Universal Sentence Encoder"
NEEDS = {  # all but those that run with what TextAttack brings
    "a2t": f"the package sentence_transformers with stsb-distilbert-base, NLTK's tagger, {VECTORS}",
    "alzantot": f"tensorflow, {VECTORS} and constraints/semantics/language-models/alzantot-goog-lm",
    "bae": f"bert-base-uncased, NLTK's tagger, {ENCODER}",
    "checklist": "flair's ner-english",
    "clare": f"distilroberta-base, {ENCODER}",
    "faster-alzantot": f"{VECTORS} and constraints/grammaticality/language-models/learning-to-write",
    "iga": VECTORS,
    "kuleshov": f"gpt2, {VECTORS}",
    "pso": "TextAttack's transformations/hownet/word_candidates_sense.pkl, flair's tagger",
    "pwws": "NLTK's wordnet and omw-1.4",
}
PLACES = (
    "nothing is downloaded: TextAttack's files go into the folder named by TA_CACHE_DIR, NLTK's into one of NLTK_DATA, "
    "models into Hugging Face's cache, flair's into ~/.flair"
)


def describe(spec: Spec) -> dict:
    """Return everything that decides what a recipe does, as JSON values for manifests.

    Raises:
        UserError: A resource is missing.
        CannotRun: The masked language model is poorer than `NEEDED_TOP1`.
    """
    return {**describe_parameters(spec), "resources": describe_resources(spec)}


def describe_parameters(spec: Spec) -> dict:
    """Return what decides a recipe, its resources apart."""
    parameters = _parameters(spec) if spec.key in OWN else f"TextAttack's {OTHERS[spec.recipe]}"
    return {
        "recipe": spec.recipe,
        "protocol": spec.protocol,
        "textattack": metadata.version("textattack"),
        "columns": list(spec.columns),
        "attacked": list(spec.changeable),
        "max_queries": spec.max_queries,
        "parameters": parameters,
    }


def _parameters(spec: Spec) -> dict:
    parameters = {name: dict(values) for name, values in OWN[spec.key].parameters.items()}
    if spec.resources == "packaged" and "word distance" in parameters:
        parameters["word distance"]["min_cos_sim"] = 0.4
    if spec.key == "bertattack":
        parameters["masked words"]["max_candidates"] = spec.candidates
    return parameters


def describe_resources(spec: Spec) -> dict:
    """Return the resources that a recipe uses.

    Raises:
        UserError: As `describe`.
    """
    if spec.key not in OWN:
        return {"of this recipe": "what TextAttack itself brings or downloads"}
    names = OWN[spec.key].resources
    if spec.resources == "original":
        resources = {name: original.describe(name, spec.resources_dir, spec.recipe) for name in names}
    else:
        resources = {name: packaged.describe(name) for name in names}
        if spec.key == "bertattack" and resources["masked language model"]["top1"] < NEEDED_TOP1:
            raise CannotRun(
                f"bertattack: its masked language model finds {resources['masked language model']['top1']:.1%} of "
                f"hidden pieces, below the {NEEDED_TOP1:.0%} that a result called BERT-Attack needs; take "
                f"attack.resources=original, or another attack (for the choice on dev: choice.recipe=textfooler)"
            )
    return {"from": spec.resources, **resources}


def build(spec: Spec, victim: Victim, source: Resources | None = None) -> Attack:
    """Build an attack.

    Args:
        spec: What decides the attack.
        victim: Model wrapper: a function of a list of texts, or tuples of texts, that returns logits (texts, labels).
        source: Makes the parts that need resources; by default `Packaged` or `Original`, as the spec says.

    Raises:
        UserError: As `describe` does.
    """
    parameters = describe(spec)["parameters"]
    textattack_offline.prepare()
    from textattack import Attack
    from textattack.constraints.pre_transformation import (
        InputColumnModification,
        RepeatModification,
        StopwordModification,
    )

    from torch_eval.recipes.original_resources import Original
    from torch_eval.recipes.packaged_resources import Packaged

    budget = float("inf") if spec.max_queries is None else spec.max_queries
    columns = InputColumnModification(list(spec.columns), set(spec.columns) - set(spec.changeable))
    if spec.key not in OWN:
        return _build_other(spec, victim, columns, budget)
    if source is None:
        source = Original(spec.resources_dir) if spec.resources == "original" else Packaged()
    transformation, constraints = OWN[spec.key].parts(parameters, source)
    similarity = None
    if "sentence similarity" in parameters:
        similarity = source.sentence_similarity(**parameters["sentence similarity"])
        constraints.append(similarity)
    return Attack(
        source.goal(victim, similarity, query_budget=budget),
        [
            RepeatModification(),
            StopwordModification(stopwords=source.stop_words(spec.recipe)),
            columns,
            *constraints,
        ],
        transformation,
        source.search(**parameters["search"]),
    )


def _build_other(spec: Spec, victim: Victim, columns: InputColumnModification, budget: float) -> Attack:
    """Build one of TextAttack's own recipes, restricted to the columns that may change.

    Raises:
        CannotRun: Something that the recipe needs is missing.
    """
    from textattack import Attack

    from torch_eval.recipes.goal_function import BATCH, Classification

    try:
        attack = getattr(import_module("textattack.attack_recipes"), OTHERS[spec.recipe]).build(victim)
    except Exception as error:  # TextAttack fails in many ways where one of its downloads is missing
        raise cannot_run(spec.recipe, error) from error
    goal = Classification(victim, model_batch_size=BATCH, query_budget=budget)
    constraints = [*attack.pre_transformation_constraints, columns, *attack.constraints]
    return Attack(goal, constraints, attack.transformation, attack.search_method)


def cannot_run(recipe: str, error: Exception) -> CannotRun:
    """Say what a recipe needs and which error showed that it is missing."""
    reason = next((line for line in str(error).splitlines() if line.strip(" *")), type(error).__name__).strip()
    needs = f"needs {NEEDS[recipe]} ({PLACES})" if recipe in NEEDS else "should need nothing"
    return CannotRun(f"attack.recipes: {recipe} {needs}; missing here: {reason}")


def _synonym_swaps(parameters: dict, source: Resources) -> Parts:
    """Return the parts of TextFooler, or of the official BERT-Attack, which has no limit on the distance of words."""
    from textattack.constraints.semantics import WordEmbeddingDistance
    from textattack.transformations import WordSwapEmbedding

    synonyms, constraints = source.synonyms(), []
    if "word distance" in parameters:
        constraints.append(WordEmbeddingDistance(embedding=synonyms, **parameters["word distance"]))
    constraints.append(source.part_of_speech(**parameters["part of speech"]))
    return WordSwapEmbedding(embedding=synonyms, **parameters["synonyms"]), constraints


def _textbugger(parameters: dict, source: Resources) -> Parts:
    from textattack import transformations

    from torch_eval.recipes import fast_classes

    bugs = [
        transformations.WordSwapRandomCharacterInsertion(**parameters["insertion"]),
        transformations.WordSwapRandomCharacterDeletion(**parameters["deletion"]),
        transformations.WordSwapNeighboringCharacterSwap(**parameters["swap"]),
        fast_classes.HomoglyphSwap(),
        transformations.WordSwapEmbedding(embedding=source.synonyms(), **parameters["synonyms"]),
    ]
    return transformations.CompositeTransformation(bugs), []


def _bertattack(parameters: dict, source: Resources) -> Parts:
    from textattack.constraints.overlap import MaxWordsPerturbed

    return source.masked_words(**parameters["masked words"]), [MaxWordsPerturbed(**parameters["words perturbed"])]


CHARACTERS = {"random_one": True, "skip_first_char": True, "skip_last_char": True}
OWN = {
    "textfooler": OwnRecipe(
        parts=_synonym_swaps,
        resources=("synonyms", "stop words", "sentence encoder", "tagger"),
        parameters={
            "search": {"wir_method": "delete"},
            "synonyms": {"max_candidates": 50},
            "word distance": {"min_cos_sim": 0.5},
            "part of speech": {"allow_verb_noun_swap": True},
            "sentence similarity": {
                "threshold": 0.840845057,
                "metric": "angular",
                "compare_against_original": False,
                "window_size": 15,
                "skip_text_shorter_than_window": True,
            },
        },
    ),
    "textbugger": OwnRecipe(
        parts=_textbugger,
        resources=("synonyms", "stop words", "sentence encoder"),
        parameters={
            "search": {"wir_method": "delete"},
            "insertion": {**CHARACTERS, "letters_to_insert": " "},
            "deletion": CHARACTERS,
            "swap": CHARACTERS,
            "synonyms": {"max_candidates": 5},
            "sentence similarity": {
                "threshold": 0.8,
                "metric": "angular",
                "compare_against_original": True,
                "window_size": None,
                "skip_text_shorter_than_window": False,
            },
        },
    ),
    "bertattack": OwnRecipe(
        parts=_bertattack,
        resources=("masked language model", "stop words", "sentence encoder"),
        parameters={
            "search": {"wir_method": "unk"},
            "masked words": {"max_length": 512},
            "words perturbed": {"max_percent": 0.4},
            "sentence similarity": {
                "threshold": 0.2,
                "metric": "cosine",
                "compare_against_original": True,
                "window_size": None,
                "skip_text_shorter_than_window": False,
            },
        },
    ),
    "official bertattack": OwnRecipe(
        parts=_synonym_swaps,
        resources=("synonyms", "stop words", "sentence encoder", "tagger"),
        parameters={
            "search": {"wir_method": "delete"},
            "synonyms": {"max_candidates": 50},
            "part of speech": {"allow_verb_noun_swap": True},
            "sentence similarity": {
                "threshold": 0.2,
                "metric": "cosine",
                "compare_against_original": True,
                "window_size": 15,
                "skip_text_shorter_than_window": False,
            },
        },
    ),
}
