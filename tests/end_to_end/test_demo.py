"""The real command line at the smallest scale, from packaged text to a report, in processes of its own."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from configs.contract import jobs, schema
from configs.contract.files import ROOT, read_json, read_lines
from configs.contract.run_dir import RunDir
from mindspore_rt.ticket import Ticket
from tests.end_to_end import kill_at_random
from tests.end_to_end.kill_at_random import killed
from tests.helpers.commands import ENVIRONMENT, run_commands

RECIPES = ("textfooler", "textbugger", "bertattack")
# Every kind of method: dense, magnitude pruning (two rounds), random control, robust ticket. FreeLB: faults/.
METHODS = ["methods=[finetune,lth,random,robust]", "lth.share=0.2", "lth.max_steps=2"]
ONE = "attack.workers=1"  # a process that attacks starts for ten seconds; test_attack.py has two of them
VICTIMS = ["finetune", "lth-0.30", "random-0.30", "robust-0.30"]


class Run:
    """An experiment of its own name, removed at the end."""

    def __init__(self, name, folder, *overrides):
        self.overrides, self.folder = [f"name=test-{name}-{os.getpid()}", ONE, *overrides], folder
        self.dir = RunDir(schema.load("tiny", self.overrides))
        shutil.rmtree(self.dir.root, ignore_errors=True)

    @property
    def stages(self) -> list[str]:
        return jobs.stages(self.dir)

    def arguments(self, stage) -> list[str]:
        return [stage, "tiny", *self.overrides]

    def start(self, stage):
        """Started in another folder than the repository's; stdout and stderr apart."""
        command = [sys.executable, "-m", jobs.HALVES[stage], *self.arguments(stage)]
        return subprocess.Popen(
            command, cwd=self.folder, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def __call__(self, *stages) -> str:
        """Run stages in one process; several jobs of a stage still get a process each."""
        commands = [[f"{jobs.HALVES[stage]}.__main__", *self.arguments(stage)] for stage in stages]
        return run_commands(commands, self.folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run from beginning to end, and its output."""
    run = Run("whole", tmp_path_factory.mktemp("elsewhere"), *METHODS)
    try:
        run.output = run(*run.stages)
        yield run
    finally:
        shutil.rmtree(run.dir.root, ignore_errors=True)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """The robust ticket under another name, killed: training at random moments, search after its fifth step, and one
    attack after its first sentence."""
    run, moment = Run("resumed", tmp_path_factory.mktemp("elsewhere")), random.Random(1)
    metrics = run.dir.stage(1, "search") / "metrics.jsonl"
    try:
        run("prepare")
        killed("finetune", run.overrides, moment.uniform(0, 5))
        run("finetune")
        for _ in range(3):  # on a busy machine it may end before this process notices its fifth step
            process = run.start("search")
            while process.poll() is None and not (metrics.is_file() and len(read_lines(metrics)) >= 5):
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            _, errors = process.communicate()
            if process.returncode:
                break
            shutil.rmtree(metrics.parent)
        assert process.returncode == -signal.SIGKILL, errors[-3000:]
        assert not (run.dir.stage(1, "search") / "manifest.json").exists()
        run.output = run("search", "draw")
        killed("retrain", run.overrides, moment.uniform(0, 5))
        run("retrain")
        run.overrides.append("attack.recipes=[textfooler]")
        lines = run.dir.attack(1, "finetune") / "textfooler" / "results.jsonl"
        process = kill_at_random.start("attack", run.overrides)
        while process.poll() is None and not (lines.is_file() and read_lines(lines)):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        run("attack")
        yield run
    finally:
        shutil.rmtree(run.dir.root, ignore_errors=True)


def test_the_stages_are_those_of_the_methods(whole):
    assert whole.stages == list(jobs.HALVES)
    assert all(job.done for job in jobs.jobs(whole.dir))


def test_the_report_names_every_victim_and_attack(whole):
    report = whole.dir.report
    assert str(report / "report.html") in whole.output.splitlines()[-1]
    for name in ("report.md", "report.html"):
        text = (report / name).read_text()
        methods = ("Fine-tune", "LTH", "Random", "Robust")
        for part in (*methods, "30%", "TextFooler", "TextBugger", "BERT-Attack"):
            assert part in text, (name, part)
    assert any((report / "figures").iterdir())


def test_every_attack_has_its_results(whole):
    """The same examples for every victim, four of them."""
    assert list(whole.dir.victims(1)) == VICTIMS
    samples = set()
    for victim in VICTIMS:
        for recipe in RECIPES:
            records = read_lines(whole.dir.attack(1, victim) / recipe / "results.jsonl")
            samples.add(tuple(r["index"] for r in records))
    assert len(samples) == 1 and len(samples.pop()) == 4


def test_the_ticket_has_the_asked_sparsity(whole):
    """One layer of 384 and the pooler: 12 * 384^2 weights and 384^2; to within one weight."""
    ticket = Ticket.load(whole.dir.ticket(1, "robust-0.30"))
    assert ticket.weights == 13 * 384**2
    assert ticket.pruned == round(0.3 * ticket.weights)
    scores = load_file(whole.dir.log_alpha(1, 2))  # of the last epoch
    pruned = np.concatenate([scores[name][~mask] for name, mask in ticket.masks.items()])
    kept = np.concatenate([scores[name][mask] for name, mask in ticket.masks.items()])
    assert pruned.max() <= kept.min() and pruned.min() < pruned.max()


def test_the_random_ticket_prunes_as_much_of_every_matrix_elsewhere(whole):
    chosen, random = (Ticket.load(whole.dir.ticket(1, model)) for model in ("robust-0.30", "random-0.30"))
    assert random.pruned_share() == chosen.pruned_share()
    assert random.distance(chosen) > 0.2


@pytest.mark.parametrize("victim", ["lth-0.30", "random-0.30", "robust-0.30"])
def test_retrained_weights_are_zero_where_the_ticket_prunes(whole, victim):
    """And nowhere else; the others have moved from their pre-trained values, which retraining starts from."""
    ticket = Ticket.load(whole.dir.ticket(1, victim))
    weights = load_file(whole.dir.model(1, victim) / "model.safetensors")
    tuned = load_file(whole.dir.model(1, "finetune") / "model.safetensors")
    for name, mask in ticket.masks.items():
        np.testing.assert_array_equal(weights[name] != 0, mask, err_msg=name)
        assert (tuned[name] != 0).all()
    assert not np.array_equal(weights["classifier.weight"], tuned["classifier.weight"])


@pytest.mark.parametrize("victim", VICTIMS)
def test_exported_models_compute_the_same_in_transformers(whole, victim):
    """Logits of all test sentences to 1e-5, and the dev accuracy in the manifest."""
    from configs.contract.tokenizer import load_tokenizer
    from mindspore_rt.cells.bert import BertClassifier
    from mindspore_rt.data import prepare
    from mindspore_rt.data.batches import Batches
    from mindspore_rt.device import use_device
    from mindspore_rt.formats import huggingface
    from mindspore_rt.training.trainer import Evaluator

    use_device()
    directory = whole.dir.victims(1)[victim]
    texts, labels, _ = prepare.load_split(whole.dir, "test")
    source = huggingface.load(directory)
    cells = BertClassifier(source.config, 2)
    cells.load(source.weights)
    batches = Batches(texts, labels, 2, load_tokenizer(directory, 16), 16, 32, seed=0)
    found = Evaluator(cells, batches).logits()

    model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)

    def by_transformers(split):
        sentences = [record["sentence"] for record in read_lines(whole.dir.split(split))]
        with torch.no_grad():  # the length it is cut to comes from the directory
            return model(**tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")).logits.numpy()

    np.testing.assert_allclose(found, by_transformers("test"), atol=1e-5, rtol=0)
    dev = np.array([record["label"] for record in read_lines(whole.dir.split("dev"))])
    stated = read_json(directory.parent / "manifest.json")["results"]["dev_accuracy"]
    assert (by_transformers("dev").argmax(1) == dev).mean() == pytest.approx(stated)


def test_a_second_run_skips_everything(whole, capsys):
    """Saying so for every job, and without touching a file. In this process: starting nine takes far longer."""
    from mindspore_rt import __main__ as training
    from torch_eval import __main__ as scoring

    def contents():
        files = (p for job in jobs.jobs(whole.dir) for p in job.directory.rglob("*") if p.is_file())
        return {path: path.stat().st_mtime_ns for path in files}

    before, lines = contents(), []
    for stage in (name for name in whole.stages if name not in ("choose", "report")):
        arguments = whole.arguments(stage)
        capsys.readouterr()
        assert (training if jobs.HALVES[stage] == "mindspore_rt" else scoring).main(arguments) == 0
        lines += capsys.readouterr().out.splitlines()
    # Which kernels there are, and which models have learned nothing, is said every time.
    lines = [line for line in lines if not line.startswith(("kernels:", "warning:"))]
    assert all("already done" in line for line in lines)
    assert len(lines) == len(jobs.jobs(whole.dir)) + len(VICTIMS) * (1 + len(RECIPES))
    assert contents() == before


def pending(run, *overrides) -> list[str]:
    """Return what ./run.sh would start: commands of the halves, one a line."""
    command = [sys.executable, "-m", "configs.contract.plan", "pending", "tiny", *run.overrides, *overrides]
    result = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()


def test_a_finished_run_starts_no_process(whole):
    """With another configuration every stage starts, and decides itself what the difference means."""
    assert pending(whole) == []
    assert len(pending(whole, "finetune.epochs=2")) == len(whole.stages)


def test_a_killed_search_goes_on_from_its_checkpoint(resumed):
    """One is written every second step; the process was killed after its fifth step or a little later."""
    assert re.search("going on from step [468] of 10", resumed.output)
    assert not (resumed.dir.stage(1, "search") / "checkpoint.safetensors").exists()


def test_the_same_seed_gives_the_same_bytes(whole, resumed):
    """Under another name, among other methods, and although training, search and retraining were killed."""
    results = [
        "data/train.jsonl",
        "data/dev.jsonl",
        "data/test.jsonl",
        "seed-1/finetune/model/model.safetensors",
        "seed-1/search/log_alpha/epoch-01.safetensors",
        "seed-1/search/log_alpha/epoch-02.safetensors",
        "seed-1/tickets/robust-0.30/ticket.safetensors",
        "seed-1/robust-0.30/model/model.safetensors",
    ]
    for name in results:
        assert (whole.dir.root / name).read_bytes() == (resumed.dir.root / name).read_bytes(), name


def test_a_killed_attack_ends_as_a_whole_one(whole, resumed):
    """Every sentence once, with the same text, scores and queries; only the clock differs."""
    for victim in ("finetune", "robust-0.30"):
        found = []
        for run in (whole, resumed):
            records = read_lines(run.dir.attack(1, victim) / "textfooler" / "results.jsonl")
            found.append([{k: v for k, v in r.items() if "seconds" not in k} for r in records])
        assert found[0] == found[1] and len(found[0]) == 4


def test_the_log_of_a_resumed_search_is_that_of_a_whole_one(whole, resumed):
    """Every step once, with the same figures; only the clock differs."""
    logs = []
    for run in (whole, resumed):
        records = read_lines(run.dir.stage(1, "search") / "metrics.jsonl")
        logs.append([{k: v for k, v in r.items() if k not in ("seconds", "sentences_per_second")} for r in records])
    assert logs[0] == logs[1]
    assert [r["step"] for r in logs[0] if "adversarial_loss" in r] == list(range(1, 11))
