"""Publishing to, and scoring from, a stand-in hub on this machine; without the command nothing is uploaded."""

import json
import shutil

import pytest
from huggingface_hub import ModelCard

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import file_hash, write_json, write_lines
from configs.contract.experiment import schema
from configs.contract.inputs import assets
from configs.contract.run.run_dir import RunDir
from tests.helpers.attacked_runs import SENTENCES
from tests.helpers.files import edit_json
from tests.helpers.local_hub import Hub
from torch_eval.library import hub, publish


@pytest.fixture
def server(tmp_path, tiny_bert, monkeypatch):  # the model first: it needs the real cache
    monkeypatch.setattr(assets, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN", "secret")
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def run_dir(tmp_path, tiny_bert):
    """An experiment with one model and one finished attack; the other model is not trained yet."""
    run = RunDir(schema.load("tiny", ["methods=[finetune,robust]", "name=mine", "seeds=[2]"]), tmp_path / "runs")
    write_lines(run.split("test"), [{"sentence": text, "label": 0} for text in SENTENCES])
    names = {"columns": ["sentence"], "labels": ["bad", "good"], "attacked": ["sentence"]}
    splits = {"test": {"count": len(SENTENCES), "sha256": file_hash(run.split("test"))}}
    write_json(run.data / "summary.json", {**names, "splits": splits})
    shutil.copytree(tiny_bert, run.model(2, "robust-0.30"))
    run.ticket(2, "robust-0.30").parent.mkdir(parents=True)
    run.ticket(2, "robust-0.30").write_bytes(b"a ticket")
    shares = {name: {"value": value, "low": 0.1, "high": 0.9} for name, value in (("clean", 0.9), ("aua", 0.4))}
    results = {"clean": {"accuracy": 0.85, "n": 6}, "textfooler": {**shares, "examples": 4}}
    for recipe, metrics in results.items():
        inputs = {"model": file_hash(run.model(2, "robust-0.30")), "test": file_hash(run.split("test"))}
        manifest = {"settings": {"resources": {"from": "packaged"}}, "results": metrics, "inputs": inputs}
        write_json(run.attack(2, "robust-0.30") / recipe / "manifest.json", manifest)
    return run


def test_models_go_up_with_ticket_card_and_results(server, run_dir, capsys):
    before = {path: path.read_bytes() for path in run_dir.root.rglob("*") if path.is_file()}
    assert publish.publish(run_dir, "me/tickets") == ["me/tickets-robust-0.30-seed-2"]
    files = server.uploaded["me/tickets-robust-0.30-seed-2"]
    model = run_dir.model(2, "robust-0.30")
    assert files["ticket.safetensors"] == b"a ticket"
    assert all(files[path.name] == path.read_bytes() for path in model.iterdir() if path.name != "README.md")
    card = ModelCard(files["README.md"].decode())
    metrics = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert metrics["Clean, test set"] == 0.85 and metrics["Aua, textfooler, packaged resources"] == 0.4
    assert json.loads(files["robustness.json"])["textfooler"]["results"]["aua"]["value"] == 0.4
    assert server.created == {"me/tickets-robust-0.30-seed-2": True}  # private
    # The run itself is left as it was: a card with results makes no stage stale.
    assert {path: path.read_bytes() for path in run_dir.root.rglob("*") if path.is_file()} == before
    assert "https://huggingface.co/me/tickets-robust-0.30-seed-2" in capsys.readouterr().out


def test_figures_of_what_a_model_was_before_are_left_out(server, run_dir, capsys):
    """As after a repeated training, before its attacks are repeated."""
    edit_json(run_dir.attack(2, "robust-0.30") / "textfooler" / "manifest.json", inputs={"model": "old", "test": "t"})
    publish.publish(run_dir, "me/tickets")
    files = server.uploaded["me/tickets-robust-0.30-seed-2"]
    assert json.loads(files["robustness.json"]).keys() == {"clean"} and b"textfooler" not in files["README.md"]
    assert "robust-0.30, seed 2: textfooler is left out; model: was made again since, old is" in capsys.readouterr().out


def test_without_a_token_nothing_is_uploaded(server, run_dir, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(UserError, match="not uploaded .*huggingface-cli login"):
        publish.publish(run_dir, "me/tickets")
    assert not server.uploaded


@pytest.mark.parametrize("name", ["me/my tickets", "tickets", "me/tickets@main", "me/"])
def test_a_name_that_no_repository_can_have_is_refused(server, run_dir, name):
    with pytest.raises(UserError, match=f"--to {name}: write OWNER/NAME"):
        publish.publish(run_dir, name)


def test_a_run_without_models_is_refused(server, run_dir):
    with pytest.raises(UserError, match="no trained model to publish"):
        publish.publish(RunDir(schema.load("tiny", ["name=other"]), run_dir.root.parent), "me/tickets")


def test_a_model_of_the_hub_is_downloaded_once(server, tiny_bert, tmp_path):
    source = shutil.copytree(tiny_bert, tmp_path / "classifier")
    for name in ("merges.txt", "bpe.codes", "spm.model"):  # of tokenizers: GPT's and RoBERTa's, BERTweet's, DeBERTa's
        (source / name).write_text(name)
    server.add("someone/classifier", "f" * 40, source)
    folder = hub.model_dir("someone/classifier")
    assert all((folder / name).is_file() for name in ("merges.txt", "bpe.codes", "spm.model"))
    assert (folder / "model.safetensors").read_bytes() == (tiny_bert / "model.safetensors").read_bytes()
    count = len(server.asked)
    assert hub.model_dir("someone/classifier") == folder and len(server.asked) == count
    with pytest.raises(UserError, match="model someone/nothing is not in .* and could not be downloaded"):
        hub.model_dir("someone/nothing")
