"""What `watch` says about runs at several stages; times are worked out by hand."""

import time
from pathlib import Path

import pytest

from configs.contract import run_dir, schema
from configs.contract.files import write_lines
from configs.contract.jobs import TrainingJob
from configs.contract.run_files import TrainingLine
from tests.helpers import made_up_run as made_up
from torch_eval.__main__ import main
from torch_eval.report import watch


@pytest.fixture
def paths(tmp_path):
    config = schema.load("demo", ["attack.examples=10", "attack.recipes=[textfooler]", "attack.workers=2"])
    return run_dir.RunDir(config, tmp_path)


def searching(paths):
    """Write metrics of a search, two seconds a step, of 200 steps an epoch."""
    records = [
        {
            "step": s,
            "epoch": s / 200,
            "adversarial_loss": 0.5,
            "l0_term": 0.9,
            "sparsity_at_threshold": 0.125,
            "sentences_per_second": 32.4,
            "seconds": 1000.0 + 2 * s,
        }
        for s in range(20, 101, 20)
    ]
    write_lines(
        paths.stage(1, "search") / "metrics.jsonl", [*records, {"step": 100, "epoch": 0.5, "dev_accuracy": 0.8}]
    )


def test_a_search_at_work(paths):
    searching(paths)
    text, finished = watch.look(paths, time.time())
    # 3 epochs of 200 steps; 500 to go at 2 s each.
    assert "search seed-1/search" in text and "100 of 600  17%" in text and "17 min left" in text
    assert "loss 0.500, L0 term 0.900, sparsity 12.5%, sentences/s 32" in text
    assert not finished


def test_total_steps_knows_max_steps_and_the_first_record():
    about = ("finetune", "finetune", Path())
    job = TrainingJob(*about, seed=1, section="finetune", settings=schema.Training(epochs=3, max_steps=500))
    assert watch.total_steps(job, TrainingLine(50, epoch=0.25)) == 500
    assert watch.total_steps(job, TrainingLine(50, epoch=0.5)) == 300
    unlimited = TrainingJob(*about, seed=1, section="finetune", settings=schema.Training())
    assert watch.total_steps(unlimited, TrainingLine(50, 0.0)) is None


def test_an_interruption_does_not_count_as_pace():
    records = [TrainingLine(s, 1.0, 10.0 * s + (5000 if s > 3 else 0)) for s in range(1, 8)]
    assert watch.seconds_left(records, 17) == 100
    assert watch.seconds_left(records[:1], 17) is None


def test_a_round_of_pruning_is_found(tmp_path):
    config = schema.load("demo", ["methods=[finetune,lth]", "lth.epochs=3"])
    directory = tmp_path / "lth"
    write_lines(directory / "round-1" / "metrics.jsonl", [{"step": 9, "epoch": 3, "seconds": 1.0}])
    made_up.finish(directory / "round-1", {})
    write_lines(directory / "round-2" / "metrics.jsonl", [{"step": 3, "epoch": 1.0, "loss": 0.25, "seconds": 1.0}])
    work = watch.training_work(TrainingJob("prune", "lth", directory, seed=1, section="lth", settings=config.lth))
    assert (work.title, work.done, work.total) == ("prune seed-1/lth, round-2", 3, 9)


def test_an_attack_at_work_and_its_shards(paths):
    made_up.prepare(paths)
    folder = paths.attack(1, "finetune") / "textfooler"
    records = [{**made_up.record(i, "success" if i else "failure"), "seconds": 4.0} for i in range(6)]
    made_up.write_records(folder, records[:4])
    text, _ = watch.look(paths, time.time())
    # 6 to go, 4 s each, two workers.
    assert "4 of 10  40%" in text and "Aua 25.0%" in text and "12 s left" in text
    made_up.write_records(folder / "shard-1-of-2", records[4:])
    assert "6 of 10  60%" in watch.look(paths, time.time())[0]


def test_what_the_official_code_calls_bert_attack_is_named(tmp_path):
    keys = ["attack.recipes=[bertattack]", "methods=[finetune]"]
    for protocol, title in (("paper", "BERT-Attack"), ("official", "BERT-Attack (official code's)")):
        run = run_dir.RunDir(schema.load("demo", [*keys, f"attack.protocol={protocol}"]), tmp_path)
        assert [watch.title(job, protocol) for job in watch.attacks(run)] == [f"attack seed-1/finetune {title}"]


def test_silence_is_told(paths):
    searching(paths)
    assert "no new record for 60 min" in watch.look(paths, time.time() + 3600)[0]


def test_beginning_and_end(tmp_path, capsys):
    config = schema.load("demo", ["attack.examples=10"])
    text, finished = watch.look(run_dir.RunDir(config, tmp_path), time.time())
    assert "next: prepare data" in text and not finished
    paths = made_up.whole(tmp_path, "attack.examples=100", config="demo")
    text, finished = watch.look(paths, time.time())
    assert finished and "everything is done" in text
    watch.watch(schema.load("demo", ["attack.examples=100"]), runs=tmp_path)  # ends by itself
    assert "everything is done" in capsys.readouterr().out


@pytest.mark.parametrize("every", ["0", "-1", "nan", "inf", "1e12", "often"])
def test_a_time_that_cannot_be_waited_is_refused(every, capsys):
    assert main(["watch", "demo", f"--every={every}"]) == 2
    assert "argument --every: invalid seconds value" in capsys.readouterr().err


def test_one_look(paths, capsys):
    searching(paths)
    watch.watch(schema.load("demo", ["attack.recipes=[textfooler]"]), once=True, runs=paths.root.parent)
    assert "search seed-1/search" in capsys.readouterr().out
