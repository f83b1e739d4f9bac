"""One loop for every objective: steps, evaluation, metrics, checkpoint, exact resume."""

from __future__ import annotations

import math
import time

import mindspore as ms
import numpy as np
import safetensors
from mindspore import Tensor
from safetensors.numpy import save
from tqdm import tqdm

from configs.errors import UserError
from configs.run_dir import Stage, append_line, atomic_write, read_lines, write_lines
from mindspore_rt.bert import BertClassifier
from mindspore_rt.data import Batches


class Evaluator:
    """Accuracy of a model on one split, by a deterministic pass."""

    def __init__(self, model: BertClassifier, batches: Batches):
        self.batches = batches

        @ms.jit
        def logits(ids, attention_mask, token_types):
            return model(model.embed(ids), attention_mask, token_types, None)

        self.graph = logits

    def logits(self) -> np.ndarray:
        """(sentences, labels) float32, in the order of the split."""
        result = np.zeros((len(self.batches.ids), self.batches.classes), np.float32)
        for indices in self.batches.in_order():
            *inputs, _ = self.batches.batch(indices).tensors()
            result[indices] = self.graph(*inputs).asnumpy()[: len(indices)]
        return result

    def accuracy(self) -> float:
        return float((self.logits().argmax(1) == self.batches.labels).mean())


def total_steps(settings, batches: Batches) -> int:
    """Updates of a whole stage: epochs, cut short by `max_steps`."""
    steps = settings.epochs * len(batches)
    return min(steps, settings.max_steps or steps)


class Trainer:
    """Runs an objective for `steps` updates in the directory of `stage`, from the last checkpoint if there is one.

    `on_epoch(number, step)` is called at the end of every epoch, and of the last one even if `max_steps`
    cut it short, and returns figures for the log. On CPU a resumed run ends with the same bytes as one that was
    never stopped.
    """

    def __init__(self, stage: Stage, objective, batches: Batches, steps: int, config, title: str, on_epoch):
        self.stage, self.objective, self.batches, self.steps = stage, objective, batches, steps
        self.log_steps, self.checkpoint_steps = config.log_steps, config.checkpoint_steps
        self.title, self.on_epoch = title, on_epoch
        self.checkpoint, self.metrics = stage.directory / "checkpoint.safetensors", stage.directory / "metrics.jsonl"

    def run(self) -> None:
        done = self._resume()
        bar = tqdm(total=self.steps, initial=done, desc=self.title, unit="step", dynamic_ncols=True, mininterval=1)
        started, sentences = time.time(), 0
        while done < self.steps:
            epoch, position = divmod(done, len(self.batches))
            for indices in self.batches.epoch(epoch)[position:]:
                figures = self._step(indices, done)
                done, sentences = done + 1, sentences + len(indices)
                bar.update()
                if done % self.log_steps == 0 or done == self.steps:
                    rate = sentences / (time.time() - started)
                    self._log(bar, done, figures, rate)
                    started, sentences = time.time(), 0
                ended = done == self.steps or done % len(self.batches) == 0
                if ended:
                    self._end_epoch(bar, epoch + 1, done)
                if ended or done % self.checkpoint_steps == 0:
                    self._save(done)
                if done == self.steps:
                    break
        bar.close()
        self.checkpoint.unlink(missing_ok=True)

    def _step(self, indices: np.ndarray, index: int) -> dict[str, float]:
        figures = self.objective.step(self.batches.batch(indices), index)
        if not all(math.isfinite(value) for value in figures.values()):
            raise UserError(
                f"{self.title}: the loss of step {index + 1} is not finite (sentences {indices[:8].tolist()} ... of "
                f"train.jsonl); the last good checkpoint is {self.checkpoint}; try a smaller learning rate"
            )
        return figures

    def _log(self, bar, done: int, figures: dict, rate: float) -> None:
        figures = {**figures, **(self.objective.metrics() if hasattr(self.objective, "metrics") else {})}
        record = {"step": done, "epoch": round(done / len(self.batches), 4), **figures}
        append_line(self.metrics, {**record, "seconds": round(time.time(), 1), "sentences_per_second": round(rate, 1)})
        shown = ("loss", "adversarial_loss", "l0_term", "settled_zero")
        bar.set_postfix({name: f"{figures[name]:.3f}" for name in shown if name in figures}, refresh=False)

    def _end_epoch(self, bar, epoch: int, done: int) -> None:
        figures = self.on_epoch(epoch, done)
        append_line(self.metrics, {"step": done, "epoch": round(done / len(self.batches), 4), **figures})
        bar.write(f"  epoch {epoch}: " + ", ".join(f"{name.replace('_', ' ')} {v:.3f}" for name, v in figures.items()))

    def _save(self, done: int) -> None:
        """Everything the next step depends on, and how many lines of metrics belong to it."""
        lines = len(read_lines(self.metrics)) if self.metrics.is_file() else 0
        arrays = {name: p.asnumpy() for name, p in self.objective.state().items()}
        atomic_write(self.checkpoint, save(arrays, metadata={"done": f"{done} {lines}"}))

    def _resume(self) -> int:
        """Restore the last checkpoint and drop the metrics written after it; 0 if there is none."""
        self.stage.begin(self.checkpoint)
        if not self.checkpoint.is_file():
            self.metrics.unlink(missing_ok=True)
            return 0
        try:
            with safetensors.safe_open(self.checkpoint, "numpy") as file:
                about = file.metadata()
                for name, parameter in self.objective.state().items():
                    value = file.get_tensor(name)
                    if value.shape != tuple(parameter.shape):
                        raise ValueError(f"{name} is {value.shape}, expected {parameter.shape}")
                    parameter.set_data(Tensor(value))
            done, lines = map(int, about["done"].split())
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.checkpoint}: not a checkpoint of this stage ({error}); delete it and run again"
            ) from None
        write_lines(self.metrics, read_lines(self.metrics)[:lines] if lines else [])
        print(f"{self.title}: going on from step {done} of {self.steps}", flush=True)
        return done
