"""Each of the six tasks from files in its own format, and a pair with three labels through the whole command line."""

import numpy as np
import pytest
from transformers import AutoTokenizer

from configs.contract.basics.files import read_json, read_lines
from configs.contract.experiment import schema
from configs.contract.inputs.tasks import TASKS
from configs.contract.inputs.tokenizer import load_tokenizer
from configs.contract.run.run_dir import RunDir
from mindspore_rt.data import splits
from mindspore_rt.data.batches import Batches
from tests.end_to_end import six_tasks
from tests.helpers.commands import run_here
from torch_eval.bench.random_models import random_classifier


@pytest.mark.parametrize("task", six_tasks.TASKS)
def test_files_become_batches(task, tmp_path, packaged_model):
    """All labels, columns and texts arrive; a batch is what transformers makes of them."""
    keys = [*six_tasks.write_files(task, tmp_path), *six_tasks.SMALL]
    run = RunDir(schema.load(task, keys), tmp_path / "runs")
    summary = splits.write(run)
    assert {name: split["count"] for name, split in summary["splits"].items()} == {"train": 32, "dev": 8, "test": 6}
    assert summary["columns"] == list(TASKS[task].columns)
    assert all(summary["splits"]["train"]["labels"].values()) and not any(summary["duplicates"].values())
    assert len(summary["warnings"]) == (task == "qqp")  # its torn rows

    texts, labels = splits.read(run, "test")
    assert list(labels) == [i % len(summary["labels"]) for i in range(6)] or task == "imdb"  # by folder there
    batches = Batches(texts, labels, len(summary["labels"]), load_tokenizer(packaged_model, 16), 16, 6, 0)
    batch = batches.batch(np.arange(6))
    cut = {"truncation": "longest_first", "padding": "max_length", "max_length": 16}
    expected = AutoTokenizer.from_pretrained(packaged_model)(*map(list, zip(*texts)), **cut)
    np.testing.assert_array_equal(batch.ids, expected["input_ids"])
    np.testing.assert_array_equal(batch.token_types, expected["token_type_ids"])
    assert (batch.token_types.any() == (len(summary["columns"]) == 2)).all()


def test_files_become_a_report(tmp_path, capfd):
    """MNLI: pairs, three labels; the hypothesis is attacked. RoBERTa with whole heads pruned: test_demo.py has BERT."""
    six_tasks.DRAW.seed("model")
    model = random_classifier(tmp_path / "model", "roberta", [six_tasks.sentence(label) for label in range(4)] * 9)
    keys = [f"model={model}", "methods=[finetune, robust]", "structured=true"]
    with six_tasks.run("mnli", tmp_path, *keys, runner=run_here) as run:
        output = capfd.readouterr().out
        assert "missing" not in output and (run.report / "report.md").is_file()
        count, (tuned, robust) = 0, run.victims(1)
        for victim in (tuned, robust):
            config = read_json(run.model(1, victim) / "config.json")
            assert list(config["label2id"]) == ["entailment", "neutral", "contradiction"]
            assert config["architectures"] == ["RobertaForSequenceClassification"]
            for record in read_lines(run.attack(1, victim) / "textfooler" / "results.jsonl"):
                assert record["original"]["premise"] == record["perturbed"]["premise"]
                count += 1
        assert count == 4
        assert read_json(run.model(1, robust) / "config.json")["intermediate_size"] < 64
