"""The two PyTorch sides of the comparison: a checkout of the official repository, and our restatement of it.

Both run unchanged. The torch functions that both call (`uniform_`, `clip_grad_norm_`, AdamW's `step`) are replaced in
memory: they hand out the given noise and record what passes through them.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BertConfig

from configs.contract.basics.files import read_json
from torch_eval.reference import restatement
from torch_eval.reference.official_checkout import Checkout, TorchBatch

SCORES = ("scores", "grown", "shared")
Rows = Iterator[tuple[str, dict[str, Tensor]]]
FLAGS = {  # setting to the official name
    "learning_rate": "lr",
    "weight_decay": "weight_decay",
    "warmup": "warmup_ratio",
    "clip_norm": "max_grad_norm",
    "ascent_steps": "adv_steps",
    "ascent_rate": "adv_lr",
    "initial_norm": "adv_init_mag",
    "l0_weight": "lambda_amp",
    "l0_start": "lambda_startup_frac",
    "l0_ramp": "lambda_warmup_frac",
}
SHIMS = (
    "transformers.AdamW, dropped by today's transformers: restatement.AdamW in its place",
    "eager attention in the model's configuration, without which 37 of 73 matrices get a mask",
    "the module `datasets` and the data loader: the batches of the case are handed in",
    "tqdm silent, log level ERROR, checkpoints into a temporary folder",
    "Tensor.uniform_ hands out the given noise; requires_grad_, clip_grad_norm_, AdamW.step are watched",
)


class ParityCase:
    """What all implementations are given, and the noise that the MindSpore half drew.

    Args:
        folder: Files of `parity_case.write_case`.
        noise: Results of the MindSpore half.
    """

    def __init__(self, folder: Path, noise: Path) -> None:
        self.folder, self.noise = folder, noise
        self.settings: dict[str, Any] = read_json(folder / "case.json")
        self.weights = load_file(folder / "model.safetensors")
        self.scores, self.grown, self.shared = (load_file(folder / f"{n}.safetensors") for n in SCORES)
        self.masks = {name: m.bool() for name, m in load_file(folder / "ticket.safetensors").items()}
        arrays = load_file(folder / "batches.safetensors")
        names = ("input_ids", "attention_mask", "token_type_ids")
        self.batches = [({n: arrays[n][i] for n in names}, labels) for i, labels in enumerate(arrays["labels"])]

    def moved(self, seed: int) -> ParityCase:
        """Return the same case with every weight moved up or down by up to one rounding of float32."""
        random, other = torch.Generator().manual_seed(seed), copy.copy(self)
        other.weights = {
            n: w * (1 + (torch.rand(w.shape, generator=random, dtype=torch.float64) * 2 - 1) * 2**-23)
            for n, w in self.weights.items()
        }
        other.weights = {n: w.float() for n, w in other.weights.items()}
        return other

    def config(self) -> BertConfig:
        """Return the shape of the model, without dropout."""
        values: dict[str, Any] = read_json(self.folder / "config.json")
        return BertConfig(
            **{
                **values,
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
                "classifier_dropout": None,
                "num_labels": len(self.weights["classifier.bias"]),
            }
        )

    @functools.lru_cache(maxsize=2)  # noqa: B019 - lives as long as one comparison
    def gates(self, step: int, ascent: int) -> dict[str, Tensor]:
        """Return the uniform numbers of every mask in one pass of one search step, by the name of the weight."""
        return load_file(self.noise / f"noise-{step}-{ascent}.safetensors")

    def start(self, step: int) -> Tensor:
        """Return the start of the perturbation of one search step, (batch, length, hidden) in [-1, 1]."""
        return load_file(self.noise / f"noise-{step}.safetensors")["start"]


class Watch:
    """Records what a search passes through torch's functions.

    Args:
        scores: The scores that are searched, by the name of the weight.

    Attributes:
        deltas: The perturbations of the first step, from its start on.
        norms: The gradient norm at every clip.
        rates: The learning rate of every update.
        scores_after: Copies of the scores after chosen updates.
        gradient: The scores' gradients before the first clip.
        clipped: The same after it.
    """

    def __init__(self, scores: dict[str, Tensor]) -> None:
        self.scores = scores
        self.deltas: list[Tensor] = []
        self.norms: list[float] = []
        self.rates: list[float] = []
        self.scores_after: dict[int, dict[str, Tensor]] = {}
        self.gradient: dict[str, Tensor] = {}
        self.clipped: dict[str, Tensor] = {}

    @contextlib.contextmanager
    def __call__(self, at: tuple[int, ...]) -> Iterator[Watch]:
        """Record while the context lasts, and copy the scores after the updates numbered `at`."""
        clip, step, require = torch.nn.utils.clip_grad_norm_, restatement.AdamW.step, Tensor.requires_grad_

        def watched_clip(*arguments: Any, **options: Any) -> None:
            first = not self.norms
            if first:
                self.gradient = self._gradients()
            self.norms.append(float(clip(*arguments, **options)))
            if first:
                self.clipped = self._gradients()

        def watched_step(optimizer: restatement.AdamW) -> None:
            self.rates.append(optimizer.param_groups[0]["lr"])
            step(optimizer)
            if len(self.rates) in at:
                self.scores_after[len(self.rates)] = {name: p.detach().clone() for name, p in self.scores.items()}

        def watched_require(tensor: Tensor, *arguments: Any) -> Tensor:
            if tensor.ndim == 3 and not self.norms:  # the perturbation of the first step
                self.deltas.append(tensor.detach().clone())
            return require(tensor, *arguments)

        with (
            mock.patch.object(torch.nn.utils, "clip_grad_norm_", watched_clip),
            mock.patch.object(restatement.AdamW, "step", watched_step),
            mock.patch.object(Tensor, "requires_grad_", watched_require),
        ):
            yield self

    def _gradients(self) -> dict[str, Tensor]:
        return {name: p.grad.detach().clone() for name, p in self.scores.items()}


class Restated:
    """Our restatement. `Official` overrides the methods in which the two sides differ.

    Args:
        case: What is computed.
        dtype: Number type of weights and scores.
    """

    def __init__(self, case: ParityCase, dtype: torch.dtype) -> None:
        self.case, self.dtype = case, dtype

    def rows(self) -> Rows:
        """Yield every quantity that is compared: its file name, and its arrays by name."""
        case, settings = self.case, self.case.settings
        model = self.model(case.scores)
        yield "logits", {"logits": self.logits(model, case.batches[0])}
        yield "shared", {"logits": self.logits(self.model(case.shared, (model.config.hidden_size, 1)), case.batches[0])}
        yield "gates", self.sampled_gates(model)
        term = self.l0_term(model)
        term.backward()
        yield "l0_term", {"l0_term": term.detach().view(1)}
        yield "l0_gradient", {name: p.grad.clone() for name, p in self.log_alpha(model).items()}
        model.zero_grad()
        watch = Watch(self.log_alpha(model))
        with watch(at=(2, len(case.batches))):
            self.search(model)
        yield "start", {"start": watch.deltas[0]}
        yield from ((f"ascent_{k}", {"delta": delta}) for k, delta in enumerate(watch.deltas[1:], 1))
        yield "gradient", watch.gradient
        yield "clipped", watch.clipped
        yield from ((f"scores_{at}", scores) for at, scores in watch.scores_after.items())
        yield "norms", {"norms": torch.tensor(watch.norms, dtype=torch.float64)}
        for name, values in self.schedule().items():
            yield name, {name: torch.tensor(values, dtype=torch.float64)}
        for sparsity in settings["sparsities"]:
            masks = self.draw(sparsity)
            if masks:
                yield f"draw_{sparsity:.2f}", {name: mask.to(torch.uint8) for name, mask in masks.items()}
        model = self.model(case.scores)
        self.retrain(model)
        weights = {name: p.detach() for name, p in model.named_parameters() if name in case.weights}
        # A weight under a mask of 0 takes no part in the computation.
        yield "retrained", {n: w * case.masks[n].to(w) if n in case.masks else w for n, w in weights.items()}
        yield "retrained_logits", {"logits": self.logits(model, case.batches[-1])}

    def model(self, scores: dict[str, Tensor], block: tuple[int, int] = (1, 1)) -> nn.Module:
        """Return a masked model in training mode with these scores."""
        return self.filled(restatement.MaskedBert(self.case.config(), block=block), scores)

    def filled(self, model: nn.Module, scores: dict[str, Tensor]) -> nn.Module:
        """Load the case's weights and these scores into a masked model."""
        missing, unknown = model.load_state_dict(self.case.weights, strict=False)
        assert not unknown and len(missing) == len(scores), (missing, unknown)
        for name, parameter in self.log_alpha(model).items():
            parameter.data = scores[name].view_as(parameter).clone()
        return model.to(self.dtype)

    def log_alpha(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the scores by the name of the weight."""
        return model.log_alpha()

    def logits(self, model: nn.Module, batch: TorchBatch) -> Tensor:
        """Return the logits (batch, labels) under the deterministic masks."""
        with torch.no_grad():
            return model.eval()(**batch[0]).logits

    def sampled_gates(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the gates sampled with the noise of the first pass."""
        model.train().use_gates({name: u.to(self.dtype) for name, u in self.case.gates(0, 0).items()})
        return {name: layer.mask().detach() for name, layer in model.masked_layers().items()}

    def l0_term(self, model: nn.Module) -> Tensor:
        """Return the L0 term of a model's scores."""
        return restatement.l0_term(model.log_alpha().values())

    def search(self, model: nn.Module) -> None:
        """Run the short search."""
        search = restatement.RestatedSearch(model, self.search_settings())
        for step, (inputs, labels) in enumerate(self.case.batches):
            gates = [self.case.gates(step, k) for k in range(search.settings.ascent_steps)]
            start = self.case.start(step).to(self.dtype)
            gates = [{name: u.to(self.dtype) for name, u in g.items()} for g in gates]
            search.step(inputs, labels, step, restatement.SearchNoise(start, gates))

    def search_settings(self) -> restatement.SearchSettings:
        """Return the settings of the search."""
        return restatement.SearchSettings(self.case.settings["total_steps"], **self.case.settings["search"])

    def schedule(self) -> dict[str, list[float]]:
        """Return lambda and the learning rate of every step of a whole run."""
        settings = self.search_settings()
        total = settings.total_steps
        rates = [settings.learning_rate * restatement.linear_schedule(i, total, settings.warmup) for i in range(total)]
        return {"lambda": [settings.l0_weight_at(i) for i in range(total)], "rate": rates}

    def draw(self, sparsity: float) -> dict[str, Tensor]:
        """Return the ticket at a sparsity, True where a weight is kept."""
        order = restatement.MaskedBert(self.case.config()).log_alpha()  # ties go by the order of the matrices
        return restatement.draw({name: self.case.grown[name] for name in order}, sparsity)

    def retrain(self, model: nn.Module) -> None:
        """Run the short retraining of the case's ticket."""
        settings = self.case.settings
        model.fix_ticket(self.case.masks)
        training = restatement.RestatedRetraining(model, settings["retrain_total_steps"], **settings["retrain"])
        for step, (inputs, labels) in enumerate(self.case.batches[: settings["retrain_steps"]]):
            training.step(inputs, labels, step)


class Official(Restated):
    """A checkout of the official repository.

    Args:
        case: What is computed.
        dtype: Number type of weights and scores.
        checkout: Its modules.
    """

    def __init__(self, case: ParityCase, dtype: torch.dtype, checkout: Checkout) -> None:
        super().__init__(case, dtype)
        self.checkout = checkout

    def model(self, scores: dict[str, Tensor], block: tuple[int, int] = (1, 1)) -> nn.Module:
        """Return a masked model in training mode with these scores."""
        return self.filled(self.checkout.model(self.case.config(), block=block), scores)

    def log_alpha(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the scores by the name of the weight."""
        return self.checkout.log_alpha(model)

    @contextlib.contextmanager
    def given_noise(self, model: nn.Module) -> Iterator[dict[str, nn.Module]]:
        """Give the case's noise to the calls of `uniform_`, and yield the mask modules by the name of the weight.

        Gates follow the order of their passes. The one call with bounds of its own is the start of a perturbation.
        """
        ascents = self.case.settings["search"]["ascent_steps"]
        calls: Counter[str] = Counter()
        current: dict[str, Tensor] = {}
        ending = ".mask"
        masks = {n.removesuffix(ending) + ".weight": m for n, m in model.named_modules() if n.endswith(ending)}

        def produce_mask(name: str, original: Callable[[], Tensor]) -> Tensor:
            current["u"] = self.case.gates(*divmod(calls[name], ascents))[name]
            calls[name] += 1
            return original()

        def uniform_(tensor: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
            values = self.case.start(calls["start"]) if low else current["u"]
            calls["start"] += bool(low)
            return tensor.copy_(values.view_as(tensor))

        for name, mask in masks.items():
            mask.produce_mask = functools.partial(produce_mask, name, mask.produce_mask)
        with mock.patch.object(Tensor, "uniform_", uniform_):
            yield masks
        for mask in masks.values():
            del mask.produce_mask

    def sampled_gates(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the gates sampled with the noise of the first pass."""
        with self.given_noise(model.train()) as masks, torch.no_grad():
            return {name: mask.produce_mask()[0, :, 0] for name, mask in masks.items()}

    def l0_term(self, model: nn.Module) -> Tensor:
        """Return the L0 term of a model's scores."""
        return model.compute_total_regularizer()

    def search(self, model: nn.Module) -> None:
        """Run the short search."""
        with self.given_noise(model):
            self.checkout.search(model, self.case.batches, self.case.settings["total_steps"], **self.flags("search"))

    def flags(self, training: str) -> dict:
        """Return the settings of the search or of the retraining under the names of its command line."""
        return {FLAGS[name]: value for name, value in self.case.settings[training].items()}

    def schedule(self) -> dict[str, list[float]]:
        """Run its whole loop on a model of one layer. Lambda is the gradient that reaches its L0 term."""
        config = self.case.config()
        config.update({"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 8})
        model = self.checkout.model(config).to(self.dtype)
        lambdas, total, regularizer = [], self.case.settings["total_steps"], model.compute_total_regularizer

        def watched() -> Tensor:
            term = regularizer()
            term.register_hook(lambda gradient: lambdas.append(gradient.item()))
            return term

        model.compute_total_regularizer = watched
        batches = (self.case.batches[i % len(self.case.batches)] for i in range(total))
        watch = Watch(self.log_alpha(model))
        with watch(at=()):
            self.checkout.search(model, batches, total, **{**self.flags("search"), "adv_steps": 1})
        return {"lambda": lambdas, "rate": watch.rates}

    def draw(self, sparsity: float) -> dict[str, Tensor]:
        """Return the ticket at a sparsity, True where a weight is kept."""
        if self.case.config().num_hidden_layers != 12:
            return {}  # it knows no other depth
        return self.checkout.draw(self.model(self.case.grown).float(), sparsity)

    def retrain(self, model: nn.Module) -> None:
        """Run the short retraining of the case's ticket."""
        settings = self.case.settings
        batches, total = self.case.batches[: settings["retrain_steps"]], settings["retrain_total_steps"]
        self.checkout.retrain(model, self.case.masks, batches, total, **self.flags("retrain"))
