"""The way to the Hugging Face hub, through mindnlp in a process of its own, against a stand-in hub on this machine."""

import os
import shlex
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor

import pyarrow
import pyarrow.parquet
import pytest
from safetensors.numpy import load_file

from configs.contract.basics.errors import UserError
from configs.contract.experiment import schema
from configs.contract.inputs import assets
from configs.contract.inputs import hub as contract_hub
from configs.contract.inputs.tasks import GLUE, TASKS
from configs.contract.inputs.tokenizer import load_tokenizer
from configs.contract.run.run_dir import RunDir
from mindspore_rt.data import splits
from mindspore_rt.formats import hub, huggingface
from tests.helpers.local_hub import Hub
from tests.helpers.models import assert_same_arrays
from tests.helpers.needs import needs_mindnlp
from tests.helpers.refusals import refusal

TEXTS = ["a fine film", "dull", "it's the one , at 9 o'clock"]
# As on the hub: the card's head says which files make which split, and which numbers are labels.
CARD = """---
dataset_info:
- config_name: qqp
  features:
  - {name: question1, dtype: string}
  - {name: question2, dtype: string}
  - name: label
    dtype: {class_label: {names: {'0': not_duplicate, '1': duplicate}}}
  - {name: idx, dtype: int32}
configs:
- config_name: qqp
  data_files:
  - {split: test, path: qqp/test-*}
  - {split: train, path: qqp/train-*}
  - {split: validation, path: qqp/validation-*}
---
# GLUE
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, a user with a token, and a hub that does not answer."""
    monkeypatch.setattr(assets, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    # Set by TextAttack and the scoring half, if another test loads them.
    for name in ("HF_DATASETS_OFFLINE", "PYTORCH_TRANSFORMERS_CACHE", "TRANSFORMERS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", "secret")
    return tmp_path / "cache"


@pytest.fixture
def stand_in(cache, monkeypatch):
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "0")
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def without_mindnlp(tmp_path, monkeypatch):
    """A function: from its call on, processes find no mindnlp. Importing that takes ten seconds."""
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "sitecustomize.py").write_text("import sys; sys.modules['mindnlp'] = None")
    return lambda: monkeypatch.setenv("PYTHONPATH", str(tmp_path / "without"))


@pytest.mark.parametrize("client", [pytest.param("mindnlp", marks=needs_mindnlp), "the hub's own"])
def test_the_hub_gives_data_sets_and_models(stand_in, cache, tiny_bert, tmp_path, capfd, client, without_mindnlp):
    """QQP by its own configuration, at the pinned revision, to splits; a private model, by the user's token.

    The data hold what QQP's do: a question without text. A repository at another revision is not taken.
    """
    if client != "mindnlp":
        without_mindnlp()
    rows = {
        split: [(f"How {split} {i}?", f"Why \u2028 {i}, naïve?", i % 2, i) for i in range(n)]
        for split, n in (("train", 40), ("validation", 12), ("test", 3))
    }
    rows["train"][7] = ("How can I develop?", "", 0, 7)
    glue = tmp_path / "glue"
    (glue / "qqp").mkdir(parents=True)
    (glue / "README.md").write_text(CARD)
    for split, values in rows.items():
        table = pyarrow.table(dict(zip(("question1", "question2", "label", "idx"), map(list, zip(*values)))))
        pyarrow.parquet.write_table(table, glue / "qqp" / f"{split}-00000-of-00001.parquet")
    stand_in.add(f"datasets/{GLUE[0]}", GLUE[1], glue)
    stand_in.add("someone/bert", "f" * 40, tiny_bert, private=True)

    run = RunDir(schema.load("qqp", ["data.dev_size=9"]), tmp_path / "runs")
    with ThreadPoolExecutor(2) as pool:  # each takes seconds, which importing mindnlp costs
        prepared = pool.submit(splits.write, run)
        newest = hub.model_dir("someone/bert")
        summary = prepared.result()

    texts = {split: [tuple(t) for t in splits.read(run, split)[0]] for split in ("train", "dev", "test")}
    pairs = {split: [(a, b) for a, b, *_ in values if b] for split, values in rows.items()}
    assert sorted(texts["train"] + texts["dev"]) == sorted(pairs["train"]) and len(texts["dev"]) == 9
    assert texts["test"] == pairs["validation"]  # GLUE's official dev set
    assert list(splits.read(run, "test")[1]) == [i % 2 for i in range(12)]
    assert GLUE[1][:8] in summary["note"] and "line 8: column 'question2' holds no text" in summary["warnings"][0]

    assert newest == cache / "hub" / "model" / "someone--bert"
    assert (newest / contract_hub.COMMIT).read_text() == "f" * 40
    assert f"; someone/bert@{'f' * 40} asks for that one" in capfd.readouterr().out
    assert_same_arrays(huggingface.load(newest).weights, load_file(tiny_bert / "model.safetensors"))
    ours, theirs = (load_tokenizer(f, 24).encode_batch(TEXTS) for f in (newest, tiny_bert))
    assert [e.ids for e in ours] == [e.ids for e in theirs]

    # What is there is not asked for again.
    count = len(stand_in.asked)
    assert all(token == "secret" for path, token in stand_in.asked if path.startswith("someone"))
    assert hub.model_dir("someone/bert") == newest
    splits.write(run)
    assert len(stand_in.asked) == count


def test_a_model_at_a_revision_has_a_folder_of_its_own(stand_in, cache, tiny_bert, without_mindnlp):
    without_mindnlp()
    stand_in.add("someone/bert", "f" * 40, tiny_bert)
    folder = hub.model_dir("someone/bert@" + "f" * 40)
    assert folder == cache / "hub" / "model" / ("someone--bert--" + "f" * 40)
    assert (folder / "config.json").is_file() and not (folder / contract_hub.COMMIT).exists()


def test_without_an_endpoint_the_hub_itself_is_asked(cache, monkeypatch):
    """Also by a command that the user gives: mindnlp's own default is a mirror, which would get the user's token."""
    requests = []
    monkeypatch.setattr(contract_hub, "run_module", lambda _, words, environment: requests.append(list(words)[:3]))
    hub.model_dir("bert-base-uncased")
    hub.model_dir("someone/bert")
    assert requests == [["model", "bert-base-uncased", contract_hub.BERT], ["model", "someone/bert", "main"]]

    monkeypatch.setenv("HF_ENDPOINT", "")
    monkeypatch.setattr(contract_hub, "unreachable", lambda _: None)
    monkeypatch.setattr(hub.sys, "argv", ["hub", "model", "someone/bert", "main", "FOLDER"])
    assert contract_hub.main(lambda *_: requests.append(os.environ["HF_ENDPOINT"])) == 0
    assert requests[2] == "https://huggingface.co"


def test_who_cannot_be_reached_is_found_out_before_the_libraries_try(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        for spelling in (name, name.upper()):
            monkeypatch.delenv(spelling, raising=False)
    with Hub() as server:
        assert contract_hub.unreachable(server.url) is None
    assert "Connection refused" in contract_hub.unreachable("http://127.0.0.1:9")

    def unknown(*_arguments, **_options):
        raise socket.gaierror(-2, "Name or service not known")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "create_connection", unknown)
        assert "cannot be reached: Name or service" in contract_hub.unreachable("https://nobody.invalid")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")  # only the proxy knows the way
    assert contract_hub.unreachable("https://nobody.invalid") is None


def test_every_data_set_is_pinned(cache, monkeypatch):
    """And asked for by the splits that the paper uses."""
    requests = []
    monkeypatch.setattr(
        contract_hub, "download", lambda _, kind, key, splits, **more: requests.append((kind, *key, *splits)) or cache
    )
    for name in ("sst2", "imdb", "agnews", "qnli", "mnli", "qqp"):
        with pytest.raises(UserError, match="train.jsonl: no such file"):
            splits.write(RunDir(schema.load(name), cache))
        source = TASKS[name].hub
        test = {"imdb": "test", "agnews": "test", "mnli": "validation_matched"}.get(name, "validation")
        assert requests.pop() == ("dataset", source.id, source.config or "", source.revision, "train", test)


def test_offline_says_what_would_help(cache, monkeypatch, without_mindnlp):
    """One line with the remedies, one of them a command; nothing half-made stays in the cache.

    Through the hub's own client; what mindnlp says: test_mindnlp.py.
    """
    without_mindnlp()
    of_model = refusal(hub.model_dir, "someone/bert")
    of_dataset = refusal(hub.dataset_dir, "someone/glue", None, "abc", ["train", "test"])
    assert "(http://127.0.0.1:9 cannot be reached: Connection refused)" in of_dataset
    assert "model someone/bert" in of_model and "model=DIRECTORY" in of_model
    assert "dataset someone/glue" in of_dataset and "data.train=FILE" in of_dataset
    for message in (of_model, of_dataset):
        assert "could not be downloaded" in message and "HF_ENDPOINT" in message
    assert not list((cache / "hub" / "model").iterdir()) and not list((cache / "hub" / "dataset").iterdir())

    # The command is one that the module takes, and fills the folder that it is to be copied to.
    command, folder = of_dataset.split("`")[1], of_dataset.split("copy FOLDER to ")[1]
    calls = []
    monkeypatch.setattr(contract_hub, "unreachable", lambda _: None)
    monkeypatch.setattr(hub, "find_spec", lambda name: True)
    monkeypatch.setattr(hub, "_save_dataset", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(hub.sys, "argv", shlex.split(command)[2:])
    assert hub.main() == 0 and calls == [("someone/glue", "", "abc", "FOLDER", "train", "test")]
    shutil.copytree(cache / "hub" / "model", folder)
    assert str(hub.dataset_dir("someone/glue", None, "abc", ["train", "test"])) == folder
