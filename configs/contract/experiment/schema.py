"""The configuration of an experiment: a tree of dataclasses, read from YAML files and `key=value` overrides.

The defaults are the paper's (Tables 5 and 6, sections 3 and 4). Every field states its help text and its limits.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from configs.contract.basics.errors import UserError
from configs.contract.experiment.check_config import check_together
from configs.contract.experiment.methods import METHODS, with_snapshots
from configs.contract.experiment.read_values import Values, checked, find
from configs.contract.experiment.sections import LARGEST_SEED, Attack, Choice, Data, default, option

OFFICIAL_LENGTH = 512  # of attacked texts, under attack.protocol=official


@dataclass
class Updates:
    """The updates of any training: how many, of how many sentences, and how large (Table 5)."""

    epochs: int = option(3, "passes over the training set", low=1)
    max_steps: int | None = option(None, "largest number of steps; unset: no limit", low=1)
    batch_size: int = option(32, "sentences in a step", low=1)
    learning_rate: float = option(2e-5, "peak learning rate of AdamW", low=0.0)
    weight_decay: float = option(0.01, "decoupled weight decay; none on biases and LayerNorm", low=0.0)
    warmup: float = option(
        0.1, "share of steps in which the learning rate rises (above 1: number of steps); then it falls to 0", low=0.0
    )
    clip_norm: float = option(1.0, "largest global norm of the gradient; 0: no clipping", low=0.0)
    dropout: float = option(0.1, "dropout of hidden states and attention", low=0.0, high=0.9)


@dataclass
class Training(Updates):
    """Fine-tuning and retraining (Table 5)."""

    attention_dropout: float | None = option(None, "dropout of attention; unset: as dropout", low=0.0, high=0.9)


@dataclass
class Adversary:
    """Perturbs the word embeddings: K passes, K - 1 ascents between them, then one update with the mean gradient."""

    ascent_steps: int = option(5, "K: forward-backward passes of one step", low=1)
    ascent_rate: float = option(0.03, "eta: length of one ascent step on the embeddings", low=0.0)
    initial_norm: float = option(0.05, "eps0: size of the random start of the perturbation", low=0.0)
    max_norm: float = option(0.0, "bound on the perturbation of a sentence; 0: none", low=0.0)


@dataclass
class AdversarialTraining(Adversary, Training):
    """FreeLB (Zhu et al. 2020)."""


@dataclass
class InfoBertTraining(AdversarialTraining):
    """InfoBERT (Wang et al. 2021): FreeLB with two regularisers on the information in the embeddings."""

    weight_decay: float = default(Training, "weight_decay", 1e-5)
    warmup: float = default(Training, "warmup", 1000.0)
    attention_dropout: float | None = default(Training, "attention_dropout", 0.0)
    ascent_steps: int = default(Adversary, "ascent_steps", 3)
    ascent_rate: float = default(Adversary, "ascent_rate", 0.04)
    initial_norm: float = default(Adversary, "initial_norm", 0.08)
    anchor_weight: float = option(5e-3, "alpha: weight of the anchored-feature regulariser", low=0.0)
    bottleneck_weight: float = option(5e-3, "beta: weight of the information-bottleneck regulariser", low=0.0)
    anchor_low: float = option(
        0.5, "lower end of the ranks of anchored tokens, as a share; ranked by gradient norm", low=0.0, high=1.0
    )
    anchor_high: float = option(0.9, "upper end of these ranks", low=0.0, high=1.0)


@dataclass
class Pruning(Training):
    """Iterative magnitude pruning (LTH for BERT, Chen et al. 2020): the training of one round."""

    weight_decay: float = default(Training, "weight_decay", 0.0)
    warmup: float = default(Training, "warmup", 0.0)
    share: float = option(0.1, "share of the original weights that one round prunes", low=0.01, high=1.0)


@dataclass
class AdversarialPruning(AdversarialTraining):
    """Iterative magnitude pruning under the adversarial objective (w/o Mask Learning of Table 3)."""

    share: float = default(Pruning, "share", 0.1)


@dataclass
class MaskSearch(Adversary, Updates):
    """Learning the masks (section 3.2; Table 6)."""

    epochs: int = default(Updates, "epochs", 20)
    learning_rate: float = option(0.1, "peak learning rate of AdamW on the masks", low=0.0)
    weight_decay: float = option(1e-6, "decoupled weight decay of log alpha", low=0.0)
    clip_norm: float = option(1.0, "largest global norm of the masks' adversarial gradient; 0: no clipping", low=0.0)
    ascent_steps: int = option(5, "K: forward-backward passes of one step (s in Table 6)", low=1)
    max_norm: float = option(0.0, "bound on the perturbation of a sentence; 0: none, as in appendix B.3", low=0.0)
    l0_weight: float = option(0.5, "lambda: weight of the L0 penalty", low=0.0)
    l0_start: float = option(0.1, "share of steps before the penalty starts", low=0.0, high=1.0)
    l0_ramp: float = option(0.3, "share of steps in which lambda then grows linearly", low=0.0, high=1.0)
    mask_p: float = option(0.9, "value of every deterministic mask (Eq. 5) at the start", low=0.01, high=0.99)
    granularity: str = option(
        "weight",
        "what shares one score: a weight alone, or a column or matrix of weights as in the official code",
        choices=["weight", "neuron", "matrix"],
    )
    keep_epochs: int | None = option(None, "number of last epochs whose scores are kept, at least 2; unset: all", low=1)
    stop_distance: float = option(
        0.0,
        "stop when the ticket of the first sparsity changes by less than this share of its mask in an epoch; 0: never",
        low=0.0,
        high=1.0,
    )

    @property
    def kept_epochs(self) -> int:
        """Number of last epochs whose scores are kept; at least two: each epoch is compared with the one before."""
        return min(self.epochs, max(2, self.keep_epochs or self.epochs))


@dataclass
class Experiment:
    """One experiment: a task, a model, and the methods that are compared."""

    name: str = option("experiment", "name of the folder under runs/ that holds all results")
    task: str = option("sst2", "a task of configs/contract/inputs/tasks.py, such as imdb; custom for data of your own")
    model: str = option(
        "bert-base-uncased", "pre-trained model: a hub name, a Hugging Face directory, or packaged (MiniLM)"
    )
    layers: int | None = option(None, "how many of the model's layers are used, from the first; unset: all", low=1)
    seeds: list[int] = option([1], "seeds; everything is trained once for each", low=0, high=LARGEST_SEED)
    sparsities: list[float] = option([0.3], "shares of pruned weights", low=0.01, high=0.99)
    methods: list[str] = option(["finetune", "robust"], "methods that are compared, or all", choices=[*METHODS, "all"])
    lengths: list[int] | None = option(
        None,
        "numbers of epochs: every method is trained once for each, with a schedule of its own; the first replaces "
        "the epochs of the methods' sections; unset: those of the sections",
        low=1,
    )
    tickets_from: str | None = option(
        None, "experiment or file that gives the tickets of transferred, or else of robust"
    )
    structured: bool = option(False, "prune whole attention heads and intermediate neurons, and write a smaller model")
    compat: str = option("paper", "what training follows where paper and code differ", choices=["paper", "official"])
    device: str = option("CPU", "device on which MindSpore trains", choices=["CPU", "GPU", "Ascend"])
    workers: int = option(1, "number of processes of data-parallel training, one device each", low=1)
    nodes: int = option(1, "number of machines, each with the same number of workers; see docs/scale.md", low=1)
    node_rank: int = option(0, "number of this machine, from 0", low=0)
    master_addr: str = option("127.0.0.1", "name or address of machine 0, where the workers meet")
    master_port: int | None = option(None, "first port of machine 0; unset: any free one", low=1024, high=65000)
    jit_level: str = option("O0", "O1: let MindSpore fuse the operators of its graphs", choices=["O0", "O1"])
    amp_level: str = option("O0", "O1: matrix products in amp_dtype, everything else in float32", choices=["O0", "O1"])
    amp_dtype: str | None = option(
        None, "number type of amp_level=O1; unset: bfloat16 on Ascend, else float16", choices=["bfloat16", "float16"]
    )
    device_id: int | None = option(None, "number of the device, or of the first worker's here; unset: the first", low=0)
    device_memory: float | None = option(None, "largest memory of the device that MindSpore takes, in GB", low=0.1)
    deterministic: bool = option(False, "compute in a fixed order on a device: a run repeats to the byte, but slower")
    tf32: bool = option(False, "round the inputs of float32 products on a device (TF32 on GPU, HF32 on Ascend)")
    profile_steps: int = option(0, "number of steps of each training that MindSpore's profiler records", low=0)
    on_change: str = option(
        "refuse",
        "if results have other settings, inputs or code: stop, or delete and redo them and all that depends on them",
        choices=["refuse", "redo"],
    )
    checkpoint_steps: int = option(200, "steps between two checkpoints", low=1)
    checkpoint_minutes: float | None = option(None, "minutes between checkpoints; unset: checkpoint_steps", low=0.01)
    log_steps: int = option(20, "steps between two lines of metrics", low=1)
    snapshots: int = option(
        0, f"equal parts of the training of {', '.join(with_snapshots())}, each followed by attacks (Figure 4)", low=0
    )
    data: Data = field(default_factory=Data)
    finetune: Training = field(default_factory=Training)
    freelb: AdversarialTraining = field(default_factory=AdversarialTraining)
    infobert: InfoBertTraining = field(default_factory=InfoBertTraining)
    lth: Pruning = field(default_factory=Pruning)
    search: MaskSearch = field(default_factory=MaskSearch)
    adversarial_pruning: AdversarialPruning = field(default_factory=AdversarialPruning)
    retrain: Training = field(default_factory=Training)
    choice: Choice = field(default_factory=Choice)
    attack: Attack = field(default_factory=Attack)

    @property
    def amp(self) -> str | None:
        """Number type of the matrix products; None for float32."""
        if self.amp_level == "O0":
            return None
        return self.amp_dtype or ("bfloat16" if self.device == "Ascend" else "float16")

    @property
    def attack_length(self) -> int:
        """Word pieces to which attacked texts are cut; the official code pads and cuts to 512."""
        return OFFICIAL_LENGTH if self.attack.protocol == "official" else self.data.max_length

    @property
    def given_method(self) -> str | None:
        """Method whose tickets `tickets_from` gives; None if all tickets are searched for."""
        return ("transferred" if "transferred" in self.methods else "robust") if self.tickets_from else None

    @property
    def dev_is_unseen(self) -> bool:
        """Whether training leaves dev out; under `compat: official` it does not."""
        return self.compat == "paper"

    @property
    def choice_split(self) -> str:
        """Name of the split on which the ticket is chosen."""
        return "choice" if self.choice.split == "test_half" else "dev"

    @property
    def chooses(self) -> bool:
        """Whether training leaves the split of the choice out; otherwise the first candidate is chosen."""
        return self.dev_is_unseen or self.choice.split == "test_half"


# Defaults under `compat: official`. Its other differences are decided where they are computed.
OFFICIAL = {"retrain.epochs": 10, "finetune.clip_norm": 0.0, "retrain.clip_norm": 0.0}


def load(source: str, overrides: Sequence[str] = (), *, complete: bool = True) -> Experiment:
    """Read an experiment.

    Args:
        source: Name of a file in `configs/` (`demo`, `sst2`), or path to a YAML file.
        overrides: `key=value` texts. Keys are dotted, values are YAML.
        complete: Whether the section `data` states all that the task needs; if not, it is not compared with the task.

    Raises:
        UserError: A key or value is wrong. The message names the key, where it was set, and what is allowed.
    """
    values, path = Values(keys()), find(source)
    values.read_file(path)
    if path.name == "config.yaml" and (path.parent / "data" / "summary.json").is_file():
        folder = path.absolute().parent  # of a run, which may have been renamed or copied
        values.values["name"], values.origins["name"] = folder.name, str(folder)
    for text in overrides:
        values.read_override(text)
    return _build(values.values, values.origins, complete)


def keys(cls: type = Experiment, prefix: str = "") -> dict[str, tuple[dataclasses.Field, Any]]:
    """Return every dotted key with its field and type."""
    hints, fields = typing.get_type_hints(cls), {}
    for f in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[f.name]):
            fields.update(keys(hints[f.name], f"{prefix}{f.name}."))
        else:
            fields[f"{prefix}{f.name}"] = (f, hints[f.name])
    return fields


def _build(values: dict[str, Any], origins: dict[str, str], complete: bool) -> Experiment:
    known = keys()
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, 3, 0.5)
            allowed = ", ".join(near) if near else ", ".join(sorted({k.partition(".")[0] for k in known}))
            raise UserError(f"{name} in {origins[name]}: unknown key; did you mean {allowed}?")
    for name, value in values.items():
        f, hint = known[name]
        values[name] = checked(f"{name} in {origins[name]}", value, hint, f.metadata)
    if values.get("compat") == "official":
        values = {**OFFICIAL, **values}
    config = Experiment()
    for name, value in values.items():
        section, _, key = name.rpartition(".")
        setattr(getattr(config, section) if section else config, key, value)
    check_together(config, origins, complete)
    return config
