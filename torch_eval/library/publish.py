"""Models and tickets of an experiment on the Hugging Face hub: one repository each, its card with what was measured."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import atomic_write, read_json, write_json
from configs.contract.basics.processes import run_module
from configs.contract.experiment.model_id import ModelId
from configs.contract.inputs import hub
from configs.contract.run import model_card
from configs.contract.run.model_card import Result
from configs.contract.run.run_dir import RunDir
from configs.contract.run.stage import changed_inputs
from torch_eval.attack.records import source_of
from torch_eval.attack.victims import check_files
from torch_eval.library.hub import ONLINE


def publish(run_dir: RunDir, prefix: str, public: bool = False) -> list[str]:
    """Upload every trained model of an experiment; returns the names of the repositories.

    Args:
        run_dir: Run directory of the experiment. Attacks that are not finished, or were made on what a model
            was before, are left out of the card.
        prefix: OWNER/NAME; each repository is called OWNER/NAME-MODEL-seed-SEED.
        public: Whether anybody may see repositories that are made now.

    Raises:
        UserError: No model is there, or the hub refuses one.
    """
    if not hub.NAME.fullmatch(prefix) or "/" not in prefix or "@" in prefix:
        raise UserError(f"--to {prefix}: write OWNER/NAME, of letters, digits, -, _ and .")
    done: list[str] = []
    for seed, name, model in run_dir.all_victims():
        if name in run_dir.own_victims() or not (model / "config.json").is_file():
            continue
        check_files(run_dir, name, model, run_dir.summary().labels)
        repository = f"{prefix}-{name.replace('@', '-step-')}-seed-{seed}"
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            collect(run_dir, seed, name, model, folder)
            upload(folder, repository, public)
        print(f"{name}, seed {seed}: https://huggingface.co/{repository}", flush=True)
        done.append(repository)
    if not done:
        raise UserError(f"{run_dir.root}: no trained model to publish; run the experiment first")
    return done


def collect(run_dir: RunDir, seed: int, name: str, model: Path, folder: Path) -> None:
    """Put together what a repository holds: the model, its ticket, the figures of its attacks, and the card."""
    shutil.copytree(model, folder)
    ticket = run_dir.ticket(seed, name)
    if ticket.is_file():
        shutil.copyfile(ticket, folder / ticket.name)
    files = run_dir.attack(seed, name).glob("*/manifest.json")
    manifests: dict[str, dict] = {path.parent.name: read_json(path) for path in files}
    manifests.pop("calibration", None)
    inputs = {"model": model, "test": run_dir.split("test")}
    for recipe, manifest in sorted(manifests.items()):
        if changed := changed_inputs(manifest["inputs"], inputs):
            print(f"{name}, seed {seed}: {recipe} is left out; {changed[0]}; run the attacks again to publish it")
            del manifests[recipe]
    if manifests:
        write_json(folder / "robustness.json", manifests)
    labels = run_dir.summary().labels
    text = model_card.card(run_dir.config, ModelId.parse(name), seed, labels, card_results(manifests))
    atomic_write(folder / model_card.FILE, text)


def card_results(manifests: dict[str, dict]) -> list[Result]:
    """Return the figures for a card from the manifests of a model's attacks."""
    results = []
    if "clean" in manifests:
        clean = manifests["clean"]["results"]
        results.append(Result("Clean", clean["accuracy"], None, None, clean["n"]))
    for recipe in sorted(set(manifests) - {"clean"}):
        settings, figures = manifests[recipe]["settings"], manifests[recipe]["results"]
        source = source_of(settings["resources"])
        for figure in ("clean", "aua"):
            value = figures[figure]["value"]
            results.append(Result(figure.capitalize(), value, recipe, source, figures["examples"]))
    return results


def upload(folder: Path, repository: str, public: bool) -> None:
    """Upload a folder, in a process that may use the network.

    Raises:
        UserError: The hub refuses it, or cannot be reached.
    """
    try:
        run_module(hub.CLIENT, ["upload", str(folder), repository, str(public)], ONLINE)
    except UserError as error:
        raise UserError(
            f"{repository}: not uploaded ({str(error)[:300]}); log in with "
            f"`huggingface-cli login` or set HF_TOKEN to a token that may write, then run the same command again"
        ) from None
