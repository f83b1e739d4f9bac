"""What `watch` says about runs at several stages; times are worked out by hand."""

import time

import pytest

from configs.contract.basics.files import write_lines
from configs.contract.experiment import schema
from configs.contract.run import run_dir
from configs.contract.run.jobs import TrainingJob
from configs.contract.run.run_files import Split, Summary, TrainingLine
from tests.helpers import made_up_run as made_up
from torch_eval.__main__ import main
from torch_eval.report import watch


@pytest.fixture
def paths(tmp_path):
    config = schema.load("demo", ["attack.examples=10", "attack.recipes=[textfooler]", "attack.workers=2"])
    return run_dir.RunDir(config, tmp_path)


def searching(paths):
    """Write metrics of a search, two seconds a step, of 188 steps an epoch: of 6000 sentences, 32 a step."""
    made_up.prepare(paths)
    records = [
        {
            "step": s,
            "epoch": round(s / 188, 4),
            "adversarial_loss": 0.5,
            "l0_term": 0.9,
            "sparsity_at_threshold": 0.125,
            "sentences_per_second": 32.4,
            "seconds": 1000.0 + 2 * s,
        }
        for s in range(20, 101, 20)
    ]
    write_lines(
        paths.stage(1, "search") / "metrics.jsonl", [*records, {"step": 100, "epoch": 0.5319, "dev_accuracy": 0.8}]
    )


def test_a_search_at_work(paths):
    searching(paths)
    text, finished = watch.look(paths, time.time())
    # 3 epochs of 188 steps; 464 to go at 2 s each.
    assert "search seed-1/search" in text and "100 of 564  18%" in text and "15 min left" in text
    assert "loss 0.500, L0 term 0.900, sparsity 12.5%, sentences/s 32" in text
    assert not finished


@pytest.mark.parametrize(
    "sentences, max_steps, total", [(67349, None, 6315), (67349, 500, 500), (320, 500, 30), (None, 500, 500)]
)
def test_the_first_record_knows_the_total(tmp_path, sentences, max_steps, total):
    """Although its epoch is rounded: after 10 of 2105 steps it is 0.0048."""
    settings = schema.Training(epochs=3, batch_size=32, max_steps=max_steps)
    job = TrainingJob("finetune", "finetune", tmp_path, seed=1, section="finetune", settings=settings)
    write_lines(tmp_path / "metrics.jsonl", [{"step": 10, "epoch": 0.0048, "loss": 0.7, "seconds": 1.0}])
    assert watch.training_work(job, sentences and summary(sentences)).total == total


def summary(sentences):
    """What `prepare` states about a training set of so many sentences."""
    return Summary(
        ["sentence"], ["negative", "positive"], ["sentence"], {"train": Split(sentences, ""), "test": Split(1, "")}
    )


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
    job = TrainingJob("prune", "lth", directory, seed=1, section="lth", settings=config.lth)
    work = watch.training_work(job, summary(3 * config.lth.batch_size))
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
