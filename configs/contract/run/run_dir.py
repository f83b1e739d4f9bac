"""Layout of `runs/<experiment>/`: every path that a stage reads or writes.

    runs/<experiment>/
      config.yaml                      the experiment as it ran
      choice.json                      which ticket is reported, and what it was chosen from
      data/                            train.jsonl dev.jsonl test.jsonl summary.json
      seed-1/finetune/                 model/ metrics.jsonl; freelb/ infobert/ freelb-epochs-10/ likewise
      seed-1/search/                   log_alpha/epoch-01.safetensors ... metrics.jsonl
      seed-1/lth/                      rounds of magnitude pruning
      seed-1/tickets/<model>/          ticket.safetensors report.json
      seed-1/<model>/                  model/ metrics.jsonl; <model> is robust-0.30, lth-0.30 ...
      seed-1/choice/<model>/           attacks on dev, by which the ticket is chosen
      seed-1/attacks/<model>/clean/    manifest.json (accuracy on the whole test set)
      seed-1/attacks/<model>/<recipe>/ results.jsonl, or missing.json with the reason
      seed-1/attacks-calibrated/       the same with attack.calibrate, so that both can be compared
      report/                          report.md report.html results.json results.csv figures/
      .receipts/                       what lets finished stages be skipped: `configs.contract.run.receipts`

Stages and their manifests: `configs.contract.run.stage`. Lock files name the process that works in the run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import ROOT, atomic_write, locked, read_json, sweep
from configs.contract.experiment import schema
from configs.contract.experiment.check_config import named_folders
from configs.contract.experiment.methods import METHODS
from configs.contract.experiment.model_id import ModelId, sparsity_name
from configs.contract.experiment.read_values import yaml_text
from configs.contract.run.run_files import StatedChoice, Summary

RUNS = ROOT / "runs"


class RunDir:
    """Paths of one experiment.

    Args:
        config: The experiment.
        runs: Folder that holds the run directories.
    """

    def __init__(self, config: schema.Experiment, runs: Path = RUNS) -> None:
        self.root = Path(runs) / config.name
        self.config = config

    @property
    def data(self) -> Path:
        """Folder of the prepared splits."""
        return self.root / "data"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.root / "report"

    def split(self, name: str) -> Path:
        """File of the split `train`, `dev` or `test`."""
        return self.data / f"{name}.jsonl"

    def summary(self) -> Summary:
        """Read what `prepare` states about the data.

        Raises:
            UserError: The summary is missing or damaged.
        """
        return read_json(self.data / "summary.json", Summary, f"delete {self.data} and run prepare again")

    def seed(self, seed: int) -> Path:
        """Directory of one seed."""
        return self.root / f"seed-{seed}"

    def stage(self, seed: int, name: str) -> Path:
        """Directory of one training: `finetune`, `search`, `lth`, `robust-0.30` ..."""
        return self.seed(seed) / name

    def model(self, seed: int, name: str) -> Path:
        """Hugging Face directory of a trained model."""
        return self.stage(seed, name) / "model"

    def log_alpha(self, seed: int, epoch: int, search: str = "search") -> Path:
        """Scores at the end of one epoch, counted from 1, of a search."""
        return self.stage(seed, search) / "log_alpha" / f"epoch-{epoch:02d}.safetensors"

    def ticket(self, seed: int, model: str) -> Path:
        """Ticket of the model of that name, the same at every length of its training and for every snapshot."""
        ticket = replace(ModelId.parse(model), epochs=None, snapshot=None)
        return self.seed(seed) / "tickets" / str(ticket) / "ticket.safetensors"

    def given_ticket(self, seed: int, sparsity: float) -> Path:
        """File of a given ticket: `tickets_from`, or that experiment's robust ticket of the same seed.

        Raises:
            UserError: The experiment has no such ticket, is of another pre-trained model, or is this one.
        """
        path = self._ticket_of(seed, sparsity)
        if path.resolve().is_relative_to(self.root.resolve()):  # to make it again would delete it
            raise UserError(f"tickets_from: {path} is a ticket of this run itself; give the new run another name=...")
        return path

    def _ticket_of(self, seed: int, sparsity: float) -> Path:
        name = str(self.config.tickets_from)
        if Path(name).is_file():
            return Path(name)
        folder = self.root.parent / name
        if not (folder / "config.yaml").is_file():
            raise UserError(
                f"tickets_from: {name} is neither a file nor an experiment that has run under {folder.parent}"
            )
        source = RunDir(schema.load(str(folder / "config.yaml")), folder.parent)
        for key in ("model", "layers"):
            theirs, ours = getattr(source.config, key), getattr(self.config, key)
            if theirs != ours:
                raise UserError(
                    f"tickets_from: {name} has {key}={theirs}, not {ours}: its tickets are of another model"
                )
        chosen = source.likely_choice()
        ticket = chosen if chosen.sparsity == sparsity else ModelId("robust", sparsity)
        path = source.ticket(seed, str(ticket))
        if not path.is_file():
            raise UserError(f"tickets_from: {path} is missing; run {name} with seed {seed} and sparsity {sparsity:g}")
        return path

    def pruned(self, seed: int, source: str, sparsity: float) -> Path:
        """Ticket of one sparsity that a pruning leaves: `lth/ticket-0.30.safetensors`."""
        return self.stage(seed, source) / f"ticket-{sparsity_name(sparsity)}.safetensors"

    @property
    def choice(self) -> Path:
        """File that states which candidate is reported."""
        return self.root / "choice.json"

    def chosen(self) -> ModelId:
        """Return the candidate that `torch_eval choose` chose.

        Raises:
            UserError: It has not run, or chose a ticket that this experiment no longer asks for.
        """
        candidate = self._stated_choice()
        if not candidate:
            raise UserError(f"{self.choice}: states none of this experiment's tickets; delete it and run choose again")
        return candidate

    def likely_choice(self) -> ModelId:
        """Return the chosen candidate, or the first one if none of those requested now is chosen."""
        return (self.choice.is_file() and self._stated_choice()) or self.candidates()[0]

    def _stated_choice(self) -> ModelId | None:
        stated = read_json(self.choice, StatedChoice).chosen.model
        return next((candidate for candidate in self.candidates() if str(candidate) == stated), None)

    def candidates(self) -> list[ModelId]:
        """Return the robust tickets to choose from: the last search epochs at every requested sparsity."""
        return [
            ModelId("robust", sparsity, back)
            for sparsity in self.config.sparsities
            for back in range(self.config.choice.epochs)
        ]

    def at_all_lengths(self, models: Sequence[ModelId]) -> list[ModelId]:
        """Return every model with its name at each of `lengths`; the first length has no name of its own."""
        lengths = [None, *(self.config.lengths or [])[1:]]
        return [replace(model, epochs=epochs) for model in models for epochs in lengths]

    def models(self, chosen: ModelId | None = None) -> dict[str, str]:
        """Map every model of one seed that is attacked to its method, in the order of `methods`.

        Of robust candidates that differ by the search epoch only, the chosen one stands for its sparsity. Controls
        have the chosen sparsity; without a choice, the first requested one.
        """
        chosen, models = chosen or self.candidates()[0], list[ModelId]()
        for method in self.config.methods:
            if METHODS[method].kind == "dense":
                models.append(ModelId(method))
            elif METHODS[method].kind == "control":
                models.append(ModelId(method, chosen.sparsity))
            else:
                for sparsity in self.config.sparsities:
                    here = method == "robust" and sparsity == chosen.sparsity
                    models.append(chosen if here else ModelId(method, sparsity))
        return {str(model): model.method for model in self.at_all_lengths(models)}

    def victims(self, seed: int, planned: bool = False) -> dict[str, Path]:
        """Map the name of everything that is attacked to its Hugging Face directory, the user's own models last.

        Args:
            seed: The seed.
            planned: Count what training will write too: snapshots have made-up names until they are there.
        """
        chosen = self.likely_choice() if planned else self.chosen() if self.choice.is_file() else None
        victims = {name: self.model(seed, name) for name in self.models(chosen)}
        snapshots = {str(copy): path for name in victims for copy, path in self.snapshots(seed, name, planned).items()}
        return {**victims, **snapshots, **(self.own_victims() if seed == self.config.seeds[0] else {})}

    def all_victims(self) -> list[tuple[int, str, Path]]:
        """Return seed, name and Hugging Face directory of everything that is attacked."""
        return [(seed, name, path) for seed in self.config.seeds for name, path in self.victims(seed).items()]

    def own_victims(self) -> dict[str, Path]:
        """Map the names in `attack.victims` to Hugging Face directories.

        They have no seed; their results lie in the folder of the first one.
        """
        return named_folders(self.config.attack.victims or [])

    def snapshots(self, seed: int, name: str, planned: bool = False) -> dict[ModelId, Path]:
        """Return the copies of a model that its training wrote on the way, such as `snapshots/000120`, by step."""
        folder = self.stage(seed, name) / "snapshots"
        paths = sorted(folder.glob("[0-9]*/config.json"))
        if planned and not paths and METHODS[ModelId.parse(name).method].snapshots:
            paths = [folder / str(number) / "config.json" for number in range(1, self.config.snapshots)]
        return {replace(ModelId.parse(name), snapshot=int(path.parent.name)): path.parent for path in paths}

    def attacks(self, seed: int, calibrated: bool | None = None) -> Path:
        """Directory of the attacks of one seed, with fitted temperatures or without; the default is `calibrate`."""
        calibrated = self.config.attack.calibrate if calibrated is None else calibrated
        return self.seed(seed) / ("attacks-calibrated" if calibrated else "attacks")

    def attack(self, seed: int, model: str) -> Path:
        """Directory of one victim's results: `clean/` and one folder for each recipe."""
        return self.attacks(seed) / model

    def choice_attack(self, seed: int, candidate: str) -> Path:
        """Directory of the attack on dev by which a candidate is judged."""
        return self.seed(seed) / "choice" / candidate

    def save_config(self) -> None:
        """Write the whole configuration to `config.yaml`."""
        atomic_write(self.root / "config.yaml", yaml_text(asdict(self.config)))


@contextlib.contextmanager
def only_one(run: RunDir) -> Iterator[IO]:
    """Hold the lock of a run's training, and remove the files that killed processes left half written.

    Yields:
        The open lock file.
    """
    with locked(run.root / ".lock") as lock:
        sweep(run.root)
        yield lock
