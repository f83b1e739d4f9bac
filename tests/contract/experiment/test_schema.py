"""Experiments: the paper's defaults, and one clear line for every wrong input."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from configs.contract.basics.errors import UserError
from configs.contract.experiment import schema
from configs.contract.experiment.check_config import named_folders, refuse_missing
from configs.contract.experiment.methods import METHODS
from configs.contract.experiment.read_values import CONFIG_DIR
from configs.contract.run import cli
from tests.helpers import refusals
from tests.helpers.files import write_file


def written(tmp_path, text, name="mine.yaml"):
    return str(write_file(tmp_path, name, text))


def refusal(source, *overrides):
    return refusals.refusal(schema.load, source, overrides)


def test_fine_tuning_defaults_are_table_5():
    base = schema.load("base")
    for training in (base.finetune, base.retrain):
        assert training.learning_rate == 2e-5
        assert training.dropout == 0.1
        assert training.weight_decay == 0.01
        assert training.batch_size in (16, 32)
        assert training.clip_norm == 1
        assert training.epochs == 3


def test_search_defaults_are_table_6_for_sst2():
    search = schema.load("base").search
    assert (search.ascent_rate, search.learning_rate, search.l0_weight) == (0.03, 0.1, 0.5)
    assert (search.initial_norm, search.ascent_steps, search.weight_decay) == (0.05, 5, 1e-6)
    assert search.epochs == 20
    assert search.mask_p == 0.9
    assert search.max_norm == 0  # appendix B.3: no bound on the perturbation


@pytest.mark.parametrize(
    "name, ascent_rate, learning_rate, l0_weight, ascent_steps, sparsity, examples",
    [
        ("sst2", 0.03, 0.1, 0.5, 5, 0.3, 872),
        ("agnews", 0.03, 0.05, 0.5, 5, 0.4, 1000),
        ("imdb", 0.03, 0.1, 0.5, 5, 0.2, 500),
        ("qqp", 0.04, 0.05, 0.1, 3, 0.3, 1000),
        ("qnli", 0.04, 0.05, 0.1, 3, 0.3, 1000),
        ("mnli", 0.2, 0.1, 0.1, 2, 0.3, 1000),
    ],
)
def test_data_sets_are_table_6(name, ascent_rate, learning_rate, l0_weight, ascent_steps, sparsity, examples):
    """With the reported sparsity and the number of attacked texts (section 4)."""
    config = schema.load(name)
    search = config.search
    assert config.task == name
    assert (search.ascent_rate, search.learning_rate, search.l0_weight) == (ascent_rate, learning_rate, l0_weight)
    assert (search.ascent_steps, search.initial_norm, search.weight_decay) == (ascent_steps, 0.05, 1e-6)
    assert (config.sparsities, config.attack.examples) == ([sparsity], examples)


def test_experiment_defaults_are_section_4():
    base = schema.load("base")
    assert (base.model, base.task, base.sparsities) == ("bert-base-uncased", "sst2", [0.3])
    assert set(base.attack.recipes) == {"bertattack", "textfooler", "textbugger"}
    assert base.attack.examples == 1000


@pytest.mark.parametrize("path", sorted(CONFIG_DIR.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configurations_load(path):
    """Each is named after its file, so that two never share a run directory."""
    assert schema.load(path.stem).name == path.stem


def test_files_extend_files_and_the_command_line_wins(tmp_path):
    path = written(tmp_path, "extends: demo\nsearch: {epochs: 7, granularity: neuron}\nseeds: 3\n")
    config = schema.load(path, ["search.epochs=9", "seeds=[1,2]"])
    assert config.task == "snippets"  # from demo
    assert config.search.granularity == "neuron"
    assert (config.search.epochs, config.seeds) == (9, [1, 2])
    assert schema.load(path).seeds == [3]  # one value stands for a list of one


@pytest.mark.parametrize("text", ["2e-5", "2.0e-5", "0.00002"])
def test_numbers_in_scientific_notation(text):
    """YAML 1.1 reads 2e-5 as text."""
    assert schema.load("base", [f"finetune.learning_rate={text}"]).finetune.learning_rate == 2e-5


def test_whole_numbers_become_floats():
    value = schema.load("base", ["search.l0_weight=1"]).search.l0_weight
    assert type(value) is float and value == 1


@pytest.mark.parametrize(
    "override, expected",
    [
        ("serch.epochs=3", ["serch.epochs", "unknown key", "search.epochs"]),
        ("search.epochs=many", ["search.epochs", "a whole number", "'many'"]),
        ("search.epochs=2.5", ["search.epochs", "a whole number", "2.5"]),
        ("search.epochs=true", ["search.epochs", "a whole number", "True"]),
        ("search.learning_rate=fast", ["search.learning_rate", "a number", "'fast'"]),
        ("search.learning_rate=.nan", ["search.learning_rate", "finite"]),
        ("search.learning_rate=inf", ["search.learning_rate", "finite"]),
        ("name=a/b", ["name", "'a/b'", "folder name"]),
        ("search.epochs=0", ["search.epochs", "0", "1 or more"]),
        ("sparsities=[0.30000001]", ["sparsities", "six digits"]),
        ("sparsities=[0.3,1.5]", ["sparsities", "1.5", "from 0.01 to 0.99"]),
        ("device=TPU", ["device", "'TPU'", "CPU, GPU, Ascend"]),
        ("attack.recipes=[textfoller]", ["attack.recipes", "'textfoller'", "textfooler, textbugger, bertattack"]),
        ("task=sst3", ["task", "'sst3'", "sst2", "snippets"]),
        ("search=5", ["search", "a section", "search.KEY"]),
        ("search.granularity=head", ["search.granularity", "'head'", "weight, neuron, matrix"]),
        ("methods=[lht]", ["methods", "'lht'", "lth"]),
        *((f"attack.shard={part}", ["attack.shard", "1/4"]) for part in ("0/2", "3/2", "1", "a/b", "1/2/3", "²/³")),
        ("seeds=[]", ["seeds", "at least one"]),
        ("seeds=[1,2,1]", ["seeds", "twice", "[1, 2, 1]"]),
        ("attack.recipes=[textfooler,textfooler]", ["attack.recipes", "twice"]),
        ("seeds=[1", ["seeds", "not valid YAML"]),
        ("attack.max_seconds=1e10", ["attack.max_seconds", "out of range, allowed is from 0.001 to 1000000000.0"]),
        ("attack.max_seconds=1:30", ["attack.max_seconds", "found '1:30'"]),
        ("seeds=0x10", ["seeds", "found '0x10'"]),
        ("seeds=1,2", ["seeds", "found '1,2'; write a list: [1,2]"]),
        ("methods=finetune,robust", ["methods", "all; write a list: [finetune,robust]"]),
        ("attack.recipes='[pwws, pso]'", ["attack.recipes", "'[pwws, pso]'", "; write a list: [pwws, pso]"]),
        ("data.labels={0: neg, 1: pos}", ["data.labels", "found a mapping; write [0=neg, 1=pos]"]),
        ("data.labels={pos: 1, neg: 0}", ["data.labels", "found a mapping; write [neg, pos]"]),
        ("data.labels=[0: neg, 1: pos]", ["data.labels", "found a mapping; write 0=neg"]),
        ("data.labels={0: no, 1: yes}", ["data.labels", "found a mapping; write a list, and quote no, yes, on, off"]),
        ("data.labels=[0: no, 1: yes]", ["data.labels", "found a mapping; write a list, and quote no, yes, on, off"]),
        ("data.labels=[0: [no]]", ["data.labels", "found a mapping; write a list"]),
        ("search.epochs={}", ["search.epochs", "found a mapping; write a list"]),
        ("epochs", ["`epochs`", "key=value"]),
    ],
)
def test_wrong_values_name_key_place_and_remedy(override, expected):
    message = refusal("base", override)
    assert "the command line" in message or "on the command line" in message
    for part in expected:
        assert part in message


def test_numbers_are_read_as_people_write_them():
    """The YAML of 2005, which PyYAML reads, has octal numbers and dates."""
    config = schema.load("base", ["seeds=[010, +2]", "data.train_size=0500", "name=2024-01-01"])
    assert (config.seeds, config.data.train_size, config.name) == ([10, 2], 500, "2024-01-01")


@pytest.mark.parametrize(
    "path", ["a #1.csv", "# a.csv", "[x].csv", "a: b.csv", "@a.csv", "'q'.csv", "1", "a\nb.csv", "no"]
)
def test_paths_and_names_stand_as_they_are(path):
    """YAML would take some for other paths or for none, without a word."""
    assert schema.load("base", [f"data.train={path}"]).data.train == path
    for spelling in (json.dumps(path, ensure_ascii=False), f"  {path} "):
        assert schema.load("base", [f"data.train={spelling}"]).data.train == path
    assert schema.load("base", ["data.train=x", "data.train=null"]).data.train is None


@pytest.mark.parametrize("spelling", ['""', "' '", "null", "~", ""])
def test_an_empty_text_unsets_a_key(tmp_path, spelling):
    """As a path it would be the current folder."""
    path = written(tmp_path, f"extends: base\nmodel: x\ndata: {{train: {spelling}}}\n")
    for overrides in ([], [f"data.train={spelling}"]):
        assert schema.load(path, overrides).data.train is None
    assert "model in the command line: expected text, found nothing" in refusal("base", f"model={spelling}")
    assert "model in " in refusal(written(tmp_path, f"model: {spelling}\n", "other.yaml"))


def test_the_file_at_fault_is_named(tmp_path):
    """Also when another file extends it."""
    wrong = written(tmp_path, "search: {epochs: 0}\n", "wrong.yaml")
    child = written(tmp_path, f"extends: {wrong}\nseeds: [1]\n", "child.yaml")
    assert wrong in refusal(wrong) and "search.epochs" in refusal(wrong)
    assert wrong in refusal(child)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("search:\n", "this is a section; set its keys"),
        ("name: a\nsearch: [1\n", "line 3: not valid YAML"),
        ("- a\n- b\n", "key: value"),
        ("name: 5\n", "expected text, found 5"),
        (b"name: caf\xe9\n", "not UTF-8"),
        ("extends: nowhere\n", "no configuration `nowhere`"),
        ("extends: [base]\n", "extends"),
        ("extends: 'a\n\n  b'\n", r"extends: name another configuration, not 'a\nb'"),
        ("seeds: [1]\nname: a\nseeds: [2]\n", "line 3: not valid YAML ('seeds' appears twice"),
        ("search: {epochs: 2, warmup: 0, epochs: 3}\n", "line 1: not valid YAML ('epochs' appears twice"),
        ("search: {epochs: 2}\nsearch.epochs: 3\n", "search.epochs in"),
        ('"a\\nb": 1\n', r"'a\nb' in"),
        ('name: "a\\nb"\n', r"'a\nb' cannot be a folder name"),
        ('name: "\\ud800"\n', r"'\ud800' holds half a character"),
        ('model: "\\ud800"\n', r"'\ud800' holds half a character"),
        ("search: {learning_rate: 1" + 400 * "0" + "}\n", "a number of 1329 bits"),
        ("seeds: [" + 5000 * "9" + "]\n", "cannot be read (Exceeds the limit"),
    ],
)
def test_wrong_files(tmp_path, text, expected):
    path = written(tmp_path, text)
    message = refusal(path)
    assert expected in message
    assert path in message


def test_a_path_may_begin_at_home(tmp_path, monkeypatch):
    """The shell leaves `~` as it is after `data.train=`, and so does YAML."""
    monkeypatch.setenv("HOME", str(tmp_path))
    config = schema.load("base", ["data.train=~/a.csv", "attack.victims=[mine=~/model]"])
    assert config.data.train == f"{tmp_path}/a.csv"
    assert named_folders(config.attack.victims) == {"mine": tmp_path / "model"}
    written(tmp_path, "name: at home\n", "parent.yaml")
    assert schema.load(written(tmp_path, "extends: ~/parent.yaml\n")).name == "at home"
    assert named_folders(["mine=~model"]) == {"mine": Path("~model")}


def test_without_a_home_a_path_that_begins_there_is_none(tmp_path, monkeypatch):
    """A container's user may have no entry in the list of users."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    assert schema.load("base", ["data.train=~/a.csv"]).data.train == "~/a.csv"
    with pytest.raises(UserError, match="no configuration `~/mine.yaml`"):
        schema.load("~/mine.yaml")


@pytest.mark.parametrize(
    "override, remedy",
    [
        ("data.train=https://e.org/a.csv", "download it"),
        ("model=https://huggingface.co/a/b", "download it"),
        ("model=my/bert/here", "relative paths begin at"),
    ],
)
def test_what_can_only_be_a_path_is_missed_before_anything_runs(override, remedy):
    with pytest.raises(UserError, match=f"{override.replace('=', ': no file or folder ')}; {remedy}"):
        refuse_missing(schema.load("base", [override]))


def test_original_resources_are_missed_before_anything_runs(tmp_path):
    """An attack would say so, but only after all trainings."""
    given = "attack.resources=original"
    with pytest.raises(UserError, match="attack.resources_dir: unset, .*; name the folder, or set attack.resources"):
        refuse_missing(schema.load("base", [given]))
    with pytest.raises(UserError, match=f"attack.resources_dir: no file or folder {tmp_path}/a; relative paths begin"):
        refuse_missing(schema.load("base", [given, f"attack.resources_dir={tmp_path}/a"]))
    refuse_missing(schema.load("base", [given, f"attack.resources_dir={tmp_path}"]))
    refuse_missing(schema.load("base", [f"attack.resources_dir={tmp_path}/a"]))  # which nobody reads


def test_a_relative_extends_begins_at_the_folder_of_its_file(tmp_path, monkeypatch):
    """Not at the current one: an experiment means the same wherever it is started."""
    for name in ("own", "elsewhere"):
        (tmp_path / name).mkdir()
    written(tmp_path / "own", "extends: tiny\nseeds: [7]\n", "parent.yaml")
    path = written(tmp_path / "own", "extends: parent.yaml\n")
    written(tmp_path / "elsewhere", "extends: tiny\nseeds: [8]\n", "parent.yaml")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert schema.load(path).seeds == [7]
    assert schema.load("../own/mine.yaml").seeds == [7]


def test_whole_numbers_are_those_that_the_libraries_can_count():
    assert "is out of range" in refusal("tiny", f"finetune.batch_size={2**63 - 1}")
    for key, (field, hint) in schema.keys().items():
        if hint in (int, int | None) and field.metadata["high"] is None:
            assert "is out of range" in refusal("tiny", f"{key}={2**31}"), key


@pytest.mark.parametrize("key", ["name", "seeds", "device", "extends", "epochs"])
def test_a_bomb_of_aliases_makes_a_short_message(tmp_path, key):
    """Less than a kilobyte of YAML that expands to a million words."""
    bomb = "&a [x]"
    for name in "bcdefg":
        bomb = f"&{name} [{bomb}, {', '.join(9 * ['*' + chr(ord(name) - 1)])}]"
    assert len(bomb) < 1000
    assert len(refusal(written(tmp_path, f"{key}: {bomb}\n"))) < 300


def test_files_that_extend_each_other(tmp_path):
    first, second = str(tmp_path / "first.yaml"), str(tmp_path / "second.yaml")
    written(tmp_path, f"extends: {second}\n", "first.yaml")
    written(tmp_path, f"extends: {first}\n", "second.yaml")
    assert "extends" in refusal(first)


def test_a_configuration_in_another_encoding_is_refused_with_a_remedy(tmp_path):
    (tmp_path / "mine.yaml").write_bytes("name: bär".encode("latin-1"))
    assert "save it as UTF-8" in refusal(str(tmp_path / "mine.yaml"))


def test_unknown_configuration_lists_the_known():
    assert "base" in refusal("nothing") and "demo" in refusal("nothing")


def test_help_names_every_key():
    text = cli.help_text()
    assert not [key for key in schema.keys() if f"{key}=" not in text]
    assert "search.l0_weight=0.5" in text and "data.max_length=128" in text


def test_help_shows_defaults_as_a_command_line_takes_them():
    shown = [line.split()[0] for line in cli.help_text().splitlines()]
    assert {"layers=null", "structured=false", "methods=[finetune,robust]"} <= set(shown)
    assert schema.load("base", [word for word in shown if not word.startswith("name=")]) == schema.load("base")


def test_all_methods():
    assert schema.load("demo", ["methods=all", "tickets_from=sst2"]).methods == list(METHODS)
    assert set(METHODS) - set(schema.load("demo", ["methods=all"]).methods) == {"transferred"}
    assert schema.load("demo", ["tickets_from=sst2"]).given_method == "robust"
    with pytest.raises(UserError, match="name the experiment or file"):
        schema.load("demo", ["methods=[transferred]"])


def test_official_defaults_give_way_to_what_is_written():
    """The official scripts retrain for 10 epochs and do not clip; Table 5 says 3 and 1."""
    paper, official = schema.load("base"), schema.load("base", ["compat=official"])
    assert (paper.retrain.epochs, paper.retrain.clip_norm, paper.finetune.clip_norm) == (3, 1.0, 1.0)
    assert (official.retrain.epochs, official.retrain.clip_norm, official.finetune.clip_norm) == (10, 0.0, 0.0)
    assert official.finetune.clip_norm == 0.0
    assert schema.load("base", ["compat=official", "retrain.epochs=4"]).retrain.epochs == 4


# Table 5 of the paper, and what each baseline's own code runs with; max_norm 0 is none.
TABLE5 = {
    "epochs": 3,
    "batch_size": 32,
    "learning_rate": 2e-5,
    "weight_decay": 0.01,
    "warmup": 0.1,
    "clip_norm": 1.0,
    "dropout": 0.1,
    "max_steps": None,
}
FREELB = {"ascent_steps": 5, "ascent_rate": 0.03, "initial_norm": 0.05, "max_norm": 0.0}


@pytest.mark.parametrize(
    "section, published",
    [
        ("finetune", TABLE5),
        ("retrain", TABLE5),
        ("freelb", {**TABLE5, **FREELB}),
        (
            "infobert",
            {
                **TABLE5,
                "weight_decay": 1e-5,
                "warmup": 1000.0,
                "attention_dropout": 0.0,
                "ascent_steps": 3,
                "ascent_rate": 0.04,
                "initial_norm": 0.08,
                "anchor_weight": 5e-3,
                "bottleneck_weight": 5e-3,
                "anchor_low": 0.5,
                "anchor_high": 0.9,
            },
        ),
        ("lth", {**TABLE5, "weight_decay": 0.0, "warmup": 0.0, "share": 0.1}),
        ("adversarial_pruning", {**TABLE5, **FREELB, "share": 0.1}),
    ],
)
def test_defaults_are_the_published_ones(section, published):
    defaults = asdict(schema.load("base"))[section]
    assert {key: defaults[key] for key in published} == published


def test_the_number_type_of_matrix_products_is_the_devices_unless_set():
    def amp(*overrides):
        return schema.load("base", overrides).amp

    devices = [f"device={device}" for device in ("CPU", "GPU", "Ascend")]
    assert [amp(device, "amp_level=O1") for device in devices] == ["float16", "float16", "bfloat16"]
    assert amp("device=Ascend", "amp_level=O1", "amp_dtype=float16") == "float16"
    assert amp("device=Ascend") is None


@pytest.mark.parametrize(
    "overrides, expected",
    [
        (["search.keep_epochs=1", "choice.epochs=2"], "search.keep_epochs"),
        (["search.epochs=2", "choice.epochs=3"], "choice.epochs"),
        (["lengths=[3,10]", "retrain.max_steps=9"], "lengths: max_steps"),
        (["lengths=[3,3]"], "lengths"),
        (["seeds=[1,4294967296]"], "seeds"),
        (["data.seed=4294967296"], "data.seed"),
        (["infobert.anchor_low=0.9", "infobert.anchor_high=0.5"], "infobert.anchor_low"),
        (["compat=official", "attack.calibrate=true"], "attack.calibrate"),
        (["attack.protocol=official", "attack.stratified=true"], "attack.stratified"),
        (
            ["device=GPU", "amp_level=O1", "amp_dtype=bfloat16"],
            "amp_dtype: MindSpore has no bfloat16 matrix products on GPU; set amp_dtype=float16",
        ),
        (["attack.victims=[folder]"], "attack.victims: 'folder'"),
        (["attack.victims=[my-bert=folder]"], "attack.victims: 'my-bert=folder'"),
        (["attack.victims=[freelb=folder]"], "attack.victims: 'freelb=folder'"),
        (["attack.victims=[a=x,a=y]"], "attack.victims: 'a=y'"),
    ],
)
def test_values_that_do_not_go_together(overrides, expected):
    assert expected in refusal("base", *overrides)
