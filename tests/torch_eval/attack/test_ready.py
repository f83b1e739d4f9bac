"""What the attacks will need is missed before anything is trained."""

import pytest
import torch
from transformers import BertForSequenceClassification

from configs.contract.basics.files import write_lines
from configs.contract.experiment import schema
from configs.contract.run.run_dir import RunDir
from tests.helpers.attacked_runs import WorkersInThisProcess
from tests.helpers.prepared import write_summary
from tests.helpers.victims import write_bert
from torch_eval.assets import original, packaged
from torch_eval.attack import ready


@pytest.fixture
def check(tmp_path, capsys):
    """Check a run of the configuration `tiny` with some keys; returns the exit status and the error."""

    def check(*keys):
        run = RunDir(schema.load("tiny", keys), tmp_path)
        write_lines(run.split("test"), [{"sentence": "a dull film", "label": 0}])
        write_summary(run)
        return ready.main("tiny", *keys, runs=tmp_path), capsys.readouterr().err

    return check


def test_what_is_there_is_ready(check):
    assert check("attack.recipes=[bertattack,textfooler,textbugger,pwws]") == (0, "")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_an_absent_device(check):
    status, error = check("attack.device=cuda")
    assert status == 2 and "attack.device: PyTorch finds no CUDA device here; use cpu, or" in error


def test_original_resources_without_the_files_of_one(check, tmp_path):
    folder = tmp_path / "resources"
    for name, files in original.FILES.items():
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            if name != "masked language model":
                (folder / file).write_text(name)
    keys = ["attack.resources=original", f"attack.resources_dir={folder}"]
    status, error = check(*keys, "attack.recipes=[bertattack,textfooler]")
    assert status == 2 and "put bert-base-uncased/config.json, bert-base-uncased/model.safetensors" in error


@pytest.mark.parametrize("sparsities, status", [("[0.3]", 0), ("[0.3,0.5]", 2)])
def test_a_poor_masked_language_model_is_refused_for_a_choice_alone(check, monkeypatch, sparsities, status):
    """The attacks leave BERT-Attack out and continue; a choice among tickets would have no other attack to use."""
    monkeypatch.setattr(packaged, "mlm_facts", lambda: {"top1": 0.1})
    keys = ["methods=[finetune,robust]", f"sparsities={sparsities}", "choice.recipe=bertattack"]
    ended, error = check(*keys, "attack.recipes=[bertattack,textfooler]")
    assert (ended, "choice.recipe=textfooler" in error) == (status, bool(status))


def test_a_classifier_without_a_head(check, tmp_path, monkeypatch):
    """Only loading shows it."""
    monkeypatch.setattr(ready, "Workers", WorkersInThisProcess)
    raw = write_bert(tmp_path / "raw")
    BertForSequenceClassification.from_pretrained(raw).bert.save_pretrained(raw)
    status, error = check(f"attack.victims=[raw={raw}]")
    assert status == 2 and "raw: a bert model without a trained classifier" in error and "delete" not in error
