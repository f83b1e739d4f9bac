"""The two PyTorch sides of the comparison: a checkout of the official repository, and our restatement of it.

Both run as they are, on given noise, and are watched from outside: torch's own functions that both of them call
(`uniform_`, `clip_grad_norm_`, AdamW's `step`) hand out the noise and write down what passes. Nothing on disk
is changed.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertConfig

from configs.contract.files import read_json
from torch_eval.reference import restatement
from torch_eval.reference.official_checkout import Checkout

SCORES = ("scores", "grown", "shared")
Rows = Iterator[tuple[str, dict[str, Tensor]]]
SHIMS = (
    "transformers.AdamW, dropped by today's transformers: official.AdamW in its place",
    "eager attention in the model's configuration, without which 37 of 73 matrices get a mask",
    "the module `datasets` and the data loader: the batches of the case are handed in",
    "tqdm silent, log level ERROR, checkpoints into a temporary folder",
    "Tensor.uniform_ hands out the given noise; requires_grad_, clip_grad_norm_, AdamW.step are watched",
)


class Case:
    """What all implementations are given (see `parity.write_case`), and the noise that the MindSpore half drew."""

    def __init__(self, folder: Path, noise: Path):
        self.folder, self.noise, self.settings = folder, noise, read_json(folder / "case.json")
        self.weights = load_file(folder / "model.safetensors")
        self.scores, self.grown, self.shared = (load_file(folder / f"{n}.safetensors") for n in SCORES)
        self.masks = {name: m.bool() for name, m in load_file(folder / "ticket.safetensors").items()}
        arrays = load_file(folder / "batches.safetensors")
        names = ("input_ids", "attention_mask", "token_type_ids")
        self.batches = [({n: arrays[n][i] for n in names}, labels) for i, labels in enumerate(arrays["labels"])]

    def moved(self, seed: int) -> Case:
        """The same case with every weight moved by up to one rounding of float32, up or down."""
        random, other = torch.Generator().manual_seed(seed), copy.copy(self)
        other.weights = {
            n: w * (1 + (torch.rand(w.shape, generator=random, dtype=torch.float64) * 2 - 1) * 2**-23)
            for n, w in self.weights.items()
        }
        other.weights = {n: w.float() for n, w in other.weights.items()}
        return other

    def config(self) -> BertConfig:
        values = read_json(self.folder / "config.json")
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
        return load_file(self.noise / f"noise-{step}-{ascent}.safetensors")

    def start(self, step: int) -> Tensor:
        return load_file(self.noise / f"noise-{step}.safetensors")["start"]


class Watch:
    """Writes down what a search passes through torch's functions; `scores` are its scores by name."""

    def __init__(self, scores: dict[str, Tensor]):
        self.scores, self.deltas, self.norms, self.rates, self.kept = scores, [], [], [], {}
        self.gradient, self.clipped = {}, {}

    @contextlib.contextmanager
    def __call__(self, at: tuple[int, ...]):
        """Keeps the scores after the updates numbered `at`."""
        clip, step, require = torch.nn.utils.clip_grad_norm_, restatement.AdamW.step, Tensor.requires_grad_

        def watched_clip(*arguments, **options):
            first = not self.norms
            if first:
                self.gradient = self._gradients()
            self.norms.append(float(clip(*arguments, **options)))
            if first:
                self.clipped = self._gradients()

        def watched_step(optimizer):
            self.rates.append(optimizer.param_groups[0]["lr"])
            step(optimizer)
            if len(self.rates) in at:
                self.kept[len(self.rates)] = {name: p.detach().clone() for name, p in self.scores.items()}

        def watched_require(tensor, *arguments):
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
    """`official.py`, in `dtype`."""

    def __init__(self, case: Case, dtype: torch.dtype):
        self.case, self.dtype = case, dtype

    def rows(self) -> Rows:
        case, settings = self.case, self.case.settings
        model = self.model(case.scores)
        yield "logits", {"logits": self.logits(model, case.batches[0])}
        yield "shared", {"logits": self.logits(self.model(case.shared, (model.config.hidden_size, 1)), case.batches[0])}
        yield "gates", self.sampled_gates(model)
        yield from self.l0(model)
        watch = Watch(self.log_alpha(model))
        with watch(at=(2, len(case.batches))):
            self.search(model)
        yield "start", {"start": watch.deltas[0]}
        yield from ((f"ascent_{k}", {"delta": delta}) for k, delta in enumerate(watch.deltas[1:], 1))
        yield "gradient", watch.gradient
        yield "clipped", watch.clipped
        yield from ((f"scores_{at}", scores) for at, scores in watch.kept.items())
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
        # What stands behind a mask of 0 takes no part in the computation.
        yield "retrained", {n: w * case.masks[n].to(w) if n in case.masks else w for n, w in weights.items()}
        yield "retrained_logits", {"logits": self.logits(model, case.batches[-1])}

    # What follows is where the two sides differ.

    def model(self, scores, block=(1, 1)):
        return self.filled(restatement.MaskedBert(self.case.config(), block=block), scores)

    def filled(self, model, scores):
        missing, unknown = model.load_state_dict(self.case.weights, strict=False)
        assert not unknown and len(missing) == len(scores), (missing, unknown)
        for name, parameter in self.log_alpha(model).items():
            parameter.data = scores[name].view_as(parameter).clone()
        return model.to(self.dtype)

    def log_alpha(self, model) -> dict[str, Tensor]:
        return model.log_alpha()

    def logits(self, model, batch) -> Tensor:
        with torch.no_grad():
            return model.eval()(**batch[0]).logits

    def sampled_gates(self, model) -> dict[str, Tensor]:
        model.train().use_gates({name: u.to(self.dtype) for name, u in self.case.gates(0, 0).items()})
        return {name: layer.mask().detach() for name, layer in model.masked_layers().items()}

    def l0(self, model) -> Rows:
        term = restatement.l0_term(model.log_alpha().values())
        yield from self._l0(model, term)

    def _l0(self, model, term: Tensor) -> Rows:
        model.zero_grad()
        term.backward()
        yield "l0_term", {"l0_term": term.detach().view(1)}
        yield "l0_gradient", {name: p.grad.clone() for name, p in self.log_alpha(model).items()}
        model.zero_grad()

    def search(self, model) -> None:
        search = restatement.Search(
            model, restatement.SearchSettings(self.case.settings["total_steps"], **self.options())
        )
        for step, (inputs, labels) in enumerate(self.case.batches):
            gates = [self.case.gates(step, k) for k in range(search.settings.ascent_steps)]
            start = self.case.start(step).to(self.dtype)
            gates = [{name: u.to(self.dtype) for name, u in g.items()} for g in gates]
            search.step(inputs, labels, step, restatement.Noise(start, gates))

    def options(self) -> dict:
        return self.case.settings["search"]

    def schedule(self) -> dict[str, list[float]]:
        total = self.case.settings["total_steps"]
        settings = restatement.SearchSettings(total, **self.options())
        rates = [settings.learning_rate * restatement.linear_schedule(i, total, settings.warmup) for i in range(total)]
        return {"lambda": [settings.l0_weight_at(i) for i in range(total)], "rate": rates}

    def draw(self, sparsity: float) -> dict[str, Tensor]:
        order = restatement.MaskedBert(self.case.config()).log_alpha()  # ties go by the order of the matrices
        return restatement.draw({name: self.case.grown[name] for name in order}, sparsity)

    def retrain(self, model) -> None:
        settings = self.case.settings
        model.fix_ticket(self.case.masks)
        training = restatement.Retraining(model, settings["retrain_total_steps"], **settings["retrain"])
        for step, (inputs, labels) in enumerate(self.case.batches[: settings["retrain_steps"]]):
            training.step(inputs, labels, step)


class Official(Restated):
    """A checkout of the official repository, in `dtype`."""

    def __init__(self, case: Case, dtype: torch.dtype, checkout: Checkout):
        super().__init__(case, dtype)
        self.checkout = checkout

    def model(self, scores, block=(1, 1)):
        return self.filled(self.checkout.model(self.case.config(), block=block), scores)

    def log_alpha(self, model):
        return self.checkout.log_alpha(model)

    @contextlib.contextmanager
    def given_noise(self, model):
        """Its calls of `uniform_` get the case's numbers: the gates by the order of their passes, the start of a
        perturbation (the one with bounds of its own) by the step."""
        ascents, calls, current = self.case.settings["search"]["ascent_steps"], Counter(), {}
        ending = ".mask"
        masks = {n.removesuffix(ending) + ".weight": m for n, m in model.named_modules() if n.endswith(ending)}

        def produce_mask(name, original):
            current["u"] = self.case.gates(*divmod(calls[name], ascents))[name]
            calls[name] += 1
            return original()

        def uniform_(tensor, low=0.0, high=1.0):
            values = self.case.start(calls["start"]) if low else current["u"]
            calls["start"] += bool(low)
            return tensor.copy_(values.view_as(tensor))

        for name, mask in masks.items():
            mask.produce_mask = functools.partial(produce_mask, name, mask.produce_mask)
        with mock.patch.object(Tensor, "uniform_", uniform_):
            yield masks
        for mask in masks.values():
            del mask.produce_mask

    def sampled_gates(self, model):
        with self.given_noise(model.train()) as masks, torch.no_grad():
            return {name: mask.produce_mask()[0, :, 0] for name, mask in masks.items()}

    def l0(self, model):
        yield from self._l0(model, model.compute_total_regularizer())

    def search(self, model):
        with self.given_noise(model):
            self.checkout.search(model, self.case.batches, self.case.settings["total_steps"], **self.flags())

    def flags(self) -> dict:
        """The names of its command line."""
        s = self.case.settings["search"]
        return {
            "lr": s["learning_rate"],
            "weight_decay": s["weight_decay"],
            "warmup_ratio": s["warmup"],
            "max_grad_norm": s["clip_norm"],
            "adv_steps": s["ascent_steps"],
            "adv_lr": s["ascent_rate"],
            "adv_init_mag": s["initial_norm"],
            "lambda_amp": s["l0_weight"],
            "lambda_startup_frac": s["l0_start"],
            "lambda_warmup_frac": s["l0_ramp"],
        }

    def schedule(self):
        """From a whole run of its loop on a model of one layer: lambda is the gradient that reaches its L0 term."""
        config = self.case.config()
        config.update({"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 8})
        model = self.checkout.model(config).to(self.dtype)
        lambdas, total, regularizer = [], self.case.settings["total_steps"], model.compute_total_regularizer

        def watched():
            term = regularizer()
            term.register_hook(lambda gradient: lambdas.append(gradient.item()))
            return term

        model.compute_total_regularizer = watched
        batches = (self.case.batches[i % len(self.case.batches)] for i in range(total))
        watch = Watch(self.log_alpha(model))
        with watch(at=()):
            self.checkout.search(model, batches, total, **{**self.flags(), "adv_steps": 1})
        return {"lambda": lambdas, "rate": watch.rates}

    def draw(self, sparsity):
        if self.case.config().num_hidden_layers != 12:
            return {}  # it knows no other depth
        return self.checkout.draw(self.model(self.case.grown).float(), sparsity)

    def retrain(self, model):
        s = self.case.settings
        options = {
            "lr": s["retrain"]["learning_rate"],
            "weight_decay": s["retrain"]["weight_decay"],
            "warmup_ratio": s["retrain"]["warmup"],
        }
        batches = self.case.batches[: s["retrain_steps"]]
        self.checkout.retrain(model, self.case.masks, batches, s["retrain_total_steps"], **options)
