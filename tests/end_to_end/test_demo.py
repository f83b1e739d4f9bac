"""The real command line at the smallest scale, from packaged text to a report, and in processes that are killed."""

import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from configs.contract.basics.files import ROOT, read_json, read_lines
from configs.contract.experiment import schema
from configs.contract.run import jobs
from configs.contract.run.run_dir import RunDir
from mindspore_rt.ticket import Ticket
from tests.helpers.commands import ENVIRONMENT, run_here, start_commands
from tests.helpers.timeless import timeless_lines

RECIPES = ("textfooler", "textbugger", "bertattack")
# Every kind of method: dense, magnitude pruning (two rounds), random control, robust ticket. FreeLB: faults/.
METHODS = ["methods=[finetune,lth,random,robust]", "lth.share=0.2", "lth.max_steps=2"]
ATTACKS = ["attack.workers=1", "attack.examples=3"]  # two processes: test_scoring.py
VICTIMS = ["finetune", "lth-0.30", "random-0.30", "robust-0.30"]


class Run:
    """An experiment of its own name, removed at the end."""

    def __init__(self, name, folder, model, *overrides):
        self.overrides = [f"name=test-{name}-{os.getpid()}", f"model={model}", *ATTACKS, *overrides]
        self.folder, self.output = folder, ""
        self.dir = RunDir(schema.load("tiny", self.overrides))
        shutil.rmtree(self.dir.root, ignore_errors=True)

    @property
    def stages(self) -> list[str]:
        return jobs.stages(self.dir)

    def command(self, stage, *options) -> list[str]:
        return [f"{jobs.HALVES[stage]}.__main__", stage, "tiny", *self.overrides, *options]

    def commands(self, stage) -> list[list[str]]:
        """Commands of a stage. The jobs of retrain run one by one first, so that none needs a process of its own."""
        of_stage = [job.name for job in jobs.jobs(self.dir) if job.stage == stage]
        single = [self.command(stage, "--only", name) for name in of_stage] if stage == "retrain" else []
        return [*single, self.command(stage)]

    def __call__(self, *stages) -> None:
        """Run stages in this process, which has loaded MindSpore and PyTorch already, in another folder."""
        self.output += run_here([command for stage in stages for command in self.commands(stage)], self.folder)

    def die_at(self, file, lines, *stages) -> None:
        """Run stages in one process, which is killed when a file has so many lines."""
        commands = [self.command(stage) for stage in stages]
        process = start_commands(commands, self.folder, dies_at=(str(file), lines))
        output, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors[-3000:]
        self.output += output


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_bert):
    """A run from beginning to end, and its output."""
    run = Run("whole", tmp_path_factory.mktemp("elsewhere"), tiny_bert, *METHODS)
    try:
        run(*run.stages)
        yield run
    finally:
        shutil.rmtree(run.dir.root, ignore_errors=True)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, tiny_bert):
    """The robust ticket under another name, killed: the search after its fifth step, the ticket's training after its
    third. The stage killed last resumes in this process. tests/torch_eval/attack/test_scoring.py has killed attacks."""
    run = Run("resumed", tmp_path_factory.mktemp("elsewhere"), tiny_bert)
    try:
        run.die_at(run.dir.stage(1, "search") / "metrics.jsonl", 5, "prepare", "finetune", "search")
        run.die_at(run.dir.stage(1, "robust-0.30") / "metrics.jsonl", 3, "search", "draw", "retrain")
        run("retrain")
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
    pictures = re.findall(r"\]\((figures/[^)]+)\)", (report / "report.md").read_text())
    assert pictures and all((report / picture).is_file() for picture in pictures)


def test_every_attack_has_its_results(whole):
    """The same examples for every victim, three of them."""
    assert list(whole.dir.victims(1)) == VICTIMS
    samples = set()
    for victim in VICTIMS:
        for recipe in RECIPES:
            records = read_lines(whole.dir.attack(1, victim) / recipe / "results.jsonl")
            samples.add(tuple(r["index"] for r in records))
    assert len(samples) == 1 and len(samples.pop()) == 3


def test_the_ticket_has_the_asked_sparsity(whole):
    """One layer of width 32 (feed-forward 64) and the pooler: 4 * 32^2 + 2 * 32 * 64 weights and 32^2."""
    ticket = Ticket.load(whole.dir.ticket(1, "robust-0.30"))
    assert ticket.weights == 9 * 32**2
    assert ticket.pruned == round(0.3 * ticket.weights)
    scores = load_file(whole.dir.log_alpha(1, 2))  # of the last epoch
    pruned = np.concatenate([scores[name][~mask] for name, mask in ticket.masks.items()])
    remaining = np.concatenate([scores[name][mask] for name, mask in ticket.masks.items()])
    assert pruned.max() <= remaining.min() and pruned.min() < pruned.max()


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
    from configs.contract.inputs.tokenizer import load_tokenizer
    from mindspore_rt.cells.encoder import EncoderClassifier
    from mindspore_rt.data import splits
    from mindspore_rt.data.batches import Batches
    from mindspore_rt.device import use_device
    from mindspore_rt.formats import huggingface
    from mindspore_rt.training.trainer import Evaluator

    use_device()
    directory = whole.dir.victims(1)[victim]
    texts, labels = splits.read(whole.dir, "test")
    source = huggingface.load(directory)
    cells = EncoderClassifier(source.config, 2)
    cells.load(source.weights)
    batches = Batches(texts, labels, 2, load_tokenizer(directory, 16), 16, 32, seed=0)
    logits = Evaluator(cells, batches).logits()

    model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)

    def by_transformers(split):
        sentences = [record["sentence"] for record in read_lines(whole.dir.split(split))]
        with torch.no_grad():  # the length it is cut to comes from the directory
            return model(**tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")).logits.numpy()

    np.testing.assert_allclose(logits, by_transformers("test"), atol=1e-5, rtol=0)
    dev = np.array([record["label"] for record in read_lines(whole.dir.split("dev"))])
    stated = read_json(directory.parent / "manifest.json")["results"]["dev_accuracy"]
    assert (by_transformers("dev").argmax(1) == dev).mean() == pytest.approx(stated)


def test_a_second_run_skips_everything(whole):
    """Saying so for every job, and without touching a file."""

    def contents():
        files = (p for job in jobs.jobs(whole.dir) for p in job.directory.rglob("*") if p.is_file())
        return {path: path.stat().st_mtime_ns for path in files}

    before, lines = contents(), []
    for stage in (name for name in whole.stages if name not in ("choose", "report")):
        lines += run_here([whole.command(stage)], whole.folder).splitlines()
    # Which kernels there are, and which models have learned nothing, is said every time.
    lines = [line for line in lines if not line.startswith(("kernels:", "warning:"))]
    assert all("already done" in line for line in lines)
    assert len(lines) == len(jobs.jobs(whole.dir)) + len(VICTIMS) * (1 + len(RECIPES))
    assert contents() == before


def pending(run, *overrides) -> list[str]:
    """Return what ./run.sh would start: commands of the halves, one a line."""
    command = [sys.executable, "-m", "configs.contract.run.plan", "pending", "tiny", *run.overrides, *overrides]
    result = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()


def test_a_finished_run_starts_no_process(whole):
    """With another configuration every stage starts, and decides itself what the difference means."""
    assert pending(whole) == []
    assert len(pending(whole, "finetune.epochs=2")) == len(whole.stages)


@pytest.mark.parametrize("name, resumed_at", [("search", "4 of 10"), ("robust-0.30", "2 of 4")])
def test_a_killed_training_goes_on_from_its_checkpoint(resumed, name, resumed_at):
    """One is written every second step; the process was killed after an odd one."""
    assert f"seed-1/{name}: resuming from step {resumed_at}" in resumed.output
    assert not (resumed.dir.stage(1, name) / "checkpoint.safetensors").exists()


def test_the_same_seed_gives_the_same_bytes(whole, resumed):
    """Under another name, among other methods, and although search and retraining were killed."""
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


def test_the_log_of_a_resumed_search_is_that_of_a_whole_one(whole, resumed):
    """Every step once, with the same figures; only the clock differs."""
    logs = [timeless_lines(run.dir.stage(1, "search") / "metrics.jsonl") for run in (whole, resumed)]
    assert logs[0] == logs[1]
    assert [r["step"] for r in logs[0] if "adversarial_loss" in r] == list(range(1, 11))
