"""Iterative magnitude pruning: its rounds, rewinding, and what an interruption or a changed setting redoes."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import read_json
from mindspore_rt import parallel
from mindspore_rt.formats import huggingface
from mindspore_rt.stages import classifier, runner
from mindspore_rt.stages.prune import prune
from mindspore_rt.ticket import Ticket
from tests.helpers.files import edit_json
from tests.helpers.stages import jobs_of


def test_magnitude_pruning_rewinds_to_copies_and_prunes_a_tenth_of_the_original_weights_a_round(run):
    prune(run, jobs_of(run, "prune")[0])
    calls, pretrained = run.recorder.calls, huggingface.load(huggingface.resolve(run.config.model)).weights
    assert [c["ticket"].sparsity if c["ticket"] else 0 for c in calls] == pytest.approx([0, 0.1, 0.2], abs=2e-3)
    for call in calls:
        for name, value in call["weights"].items():
            if not name.startswith("classifier"):
                mask = call["ticket"].masks.get(name, True) if call["ticket"] else True
                np.testing.assert_array_equal(value, np.where(mask, pretrained[name], 0))
    # The classifier is not rewound: each round starts from that of the round before.
    heads = [c["weights"]["classifier.weight"] for c in calls]
    np.testing.assert_allclose(heads[1], heads[0] + 2, atol=1e-6)
    np.testing.assert_allclose(heads[2], heads[1] + 3, atol=1e-6)
    # No pruned weight comes back, the last round prunes what is missing, and the smallest magnitudes go.
    ticket = Ticket.load(run.stage(1, "lth") / "ticket-0.25.safetensors")
    assert ticket.sparsity == pytest.approx(0.25, abs=1e-3)
    for name, mask in ticket.masks.items():
        assert not (mask & ~calls[2]["ticket"].masks[name]).any()
    flat = np.concatenate([np.abs(pretrained[n]).ravel() for n in ticket.masks])
    mask = np.concatenate([m.ravel() for m in ticket.masks.values()])
    assert flat[~mask].max() <= flat[mask].min()


def test_a_killed_pruning_goes_on_with_its_next_round(run, monkeypatch):
    def stop(*args, **kwargs):
        if len(run.recorder.calls) == 2:
            raise KeyboardInterrupt
        return run.recorder(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "ClassifierTraining", stop)
        with pytest.raises(KeyboardInterrupt):
            prune(run, jobs_of(run, "prune")[0])
    for number in (1, 2):  # pretend that each took 100 seconds
        edit_json(run.stage(1, "lth") / f"round-{number}" / "manifest.json", seconds=100.0)
    monkeypatch.setattr("time.time", lambda: 1e9)
    prune(run, jobs_of(run, "prune")[0])
    assert [c["model"] for c in run.recorder.calls] == ["lth/round-1", "lth/round-2", "lth/round-3"]
    assert read_json(run.stage(1, "lth") / "manifest.json")["seconds"] == 200


def test_a_sparsity_asked_for_later_trains_only_the_rounds_that_it_needs(run):
    """The tickets are those of a run that was asked for all of them at once."""
    prune(run, jobs_of(run, "prune")[0])  # 25%: three rounds
    before = {path: path.read_bytes() for path in run.stage(1, "lth").rglob("*.safetensors")}
    run.config.sparsities = [0.15, 0.25, 0.35]
    assert not jobs_of(run, "prune")[0].done
    run.recorder.calls.clear()
    prune(run, jobs_of(run, "prune")[0])
    assert [c["model"] for c in run.recorder.calls] == ["lth/round-2", "lth/round-4"]
    assert jobs_of(run, "prune")[0].done
    for sparsity in run.config.sparsities:
        assert Ticket.load(run.pruned(1, "lth", sparsity)).sparsity == pytest.approx(sparsity, abs=1e-3)
    masks = [path for path in before if "round" not in path.name and path.name.startswith("ticket")]
    assert all(path.read_bytes() == before[path] for path in masks)


def test_a_sparsity_at_the_end_of_a_round_is_of_that_round(run):
    """Although 3 * 0.15 is a little below 0.45 in floating point."""
    run.config.lth.share, run.config.sparsities = 0.15, [0.45, 0.6]
    prune(run, jobs_of(run, "prune")[0])
    assert [Ticket.load(run.pruned(1, "lth", s)).about["round"] for s in run.config.sparsities] == ["3", "4"]


@pytest.mark.parametrize("finished", [True, False])
def test_a_sparsity_asked_for_later_under_other_settings_is_refused(run, finished):
    """Also where the pruning was interrupted: its rounds are there, its own manifest is not."""
    prune(run, jobs_of(run, "prune")[0])
    if not finished:
        (run.stage(1, "lth") / "manifest.json").unlink()
    run.config.sparsities, run.config.lth.learning_rate = [0.05], 1.0
    with pytest.raises(UserError, match="lth.* was made with other settings .*learning_rate"):
        prune(run, jobs_of(run, "prune")[0])
    assert (run.stage(1, "lth") / "round-1" / "manifest.json").is_file()


@pytest.mark.parametrize("finished", [True, False])
def test_a_changed_pruning_is_redone_as_a_fresh_one_when_asked(run, finished):
    """Every round, and every ticket: also those that an interrupted one had drawn already."""

    def tickets():
        return {path.relative_to(run.root): path.read_bytes() for path in run.root.rglob("ticket*.safetensors")}

    run.config.sparsities = [0.05, 0.25]
    runner.run_job(run, jobs_of(run, "prune")[0])
    if not finished:
        (run.stage(1, "lth") / "manifest.json").unlink()
        run.pruned(1, "lth", 0.25).unlink()
    run.pruned(1, "lth", 0.05).write_text("of the old settings")
    run.config.lth.learning_rate, run.config.on_change = 1.0, "redo"
    run.recorder.calls.clear()
    shutil.copytree(run.data, run.root.with_name("fresh") / "data")
    runner.run_job(run, jobs_of(run, "prune")[0])
    redone = tickets()
    assert [c["model"] for c in run.recorder.calls] == ["lth/round-1", "lth/round-2", "lth/round-3"]
    run.root = run.root.with_name("fresh")
    runner.run_job(run, jobs_of(run, "prune")[0])
    assert redone == tickets()


def test_of_several_workers_the_first_alone_writes_the_manifest(run, monkeypatch):
    prune(run, jobs_of(run, "prune")[0])
    (run.stage(1, "lth") / "manifest.json").unlink()
    monkeypatch.setattr(parallel, "rank", lambda: 1)
    prune(run, jobs_of(run, "prune")[0])
    assert not (run.stage(1, "lth") / "manifest.json").exists()


def test_the_classifier_of_a_round_is_saved_beside_its_ticket(run):
    prune(run, jobs_of(run, "prune")[0])
    classifier = load_file(run.stage(1, "lth") / "round-2" / "classifier.safetensors")
    assert set(classifier) == {"classifier.weight", "classifier.bias"}


def test_a_classifier_of_a_round_that_changed_is_refused(run):
    prune(run, jobs_of(run, "prune")[0])
    path = run.stage(1, "lth") / "round-2" / "classifier.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (run.stage(1, "lth") / "manifest.json").unlink()
    with pytest.raises(UserError, match="classifier.safetensors is damaged"):
        prune(run, jobs_of(run, "prune")[0])
