"""The MindSpore workers of `python -m torch_eval bench`: one step of ours, or of mindnlp's BERT, on request.

    python -m mindspore_rt.compare.step_worker CASE ours|bfloat16|mindnlp

The protocol is in `configs/contract/basics/bench_case.py`. mindnlp replaces the `torch` module of its process, so its
worker is another one.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from configs.contract.basics import bench_case
from configs.contract.basics.bench_case import LABELS, TOTAL_STEPS, StepCase
from configs.contract.experiment import schema
from configs.contract.run.stage import versions
from mindspore_rt.cells import backend
from mindspore_rt.cells.encoder import EncoderClassifier
from mindspore_rt.cells.encoder_config import EncoderConfig
from mindspore_rt.data.batches import Batch
from mindspore_rt.device import use_device
from mindspore_rt.training.objectives import FineTuning, FreeLB, Objective, RobustSearch
from mindspore_rt.training.optimizer import BETA1, BETA2, EPSILON, linear_schedule, no_decay
from mindspore_rt.training.trainer import compile_logits


def ours(case: StepCase, config: schema.Experiment | None = None) -> tuple[Callable[[], float], dict]:
    """Build the step of a case of the cells and objectives that the stages use.

    Args:
        case: The step.
        config: Settings of the device; None for the defaults.

    Returns:
        The step, which returns its loss (an evaluation: the sum of its logits), and kernels and versions.
    """
    use_device(config)
    about = {
        "kernels": "fused" if backend.current() is backend.Backend.KERNELS else "plain",
        "versions": versions("mindspore", "numpy"),
    }
    model, batch = model_of(case), batch_of(case)
    if case.task == "evaluate":
        graph = compile_logits(model)
        return lambda: float(graph(*batch.tensors()[:3]).asnumpy().sum()), about
    objective, index = objective_of(case, model), itertools.count()
    loss = "adversarial_loss" if case.task in ("search", "freelb") else "loss"
    return lambda: objective.step(batch, next(index))[loss], about


def model_of(case: StepCase, amp: str | None = None) -> EncoderClassifier:
    """Build the model of a case, with products in the number type `amp`. The device must be chosen before."""
    shape = EncoderConfig.from_dict(case.config(), "the bench's case")
    model = EncoderClassifier(shape, LABELS, case.dropout, masked=case.task == "search", amp=amp)
    masks = ticket_of(case, model)
    model.load(
        {
            name: bench_case.weight(name, size) * masks.get(name, np.float32(1))
            for name, size in shape.parameters(LABELS).items()
        }
    )
    return model


def ticket_of(case: StepCase, model: EncoderClassifier) -> dict[str, np.ndarray]:
    """Return the masks of the ticket that is retrained; none for other tasks."""
    pruned = model.config.prunable() if case.task == "retrain" else {}
    return {name: bench_case.mask(name, size) for name, size in pruned.items()}


def batch_of(case: StepCase) -> Batch:
    """Return the batch of a case."""
    ids, labels = case.inputs()
    return Batch(
        ids.astype(np.int32),
        np.ones(ids.shape, np.float32),
        np.zeros(ids.shape, np.int32),
        np.eye(LABELS, dtype=np.float32)[labels] / np.float32(case.batch),
        np.arange(case.batch),
    )


def objective_of(case: StepCase, model: EncoderClassifier) -> Objective:
    """Build the objective of a case, with the default settings but the number of passes."""
    if case.task == "search":
        return RobustSearch(model, schema.MaskSearch(ascent_steps=case.passes), TOTAL_STEPS, 0)
    if case.task == "freelb":
        return FreeLB(model, schema.AdversarialTraining(ascent_steps=case.passes), TOTAL_STEPS, 0)
    return FineTuning(model, schema.Training(), TOTAL_STEPS, 0, ticket_of(case, model))


def bfloat16(case: StepCase) -> tuple[Callable[[], float], dict]:
    """Build the same step with products that oneDNN rounds to bfloat16 (`mindspore_rt.device`)."""
    return ours(case, schema.Experiment(amp_level="O1", amp_dtype="bfloat16"))


def mindnlp(case: StepCase) -> tuple[Callable[[], float], dict]:
    """Build the fine-tuning step of mindnlp's BERT, of those of its parts that work on CPU.

    Gradients come from `value_and_grad` on its model, operation by operation, and updates from MindSpore's AdamW
    primitive, without a clip: its own `backward` computes no gradients, its optimizers and its clip fail.

    Returns:
        The step, which returns its loss, and versions.

    Raises:
        ValueError: The case is another than fine-tuning.
    """
    if case.task != "finetune":
        raise ValueError(f"mindnlp has no {case.task} step")
    import mindnlp  # noqa: F401  has to come before anything of it
    import mindtorch
    from mindnlp.transformers import BertConfig, BertForSequenceClassification

    ms.set_context(mode=ms.PYNATIVE_MODE)
    settings = schema.Training()
    model = BertForSequenceClassification(BertConfig(**case.config(), num_labels=LABELS))
    names, parameters = zip(*model.named_parameters())
    for name, parameter in zip(names, parameters, strict=True):
        parameter.assign_value(Tensor(bench_case.weight(name, parameter.shape)))
    model.train()
    ids, labels = map(mindtorch.tensor, case.inputs())

    def loss_of(ids: object, labels: object) -> object:
        return mindtorch.nn.functional.cross_entropy(model(input_ids=ids).logits, labels)

    value_and_grad, adam = ms.value_and_grad(loss_of, None, parameters), ops.AdamWeightDecay()
    moments = [[Tensor(np.zeros(p.shape, np.float32)) for p in parameters] for _ in range(2)]
    index = itertools.count()

    def step() -> float:
        loss, gradients = value_and_grad(ids, labels)
        rate = settings.learning_rate * linear_schedule(next(index), TOTAL_STEPS, settings.warmup)
        for name, p, m, v, g in zip(names, parameters, *moments, gradients, strict=True):
            decay = 0.0 if no_decay(name) else settings.weight_decay
            adam(p, m, v, rate, BETA1, BETA2, EPSILON, decay, g)
        return float(loss.asnumpy())

    return step, {"versions": versions("mindspore", "mindnlp", "numpy")}


def main() -> None:
    """Serve steps over standard input and output, as `bench_case` describes."""
    case, (variant,), answers = bench_case.start()
    step, about = {"ours": ours, "bfloat16": bfloat16, "mindnlp": mindnlp}[variant](case)
    for _ in bench_case.serve(answers, about):
        if not math.isfinite(step()):
            sys.exit("the loss is not finite")


if __name__ == "__main__":
    main()
