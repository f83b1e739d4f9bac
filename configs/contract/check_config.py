"""Checks that involve several keys of a configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.contract.errors import UserError
from configs.contract.methods import METHODS
from configs.contract.read_values import quoted
from configs.contract.tasks import TASKS, task_of


def check_together(config: Any, origins: Mapping[str, str]) -> None:
    """Check the keys that depend on each other; write `methods: all` out.

    Args:
        config: The experiment, whose keys are valid each by itself.
        origins: Where each key was set.

    Raises:
        UserError: Keys contradict each other. The message names one, and what to change.
    """
    if config.task not in TASKS:
        where = origins.get("task", "the defaults")
        raise UserError(f"task in {where}: {config.task!r} is not one of {', '.join(TASKS)}")
    task_of(config)
    if "all" in config.methods:
        config.methods = list(METHODS)
    if config.attack.calibrate and not config.dev_is_unseen:
        raise UserError(
            "attack.calibrate: compat: official trains on dev, so dev cannot calibrate; change one of the two"
        )
    named_folders(config.attack.victims or [])
    if config.ticket and config.choice.epochs > 1:
        raise UserError("choice.epochs: one ticket is given with the key ticket, so there is no choice; set 1")
    if config.attack.stratified and config.attack.protocol == "official":
        raise UserError("attack.stratified: protocol: official attacks the first examples; unset one of the two")
    if config.infobert.anchor_low >= config.infobert.anchor_high:
        raise UserError("infobert.anchor_low must be below infobert.anchor_high")
    if config.search.keep_epochs and config.search.keep_epochs < config.choice.epochs:
        raise UserError(f"search.keep_epochs: below choice.epochs, {config.choice.epochs}, whose scores are needed")
    if config.choice.epochs > config.search.epochs:
        raise UserError(
            f"choice.epochs: {config.choice.epochs} search epochs to choose from; there are only "
            f"search.epochs, {config.search.epochs}"
        )
    if config.workers % config.nodes or config.node_rank >= config.nodes:
        raise UserError("workers must be a multiple of nodes, and node_rank below nodes")
    if config.nodes > 1 and not config.master_port:
        raise UserError("master_port: name a port of machine 0 that is free, the same on all nodes")
    for section, method in (("finetune_long", "finetune_long"), ("retrain_long", "robust_no_structure_long")):
        if method in config.methods:
            _no_shorter(section, getattr(config, section), config.retrain)
    for sparsity in config.sparsities:
        if float(f"{sparsity:g}") != sparsity:
            raise UserError(f"sparsities in {origins['sparsities']}: {sparsity} has more than six digits; round it")
    if not config.name.isprintable() or config.name[:1] in ("", ".") or set(config.name) & set("/\\:"):
        raise UserError(f"name in {origins['name']}: {quoted(config.name)} cannot be a folder name")
    for key in ("seeds", "sparsities", "methods", "attack.recipes"):
        section, _, name = key.rpartition(".")
        items = getattr(getattr(config, section) if section else config, name)
        if len(set(items)) != len(items):
            raise UserError(f"{key} in {origins.get(key)}: a value stands twice in {items}")


def _no_shorter(section: str, control: Any, ticket: Any) -> None:
    """Give a control for training length at least the epochs of the ticket that it is compared with.

    Raises:
        UserError: The control would have fewer updates than the ticket.
    """
    control.epochs = max(control.epochs, ticket.epochs)
    for key, fewer in (
        ("batch_size", control.batch_size > ticket.batch_size),
        ("max_steps", bool(control.max_steps) and (not ticket.max_steps or control.max_steps < ticket.max_steps)),
    ):
        if fewer:
            remedy = f"set it to {getattr(ticket, key)}"
            raise UserError(f"{section}.{key}: fewer updates than retrain, whose length it controls; {remedy}")


def named_folders(entries: Sequence[str]) -> dict[str, Path]:
    """Return the folders in `attack.victims` by name.

    Raises:
        UserError: An entry is not `name=folder`, or its name is a method's or stands twice.
    """
    folders = {}
    for entry in entries:
        name, _, folder = entry.partition("=")
        if not folder or not re.fullmatch(r"\w+", name) or name in METHODS or name in folders:
            raise UserError(
                f"attack.victims: {entry!r}: write name=folder, with a name of letters, digits and _ "
                f"that stands once and is no method's"
            )
        folders[name] = Path(folder)
    return folders
