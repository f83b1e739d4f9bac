"""Checks that involve several keys of a configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import with_home
from configs.contract.experiment.methods import METHODS
from configs.contract.experiment.read_values import quoted
from configs.contract.inputs import classifiers
from configs.contract.inputs.tasks import TASKS, task_of


def check_together(config: Any, origins: Mapping[str, str], complete: bool = True) -> None:
    """Check the keys that depend on each other, write out `methods: all`, and let `lengths` set the epochs.

    Args:
        config: The experiment, whose keys are valid each by itself.
        origins: Where each key was set.
        complete: Whether the section `data` states all that the task needs, as in `schema.load`.

    Raises:
        UserError: Keys contradict each other. The message names one, and what to change.
    """
    if config.task not in TASKS:
        where = origins.get("task", "the defaults")
        raise UserError(f"task in {where}: {config.task!r} is not one of {', '.join(TASKS)}")
    if complete:
        task_of(config)
    if "all" in config.methods:
        config.methods = [name for name in METHODS if config.tickets_from or name != "transferred"]
    named_folders(config.attack.victims or [])
    _refuse_contradictions(config)
    _apply_lengths(config)
    _check_names(config, origins)


def _refuse_contradictions(config: Any) -> None:
    """Refuse keys that cannot both hold."""
    attack, choice, search = config.attack, config.choice, config.search
    if attack.calibrate and not config.dev_is_unseen:
        raise UserError(
            "attack.calibrate: compat=official trains on dev, so dev cannot fit a temperature; change one of the two"
        )
    if "transferred" in config.methods and not config.tickets_from:
        raise UserError("tickets_from: name the experiment or file of the tickets that are transferred")
    if config.given_method == "robust" and choice.epochs > 1:
        raise UserError("choice.epochs: tickets_from gives the ticket, so there is no choice of a search epoch; set 1")
    if attack.stratified and attack.protocol == "official":
        raise UserError("attack.stratified: attack.protocol=official attacks the first sentences; unset one of the two")
    if config.infobert.anchor_low >= config.infobert.anchor_high:
        raise UserError("infobert.anchor_low must be below infobert.anchor_high")
    if search.keep_epochs and search.keep_epochs < choice.epochs:
        raise UserError(f"search.keep_epochs: below choice.epochs, {choice.epochs}, whose scores are needed")
    if choice.epochs > search.epochs:
        raise UserError(
            f"choice.epochs: {choice.epochs} search epochs to choose from; there are only "
            f"search.epochs, {search.epochs}"
        )
    if config.device == "GPU" and config.amp == "bfloat16":
        raise UserError("amp_dtype: MindSpore has no bfloat16 matrix products on GPU; set amp_dtype=float16")
    if config.workers % config.nodes or config.node_rank >= config.nodes:
        raise UserError("workers must be a multiple of nodes, and node_rank below nodes")
    if config.nodes > 1 and not config.master_port:
        raise UserError("master_port: name a port of machine 0 that is free, the same on all nodes")


def _apply_lengths(config: Any) -> None:
    """Make the first of `lengths` the number of epochs of each section that trains an attacked model."""
    for section in (getattr(config, METHODS[name].section) for name in config.methods if config.lengths):
        section.epochs = config.lengths[0]
        if section.max_steps:
            raise UserError("lengths: max_steps of a section would end all lengths alike; unset one of the two")


def _check_names(config: Any, origins: Mapping[str, str]) -> None:
    """Refuse values that cannot name a folder, or that would share one."""
    part, _, parts = (config.attack.shard or "1/1").partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        where = f"attack.shard in {origins.get('attack.shard')}"
        raise UserError(f"{where}: write i/n, such as 1/4 for the first of four parts, not {config.attack.shard!r:.80}")
    for sparsity in config.sparsities:
        if float(f"{sparsity:g}") != sparsity:
            raise UserError(f"sparsities in {origins['sparsities']}: {sparsity} has more than six digits; round it")
    if not config.name.isprintable() or config.name[:1] in ("", ".") or set(config.name) & set("/\\:"):
        raise UserError(f"name in {origins['name']}: {quoted(config.name)} cannot be a folder name")
    for key in ("seeds", "sparsities", "methods", "lengths", "attack.recipes"):
        section, _, name = key.rpartition(".")
        items = getattr(getattr(config, section) if section else config, name) or []
        if len(set(items)) != len(items):
            raise UserError(f"{key} in {origins.get(key)}: a value appears twice in {items}")


def named_folders(entries: Sequence[str]) -> dict[str, Path]:
    """Return the folders in `attack.victims` by name.

    Raises:
        UserError: An entry is not `name=folder`, or its name is a method's or appears twice.
    """
    folders = {}
    for entry in entries:
        name, _, folder = entry.partition("=")
        if not folder or not re.fullmatch(r"\w+", name) or name in METHODS or name in folders:
            raise UserError(
                f"attack.victims: {entry!r}: write name=folder, with a name of letters, digits and _ "
                f"that appears once and is no method's"
            )
        folders[name] = with_home(folder)
    return folders


def refuse_missing(config: Any) -> None:
    """Refuse an experiment that names files of the user that do not exist.

    Raises:
        UserError: One is missing, or a folder of `attack.victims` is no classifier; with the key.
    """
    files = {f"data.{key}": getattr(config.data, key) for key in ("train", "dev", "test")}
    if is_path(config.model):
        files["model"] = config.model
    if config.attack.resources == "original":
        files["attack.resources_dir"] = config.attack.resources_dir
        if not config.attack.resources_dir:
            raise UserError(
                "attack.resources_dir: unset, and attack.resources=original needs it; name the folder, or set "
                "attack.resources=packaged"
            )
    for key, file in files.items():
        if file and not Path(file).exists():
            remedy = (
                "download it, and give the path to it" if "://" in file else f"relative paths begin at {Path.cwd()}"
            )
            raise UserError(f"{key}: no file or folder {file}; {remedy}")
    for name, folder in named_folders(config.attack.victims or []).items():
        try:
            classifiers.read_config(folder)
        except UserError as error:
            raise UserError(f"attack.victims: {name}: {error}") from None


def is_path(model: str) -> bool:
    """Tell whether `model` can only be a path or an address, and no name on the hub, such as owner/name@revision."""
    return Path(model).is_absolute() or model.startswith(".") or model.partition("@")[0].count("/") > 1
