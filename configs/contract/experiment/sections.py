"""The sections `data`, `attack` and `choice` of a configuration, and how a key of any section is declared."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from configs.contract.inputs.classifiers import LONGEST, SHORTEST

LARGEST_SEED = 2**32 - 1  # a seed is one word of every random number's key


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Collection[str] | None = None,
    pattern: str | None = None,
) -> Any:
    """Return a field with a help text and limits.

    Args:
        default: Default value.
        help: Help text; the first words say what the key is.
        low: Smallest allowed number.
        high: Largest allowed number.
        choices: Allowed texts.
        pattern: Regular expression that a text must match.
    """
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "pattern": pattern}
    value: Any = {"default_factory": lambda: list(default)} if isinstance(default, list) else {"default": default}
    return field(**value, metadata=metadata)


def default(section: Any, key: str, value: Any) -> Any:
    """Return a key of another section, with its help text and limits and a default of its own."""
    return field(default=value, metadata=section.__dataclass_fields__[key].metadata)


@dataclass
class Data:
    """The data, and how they are split into train, dev and test."""

    train: str | None = option(
        None,
        "training set: a CSV, TSV or JSON Lines file, or a folder of texts for each label; unset: from the hub",
    )
    dev: str | None = option(None, "dev set, a file or folder as data.train; unset: split off the training set")
    test: str | None = option(
        None, "test set, whose sentences are attacked; a file or folder as data.train; unset: see data.test_size"
    )
    columns: list[str] | None = option(None, "column names of CSV and TSV files that have no header")
    text_columns: list[str] | None = option(
        None, "columns of the text, or of the two texts; a+b joins two columns; unset: those of the task"
    )
    label_column: str | None = option(
        None, "column of the label; unset: label, or the name in the task's published files"
    )
    labels: list[str] | None = option(
        None, "names of the labels in the order of their numbers; 1=World if a file writes 1 for World"
    )
    attacked: str | None = option(None, "text column that attacks change; unset: the last one")
    bad_rows: int | str = option(
        0,
        "how many broken rows of a file may be skipped: a number, or a share such as 0.5%; more are an error",
        low=0,
        pattern=r"\d{1,2}(\.\d+)?%",
    )
    train_size: int | None = option(None, "number of training sentences, drawn at random; unset: all", low=1)
    dev_size: int = option(1000, "number of training sentences split off as dev set, if data.dev is unset", low=1)
    test_size: int | None = option(
        None,
        "number of test sentences, drawn at random; split off the training set if there is no test set; unset: all of "
        "the test set, or else as many as data.dev_size",
        low=1,
    )
    max_length: int = option(
        128, "longest input in word pieces; longer inputs are truncated", low=SHORTEST, high=LONGEST
    )
    seed: int = option(0, "seed of the split, the same for every seed of the experiment", low=0, high=LARGEST_SEED)


PAPERS_RECIPES = ["textfooler", "textbugger", "bertattack"]
# TextAttack's others, under the names of its command line.
OTHER_RECIPES = "a2t alzantot bae checklist clare deepwordbug faster-alzantot iga kuleshov pruthi pso pwws".split()
RECIPES = PAPERS_RECIPES + OTHER_RECIPES


@dataclass
class Attack:
    """Textual attacks on the trained models (section 4.3)."""

    recipes: list[str] = option(PAPERS_RECIPES, "attacks to run", choices=RECIPES)
    victims: list[str] | None = option(None, "further classifiers to attack: name=folder")
    protocol: str = option(
        "paper",
        "paper, or official, as the authors' code does it: first sentences, length 512, its own bertattack",
        choices=["paper", "official"],
    )
    examples: int = option(1000, "number of test sentences attacked, the same for every model", low=1)
    stratified: bool = option(False, "give each label its share in the test set (attack.protocol=paper only)")
    resources: str = option(
        "packaged", "word lists, encoders and taggers of the attacks", choices=["packaged", "original"]
    )
    resources_dir: str | None = option(None, "folder with the original resources; see docs/attacks.md")
    candidates: int = option(48, "BERT-Attack: number of replacements tried for a word (K in its paper)", low=1)
    max_queries: int | None = option(
        None, "largest number of queries for one sentence; beyond it the attack counts as a timeout", low=1
    )
    max_seconds: float | None = option(None, "seconds for one sentence; beyond them a timeout", low=0.001, high=1e9)
    temperature: float = option(1.0, "divisor of the models' logits", low=0.01)
    calibrate: bool = option(False, "fit the temperature of each model on dev, by likelihood, before the attack")
    shard: str | None = option(
        None, "i/n: attack only the i-th of n parts of the sentences; `torch_eval merge` joins them"
    )
    workers: int = option(2, "number of attack processes, one thread each", low=1)
    device: str = option("cpu", "device on which PyTorch runs the models", choices=["cpu", "cuda"])
    dtype: str = option(
        "float32",
        "number type of the models; a sample is attacked again in float32 to count the outcomes that change",
        choices=["float32", "bfloat16", "float16"],
    )


@dataclass
class Choice:
    """The choice of the ticket that is reported: highest accuracy under attack, then highest accuracy."""

    epochs: int = option(1, "number of last search epochs whose tickets are candidates, each at every sparsity", low=1)
    recipe: str = option("textfooler", "attack on the candidates", choices=PAPERS_RECIPES)
    examples: int = option(200, "number of sentences attacked for each candidate", low=1)
    split: str = option(
        "dev",
        "sentences of the choice: dev, or half of the test set; the report is then on the other half",
        choices=["dev", "test_half"],
    )
