"""The MindSpore half of the comparison with the official code: compute one case and write every quantity to files.

    python -m mindspore_rt.compare.parity_worker CASE_DIRECTORY OUT_DIRECTORY paper|official

`torch_eval parity` writes the case and reads the results. All is computed by the classes that train. The noise that
they draw is written beside the results, so that the other implementations can use the same numbers. Dropout is off.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Tensor
from safetensors.numpy import load_file, save_file

from configs.contract.basics.errors import command
from configs.contract.basics.files import read_json
from configs.contract.experiment import schema
from mindspore_rt.cells import backend, gate, noise
from mindspore_rt.cells.encoder import Draws, EncoderClassifier, MaskedLinear, matrix_of
from mindspore_rt.data.batches import Batch
from mindspore_rt.device import use_device
from mindspore_rt.formats import huggingface
from mindspore_rt.ticket import Ticket
from mindspore_rt.training.objectives import FineTuning, RobustSearch
from mindspore_rt.training.optimizer import BETA1
from mindspore_rt.training.trainer import compile_logits

SCORES = ("scores", "grown", "shared")
Rows = Iterator[tuple[str, dict[str, np.ndarray]]]


class ParityCase:
    """Model, scores, ticket, batches and settings, the same for every implementation.

    Args:
        folder: Directory that `torch_eval parity` wrote.
        compat: `paper` or `official`.
    """

    def __init__(self, folder: Path, compat: str) -> None:
        self.settings: dict[str, Any] = read_json(folder / "case.json")
        self.official = compat == "official"
        self.compat, self.source = compat, huggingface.load(folder)
        self.scores, self.grown, self.shared = (load_file(folder / f"{n}.safetensors") for n in SCORES)
        self.masks = {name: m.astype(bool) for name, m in load_file(folder / "ticket.safetensors").items()}
        arrays = load_file(folder / "batches.safetensors")
        self.labels = len(self.source.weights["classifier.bias"])
        self.batches = [
            Batch(
                ids.astype(np.int32),
                mask.astype(np.float32),
                types.astype(np.int32),
                np.eye(self.labels, dtype=np.float32)[labels] / len(labels),
                np.arange(len(labels)),
            )
            for ids, mask, types, labels in zip(
                *(arrays[n] for n in ("input_ids", "attention_mask", "token_type_ids", "labels")), strict=True
            )
        ]


def rows(case: ParityCase, out: Path) -> Rows:
    """Yield the name of every row of the comparison, and its arrays.

    Args:
        case: What to compute.
        out: Directory for the noise.
    """
    model = masked_model(case, case.scores)
    yield "logits", {"logits": logits(model, case.batches[0])}
    shared = masked_model(case, case.shared, (case.source.config.hidden_size, 1))
    yield "shared", {"logits": logits(shared, case.batches[0])}
    settings = schema.MaskSearch(**case.settings["search"], dropout=0.0)
    search = RobustSearch(model, settings, case.settings["total_steps"], case.settings["seed"], case.compat)
    save_noise(search, case, out)
    yield "gates", sampled_gates(model, search, case.batches[0])
    yield from l0_rows(search, case.official)
    yield from search_rows(search, case)
    yield from schedule_rows(search)
    yield from draw_rows(case)
    yield from retraining_rows(case)


def masked_model(case: ParityCase, scores: dict[str, np.ndarray], block: tuple[int, int] = (1, 1)) -> EncoderClassifier:
    """Build the case's masked model with given scores, one for each block of (rows, columns) weights."""
    model = EncoderClassifier(case.source.config, case.labels, 0.0, masked=True, block=block)
    model.load(case.source.weights)
    for parameter in model.log_alpha():
        backend.put(parameter, scores[matrix_of(parameter)])
    return model


def logits(model: EncoderClassifier, batch: Batch) -> np.ndarray:
    """Compute the logits (batch, labels) of a deterministic pass."""
    return compile_logits(model)(*batch.tensors()[:3]).asnumpy()


def save_noise(search: RobustSearch, case: ParityCase, out: Path) -> None:
    """Write the uniform numbers of every gate (`noise-STEP-ASCENT`) and of the perturbation's start (`noise-STEP`)."""
    model, names = search.model, list(case.source.config.prunable())
    first = model.noise_places.gate(0)
    for step, batch in enumerate(case.batches):
        shapes = model.noise_shapes(*batch.ids.shape)
        for ascent in range(search.settings.ascent_steps):
            numbers = search.noise.numbers(shapes, step, ascent)[first:]
            save_file(dict(zip(names, numbers, strict=True)), out / f"noise-{step}-{ascent}.safetensors")
        shape = (*batch.ids.shape, case.source.config.hidden_size)
        draw = noise.generator(search.seed, noise.PERTURBATION, step).random(shape, dtype=np.float32) * 2 - 1
        save_file({"start": draw}, out / f"noise-{step}.safetensors")


def sampled_gates(model: EncoderClassifier, search: RobustSearch, batch: Batch) -> dict[str, np.ndarray]:
    """Return the masks of one pass, by matrix: what each layer makes of a weight of ones."""
    cells = {matrix_of(c.log_alpha): c for _, c in model.cells_and_names() if isinstance(c, MaskedLinear)}
    ones = {name: Tensor(np.ones(cell.weight.shape, np.float32)) for name, cell in cells.items()}

    @backend.jit
    def graph(draws: Draws) -> tuple[Tensor, ...]:
        return tuple(cells[name].masked(ones[name], cells[name].log_alpha, draws) for name in cells)

    masks = graph(search.noise.draw(model.noise_shapes(*batch.ids.shape), 0, 0))
    return {name: mask.asnumpy() for name, mask in zip(cells, masks, strict=True)}


def l0_rows(search: RobustSearch, official: bool) -> Rows:
    """Yield the L0 term, and its gradient: the first moment after an update that has no other gradient."""
    scores = [p.asnumpy() for p in search.scores]
    groups = [[a] for a in scores] if official else [scores]
    yield "l0_term", {"l0_term": np.mean([gate.mask_statistics(g)["l0_term"] for g in groups], keepdims=True)}
    no_losses = (Tensor(np.float32(0.0)),)
    search.apply(no_losses, Tensor(np.float32(1.0)), search.optimizer.rates(0.0, 1), ())
    yield "l0_gradient", moments(search, 1 / (1 - BETA1))
    for parameter in search.optimizer.state().values():
        backend.put(parameter, np.zeros(parameter.shape, np.float32))


def moments(search: RobustSearch, factor: float) -> dict[str, np.ndarray]:
    """Return the first moments times `factor`, float64."""
    pairs = zip(search.scores, search.optimizer.moment1, strict=True)
    return {matrix_of(p): m.asnumpy().astype(np.float64) * factor for p, m in pairs}


def search_rows(search: RobustSearch, case: ParityCase) -> Rows:
    """Yield what a short search computes, recorded at the two graphs that `RobustSearch.step` calls."""
    deltas: list[np.ndarray] = []
    gradients: dict[str, np.ndarray] = {}
    norms: list[float] = []
    ascent, update = search.ascent, search.apply

    def watched_ascent(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        loss, delta = ascent(*inputs)
        deltas.append(delta.asnumpy())
        return loss, delta

    def watched_update(*inputs: Tensor) -> Tensor:
        if not gradients:
            pairs = zip(search.scores, search.gradient_sums, strict=False)
            gradients.update({matrix_of(p): t.asnumpy().copy() for p, t in pairs})  # the update clears them in place
        return update(*inputs)

    search.ascent, search.apply = watched_ascent, watched_update
    yield "start", {"start": search.start(case.batches[0], 0).asnumpy()}
    for step, batch in enumerate(case.batches):
        norms.append(search.step(batch, step)["gradient_norm"])
        if step == 0:
            yield from ((f"ascent_{k}", {"delta": delta}) for k, delta in enumerate(deltas[:-1], 1))
            yield "gradient", gradients
            yield "clipped", moments(search, 1 / (1 - BETA1))  # lambda is still 0
        if step + 1 in (2, len(case.batches)):
            yield f"scores_{step + 1}", {matrix_of(p): p.asnumpy() for p in search.scores}
    yield "norms", {"norms": np.array(norms)}
    search.ascent, search.apply = ascent, update


def schedule_rows(search: RobustSearch) -> Rows:
    """Yield lambda and the learning rate at every update."""
    updates = range(search.total_steps)
    yield "lambda", {"lambda": np.array([search.l0_weight(i) for i in updates])}
    yield "rate", {"rate": np.array([search.learning_rate(i) for i in updates])}


def draw_rows(case: ParityCase) -> Rows:
    """Yield the ticket of every sparsity, drawn from scores that have grown."""
    scores = {name: case.grown[name] for name in case.source.config.prunable()}  # it breaks ties
    for sparsity in case.settings["sparsities"]:
        masks = Ticket.from_scores(scores, sparsity, official=case.official).masks
        yield f"draw_{sparsity:.2f}", {name: mask.astype(np.uint8) for name, mask in masks.items()}


def retraining_rows(case: ParityCase) -> Rows:
    """Yield the weights and logits of the case's ticket after a few steps of `FineTuning`."""
    ticket, settings = Ticket(case.masks), schema.Training(**case.settings["retrain"], dropout=0.0)
    if case.official:
        settings.clip_norm = 0.0
    model = EncoderClassifier(case.source.config, case.labels, 0.0)
    model.load(ticket.apply(case.source.weights))
    training = FineTuning(model, settings, case.settings["retrain_total_steps"], case.settings["seed"], case.masks)
    for step in range(case.settings["retrain_steps"]):
        training.step(case.batches[step], step)
    yield "retrained", {name: p.asnumpy() for name, p in model.weights().items()}
    yield "retrained_logits", {"logits": logits(model, case.batches[-1])}


@command
def main() -> int:
    """Compute the case that the command line names."""
    folder, out, compat = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    use_device()
    for name, arrays in rows(ParityCase(folder, compat), out):
        save_file({k: np.ascontiguousarray(a) for k, a in arrays.items()}, out / f"{name}.safetensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
