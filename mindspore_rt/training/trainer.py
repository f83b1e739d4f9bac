"""The training loop of every objective: steps, evaluation, log, checkpoints and exact resumption."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
import zlib
from collections.abc import Callable, Collection

import numpy as np
import safetensors
from mindspore import Tensor
from safetensors.numpy import save
from tqdm import tqdm

from configs.contract.basics.errors import StopRequest, UserError
from configs.contract.basics.files import append_line, atomic_write, read_lines, write_lines
from configs.contract.experiment import schema
from configs.contract.run.stage import Stage
from mindspore_rt import parallel
from mindspore_rt.cells import backend
from mindspore_rt.cells.encoder import EncoderClassifier
from mindspore_rt.data.batches import Batches
from mindspore_rt.training import tensorboard
from mindspore_rt.training.objectives import Objective
from mindspore_rt.training.profiling import profiler


def compile_logits(model: EncoderClassifier) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Compile a deterministic pass, from ids, attention mask and token types to logits (batch, labels)."""

    @backend.jit
    def logits(ids: Tensor, attention_mask: Tensor, token_types: Tensor) -> Tensor:
        return model(model.embed(ids), attention_mask, token_types, None)

    return logits


class Evaluator:
    """Evaluates a model on one split, by deterministic passes.

    Args:
        model: Classifier.
        batches: The split.
    """

    def __init__(self, model: EncoderClassifier, batches: Batches) -> None:
        self.batches, self.graph = batches, compile_logits(model)

    def logits(self) -> np.ndarray:
        """Compute the logits (sentences, labels) float32, in the order of the split."""
        result = np.zeros((len(self.batches.ids), self.batches.classes), np.float32)
        for indices in self.batches.by_length():
            *inputs, _ = self.batches.batch(indices).tensors()
            result[indices] = self.graph(*inputs).asnumpy()[: len(indices)]
        return result

    def accuracy(self) -> float:
        """Return the share of sentences whose label has the largest logit."""
        return float((self.logits().argmax(1) == self.batches.labels).mean())


class Trainer:
    """Runs an objective for `steps` updates in the directory of `stage`, from the last checkpoint if there is one.

    On CPU a resumed run ends with the same bytes as one that was never stopped. The last checkpoint stays until the
    stage is finished, because writing the results may fail. Of several workers, only worker 0 writes.

    Args:
        stage: Directory of the training, with the settings and inputs that a checkpoint belongs to.
        objective: What is minimised.
        batches: Training sentences.
        steps: Number of updates.
        config: Experiment; its keys for the log, the checkpoints and the profile are read.
        title: Name of the training in messages.
        on_epoch: Called with the number of the epoch (from 1) and of updates made, at the end of every epoch; of the
            last one even if `max_steps` cuts it short. Returns figures for the log.
        should_stop: Called with the figures of an epoch. True ends the training there.
        snapshot_steps: Numbers of updates after which `on_snapshot` is called.
        on_snapshot: Called with the number of updates made, on worker 0.
    """

    def __init__(
        self,
        stage: Stage,
        objective: Objective,
        batches: Batches,
        steps: int,
        config: schema.Experiment,
        title: str,
        on_epoch: Callable[[int, int], dict[str, float]],
        should_stop: Callable[[dict[str, float]], bool] = lambda figures: False,
        snapshot_steps: Collection[int] = (),
        on_snapshot: Callable[[int], None] = lambda step: None,
    ) -> None:
        self.stage, self.objective, self.batches, self.steps = stage, objective, batches, steps
        self.config, self.saved_at = config, time.time()
        self.title, self.on_epoch, self.should_stop = title, on_epoch, should_stop
        self.snapshot_steps, self.on_snapshot = snapshot_steps, on_snapshot
        self.rank, self.ranks = parallel.rank(), parallel.ranks()
        self.checkpoint, self.metrics = stage.checkpoint, stage.directory / "metrics.jsonl"

    def run(self) -> int:
        """Train to the end and return the number of updates made.

        Raises:
            Stopped: A signal requested a stop; the state is saved.
            UserError: The loss, a gradient or the state is not finite, or the checkpoint is not of this training.
        """
        done = self._resume()
        parallel.wait()  # until all have read the checkpoint: without a step left, rank 0 soon removes it
        self._announce()
        bar = tqdm(
            total=self.steps, initial=done, desc=self.title, unit="step", dynamic_ncols=True, disable=self.rank > 0
        )
        with (
            bar,
            StopRequest() as request,
            contextlib.nullcontext() if self.rank else tensorboard.Writer(self.stage.directory) as self.board,
            profiler(self.stage.directory, self.config.profile_steps) as self.after_step,
        ):
            while done < self.steps:
                done = self._epoch(bar, done, request)
        return done

    def _epoch(self, bar: tqdm, done: int, request: StopRequest) -> int:
        """Train to the end of the epoch that update `done` belongs to, and return the number of updates made."""
        epoch, position = divmod(done, len(self.batches))
        started, sentences = time.time(), 0
        for indices in self.batches.epoch(epoch)[position:]:
            figures = self._step(indices, done, request.made)
            stops = bool(figures.pop("stop_requests", request.made))  # the same on all workers: they make as many steps
            self.after_step()
            done, sentences = done + 1, sentences + len(indices)
            bar.update()
            if done % self.config.log_steps == 0 or done == self.steps:
                self._log(bar, done, figures, sentences / (time.time() - started))
                started, sentences = time.time(), 0
            ended = done == self.steps or done % len(self.batches) == 0
            saves = ended or self._is_due(done) or stops
            snapshot = done in self.snapshot_steps and not self.rank
            arrays = self._arrays(indices, done) if saves or snapshot else {}
            if snapshot:
                self.on_snapshot(done)
            if ended and parallel.any_rank(self.should_stop(self._end_epoch(bar, epoch + 1, done))):
                self.steps = done
            if saves:
                self._save(done, arrays)
            # Obeyed after the last step too: only the export is then left for the next run.
            if stops or (ended and parallel.any_rank(request.made)):
                bar.close()
                request.obey(f"{self.title}: stopped after step {done} of {self.steps}")
            if done == self.steps:
                break
        return done

    def _is_due(self, done: int) -> bool:
        """Tell whether a checkpoint is due. Workers may differ in it: worker 0 alone saves, and nobody waits for it."""
        if self.config.checkpoint_minutes is None:
            return done % self.config.checkpoint_steps == 0
        return time.time() - self.saved_at >= 60 * self.config.checkpoint_minutes

    def _step(self, indices: np.ndarray, index: int, asked: bool) -> dict[str, float]:
        """Make one update. Raises `UserError` for a loss or gradient that is not finite, before anything is saved."""
        figures = self.objective.step(self.batches.batch(indices, self.rank, self.ranks), index, asked)
        wrong = [name for name, value in figures.items() if not math.isfinite(value)]
        if wrong:
            raise self._not_finite(wrong[0].replace("_", " "), indices, index + 1)
        return figures

    def _not_finite(self, what: str, indices: np.ndarray, step: int) -> UserError:
        saved = f"the last good checkpoint is {self.checkpoint}" if self.checkpoint.is_file() else "no checkpoint yet"
        return UserError(
            f"{self.title}: the {what} of step {step} is not finite (sentences {indices[:8].tolist()} ... of "
            f"{len(indices)} in train.jsonl); {saved}; try a smaller learning rate"
        )

    def _arrays(self, indices: np.ndarray, done: int) -> dict[str, np.ndarray]:
        """Copy all that the next step depends on from the device, on worker 0.

        Raises:
            UserError: It is not finite; the weights may not be while the loss still is. Such a state is never saved.
        """
        if self.rank:
            return {}
        arrays = {name: p.asnumpy() for name, p in self.objective.state().items()}
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise self._not_finite(f"state ({name})", indices, done)
        return arrays

    def _announce(self) -> None:
        lengths = self.batches.lengths(0)
        if not self.rank:
            shown = ", ".join(map(str, lengths))
            print(f"  {len(self.batches)} batches an epoch, compiled for the lengths {shown}", flush=True)

    def _log(self, bar: tqdm, done: int, figures: dict, rate: float) -> None:
        figures = {**figures, **self.objective.metrics()}
        self._write(done, {**figures, "seconds": round(time.time(), 1), "sentences_per_second": round(rate, 1)})
        shown = ("loss", "adversarial_loss", "l0_term", "settled_zero")
        bar.set_postfix({name: f"{figures[name]:.3f}" for name in shown if name in figures}, refresh=False)

    def _end_epoch(self, bar: tqdm, epoch: int, done: int) -> dict[str, float]:
        figures = self.on_epoch(epoch, done)
        self._write(done, figures)
        if not self.rank:
            shown = ", ".join(f"{name.replace('_', ' ')} {v:.3f}" for name, v in figures.items())
            bar.write(f"  epoch {epoch}: {shown}")
        return figures

    def _write(self, done: int, figures: dict) -> None:
        if self.board:  # on worker 0
            record = {"step": done, "epoch": round(done / len(self.batches), 4), **figures}
            append_line(self.metrics, record)
            self.board.add(record)

    def _save(self, done: int, arrays: dict[str, np.ndarray]) -> None:
        """Save the state, the number of metrics lines that belong to it, the last update and the seconds spent."""
        if self.rank:
            return
        lines = len(read_lines(self.metrics)) if self.metrics.is_file() else 0
        about = f"{done} {lines} {self.steps} {time.time() - self.stage.started:.0f}"
        atomic_write(self.checkpoint, save(arrays, metadata={"done": f"{about} {_checksum(arrays, about)}"}))
        self.saved_at = time.time()

    def _resume(self) -> int:
        """Restore the last checkpoint, drop the metrics written after it, and return its number of updates."""
        self.stage.begin(self.checkpoint)
        if not self.checkpoint.is_file():
            if not self.rank:
                self.metrics.unlink(missing_ok=True)
                shutil.rmtree(self.stage.directory / "snapshots", ignore_errors=True)
            return 0
        done, lines, self.steps, seconds = self._restore()
        self.stage.started -= seconds
        if not self.rank:
            remedy = f"put the file back, or {self.stage.redo}"
            logged = read_lines(self.metrics, dict, remedy) if lines and self.metrics.is_file() else []
            if len(logged) < lines:
                about = f"{len(logged)} lines, but {lines} belong to {self.checkpoint.name}"
                raise UserError(f"{self.metrics}: {about}; {remedy}")
            write_lines(self.metrics, logged[:lines])
            print(f"{self.title}: resuming from step {done} of {self.steps}", flush=True)
        return done

    def _restore(self) -> list[int]:
        """Set all arrays; return the updates made, the lines of metrics, the last update and the seconds spent."""
        try:
            with safetensors.safe_open(self.checkpoint, "numpy") as file:
                about = file.metadata()
                values = {name: file.get_tensor(name) for name in self.objective.state()}
            for name, parameter in self.objective.state().items():
                if values[name].shape != tuple(parameter.shape) or values[name].dtype != np.float32:
                    raise ValueError(f"{name} is {values[name].dtype} {values[name].shape}, expected {parameter.shape}")
            position, _, checksum = about["done"].rpartition(" ")
            if int(checksum) != _checksum(values, position):
                raise ValueError("its values have changed")
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.checkpoint}: not a checkpoint of this stage ({error}); delete it and run again"
            ) from None
        for name, parameter in self.objective.state().items():
            backend.put(parameter, values[name])
        return [int(number) for number in position.split()]


def _checksum(arrays: dict[str, np.ndarray], about: str) -> int:
    """Compute the CRC-32 of a checkpoint, which shows bits that flipped on the disk."""
    checksum = zlib.crc32(about.encode())
    for name in sorted(arrays):
        checksum = zlib.crc32(np.ascontiguousarray(arrays[name]), checksum)
    return checksum
