"""The real command line at the smallest scale, from packaged text to a report, in processes of its own."""

import os
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

from configs import schema
from configs.run_dir import ROOT, RunDir, read_json, read_lines
from mindspore_rt.ticket import Ticket

RECIPES = ("textfooler", "textbugger", "bertattack")
STAGES = ("prepare", "finetune", "search", "draw", "retrain")


class Run:
    """An experiment of its own name, removed at the end."""

    def __init__(self, name, folder):
        self.name, self.folder = f"test-{name}-{os.getpid()}", folder
        self.dir = RunDir(schema.load("tiny", [f"name={self.name}"]))
        shutil.rmtree(self.dir.root, ignore_errors=True)

    def start(self, package, stage):
        """Started in another folder than the repository's; stdout and stderr apart."""
        command = [sys.executable, "-m", package, stage, "tiny", f"name={self.name}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def __call__(self, package, stage) -> str:
        process = self.start(package, stage)
        output, errors = process.communicate()
        assert process.returncode == 0, errors[-3000:]
        return output


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run from beginning to end, and the report's output."""
    run = Run("whole", tmp_path_factory.mktemp("elsewhere"))
    try:
        run("mindspore_rt", "run")
        run("torch_eval", "attack")
        run.output = run("torch_eval", "report")
        yield run
    finally:
        shutil.rmtree(run.dir.root, ignore_errors=True)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """The same experiment under another name, its search killed after the fifth step, and run again."""
    run = Run("resumed", tmp_path_factory.mktemp("elsewhere"))
    metrics = run.dir.search(1) / "metrics.jsonl"
    try:
        process = run.start("mindspore_rt", "run")
        while process.poll() is None and not (metrics.is_file() and len(read_lines(metrics)) >= 5):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        output, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors[-3000:]
        assert not (run.dir.search(1) / "manifest.json").exists()
        run.output = run("mindspore_rt", "run")
        yield run
    finally:
        shutil.rmtree(run.dir.root, ignore_errors=True)


def test_the_report_names_every_victim_and_attack(whole):
    report = whole.dir.report
    assert str(report / "report.html") in whole.output.splitlines()[-1]
    assert "missing" not in whole.output
    for name in ("report.md", "report.html"):
        text = (report / name).read_text()
        for part in ("Fine-tune", "RobustT", "30%", "TextFooler", "TextBugger", "BERT-Attack"):
            assert part in text, (name, part)
    assert {p.suffix for p in (report / "figures").iterdir()} == {".png"}


def test_every_attack_has_its_results(whole):
    """The same examples for every victim, four of them."""
    samples = set()
    for victim in whole.dir.victims(1):
        for recipe in RECIPES:
            records = read_lines(whole.dir.attack(1, victim) / recipe / "results.jsonl")
            samples.add(tuple(r["index"] for r in records))
    assert len(samples) == 1 and len(samples.pop()) == 4


def test_the_ticket_has_the_asked_sparsity(whole):
    """One layer of 384 and the pooler: 12 * 384^2 weights and 384^2; to within one weight."""
    ticket = Ticket.load(whole.dir.ticket(1, 0.3))
    assert ticket.weights == 13 * 384**2
    assert ticket.pruned == round(0.3 * ticket.weights)
    scores = load_file(whole.dir.log_alpha(1, 2))  # of the last epoch
    pruned = np.concatenate([scores[name][~mask] for name, mask in ticket.masks.items()])
    kept = np.concatenate([scores[name][mask] for name, mask in ticket.masks.items()])
    assert pruned.max() <= kept.min() and pruned.min() < pruned.max()


def test_retrained_weights_are_zero_where_the_ticket_prunes(whole):
    """And nowhere else; the others have moved from their pre-trained values, which retraining starts from."""
    ticket = Ticket.load(whole.dir.ticket(1, 0.3))
    weights = load_file(whole.dir.retrain(1, 0.3) / "model" / "model.safetensors")
    tuned = load_file(whole.dir.finetune(1) / "model" / "model.safetensors")
    for name, mask in ticket.masks.items():
        np.testing.assert_array_equal(weights[name] != 0, mask, err_msg=name)
        assert (tuned[name] != 0).all()
    assert not np.array_equal(weights["classifier.weight"], tuned["classifier.weight"])


@pytest.mark.parametrize("victim", ["finetune", "robust-0.30"])
def test_exported_models_compute_the_same_in_transformers(whole, victim):
    """Logits of all test sentences to 1e-5, and the dev accuracy in the manifest."""
    from mindspore_rt import data, huggingface
    from mindspore_rt.__main__ import use_device
    from mindspore_rt.bert import BertClassifier
    from mindspore_rt.trainer import Evaluator

    use_device("CPU")
    directory = whole.dir.victims(1)[victim]
    texts, labels, _ = data.load_split(whole.dir, "test")
    source = huggingface.load(directory)
    cells = BertClassifier(source.config, 2)
    cells.load(source.weights)
    batches = data.Batches(texts, labels, 2, data.load_tokenizer(directory, 16), 16, 32, seed=0)
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


def test_a_second_run_skips_everything(whole):
    """In seconds, saying so for every stage, and without touching a model."""
    model = whole.dir.victims(1)["robust-0.30"] / "model.safetensors"
    before, started = model.stat().st_mtime_ns, time.time()
    training, attacks = whole("mindspore_rt", "run").splitlines(), whole("torch_eval", "attack").splitlines()
    assert time.time() - started < 20
    assert [line.partition(":")[0] for line in training] == list(STAGES)
    assert len(attacks) == 2 * (1 + len(RECIPES))
    assert all("already done" in line for line in training + attacks)
    assert model.stat().st_mtime_ns == before


def test_a_killed_search_goes_on_from_its_checkpoint(resumed):
    """It is the fourth step's: one is written every second step."""
    assert "going on from step 4 of 10" in resumed.output
    assert "finetune: already done" in resumed.output
    assert not (resumed.dir.search(1) / "checkpoint.safetensors").exists()


def test_the_same_seed_gives_the_same_bytes(whole, resumed):
    """Under another name, and although the search was killed and resumed."""
    results = [
        "data/train.jsonl",
        "data/dev.jsonl",
        "data/test.jsonl",
        "seed-1/finetune/model/model.safetensors",
        "seed-1/search/log_alpha/epoch-01.safetensors",
        "seed-1/search/log_alpha/epoch-02.safetensors",
        "seed-1/tickets/robust-0.30.safetensors",
        "seed-1/robust-0.30/model/model.safetensors",
    ]
    for name in results:
        assert (whole.dir.root / name).read_bytes() == (resumed.dir.root / name).read_bytes(), name


def test_the_log_of_a_resumed_search_is_that_of_a_whole_one(whole, resumed):
    """Every step once, with the same figures; only the clock differs."""
    logs = []
    for run in (whole, resumed):
        records = read_lines(run.dir.search(1) / "metrics.jsonl")
        logs.append([{k: v for k, v in r.items() if k not in ("seconds", "sentences_per_second")} for r in records])
    assert logs[0] == logs[1]
    assert [r["step"] for r in logs[0] if "adversarial_loss" in r] == list(range(1, 11))
