"""A run with one damaged file: what reads runs ends in a `UserError` that names it, or with the same figures."""

import json
import time

import numpy as np
import pytest
from safetensors.numpy import save

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import atomic_write, read_json, read_lines
from configs.contract.experiment import schema
from configs.contract.run import estimate, plan, run_dir
from tests.helpers import made_up_run as made_up
from torch_eval.report import build, data_files, figures, manifests, run_state, ticket_sections, watch

EVERY = 9  # of the damages is tried: all of them take minutes
FIELDS = (("gone", None), ("null", None), ("text", "x"), ("list", [1]))


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    few = ("seeds=[1]", "attack.recipes=[textfooler]", "methods=[finetune,robust]", "attack.examples=100")
    paths = made_up.whole(root, *few)
    made_up.transfer(paths)
    return paths


@pytest.fixture(autouse=True)
def unpainted(monkeypatch):
    for name in (
        "accuracy_curves",
        "log_alpha",
        "mask_learning",
        "overview",
        "sparsity_pattern",
        "square",
        "trade_off",
        "training_curves",
    ):
        monkeypatch.setattr(figures, name, lambda *_, **__: None)
    monkeypatch.setattr(build, "to_html", lambda title, blocks: "")


@pytest.fixture
def damaged():
    """Writes bytes into a file, which is as before when the test ends."""
    before = {}

    def write(path, raw):
        before.setdefault(path, path.read_bytes())
        path.unlink() if raw is None else path.write_bytes(raw)

    yield write
    for path, raw in before.items():
        path.write_bytes(raw)


def reported(paths) -> list:
    """The figures of a report: of every model, and those of its tables."""
    run = run_state.Run(paths.config, ["sst2"], paths.root.parent)
    build.write([run], paths.report)
    leave = ("comparison_group", "stale")
    return [
        [
            row["seed"],
            row["model"],
            *({k: v for k, v in score.items() if k not in leave} for score in (row["clean"], *row["attacks"].values())),
        ]
        for row in data_files.numbers(run)["models"]
    ]


def values(raw: bytes):
    """An object with each field of it, and of the objects in it, removed or of another type."""
    whole = json.loads(raw)
    places = [(key,) for key in whole]
    places += [(key, inner) for key, value in whole.items() if isinstance(value, dict) for inner in value]
    for *outer, last in places:
        for name, value in FIELDS:
            copy = json.loads(raw)
            inner = copy[outer[0]] if outer else copy
            inner[last] = value
            if name == "gone":
                del inner[last]
            yield f"{'.'.join((*outer, last))} {name}", json.dumps(copy).encode()


def damages(paths):
    """(file, what, bytes) of every JSON and JSON Lines file of a run."""
    for path in sorted(p for p in paths.root.rglob("*.json*") if paths.report not in p.parents):
        raw = path.read_bytes()
        yield from (
            (path, *each)
            for each in (
                ("cut", raw[: len(raw) // 2]),
                ("empty", b""),
                ("{}", b"{}\n"),
                ("[]", b"[]\n"),
                ("null", b"null\n"),
            )
        )
        first, end, rest = raw.partition(b"\n") if path.suffix == ".jsonl" else (raw, b"", b"")
        yield from ((path, what, bad + end + rest) for what, bad in values(first))


def tells(what, path, call):
    """The outcome of a call, or None for a `UserError` that names the file."""
    try:
        return call()
    except UserError as error:
        assert path.name in str(error) or str(path.parent) in str(error), f"{path}, {what}: {error}"
        return None
    except Exception as error:
        raise AssertionError(f"{path}, {what}: {type(error).__name__}: {error}") from error


def test_damaged_json_is_an_error_that_names_it_or_changes_no_figure(paths, damaged):
    expected, count = reported(paths), 0
    for path, what, raw in list(damages(paths))[::EVERY]:
        before = path.read_bytes()
        damaged(path, raw)
        tells(what, path, lambda: plan.overview(paths))
        tells(what, path, lambda: watch.look(paths, time.time()))
        outcome = tells(what, path, lambda: reported(paths))
        assert outcome in (None, expected), f"{path}, {what}: other figures"
        path.write_bytes(before)
        count += 1
    assert count > 100


# --- figures that the lines of an attack do not give ---------------------------------------------------------


@pytest.mark.parametrize("value", [0.99, float("nan"), None, "0.45"])
def test_a_figure_that_its_lines_do_not_give_is_refused(paths, damaged, value):
    file = paths.attack(1, "robust-0.30") / "textfooler" / "manifest.json"
    manifest = read_json(file)
    manifest["results"]["aua"]["value"] = value
    damaged(file, json.dumps(manifest).encode())
    with pytest.raises(UserError, match="manifest.json.*aua.*delete"):
        reported(paths)


def test_a_manifest_without_its_examples_is_refused(paths, damaged):
    file = paths.attack(1, "robust-0.30") / "textfooler" / "manifest.json"
    manifest = read_json(file)
    del manifest["settings"]["indices"]
    damaged(file, json.dumps(manifest).encode())
    with pytest.raises(UserError, match="results.jsonl: holds 100 examples, not the 0"):
        reported(paths)


@pytest.mark.parametrize("models", [["finetune"], ["finetune", "robust-0.30"]])
@pytest.mark.parametrize("left", [None, 50])
def test_lines_that_are_gone_are_missed(paths, damaged, models, left):
    for model in models:
        file = paths.attack(1, model) / "textfooler" / "results.jsonl"
        damaged(file, left and b"".join(file.read_bytes().splitlines(True)[:left]))
    with pytest.raises(UserError, match=f"results.jsonl: holds {left or 0} examples, not the 100"):
        reported(paths)


@pytest.mark.parametrize(
    "value, problem", [("x", "epoch: expected a number"), (float("nan"), "NaN"), ([1], "epoch: expected")]
)
def test_a_line_of_training_that_no_picture_can_show_is_named(paths, damaged, value, problem):
    file = paths.stage(1, "search") / "metrics.jsonl"
    records = read_lines(file)
    damaged(file, b"".join(json.dumps(r).encode() + b"\n" for r in [records[0], {**records[1], "epoch": value}]))
    for call in (reported, lambda paths: manifests.training_records(file)):
        with pytest.raises(UserError, match=f"metrics.jsonl, line 2: .*{problem}.*; delete"):
            call(paths)


# --- scores of a search --------------------------------------------------------------------------------------


NOT_SCORES = {
    "empty": b"",
    "torn": b"torn",
    "none": save({}),
    "nan": save({"a": np.full((2, 2), np.nan, np.float32)}),
    "no size": save({"a": np.zeros((0, 3), np.float32)}),
}


@pytest.mark.parametrize("name", NOT_SCORES)
def test_damaged_scores_are_named(tmp_path, name):
    path = tmp_path / "log_alpha" / "epoch-04.safetensors"
    atomic_write(path, NOT_SCORES[name])
    with pytest.raises(UserError, match="epoch-04.safetensors: not the scores of a search"):
        ticket_sections.histogram(path, 0.3)


# --- a model to start from -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["{", '{"hidden_size": "x"}', '{"num_hidden_layers": 0}'])
def test_a_damaged_model_configuration_is_named_by_the_estimate(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="config.json"):
        estimate.Estimator(run_dir.RunDir(schema.load("tiny", [f"model={tmp_path}"]), tmp_path))
