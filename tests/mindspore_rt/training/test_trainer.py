"""The training loop: exact resume, metrics, and a loss that is not finite."""

import os
import signal
from types import MappingProxyType

import numpy as np
import pytest
from mindspore import Parameter
from tokenizers import Tokenizer, models, pre_tokenizers

from configs.contract.basics.errors import Stopped, UserError
from configs.contract.basics.files import read_json, read_lines
from configs.contract.experiment import schema
from configs.contract.run.stage import Stage
from mindspore_rt import parallel
from mindspore_rt.cells import backend
from mindspore_rt.cells.encoder import EncoderClassifier
from mindspore_rt.cells.encoder_config import EncoderConfig
from mindspore_rt.data.batches import Batches
from mindspore_rt.training import loss_scale
from mindspore_rt.training.objectives import FineTuning, RobustSearch
from mindspore_rt.training.trainer import Evaluator, Trainer
from tests.helpers.models import normal_arrays
from tests.helpers.timeless import timeless_lines

CONFIG = EncoderConfig(40, 16, 1, 2, 16, 32, 2)


class Killed(Exception):
    """Raised where the process would be killed."""


def batches():
    words = [f"w{i}" for i in range(40)]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    random = np.random.default_rng(0)
    texts = [(" ".join(random.choice(words, random.integers(3, 16))),) for _ in range(26)]
    return Batches(texts, random.integers(0, 2, 26), 2, tokenizer, 16, 4, seed=3)


def train(directory, masked, stop_at=None):
    """Seven-step epochs, two of them; returns the final state as bytes."""
    source = batches()
    model = EncoderClassifier(CONFIG, 2, dropout=0.1, masked=masked)
    model.load(normal_arrays(CONFIG.parameters(2), 0.2, random=1))
    model.amp = None if masked else "float16"  # the loss scale is part of the state
    if masked:
        objective = RobustSearch(model, schema.MaskSearch(ascent_steps=2), 14, seed=5)
    else:
        objective = FineTuning(model, schema.Training(learning_rate=1e-3), 14, seed=5)
    evaluator, step, count = Evaluator(model, source), objective.step, []

    def stopping(batch, index, asked):
        count.append(index)
        if index == stop_at:
            raise Killed
        return step(batch, index, asked)

    objective.step = stopping
    config = schema.Experiment(checkpoint_steps=3, log_steps=1)
    stage = Stage(directory, "test", {}, {})
    Trainer(stage, objective, source, 14, config, "test", lambda *_: {"dev_accuracy": evaluator.accuracy()}).run()
    state = {n: p.asnumpy().tobytes() for n, p in objective.state().items()}
    return state, timeless_lines(directory / "metrics.jsonl"), count


@pytest.mark.parametrize("masked", [False, True])
def test_a_killed_run_ends_with_the_same_bytes(tmp_path, monkeypatch, masked):
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**66)  # the first updates overflow, until the scale has fallen
    state, metrics, _ = train(tmp_path / "whole", masked)
    if not masked:
        skipped = metrics[-2]["skipped_updates"]
        assert 0 < skipped == metrics[8]["skipped_updates"] and metrics[-2]["loss_scale"] == 2.0 ** (66 - skipped)
    for stop in (8, 11):
        with pytest.raises(Killed):
            train(tmp_path / "killed", masked, stop)
    # What a kill in the middle of a line leaves behind.
    with open(tmp_path / "killed" / "metrics.jsonl", "a") as file:
        file.write('{"step": 11, "lo')
    resumed, resumed_metrics, steps = train(tmp_path / "killed", masked)
    assert steps[0] == 9  # the checkpoint before step 11, not the beginning
    assert resumed == state
    assert resumed_metrics == metrics
    # The log has a line a step, and one an epoch.
    assert [m["step"] for m in metrics if "learning_rate" in m] == list(range(1, 15))
    assert [(m["step"], m["epoch"]) for m in metrics if "dev_accuracy" in m] == [(7, 1.0), (14, 2.0)]


def test_a_log_that_lost_lines_is_refused(tmp_path):
    """A checkpoint knows how many belong to it: the run must not end with a log of less."""
    with pytest.raises(Stopped):
        counted(tmp_path, stop_at(3))[0].run()
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="metrics.jsonl: 0 lines, but 4 belong to checkpoint.safetensors"):
        counted(tmp_path)[0].run()


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    class Broken:
        def step(self, batch, index, asked):
            return {"loss": float("nan") if index == 4 else 1.0}

        def state(self):
            return {}

        def metrics(self):
            return {}

    source, config = batches(), schema.Experiment(checkpoint_steps=2, log_steps=1)
    with pytest.raises(UserError, match="step 5"):
        Trainer(Stage(tmp_path, "test", {}, {}), Broken(), source, 14, config, "test", lambda *_: {}).run()


class Counter:
    """An objective of one number: the updates it has made. `before` is called at every step."""

    def __init__(self, before=lambda index: None):
        self.made, self.before, self.votes = Parameter(np.zeros(1, np.float32), name="made"), before, {}

    def step(self, batch, index, asked):
        self.before(index)
        backend.put(self.made, np.array([index + 1], np.float32))
        return {"loss": 1.0, **({"stop_requests": self.votes.get(index, 0.0)} if self.votes else {})}

    def state(self):
        return {"made": self.made}

    def metrics(self):
        return {}


def counted(
    directory,
    before=lambda index: None,
    on_epoch=lambda *_: {},
    steps=14,
    settings=MappingProxyType({}),
    stated=MappingProxyType({}),
    **callbacks,
):
    """A trainer of an objective that counts; `settings` are the experiment's, `stated` what its stage records."""
    objective, config = Counter(before), schema.Experiment(checkpoint_steps=100, log_steps=1, **settings)
    stage = Stage(directory, "test", dict(stated), {})
    return Trainer(stage, objective, batches(), steps, config, "test", on_epoch, **callbacks), objective


def test_other_workers_than_the_first_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "rank", lambda: 1)
    trainer, objective = counted(tmp_path)
    assert trainer.run() == 14 and [file.name for file in tmp_path.iterdir()] == ["begun.json"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_speed_is_that_of_all_workers_together(tmp_path, monkeypatch, ranks):
    """The clock moves by two seconds a step, in which the workers together train on the four sentences of a batch."""
    now = [0.0]

    def later(index):
        now[0] += 2

    monkeypatch.setattr(parallel, "ranks", lambda: ranks)
    monkeypatch.setattr(parallel, "any_rank", lambda flag: flag)
    monkeypatch.setattr("mindspore_rt.training.trainer.time.time", lambda: now[0])
    counted(tmp_path, later, steps=7)[0].run()
    speeds = [r["sentences_per_second"] for r in read_lines(tmp_path / "metrics.jsonl") if "loss" in r]
    assert speeds[:6] == [2.0] * 6


@pytest.mark.parametrize("minutes, expected", [(None, [7, 14]), (0.1, [3, 6, 7, 10, 13, 14])])
def test_checkpoints_by_minutes(tmp_path, monkeypatch, minutes, expected):
    """Two seconds a step, an epoch of seven steps; the clock decides about no meeting of the ranks."""
    now, saves, meetings = [0.0], [], []

    def later(index):
        now[0] += 2

    monkeypatch.setattr("mindspore_rt.training.trainer.time.time", lambda: now[0])
    monkeypatch.setattr(parallel, "any_rank", lambda flag: meetings.append(flag) or flag)
    trainer, _ = counted(tmp_path, later, settings={"checkpoint_minutes": minutes})
    monkeypatch.setattr("mindspore_rt.training.trainer.atomic_write", lambda *_: saves.append(int(now[0] / 2)))
    trainer.run()
    assert saves == expected and len(meetings) == 1 + 2 * 2  # at the start, and at the ends of epochs


def test_the_time_of_a_resumed_stage_is_that_of_all_its_processes(tmp_path, monkeypatch):
    """Two seconds a step, less those that the first process did not save; the hour between the two does not count."""
    now = [1000.0]

    def later(index):
        now[0] += 2
        if index == 9 and now[0] < 2000:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.time", lambda: now[0])
    with pytest.raises(KeyboardInterrupt):
        counted(tmp_path, later)[0].run()  # saved at the end of the first epoch, after step 7
    now[0] += 3600
    trainer, _ = counted(tmp_path, later)
    trainer.run()
    trainer.stage.finish({})
    assert read_json(trainer.stage.manifest)["seconds"] == 14 * 2


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_request_saves_and_says_how_to_go_on(tmp_path, number, status):
    """Ctrl-C, and what clusters send, in the middle of step 4: that step is finished and saved, none is lost."""
    trainer, _ = counted(tmp_path, lambda index: os.kill(os.getpid(), number) if index == 3 else None)
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match="stopped after step 4 of 14") as error:
        trainer.run()
    assert error.value.status == status
    assert signal.getsignal(number) == before
    indices = []
    trainer, objective = counted(tmp_path, indices.append)
    assert trainer.run() == 14
    assert indices == list(range(4, 14)) and objective.made.asnumpy() == 14


def test_a_stop_request_of_another_rank_is_obeyed_at_the_same_step(tmp_path):
    """This rank has heard nothing; all save and stop after step 4, as the figures of that step say."""
    trainer, objective = counted(tmp_path)
    objective.votes = {3: 1.0}
    with pytest.raises(Stopped, match="stopped after step 4 of 14") as error:
        trainer.run()
    assert error.value.status == 143 and (tmp_path / "checkpoint.safetensors").is_file()
    assert not any("stop_requests" in record for record in read_lines(tmp_path / "metrics.jsonl"))


def test_an_early_end_that_another_rank_decides_ends_this_one_too(tmp_path, monkeypatch):
    """This rank alone would train on after the first epoch, of 7 steps; the ranks agree on the end after step 7."""
    answers = iter([False, True, False])  # the first time, all wait for each other
    monkeypatch.setattr(parallel, "any_rank", lambda flag: next(answers))
    assert counted(tmp_path)[0].run() == 7


@pytest.mark.parametrize("where", ["step", "evaluation"])
def test_a_stop_request_at_the_very_end_is_obeyed_too(tmp_path, monkeypatch, where):
    """Else the next job would start. What the last step made is saved; the next run only has to write the model.

    Of several ranks none does so before all have read the checkpoint, which is then removed: a rank that missed it
    would train from the start, and wait for the others for ever.
    """

    def ask(index):
        if index == 13:
            os.kill(os.getpid(), signal.SIGTERM)

    at = {"before": ask} if where == "step" else {"on_epoch": lambda epoch, steps: ask(steps - 1) or {}}
    with pytest.raises(Stopped, match="stopped after step 14 of 14"):
        counted(tmp_path, **at)[0].run()
    indices, read = [], []
    trainer, objective = counted(tmp_path, indices.append)
    monkeypatch.setattr(parallel, "wait", lambda: read.append(float(objective.made.asnumpy()[0])))
    assert trainer.run() == 14 and indices == [] and read == [14]


def test_a_training_can_end_early_also_when_it_is_killed_right_then(tmp_path):
    """`should_stop` ends it after the epoch; the checkpoint records that, so that a resumed run does not train on."""
    trainer, _ = counted(
        tmp_path, on_epoch=lambda epoch, _: {"epoch": epoch}, should_stop=lambda figures: figures["epoch"] == 1
    )
    save = trainer._save

    def save_and_die(*state):
        save(*state)
        raise Killed

    trainer._save = save_and_die
    with pytest.raises(Killed):
        trainer.run()
    indices = []
    trainer, _ = counted(tmp_path, indices.append)
    assert trainer.run() == 7 and indices == []
    trainer.stage.finish({})
    assert not trainer.checkpoint.exists()


def test_snapshots_are_taken_where_asked(tmp_path):
    snapshots = []
    trainer, objective = counted(
        tmp_path,
        snapshot_steps={3, 9},
        on_snapshot=lambda step: snapshots.append((step, float(objective.made.asnumpy()[0]))),
    )
    trainer.run()
    assert snapshots == [(3, 3.0), (9, 9.0)]


def test_a_fresh_start_leaves_no_snapshot_of_another_training(tmp_path):
    """Killed after a snapshot and before the first checkpoint, the stage may be begun with other settings."""
    (tmp_path / "snapshots" / "000003").mkdir(parents=True)
    counted(tmp_path)[0].run()
    assert not (tmp_path / "snapshots").exists()


def stop_at(step):
    """Return a function that makes `counted` stop before a step, and leave a checkpoint."""
    return lambda index: os.kill(os.getpid(), signal.SIGINT) if index == step else None


def test_a_foreign_checkpoint_is_refused(tmp_path):
    with pytest.raises(Stopped):
        counted(tmp_path, stop_at(3))[0].run()
    trainer, objective = counted(tmp_path)
    objective.state = lambda: {"another": objective.made}
    with pytest.raises(UserError, match="checkpoint.safetensors: .*not a checkpoint of this stage"):
        trainer.run()


def test_a_checkpoint_begun_with_other_settings_is_refused(tmp_path):
    with pytest.raises(Stopped):
        counted(tmp_path, stop_at(3), stated={"rate": 1})[0].run()
    with pytest.raises(UserError, match="rate: 1, now 2"):
        counted(tmp_path, stated={"rate": 2})[0].run()
