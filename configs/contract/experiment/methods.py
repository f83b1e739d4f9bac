"""The methods that an experiment compares: the one place that says what each of them is.

CONTRIBUTING.md shows how to add one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

FINE_TUNING, FREELB, INFOBERT = "objectives.FineTuning", "objectives.FreeLB", "infobert.InfoBert"


@dataclass(frozen=True)
class Source:
    """A stage that produces scores for tickets. Its key in `SOURCES` names its directory under a seed.

    Attributes:
        stage: `search` learns masks; `prune` removes weights by magnitude, round by round.
        section: Section of the configuration with its hyper-parameters.
        objective: What minimises the loss of a round of pruning, as in `Method`; empty for a search, which has its own.
        fixed: Hyper-parameters that this source sets, whatever the section says.
    """

    stage: str
    section: str
    objective: str = ""
    fixed: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """One row of the tables.

    Attributes:
        title: Name in tables and figures.
        kind: `dense` trains all weights. `ticket` draws a ticket at every sparsity and trains it from the pre-trained
            weights. `control` changes one thing about the robust ticket that was chosen on dev.
        section: Section of the configuration that trains the model which is attacked.
        note: What the method does, in one line of the report.
        style: Colour (a name of `figure_style.NAMED`), line and marker in figures.
        rows: Row of the method in tables of the paper, by the number of the table. Table 2 has the rows of Table 1.
        source: Of a ticket method: the key of `SOURCES` that its scores come from; empty if they are given
            (`tickets_from`).
        objective: What minimises the loss: module and class in `mindspore_rt.training`.
        backward_passes: Number of backward passes in each of the K passes of a step.
        change: Of a control: key of `CHANGES` in `mindspore_rt.stages.control`.
        snapshots: Whether its training also saves models before its end, for Figure 4.
    """

    title: str
    kind: str
    section: str
    note: str
    style: tuple[str, str, str]
    rows: Mapping[int, int] = field(default_factory=dict)
    source: str = ""
    objective: str = FINE_TUNING
    backward_passes: int = 1
    change: str = ""
    snapshots: bool = False


SOURCES = {
    "lth": Source("prune", "lth", FINE_TUNING),
    "search": Source("search", "search"),
    "adversarial_pruning": Source("prune", "adversarial_pruning", FREELB),
    "search_no_adversary": Source("search", "search", fixed={"ascent_steps": 1, "initial_norm": 0.0}),
}
TRAINED_BY = {"dense": "finetune", "ticket": "retrain", "control": "control"}  # kind of a method, to the stage
METHODS = {
    "finetune": Method(
        title="Fine-tune",
        kind="dense",
        section="finetune",
        note="the ordinary model, all weights",
        style=("ink", "--", "s"),
        rows={1: 1},
        snapshots=True,
    ),
    "freelb": Method(
        title="FreeLB",
        kind="dense",
        section="freelb",
        note="adversarial training of all weights",
        style=("sky", "-.", "^"),
        rows={1: 4},
        objective=FREELB,
        snapshots=True,
    ),
    "infobert": Method(
        title="InfoBERT",
        kind="dense",
        section="infobert",
        note="adversarial training with two regularisers on the information in the embeddings",
        style=("blue", ":", "v"),
        rows={1: 5},
        objective=INFOBERT,
        backward_passes=2,
    ),
    "lth": Method(
        title="LTH",
        kind="ticket",
        section="retrain",
        note="pruned by magnitude in rounds (lottery ticket hypothesis), without an adversary",
        style=("orange", "--", "P"),
        rows={1: 3},
        source="lth",
        snapshots=True,
    ),
    "random": Method(
        title="Random",
        kind="control",
        section="retrain",
        note="the robust ticket's sparsity in every matrix, at random positions",
        style=("rule", ":", "X"),
        rows={1: 6},
        change="random_ticket",
    ),
    "robust": Method(
        title="Robust ticket",
        kind="ticket",
        section="retrain",
        note="masks learned against the adversary, the method of the paper",
        style=("vermilion", "-", "o"),
        rows={1: 7, 3: 1, 4: 1},
        source="search",
        snapshots=True,
    ),
    "transferred": Method(
        title="Transferred ticket",
        kind="ticket",
        section="retrain",
        note="the robust ticket of another experiment or of a file, trained on this task",
        style=("sky", "--", "p"),
        rows={1: 8},
    ),
    "robust_no_mask_learning": Method(
        title="w/o Mask Learning",
        kind="ticket",
        section="retrain",
        note="pruned by magnitude in rounds under the adversarial loss",
        style=("purple", "--", "<"),
        rows={3: 2},
        source="adversarial_pruning",
    ),
    "robust_no_adversary": Method(
        title="w/o Adv",
        kind="ticket",
        section="retrain",
        note="masks learned on clean sentences only",
        style=("purple", ":", ">"),
        rows={3: 3},
        source="search_no_adversary",
    ),
    "robust_no_initialization": Method(
        title="w/o Initialization",
        kind="control",
        section="retrain",
        note="the ticket's structure, its matrices initialised at random",
        style=("green", "--", "d"),
        rows={4: 2},
        change="random_weights",
    ),
    "robust_no_structure": Method(
        title="w/o Structure",
        kind="control",
        section="retrain",
        note="all weights; those outside the ticket initialised at random",
        style=("green", "-.", "p"),
        rows={4: 3},
        change="no_ticket",
    ),
}


def needs_robust_ticket(names: list[str]) -> bool:
    """Return whether a robust ticket is searched for and chosen: it is compared, or a control changes it."""
    return "robust" in names or bool(of_kind(names, "control"))


def of_kind(names: list[str], kind: str) -> list[str]:
    """Return the methods of one kind, in the order given."""
    return [name for name in names if METHODS[name].kind == kind]


def in_table(number: int) -> list[str]:
    """Return the methods of one table of the paper, in its order."""
    return sorted(
        (name for name in METHODS if number in METHODS[name].rows), key=lambda name: METHODS[name].rows[number]
    )


def with_snapshots() -> list[str]:
    """Return the methods whose training also saves models before its end."""
    return [name for name, method in METHODS.items() if method.snapshots]


def sources(names: list[str]) -> list[str]:
    """Return the sources of the methods' tickets. A control needs the robust ticket that it changes."""
    wanted = {METHODS[name].source for name in names}
    if of_kind(names, "control"):
        wanted.add("search")
    return [name for name in SOURCES if name in wanted]
