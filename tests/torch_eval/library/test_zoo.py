"""Entries of the zoo: made from a finished run, read again, compared with a new run, listed on the page."""

import copy
import re
import shutil

import numpy as np
import pytest
from matplotlib.image import imread

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import file_hash, read_json, write_json
from configs.contract.experiment import read_values, schema
from configs.contract.run import run_dir
from tests.helpers import made_up_run as made_up
from tests.helpers.files import edit_json
from torch_eval.library import zoo, zoo_page
from torch_eval.report.run_state import Run


def state(paths, *words):
    return Run(paths.config, list(words), paths.root.parent)


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """The run that an entry is of, and the folder of the entry."""
    monkeypatch.setattr(zoo, "ZOO", tmp_path / "zoo")
    paths = made_up.small(tmp_path / "runs")
    made_up.attack_calibrated(paths, 1, "robust-0.30", "textfooler", (4, 5, 1))
    made_up.attack_calibrated(paths, 1, "finetune", "textfooler", (4, 5, 1))
    return paths, zoo.add(state(paths, "demo"), "first")


def test_an_entry_holds_the_ticket_its_experiment_and_its_figures(entry):
    """Of ten sentences the ticket withstands 6 and Fine-tune 2, the first of them alike."""
    paths, folder = entry
    assert (folder / "ticket.safetensors").read_bytes() == paths.ticket(1, "robust-0.30").read_bytes()
    config = schema.load(str(folder / "experiment.yaml"))
    assert (config.name, config.methods, config.layers) == ("zoo-first", ["robust"], 3)
    assert config.tickets_from == str(folder / "ticket.safetensors")
    results = read_json(folder / "results.json", zoo.Entry)
    assert results.ticket["sha256"] == file_hash(folder / "ticket.safetensors")
    aua = results.models["robust-0.30"].attacks["textfooler"]
    assert aua.aua.value == 0.6 and 0.3 < aua.aua.low < 0.6 < aua.aua.high < 0.9
    assert aua.outcomes == "bbbwwwwwwm" and aua.calibrated and aua.calibrated.outcomes == "bbbbwwwwwm"
    assert aua.unreliable == ["10 sentences only"] and aua.made_with["resources"]["from"] == "packaged"
    (test,) = (pair for pair in results.paired if pair.attack == "textfooler")
    assert (test.other, test.only_ticket - test.only_other) == ("finetune", 4)


def test_an_entry_leaves_devices_and_workers_to_the_machine_that_measures_it_again(entry):
    paths, _ = entry
    config = copy.deepcopy(paths.config)
    config.device_id, config.master_port, config.attack.workers, config.log_steps = 3, 5000, 1, 7
    folder = zoo.add(Run(config, ["demo"], paths.root.parent), "second")
    text = (folder / "experiment.yaml").read_text()
    assert not set(re.findall(r"\w+(?=:)", text)) & {"device_id", "master_port", "workers"} and "log_steps: 7" in text


def test_an_entry_is_of_whole_attacks_on_models_that_others_have(tmp_path, monkeypatch):
    """Not of a classifier of the user's own, nor of one machine's part of the sentences."""
    monkeypatch.setattr(zoo, "ZOO", tmp_path / "zoo")
    (tmp_path / "mine").mkdir()
    paths = made_up.small(tmp_path / "runs", f"attack.victims=[mine={tmp_path / 'mine'}]", "attack.shard=1/2")
    made_up.clean(paths, 1, "mine", 0.8)
    for recipe in paths.config.attack.recipes:
        made_up.attack(paths, 1, "mine", recipe, (6, 2, 2))
    folder = zoo.add(state(paths, "demo"), "first")
    results = read_json(folder / "results.json", zoo.Entry)
    assert "finetune" in results.models and "mine" not in results.models
    assert "mine" not in {pair.other for pair in results.paired}
    assert not {"victims", "shard"} & set(re.findall(r"\w+(?=:)", (folder / "experiment.yaml").read_text()))


def test_a_new_run_is_compared_with_the_stated_intervals(entry, capsys):
    """Six of ten withstood again are met, one of ten is not, and another sample of sentences is not compared."""
    paths, folder = entry
    source = str(folder / "experiment.yaml")
    again = run_dir.RunDir(schema.load(source), paths.root.parent)
    made_up.prepare(again)
    made_up.choose(again, 0.3)
    made_up.clean(again, 1, "robust-0.30", 0.8)
    made_up.attack(again, 1, "robust-0.30", "textfooler", (3, 6, 1))
    assert zoo.check(state(again, source), source)
    made_up.attack(again, 1, "robust-0.30", "textbugger", (8, 1, 1))
    made_up.attack(again, 1, "robust-0.30", "bertattack", (3, 6, 1), max_queries=7)
    assert not zoo.check(state(again, source), source)
    output = capsys.readouterr().out
    assert "2 of 4 stated figures are met" in output and "NOT met" in output and "max_queries" in output


def test_only_an_entry_states_figures_to_compare_with(entry):
    with pytest.raises(UserError, match="zoo-check: demo: no entry of the zoo"):
        zoo.check(state(entry[0], "demo"), "demo")


def test_unfinished_runs_and_several_seeds_make_no_entry(entry):
    paths, _ = entry
    for name in ("", "a/b", "a b"):  # the first one would be written beside the entries
        with pytest.raises(UserError, match=f"{name!r} cannot be a folder name"):
            zoo.add(state(paths, "demo"), name)
    with pytest.raises(UserError, match="one seed"):
        zoo.add(state(run_dir.RunDir(schema.load("demo", ["seeds=[1,2]"]), paths.root.parent), "demo"), "two")
    fitted = run_dir.RunDir(schema.load("demo", ["attack.calibrate=true"]), paths.root.parent)
    with pytest.raises(UserError, match="attack.calibrate=true: an entry states the attacks as they are"):
        zoo.add(state(fitted, "demo"), "two")
    here = copy.deepcopy(paths.config)
    here.model = str(paths.root)
    with pytest.raises(UserError, match="model=.* is a directory of this machine; give model=OWNER/NAME"):
        zoo.add(Run(here, ["demo"], paths.root.parent), "two")
    (paths.attack(1, "finetune") / "textfooler" / "manifest.json").unlink()
    with pytest.raises(UserError, match="attack finetune textfooler is missing"):
        zoo.add(state(paths, "demo"), "two")


def test_an_entry_is_not_replaced(entry):
    paths, folder = entry
    before = file_hash(folder)
    with pytest.raises(UserError, match="first is there already; delete it, or choose another name"):
        zoo.add(state(paths, "demo"), "first")
    assert file_hash(folder) == before
    shutil.rmtree(folder)
    assert zoo.add(state(paths, "demo"), "first") == folder


def test_seeds_of_an_experiment_are_tested_together(entry):
    """The same outcomes at two seeds: four sentences, each withstood twice by the ticket alone, so p is 2 / 2**4."""
    _, folder = entry
    again = folder.parent / "second"
    shutil.copytree(folder, again)
    edit_json(again / "results.json", seed=2)
    row, fitted = [line for line in zoo_page.together(folder.parent).splitlines() if "TextFooler" in line]
    assert "fitted | 50.0 | Fine-tune 50.0 | 0 : 0 | +0.0 [0.0, 0.0] | 1 | 1 |" in fitted
    assert [cell.strip() for cell in row.split("|")][2:8] == [
        "1, 2",
        "TextFooler",
        "none",
        "60.0",
        "Fine-tune 20.0",
        "8 : 0",
    ]
    assert row.endswith("| 0.12 | 0.38 |")  # of three attacks


def test_seeds_on_other_sentences_are_not_tested_together(entry):
    """Outcomes are paired by their place, which says nothing for another sample."""
    _, folder = entry
    results = read_json(folder / "results.json")
    for model in results["models"].values():
        for attacked in model["attacks"].values():
            attacked["made_with"]["sentences"] = "others"
    shutil.copytree(folder, folder.parent / "second")
    write_json(folder.parent / "second" / "results.json", {**results, "seed": 2})
    rows = [line.split("|") for line in zoo_page.together(folder.parent).splitlines() if "TextFooler | none" in line]
    assert [row[2].strip() for row in rows] == ["1", "2"]


def test_the_page_has_the_tables_of_the_folders(entry):
    page = zoo_page.PAGE.read_text(encoding="utf-8")
    assert zoo_page.with_tables(page, read_values.ZOO) == page
    assert "| `first` | snippets | packaged, 3 layers | 30% | 1 |" in zoo_page.table(entry[1].parent)


def test_the_pictures_are_those_of_the_entries(entry, tmp_path):
    _, folder = entry
    zoo_page.draw(tmp_path, folder.parent)
    pixels = imread(tmp_path / "demo.png")
    assert min(pixels.shape[:2]) > 200 and pixels.min() < pixels.max()
    zoo_page.draw(tmp_path, read_values.ZOO)
    stated = imread(zoo_page.PICTURES / "sst2_effect.png")
    assert np.array_equal(imread(tmp_path / "sst2_effect.png"), stated)
    assert "](sst2_effect.png)" in (zoo_page.PICTURES / "README.md").read_text(encoding="utf-8")
