"""The files of a run that the report reads, and what it relies on in them."""

from __future__ import annotations

from pathlib import Path

from configs.contract import shapes
from configs.contract.shapes import COUNT, NUMBER, POSITIVE, SECONDS, SHARE, TEXT, Maybe

MANIFEST = {
    "settings": {section: Maybe({}) for section in ("finetune", "retrain", "search")},
    "inputs": {str: TEXT},
    "versions": {str: TEXT},
    "results": {"model_sha256": Maybe(TEXT), "steps": Maybe(COUNT), "temperature": Maybe(NUMBER)},
    "finished": TEXT,
    "seconds": SECONDS,
}
CLEAN_MANIFEST = {
    **MANIFEST,
    "results": {
        "accuracy": SHARE,
        "n": POSITIVE,
        "predicted_classes": Maybe(POSITIVE),
        "majority_share": Maybe(SHARE),
    },
}
ESTIMATE = dict.fromkeys(("value", "low", "high"), Maybe(NUMBER))
ATTACK_SETTINGS = {
    "indices": [COUNT],
    "resources": Maybe({"from": Maybe(TEXT)}),
    "protocol": Maybe(TEXT),
    "recipe": Maybe(TEXT),
    "attacked": Maybe([TEXT]),
    "temperature": Maybe(NUMBER),
    "dtype": Maybe(TEXT),
}
DTYPE = {"outcomes_that_float32_changes": COUNT, "of": COUNT}
CHOICE_MANIFEST = {**MANIFEST, "settings": ATTACK_SETTINGS}
ATTACK_MANIFEST = {
    **MANIFEST,
    "settings": ATTACK_SETTINGS,
    "results": {
        **dict.fromkeys(("examples", "attacked", "timeouts"), COUNT),
        **dict.fromkeys(("clean", "aua", "suc", "queries"), ESTIMATE),
    },
}
DATA = {"labels": Maybe([TEXT]), "note": Maybe(TEXT), "splits": {str: {"count": COUNT, "sha256": Maybe(TEXT)}}}
CHOICE = {"rule": TEXT, "candidates": [{"model": TEXT, "seed": COUNT, "aua": SHARE, "accuracy": SHARE}]}
TRANSFER = {
    "rows": [{**dict.fromkeys(("recipe", "source", "target"), TEXT), "seed": COUNT, "share": Maybe(SHARE)}],
    "models": [{"seed": COUNT, "model": TEXT, "sha256": TEXT}],
    "attacks": Maybe([{"seed": COUNT, "model": TEXT, "recipe": TEXT, "sha256": TEXT}]),
}
TICKET_FACTS = {
    "pruned": COUNT,
    "weights": POSITIVE,
    "layers": {str: SHARE},
    "magnitude_overlap": Maybe(SHARE),
    "chance_overlap": Maybe(SHARE),
}
LEFT_OUT = {"reason": Maybe(TEXT)}
LOGGED = (  # numbers of a training step or of an evaluation
    "epoch",
    "loss",
    "adversarial_loss",
    "l0_term",
    "l0_weight",
    "settled_zero",
    "settled_one",
    "sparsity_at_threshold",
    "sentences_per_second",
    "dev_accuracy",
)
LEARNING = {"step": COUNT, "seconds": Maybe(SECONDS), **dict.fromkeys(LOGGED, Maybe(NUMBER))}


def read(path: Path, shape: dict) -> dict | None:
    """Read a JSON file of a run; None if it does not exist."""
    return shapes.read(path, shape) if path.is_file() else None


def training_records(path: Path) -> list[dict]:
    """Read the metrics of a training; none if they do not exist."""
    return shapes.lines(path, LEARNING) if path.is_file() else []
