"""The methods of the paper's tables, and what each of them needs.

Three kinds. A *dense* method trains all weights. A *ticket* method makes tickets at every asked sparsity and retrains
each from the pre-trained weights. A *control* takes the ticket that was chosen on dev and changes one thing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """`title` is the name in the paper's tables. `training` is the section of the configuration that trains the model
    which is attacked. `source` is the stage directory that a ticket's scores come from."""

    title: str
    kind: str
    training: str
    source: str | None = None


METHODS = {
    "finetune": Method("Fine-tune", "dense", "finetune"),
    "finetune_long": Method("Fine-tune + Longer", "dense", "finetune_long"),
    "freelb": Method("FreeLB", "dense", "freelb"),
    "infobert": Method("InfoBERT", "dense", "infobert"),
    "lth": Method("LTH", "ticket", "retrain", "lth"),
    "random": Method("Random", "control", "retrain"),
    "robust": Method("Robust ticket", "ticket", "retrain", "search"),
    "robust_no_mask_learning": Method("w/o Mask Learning", "ticket", "retrain", "adversarial_pruning"),
    "robust_no_adversary": Method("w/o Adv", "ticket", "retrain", "search_no_adversary"),
    "robust_no_initialization": Method("w/o Initialization", "control", "retrain"),
    "robust_no_structure": Method("w/o Structure", "control", "retrain"),
    "robust_no_structure_long": Method("w/o Structure + Longer", "control", "retrain_long"),
}
SEARCHES = ("search", "search_no_adversary")  # sources that learn masks; the others prune by magnitude, round by round
KEPT_ON_THE_WAY = ("finetune", "freelb", "lth", "robust")  # whose `snapshots` Figure 4 shows


def needs_robust_ticket(names: list[str]) -> bool:
    """True if a robust ticket is searched for and one of them chosen: it is compared, or a control changes it."""
    return "robust" in names or bool(of_kind(names, "control"))


def of_kind(names: list[str], kind: str) -> list[str]:
    return [name for name in names if METHODS[name].kind == kind]


def sources(names: list[str]) -> list[str]:
    """Stage directories that the methods' tickets come from. A control needs the robust ticket that it changes."""
    wanted = {METHODS[name].source for name in names}
    if of_kind(names, "control"):
        wanted.add("search")
    return [m.source for m in METHODS.values() if m.source and m.source in wanted]
