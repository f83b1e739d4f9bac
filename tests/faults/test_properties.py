"""Properties that hold for any input: tickets, configurations, torn files, conversions."""

import argparse
import copy
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import append_line, read_lines, write_lines
from configs.contract.experiment import schema
from configs.contract.run import jobs
from configs.contract.run.run_dir import RunDir
from configs.contract.run.stage import Stage, verified
from mindspore_rt.cells.encoder_config import EncoderConfig
from mindspore_rt.formats import contents, convert
from mindspore_rt.ticket import Ticket
from tests.helpers.models import ONE_LAYER, assert_same_arrays, normal_arrays
from tests.helpers.prepared import write_choice, write_summary

few = settings(max_examples=30, derandomize=True, deadline=None)
matrices = st.dictionaries(
    st.text("abc.", min_size=1, max_size=5),
    arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=7),
        # Few values, so that many tie.
        elements=st.sampled_from([-3.5, -1.0, 0.0, 2.0**-33, 2.0, 50.0]),
    ),
    min_size=1,
    max_size=4,
)
shares = st.floats(0, 1)


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@few
@given(matrices, shares)
def test_a_ticket_prunes_the_asked_number_of_lowest_scores(scores, sparsity):
    ticket = Ticket.from_scores(scores, sparsity)
    flat = np.concatenate([s.ravel() for s in scores.values()])
    remaining = np.concatenate([m.ravel() for m in ticket.masks.values()])
    assert ticket.pruned == round(sparsity * flat.size)
    if 0 < ticket.pruned < flat.size:
        assert flat[~remaining].max() <= flat[remaining].min()
    weights = {name: np.ones_like(s) for name, s in scores.items()}
    assert sum(int((w == 0).sum()) for w in ticket.apply(weights).values()) == ticket.pruned


@few
@given(matrices, shares, shares)
def test_a_sparser_ticket_prunes_what_the_denser_one_does(scores, one, other):
    denser, sparser = (Ticket.from_scores(scores, s) for s in sorted((one, other)))
    assert all((sparser.masks[name] <= mask).all() for name, mask in denser.masks.items())


@few
@given(matrices, shares, st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3), st.integers(0, 99))
def test_a_ticket_comes_back_from_its_file(folder, scores, sparsity, about, seed):
    ticket = Ticket(Ticket.from_scores(scores, sparsity).masks, about)
    ticket.save(folder / "ticket.safetensors")
    loaded = Ticket.load(folder / "ticket.safetensors")
    assert loaded.about == about and loaded.distance(ticket) == 0.0 and loaded.sparsity == ticket.sparsity
    shuffled = Ticket.from_random_like(loaded, seed)
    assert shuffled.pruned_share() == ticket.pruned_share()


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
TREES = st.recursive(
    LEAVES, lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text(max_size=6), t, max_size=3), max_leaves=6
)
LIKELY = st.sampled_from([1, 0.3, [1], ["robust"], "sst2"])
KNOWN = st.sampled_from(sorted(schema.keys()) + ["data", "search", "extends"])


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.dictionaries(KNOWN | st.text(max_size=6), TREES | LIKELY, max_size=4))
def test_a_configuration_is_an_experiment_or_refused_in_one_line(folder, values):
    path = folder / "random.yaml"
    nested = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        if section and isinstance(nested.setdefault(section, {}), dict):
            nested[section][name] = value
        else:
            nested[key] = value
    path.write_text(yaml.safe_dump(nested), encoding="utf-8")
    try:
        config = schema.load(str(path))
    except UserError as error:
        assert str(error).strip() and "\n" not in str(error)
    else:
        path.write_text(yaml.safe_dump(asdict(config)), encoding="utf-8")
        assert schema.load(str(path)) == config


VALUES = st.integers() | st.text(max_size=6) | st.none()
RECORDS = st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=3), max_size=6)


@few
@given(RECORDS, st.dictionaries(st.text(max_size=4), VALUES, min_size=1), st.floats(0, 1, exclude_max=True))
def test_lines_before_a_torn_write_come_back(folder, records, last, share):
    path = folder / "torn.jsonl"
    write_lines(path, records)
    whole = path.read_bytes()
    append_line(path, last)
    added = len(path.read_bytes()) - len(whole)
    path.write_bytes(path.read_bytes()[: len(whole) + int(share * added)])
    assert read_lines(path) == records
    write_lines(path, read_lines(path))  # as a resumed stage does before it appends
    append_line(path, last)
    assert read_lines(path) == [*records, last]


@settings(max_examples=10, derandomize=True, deadline=None)
@given(shares, st.integers(0, 2**32 - 1), st.sampled_from(["compact", "mindspore", "huggingface"]))
def test_a_pruned_model_survives_conversion_bit_for_bit(folder, packaged_model, sparsity, seed, form):
    raw = {**ONE_LAYER, "vocab_size": 5}
    config = EncoderConfig.from_dict(raw, "test")
    weights = normal_arrays(config.parameters(2), random=seed)
    prunable = {name: weights[name] for name in config.prunable()}
    ticket = Ticket.from_magnitudes(prunable, sparsity)
    pruned = ticket.apply(weights)
    name = f"{form}-{seed}-{sparsity}" + ("" if form == "huggingface" else ".safetensors")
    source = contents.Contents(Path("made up"), "huggingface", copy.copy(pruned), {}, raw)
    options = argparse.Namespace(sparsity=None, compat="paper")
    if form == "compact":
        if ticket.pruned == 0:  # nothing states a ticket then
            return
        convert._write_compact(source, source.ticket(), folder / name)
    else:
        convert.write(source, folder / name, form, options)
    back = contents.read(folder / name)
    assert back.encoder == config
    assert_same_arrays(back.weights, pruned)


@pytest.fixture(scope="module")
def small_run(folder):
    """A run that was prepared and fine-tuned, with a search that was interrupted."""
    run = RunDir(schema.load("tiny", ["methods=[robust,random]", "seeds=[1]"]), folder / "runs")
    for name in ("train", "dev", "test"):
        write_lines(run.split(name), [{"sentence": f"a {name} film", "label": 1}])
    write_summary(run)
    stage_of(run, "finetune").finish({"dev_accuracy": 0.5})
    append_line(run.stage(1, "search") / "metrics.jsonl", {"step": 1, "epoch": 0.5, "loss": 0.5})
    stage_of(run, "search").begin()
    write_choice(run, str(run.candidates()[0]))
    run.save_config()
    return run


def stage_of(run, name):
    return Stage(run.stage(1, name), name, {"seed": 1, "search": {"epochs": 2}}, {"train": run.split("train")})


def read_everything(run):
    """Read the files as the stages that follow do."""
    search, metrics = stage_of(run, "search"), run.stage(1, "search") / "metrics.jsonl"
    for read in (
        run.summary,
        lambda: [verified(run.split(name)) for name in ("train", "dev", "test")],
        run.chosen,
        lambda: run.victims(1),
        lambda: jobs.jobs(run),
        lambda: jobs.stages(run),
        lambda: stage_of(run, "finetune").is_done() and stage_of(run, "finetune").results(),
        lambda: search.begin(metrics),
        lambda: search.is_done(),
        lambda: read_lines(metrics),
    ):
        try:
            read()
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda t: (
        st.lists(t, max_size=3)
        | st.dictionaries(
            st.sampled_from(["results", "inputs", "splits", "train", "chosen", "labels", "code"]) | st.text(max_size=4),
            t,
            max_size=3,
        )
    ),
    max_leaves=5,
)
DAMAGES = st.one_of(
    st.tuples(st.just("flip"), shares, st.integers(0, 7)),
    st.tuples(st.just("cut"), shares),
    st.tuples(st.just("value"), JSON_VALUES),
    st.tuples(st.just("delete")),
)


def damaged(raw: bytes, kind: str, *how) -> bytes:
    if kind == "cut":
        return raw[: int(how[0] * len(raw))]
    if kind == "value":
        return json.dumps(how[0]).encode() + b"\n"
    at = min(int(how[0] * len(raw)), len(raw) - 1)
    return raw[:at] + bytes([raw[at] ^ 1 << how[1]]) + raw[at + 1 :]


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.data(), DAMAGES)
def test_a_damaged_run_is_refused_in_one_line_or_read(small_run, data, damage):
    files = sorted(p for p in small_run.root.rglob("*") if p.is_file())
    path = data.draw(st.sampled_from(files))
    whole = path.read_bytes()
    if damage == ("delete",):
        path.unlink()
    else:
        path.write_bytes(damaged(whole, *damage))
    try:
        if path.name == "config.yaml":  # the slowest of all to read
            schema.load(str(path))
        else:
            read_everything(small_run)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
    finally:
        path.write_bytes(whole)
