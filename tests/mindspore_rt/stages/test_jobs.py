"""What the stages do beyond training: rounds of magnitude pruning, controls, sharing of scores, official splits."""

import dataclasses
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from configs.contract import matrices, plan, schema
from configs.contract.errors import UserError
from configs.contract.files import file_hash, read_json, write_json
from configs.contract.methods import KEPT_ON_THE_WAY
from configs.contract.run_dir import RunDir
from configs.contract.stage import Changed, stated_results
from mindspore_rt.formats import huggingface
from mindspore_rt.stages import jobs
from mindspore_rt.ticket import Ticket

OVERRIDES = ["methods=[lth,robust,random,robust_no_initialization,robust_no_structure]", "sparsities=[0.25]"]


class Recorder:
    """Stands for a training: keeps what it was started with and 'trains' by adding one to every kept weight."""

    def __init__(self):
        self.calls = []

    def __call__(self, config, run, job, stage, section, source, weights, ticket=None):
        start = ticket.apply(weights) if ticket else weights
        self.calls.append({"model": job.model, "weights": start, "ticket": ticket, "section": section})
        step = np.float32(1 + len(self.calls))
        end = {n: w + step if n.startswith("classifier") else w * 2 for n, w in start.items()}
        return type(
            "Done",
            (),
            {
                "stage": stage,
                "source": source,
                "dev_accuracy": lambda self: 0.5,
                "weights": lambda self: end,
                "export": lambda self, **results: stage.finish(results),
            },
        )()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """An experiment on a one-layer BERT of random weights, prepared, with a ticket to change."""
    config, random = schema.load("tiny", OVERRIDES), np.random.default_rng(0)
    raw = {
        "model_type": "bert",
        "vocab_size": 30,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 16,
        "type_vocab_size": 2,
    }
    model = tmp_path / "model"
    model.mkdir()
    write_json(model / "config.json", raw)
    shapes = huggingface.BertConfig.from_dict(raw, "test").parameters(2)
    save_file(
        {n: random.normal(0, 0.1, s).astype(np.float32) for n, s in shapes.items() if "classifier" not in n},
        model / "model.safetensors",
    )
    config.model, config.layers = str(model), None
    run = RunDir(config, tmp_path / "runs")
    write_json(run.data / "summary.json", {"labels": ["a", "b"]})
    for split in ("train", "dev", "test"):
        run.split(split).write_text("{}\n")
    recorder = Recorder()
    monkeypatch.setattr(jobs, "_train", recorder)
    run.recorder = recorder
    return run


def job(run, stage):
    return [job for job in plan.jobs(run) if job.stage == stage]


def test_magnitude_pruning_rewinds_to_copies_and_prunes_a_tenth_of_the_original_weights_a_round(run):
    jobs.prune(run.config, run, job(run, "prune")[0])
    calls, pretrained = run.recorder.calls, huggingface.load(huggingface.resolve(run.config.model)).weights
    assert [c["ticket"].sparsity if c["ticket"] else 0 for c in calls] == pytest.approx([0, 0.1, 0.2], abs=2e-3)
    for call in calls:
        for name, value in call["weights"].items():
            if not name.startswith("classifier"):
                kept = call["ticket"].masks.get(name, True) if call["ticket"] else True
                np.testing.assert_array_equal(value, np.where(kept, pretrained[name], 0))
    # The classifier is not rewound: each round starts with what the one before has made of it.
    heads = [c["weights"]["classifier.weight"] for c in calls]
    np.testing.assert_allclose(heads[1], heads[0] + 2, atol=1e-6)
    np.testing.assert_allclose(heads[2], heads[1] + 3, atol=1e-6)
    # Masks only grow, the last round prunes what is missing, and the smallest magnitudes go.
    ticket = Ticket.load(run.stage(1, "lth") / "ticket-0.25.safetensors")
    assert ticket.sparsity == pytest.approx(0.25, abs=1e-3)
    for name, mask in ticket.masks.items():
        assert not (mask & ~calls[2]["ticket"].masks[name]).any()
    flat = np.concatenate([np.abs(pretrained[n]).ravel() for n in ticket.masks])
    kept = np.concatenate([m.ravel() for m in ticket.masks.values()])
    assert flat[~kept].max() <= flat[kept].min()


def test_a_killed_pruning_goes_on_with_its_next_round(run):
    def stop(*args, **kwargs):
        if len(run.recorder.calls) == 2:
            raise KeyboardInterrupt
        return run.recorder(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "_train", stop)
        with pytest.raises(KeyboardInterrupt):
            jobs.prune(run.config, run, job(run, "prune")[0])
    for number in (1, 2):  # as if they had taken their time
        manifest = run.stage(1, "lth") / f"round-{number}" / "manifest.json"
        write_json(manifest, {**read_json(manifest), "seconds": 100.0})
    jobs.prune(run.config, run, job(run, "prune")[0])
    assert [c["model"] for c in run.recorder.calls] == ["lth/round-1", "lth/round-2", "lth/round-3"]
    assert 200 <= read_json(run.stage(1, "lth") / "manifest.json")["seconds"] < 260


def test_a_sparsity_asked_for_later_trains_only_the_rounds_that_it_needs(run):
    """The tickets are those of a run that was asked for all of them at once."""
    jobs.prune(run.config, run, job(run, "prune")[0])  # 25%: three rounds
    before = {path: path.read_bytes() for path in run.stage(1, "lth").rglob("*.safetensors")}
    run.config.sparsities = [0.15, 0.25, 0.35]
    assert not job(run, "prune")[0].done
    run.recorder.calls.clear()
    jobs.prune(run.config, run, job(run, "prune")[0])
    assert [c["model"] for c in run.recorder.calls] == ["lth/round-2", "lth/round-4"]
    assert job(run, "prune")[0].done
    for sparsity in run.config.sparsities:
        assert Ticket.load(run.pruned(1, "lth", sparsity)).sparsity == pytest.approx(sparsity, abs=1e-3)
    masks = [path for path in before if "round" not in path.name and path.name.startswith("ticket")]
    assert all(path.read_bytes() == before[path] for path in masks)


@pytest.mark.parametrize("finished", [True, False])
def test_a_sparsity_asked_for_later_under_other_settings_is_refused(run, finished):
    """Also where the pruning was interrupted: its rounds are there, its own manifest is not."""
    jobs.prune(run.config, run, job(run, "prune")[0])
    if not finished:
        (run.stage(1, "lth") / "manifest.json").unlink()
    run.config.sparsities, run.config.lth.learning_rate = [0.05], 1.0
    with pytest.raises(UserError, match="lth.* was made with other settings .*learning_rate"):
        jobs.prune(run.config, run, job(run, "prune")[0])
    assert (run.stage(1, "lth") / "round-1" / "manifest.json").is_file()


@pytest.mark.parametrize("finished", [True, False])
def test_a_changed_pruning_is_redone_as_a_fresh_one_when_asked(run, finished):
    """Every round, and every ticket: also those that an interrupted one had drawn already."""

    def tickets():
        return {path.relative_to(run.root): path.read_bytes() for path in run.root.rglob("ticket*.safetensors")}

    run.config.sparsities = [0.05, 0.25]
    jobs.do(run.config, run, job(run, "prune")[0])
    if not finished:
        (run.stage(1, "lth") / "manifest.json").unlink()
        run.pruned(1, "lth", 0.25).unlink()
    run.pruned(1, "lth", 0.05).write_text("of the old settings")
    run.config.lth.learning_rate, run.config.on_change = 1.0, "redo"
    run.recorder.calls.clear()
    shutil.copytree(run.data, run.root.with_name("fresh") / "data")
    jobs.do(run.config, run, job(run, "prune")[0])
    redone = tickets()
    assert [c["model"] for c in run.recorder.calls] == ["lth/round-1", "lth/round-2", "lth/round-3"]
    run.root = run.root.with_name("fresh")
    jobs.do(run.config, run, job(run, "prune")[0])
    assert redone == tickets()


@pytest.mark.parametrize(
    "sparsities, share, rounds", [([0.3], 0.1, 3), ([0.25], 0.1, 3), ([0.9, 0.1], 0.1, 9), ([0.05], 0.1, 1)]
)
def test_pruning_rounds(sparsities, share, rounds):
    assert jobs.pruning_rounds(sparsities, share) == rounds


def controls(run):
    shapes = huggingface.load(huggingface.resolve(run.config.model)).config.prunable()
    random = np.random.default_rng(3)
    ticket = Ticket.from_scores({n: random.normal(size=s) for n, s in shapes.items()}, 0.25)
    ticket.save(run.ticket(1, "robust-0.25"))
    write_json(run.choice, {"chosen": {"model": "robust-0.25", "sparsity": 0.25, "epochs_back": 0}})
    for one in job(run, "control"):
        jobs.control(run.config, run, one)
    return ticket, {c["model"].rpartition("-")[0]: c for c in run.recorder.calls}


def test_random_keeps_the_sparsity_of_every_matrix_and_shuffles_the_rest(run):
    ticket, calls = controls(run)
    drawn = calls["random"]["ticket"]
    for name, mask in ticket.masks.items():
        assert drawn.masks[name].sum() == mask.sum()
    # Two independent masks of density 3/4 agree on 5/8 of all weights.
    agree = 1 - drawn.distance(ticket)
    assert agree == pytest.approx(0.625, abs=0.06)


def test_no_initialization_keeps_the_structure_and_no_structure_keeps_the_initialization(run):
    ticket, calls = controls(run)
    pretrained = huggingface.load(huggingface.resolve(run.config.model)).weights
    structure, full = calls["robust_no_initialization"], calls["robust_no_structure"]
    assert full["ticket"] is None and structure["ticket"].distance(ticket) == 0
    drawn = []
    for name, mask in ticket.masks.items():
        assert not structure["weights"][name][~mask].any()
        assert not np.isclose(structure["weights"][name][mask], pretrained[name][mask]).any()
        np.testing.assert_array_equal(full["weights"][name][mask], pretrained[name][mask])
        drawn += [structure["weights"][name][mask], full["weights"][name][~mask]]
    flat = np.concatenate(drawn)
    assert flat.std() == pytest.approx(0.02, rel=0.1) and abs(flat.mean()) < 0.003
    for name, value in structure["weights"].items():
        if name not in ticket.masks and "classifier" not in name:
            np.testing.assert_array_equal(value, pretrained[name])


def test_granularities():
    assert matrices.block("weight", 8) == (1, 1)
    assert matrices.block("neuron", 8) == (8, 1) and matrices.block("matrix", 8) == (8, 8)


@pytest.mark.parametrize("task, dev, train", [("sst2", "test", 30), ("imdb", "cut", 27)])
def test_official_splits(monkeypatch, task, dev, train):
    """GLUE: dev is test, all the rest is trained on. IMDB: a tenth is cut off anew in every stage."""
    sizes, starts = {"train": 20, "dev": 10, "test": 5}, {"train": 0, "dev": 20, "test": 100}

    def load(_run, name):
        texts = [(f"{starts[name] + i}",) for i in range(sizes[name])]
        return texts, np.array([starts[name] + i for i in range(sizes[name])]), {}

    monkeypatch.setattr(jobs.data, "load_split", load)
    config = schema.load(task, ["compat=official"])

    def split(stage, name):
        texts, labels, _ = jobs._split(config, None, plan.Job(stage, "x", None), name)
        assert [int(t[0]) for t in texts] == labels.tolist()
        return labels.tolist()

    assert len(split("finetune", "train")) == train
    if dev == "test":
        assert split("finetune", "dev") == list(range(100, 105)) == split("search", "dev")
        assert split("search", "train") == list(range(30))
    else:
        for stage in ("finetune", "search"):
            assert sorted(split(stage, "train") + split(stage, "dev")) == list(range(30))
            assert split(stage, "dev") == split(stage, "dev")
        assert split("finetune", "dev") != split("search", "dev")


# --- the search and its tickets ------------------------------------------------------------------------------


def searched(run, monkeypatch, epochs, name="search"):
    """Run the search stage on made-up scores of its epochs, in place of a training; the settings that it used."""
    source = huggingface.load(huggingface.resolve(run.config.model))
    tuned = run.model(1, "finetune")
    huggingface.save_classifier(tuned, source, huggingface.with_classifier(source, 2, 1), ["a", "b"], 16)
    write_json(tuned.parent / "manifest.json", {"results": {"model_sha256": file_hash(tuned)}})
    used = {}

    class Search:
        def __init__(self, model, settings, *_):
            used["settings"], self.scores = settings, []

        def metrics(self):
            return {}

        def state(self):
            return {}

    class Trained:
        def __init__(self, stage, objective, batches, steps, config, title, on_epoch):
            self.objective, self.on_epoch, self.stop = objective, on_epoch, False

        def run(self):
            for epoch, scores in enumerate(epochs, 1):
                self.objective.scores = [
                    type("Score", (), {"name": f"{n}.log_alpha", "asnumpy": lambda self, v=v: v})()
                    for n, v in scores.items()
                ]
                used["figures"] = self.on_epoch(epoch, epoch)
                if self.stop:
                    break
            return epoch

    monkeypatch.setattr(jobs, "RobustSearch", Search)
    monkeypatch.setattr(jobs, "Trainer", Trained)
    monkeypatch.setattr(jobs, "Evaluator", lambda *_: type("Dev", (), {"accuracy": lambda self: 0.5})())
    monkeypatch.setattr(jobs, "_batches", lambda *_, **__: ([None], {"labels": ["a", "b"]}))
    monkeypatch.setattr(jobs, "total_steps", lambda *_: len(epochs))
    jobs.search(run.config, run, next(one for one in job(run, "search") if one.model == name))
    return used


def made_up_scores(run, seed, block=(1, 1)):
    shapes = huggingface.load(huggingface.resolve(run.config.model)).config.prunable()
    random = np.random.default_rng(seed)
    return {n: random.normal(size=(s[0] // block[0], s[1] // block[1])).astype(np.float32) for n, s in shapes.items()}


def test_the_search_without_an_adversary_is_one_clean_pass(run, monkeypatch):
    run.config.methods = ["robust", "robust_no_adversary"]
    scores = [made_up_scores(run, 1)]
    with_adversary = searched(run, monkeypatch, scores)["settings"]
    assert with_adversary == run.config.search
    clean = searched(run, monkeypatch, scores, "search_no_adversary")["settings"]
    assert clean == dataclasses.replace(run.config.search, ascent_steps=1, initial_norm=0.0)
    from mindspore_rt.training import adversary

    assert not adversary.start((2, 3, 4), np.ones((2, 3), np.float32), clean.initial_norm, 1, 1).any()


@pytest.mark.parametrize("structured", [False, True])
def test_a_search_stops_once_its_ticket_has_settled(run, monkeypatch, structured):
    """The third epoch's scores are the second's, moved together. Those of the pooler are others where tickets are
    structured: it has no units, so that ticket stays as it was, and one of single weights would not."""
    run.config.structured, run.config.search.stop_distance = structured, 0.01
    two = made_up_scores(run, 2)
    three = {n: v + np.float32(1) for n, v in two.items()}
    if structured:
        three["bert.pooler.dense.weight"] = -three["bert.pooler.dense.weight"]
    used = searched(run, monkeypatch, [made_up_scores(run, 1), two, three, made_up_scores(run, 4)])
    assert used["figures"]["ticket_distance"] == 0
    assert stated_results(run.stage(1, "search"))["epochs"] == 3
    assert sorted(path.stem for path in run.log_alpha(1, 1).parent.iterdir()) == ["epoch-01", "epoch-02", "epoch-03"]


def test_a_search_goes_on_to_its_end_unless_asked_to_stop(run, monkeypatch):
    searched(run, monkeypatch, [made_up_scores(run, 1)] * 4)
    assert stated_results(run.stage(1, "search"))["epochs"] == 4


def test_earlier_epochs_can_be_asked_for_after_the_search(run, monkeypatch):
    """Their scores are there; how many to keep decides nothing that a search has found."""
    searched(run, monkeypatch, [made_up_scores(run, seed) for seed in (1, 2, 3)])
    run.config.choice.epochs, run.config.search.keep_epochs = 2, 3
    jobs.search(run.config, run, job(run, "search")[0])  # done
    for one in job(run, "draw"):
        if one.method == "robust":
            jobs.draw(run.config, run, one)
    last, earlier = (Ticket.load(run.ticket(1, f"robust-0.25{back}")) for back in ("", "-back-1"))
    assert last.distance(earlier) > 0


@pytest.mark.parametrize("compat, split", [("paper", "train"), ("paper", "dev"), ("official", "test")])
def test_a_model_is_of_the_splits_that_its_training_reads(run, compat, split):
    """Dev gives the accuracies that a training states; officially it is trained on, and test stands in for it."""
    run.config.compat, run.config.methods, run.config.task = compat, ["finetune"], "sst2"
    one = job(run, "finetune")[0]
    jobs.finetune(run.config, run, one)
    jobs.finetune(run.config, run, one)  # done
    run.split(split).write_text("{}\n{}\n")
    with pytest.raises(Changed, match=f"inputs.{split}"):
        jobs.finetune(run.config, run, one)


def test_snapshots_asked_for_later_are_not_passed_over(run):
    run.config.methods = ["finetune", "infobert"]
    for one in job(run, "finetune"):
        jobs.finetune(run.config, run, one)
    run.config.snapshots = 4
    refused = []
    for one in job(run, "finetune"):
        try:
            jobs.finetune(run.config, run, one)
        except Changed as change:
            refused.append((one.model, "snapshots: None, now 4" in str(change)))
    assert refused == [(model, True) for model in ("finetune", "infobert") if model in KEPT_ON_THE_WAY]


@pytest.mark.parametrize("granularity, block", [("weight", (1, 1)), ("neuron", (8, 1)), ("matrix", (8, 8))])
@pytest.mark.parametrize("compat", ["paper", "official"])
def test_weights_that_share_a_score_are_pruned_or_kept_together(run, monkeypatch, compat, granularity, block):
    """At the threshold too: the sparsity comes as near to the asked one as whole groups allow. Only the official draw
    ranks float32 sigmoids, which tie."""
    run.config.compat, run.config.search.granularity = compat, granularity
    scores = made_up_scores(run, 1, block)
    scores = {n: v + np.float32(30 if "output" in n else 0) for n, v in scores.items()}  # sigmoids tie at 1
    searched(run, monkeypatch, [scores])
    jobs.draw(run.config, run, job(run, "draw")[-1])
    ticket = Ticket.load(run.ticket(1, job(run, "draw")[-1].model))
    assert ("tied" in ticket.about) == (compat == "official")
    for name, mask in ticket.masks.items():  # row i shares the score of row i mod groups, and so do columns
        rows, columns = scores[name].shape
        assert (mask == np.tile(mask[:rows, :columns], (len(mask) // rows, mask.shape[1] // columns))).all()
    groups = sum(score.size for score in scores.values())
    assert ticket.pruned == round(0.25 * groups) * block[0] * block[1]


def test_structured_tickets_of_every_origin_prune_whole_units(run, monkeypatch):
    """Robust, LTH and Random alike, as many heads and neurons each, in every layer."""
    run.config.structured, run.config.methods = True, ["lth", "random", "robust"]
    searched(run, monkeypatch, [made_up_scores(run, 1)])
    jobs.prune(run.config, run, job(run, "prune")[0])
    for one in job(run, "draw"):
        jobs.draw(run.config, run, one)
    write_json(run.choice, {"chosen": {"model": "robust-0.25", "sparsity": 0.25, "epochs_back": 0}})
    jobs.control(run.config, run, job(run, "control")[0])
    kept = {}
    for model in ("robust-0.25", "lth-0.25", "random-0.25"):
        mask = Ticket.load(run.ticket(1, model)).masks["bert.encoder.layer.0.intermediate.dense.weight"]
        assert (mask.all(1) == mask.any(1)).all()
        kept[model] = mask.all(1)
    assert len({int(rows.sum()) for rows in kept.values()}) == 1 and kept["robust-0.25"].sum() < 16
    assert (kept["robust-0.25"] != kept["random-0.25"]).any()


@pytest.mark.parametrize("stage", ["search", "prune"])
def test_a_structured_sparsity_out_of_reach_is_refused_before_the_training(run, monkeypatch, stage):
    run.config.structured, run.config.sparsities = True, [0.9]
    with pytest.raises(UserError, match="sparsities: 0.9, but a structured ticket of this model prunes 0.6"):
        if stage == "search":
            searched(run, monkeypatch, [made_up_scores(run, 1)])
        else:
            jobs.prune(run.config, run, job(run, "prune")[0])
    assert not run.recorder.calls


@pytest.mark.parametrize(
    "method, section",
    [
        ("random", "retrain"),
        ("robust_no_initialization", "retrain"),
        ("robust_no_structure", "retrain"),
        ("robust_no_structure_long", "retrain_long"),
    ],
)
def test_a_control_is_trained_by_its_section(run, method, section):
    run.config.methods = [method]
    _, calls = controls(run)
    assert [call["section"] for call in calls.values()] == [section]


def test_under_compat_paper_splits_are_what_they_are_called(monkeypatch):
    monkeypatch.setattr(jobs.data, "load_split", lambda run, name: name)
    config = schema.load("imdb")
    assert [jobs._split(config, None, None, name) for name in ("train", "dev")] == ["train", "dev"]


def test_the_classifier_of_a_round_is_saved_beside_its_ticket(run):
    jobs.prune(run.config, run, job(run, "prune")[0])
    saved = load_file(run.stage(1, "lth") / "round-2" / "classifier.safetensors")
    assert set(saved) == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("stage, model", [("retrain", "robust-0.25"), ("control", "robust-0.25")])
def test_a_ticket_of_another_model_is_refused_before_training(run, stage, model):
    Ticket({"bert.pooler.dense.weight": np.eye(4) > 0}).save(run.ticket(1, model))
    write_json(run.choice, {"chosen": {"model": model, "sparsity": 0.25, "epochs_back": 0}})
    one = next(one for one in job(run, stage) if one.model in (model, "random-0.25"))
    with pytest.raises(UserError, match="ticket.safetensors: a ticket of another model"):
        getattr(jobs, stage)(run.config, run, one)
    assert not run.recorder.calls


def test_a_classifier_of_a_round_that_changed_is_refused(run):
    jobs.prune(run.config, run, job(run, "prune")[0])
    path = run.stage(1, "lth") / "round-2" / "classifier.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (run.stage(1, "lth") / "manifest.json").unlink()
    with pytest.raises(UserError, match="classifier.safetensors is damaged"):
        jobs.prune(run.config, run, job(run, "prune")[0])
