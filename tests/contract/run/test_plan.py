"""The plan: what an experiment consists of, in order, shared between methods."""

from pathlib import Path

import pytest

from configs.contract.basics.files import append_line, write_json
from configs.contract.experiment import schema
from configs.contract.experiment.methods import METHODS, of_kind, sources
from configs.contract.experiment.model_id import ModelId
from configs.contract.run import estimate, jobs, plan
from configs.contract.run.run_dir import RunDir
from tests.helpers import made_up_run
from tests.helpers.prepared import write_choice


def run_of(tmp_path, *overrides):
    return RunDir(schema.load("tiny", [*overrides]), tmp_path)


def names(run):
    return [f"{job.stage} {job.name}" for job in jobs.jobs(run)]


def test_the_default_experiment(tmp_path):
    assert names(run_of(tmp_path)) == [
        "prepare data",
        "finetune seed-1/finetune",
        "search seed-1/search",
        "draw seed-1/robust-0.30",
        "retrain seed-1/robust-0.30",
    ]
    assert jobs.stages(run_of(tmp_path)) == [
        "prepare",
        "finetune",
        "search",
        "draw",
        "retrain",
        "choose",
        "attack",
        "report",
    ]


def test_methods_share_their_stages(tmp_path):
    """All, two seeds, two sparsities: one prepare, for each seed one fine-tuning and one search of a kind."""
    run = run_of(tmp_path, "methods=all", "tickets_from=other", "seeds=[1,2]", "sparsities=[0.3,0.5]")
    planned = jobs.jobs(run)
    assert len({job.name + job.stage for job in planned}) == len(planned)
    count = {stage: sum(job.stage == stage for job in planned) for stage in jobs.HALVES}
    dense, tickets, controls = (len(of_kind(list(METHODS), kind)) for kind in ("dense", "ticket", "control"))
    assert count == {
        "prepare": 1,
        "finetune": 2 * dense,
        "search": 2 * 2,
        "prune": 2 * 2,
        "draw": 2 * 2 * tickets,
        "retrain": 2 * 2 * tickets,
        "choose": 0,
        "control": 2 * controls,
        "attack": 0,
        "report": 0,
    }
    order = [list(jobs.HALVES).index(job.stage) for job in planned]
    assert order == sorted(order)


@pytest.mark.parametrize(
    "methods, needed",
    [
        ("[freelb]", ["finetune seed-1/freelb"]),
        ("[lth]", ["prune seed-1/lth", "draw seed-1/lth-0.30", "retrain seed-1/lth-0.30"]),
        (
            "[robust_no_adversary]",
            [
                "finetune seed-1/finetune",
                "search seed-1/search_no_adversary",
                "draw seed-1/robust_no_adversary-0.30",
                "retrain seed-1/robust_no_adversary-0.30",
            ],
        ),
        (
            "[random]",
            [
                "finetune seed-1/finetune",
                "search seed-1/search",
                "draw seed-1/robust-0.30",
                "retrain seed-1/robust-0.30",
                "control seed-1/random-0.30",
            ],
        ),
    ],
)
def test_a_method_brings_what_it_needs_and_no_more(tmp_path, methods, needed):
    assert names(run_of(tmp_path, f"methods={methods}")) == ["prepare data", *needed]


def test_every_method_is_trained_for_every_length(tmp_path):
    """One search and one drawing serve all; the first length has the names that a run without lengths has."""
    run = run_of(tmp_path, "methods=[finetune,robust,random]", "finetune.epochs=5", "lengths=[3,10]")
    planned = [job for job in jobs.jobs(run) if isinstance(job, jobs.TrainingJob)]
    assert {job.name.removeprefix("seed-1/"): job.settings.epochs for job in planned if job.stage != "search"} == {
        f"{model}{suffix}": epochs
        for model in ("finetune", "robust-0.30", "random-0.30")
        for suffix, epochs in (("", 3), ("-epochs-10", 10))
    }
    assert [job.stage for job in jobs.jobs(run)].count("draw") == 1
    assert run.ticket(1, "robust-0.30-epochs-10") == run.ticket(1, "robust-0.30")


@pytest.mark.parametrize(
    "model, trained",
    [
        ("freelb", ["freelb"]),
        ("lth-0.30", ["lth", "lth-0.30"]),
        ("robust-0.30-epochs-10", ["finetune", "search", "robust-0.30-epochs-10"]),
        ("robust_no_adversary-0.30", ["finetune", "search_no_adversary", "robust_no_adversary-0.30"]),
        ("random-0.30", ["finetune", "search", "random-0.30"]),
    ],
)
def test_a_model_rests_on_the_trainings_before_its_ticket(tmp_path, model, trained):
    run = run_of(tmp_path)
    assert [job.model for job in jobs.trainings(run, ModelId.parse(model), 1)] == trained


def test_a_given_ticket_costs_no_search(tmp_path):
    run = run_of(tmp_path, "methods=[robust]", f"tickets_from={tmp_path}")
    assert [job.model for job in jobs.trainings(run, ModelId.parse("robust-0.30"), 1)] == ["robust-0.30"]


def test_controls_follow_the_choice(tmp_path):
    run = run_of(tmp_path, "methods=[robust,random]", "sparsities=[0.3,0.5]")
    write_choice(run, "robust-0.50")
    assert names(run)[-1] == "control seed-1/random-0.50"


def test_every_ticket_has_a_source():
    assert sources(["lth", "robust", "robust_no_adversary", "robust_no_mask_learning"]) == [
        "lth",
        "search",
        "adversarial_pruning",
        "search_no_adversary",
    ]
    assert sources(["finetune"]) == [] and sources(["robust_no_structure"]) == ["search"]


def test_the_estimate_counts_what_training_multiplies(tmp_path):
    """64 sentences, one layer of MiniLM: six operations for each weight, token and pass."""
    run = run_of(tmp_path, "methods=all")
    guess = estimate.Estimator(run)
    weights = 12 * 384 * 384 + 384 * 384
    assert guess.weights == weights
    work = {job.model: guess.work(job) for job in jobs.jobs(run)}
    assert work["finetune"] == pytest.approx(6 * weights * guess.tokens * 4 * 16)
    assert work["freelb"] == 2 * work["finetune"]  # K = 2
    assert work["infobert"] == 4 * work["finetune"]  # two gradients a pass
    assert work["search"] == 2 * work["search_no_adversary"]
    assert work["lth"] == 3 * work["finetune"]  # three rounds to 30%


@pytest.mark.parametrize(
    "sparsities, share, rounds", [([0.3], 0.1, 3), ([0.25], 0.1, 3), ([0.9, 0.1], 0.1, 9), ([0.05], 0.1, 1)]
)
def test_pruning_takes_as_many_rounds_as_the_largest_sparsity_needs(tmp_path, sparsities, share, rounds):
    (job,) = (
        job
        for job in jobs.jobs(run_of(tmp_path, "methods=[lth]", f"sparsities={sparsities}", f"lth.share={share}"))
        if job.stage == "prune"
    )
    assert job.rounds == rounds


def test_a_training_ends_with_its_epochs_or_its_steps():
    """Seven batches an epoch."""
    job = jobs.TrainingJob(
        "finetune", "finetune", Path(), seed=1, section="finetune", settings=schema.Training(epochs=2)
    )
    assert job.steps(7) == 14
    job.settings.max_steps = 5
    assert job.steps(7) == 5


def test_each_job_knows_what_trains_it(tmp_path):
    planned = {job.name: job for job in jobs.jobs(run_of(tmp_path, "methods=all")) if isinstance(job, jobs.TrainingJob)}
    sections = {name.removeprefix("seed-1/"): job.section for name, job in planned.items()}
    assert "data" not in sections and sections["search_no_adversary"] == "search"
    assert (sections["lth"], sections["lth-0.30"], sections["random-0.30"]) == ("lth", "retrain", "retrain")
    searches = [planned[f"seed-1/{name}"].settings for name in ("search", "search_no_adversary")]
    assert [(s.ascent_steps, s.initial_norm) for s in searches] == [(2, 0.15), (1, 0.0)]


def test_until_a_job_has_finished_the_cores_set_the_speed(tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "usable_cores", lambda: 3)
    guess = estimate.Estimator(run_of(tmp_path))
    assert guess.rate == 3 * estimate.CORE_RATE and guess.basis.endswith("cores, 3")
    assert "Ascend was not measured" in estimate.Estimator(run_of(tmp_path, "device=Ascend")).basis


def test_finished_jobs_set_the_speed(tmp_path):
    run = run_of(tmp_path, "methods=[finetune,freelb]")
    trained = {job.model: job for job in jobs.jobs(run) if job.stage == "finetune"}
    made_up_run.finish(trained["finetune"].directory, {}, seconds=estimate.START + 30)
    guess = estimate.Estimator(run)
    assert guess.seconds(trained["freelb"]) == pytest.approx(estimate.START + 2 * 30)  # two passes a step
    assert "1 finished" in guess.basis and "taken to have" not in guess.basis
    assert "taken to have 60,000 sentences" in estimate.Estimator(run_of(tmp_path, "data.train_size=null")).basis
    overview = plan.overview(run)
    assert "finetune  seed-1/finetune" in overview and "done" in overview and "about" in overview


@pytest.mark.parametrize("workers, idle", [(1, 4), (2, 2), (4, 1), (8, 1)])
def test_an_attack_takes_its_queries(tmp_path, monkeypatch, workers, idle):
    """On so many of four cores as there are processes."""
    monkeypatch.setattr(estimate, "usable_cores", lambda: 4)
    keys = ("attack.recipes=[textfooler,pwws]", "attack.examples=10", f"attack.workers={workers}")
    run = run_of(tmp_path, "methods=[finetune,freelb]", *keys)
    guess = estimate.Estimator(run)
    query = 2 * guess.weights * guess.tokens / guess.rate
    ((stage, count, seconds),) = guess.attacks()
    assert (stage, count) == ("attack", "2 models, 10 sentences, 2 attacks")
    assert seconds == pytest.approx(idle * 2 * 10 * (4.5 + 6) * guess.tokens * query)


def test_finished_attacks_set_their_speed(tmp_path):
    """Twenty sentences took a recipe 30 s with two processes: the estimate for the other model is the same."""
    run = run_of(
        tmp_path, "methods=[finetune,freelb]", "attack.recipes=[textfooler]", "attack.examples=20", "attack.workers=2"
    )
    folder = run.attack(1, "finetune") / "textfooler"
    write_json(folder / "manifest.json", {})
    for index in range(20):
        append_line(folder / "results.jsonl", {"index": index, "seconds": 3.0})
    assert estimate.Estimator(run).attacks()[-1][2] == pytest.approx(20 * 3 / 2)


def test_the_plan_counts_models_kept_on_the_way_and_the_users_own(tmp_path):
    own = ("methods=[finetune,infobert]", "seeds=[1,2]", "snapshots=4", f"attack.victims=[mine={tmp_path}]")
    run = run_of(tmp_path, *own, "attack.recipes=[textfooler]", "attack.examples=10")
    assert estimate.Estimator(run).attacks()[-1][1].startswith("11 models")  # 2 x (2 + 3 of finetune) + mine
    write_json(run.attack(1, "mine") / "textfooler" / "manifest.json", {})
    for step in (5, 10, 15):
        write_json(run.stage(2, "finetune") / "snapshots" / f"{step:06d}" / "config.json", {})
    write_json(run.attack(2, "finetune@000005") / "textfooler" / "manifest.json", {})
    guess = estimate.Estimator(run)
    ((_, count, seconds),) = guess.attacks()
    assert count.startswith("11 models") and seconds == pytest.approx(9 * 10 * guess._attack_seconds("textfooler"))


def test_a_wider_choice_shows_its_cost_whatever_was_chosen_before(tmp_path):
    run = run_of(tmp_path, "methods=[robust]", "sparsities=[0.3,0.5]", "choice.epochs=2", "choice.examples=10")
    write_choice(run, "robust-0.30")
    guess = estimate.Estimator(run)
    (stage, count, seconds), _ = guess.attacks()
    assert (stage, count) == ("choose", "40 dev sentences") and seconds > 0
    for candidate in run.candidates()[:3]:
        write_json(run.seed(1) / "choice" / str(candidate) / "manifest.json", {})
    assert guess.attacks()[0][2] == pytest.approx(seconds / 4)
    assert estimate.Estimator(run_of(tmp_path, "sparsities=[0.3,0.5]", "compat=official")).attacks()[0][0] == "attack"


def test_a_plan_survives_the_choice_of_a_ticket_that_is_no_longer_asked_for(tmp_path):
    run = run_of(tmp_path, "methods=[robust,random]", "sparsities=[0.5]")
    write_choice(run, "robust-0.30")
    assert names(run)[-1] == "control seed-1/random-0.50"
    assert "random-0.50" in plan.overview(run)


@pytest.mark.parametrize("command", ["show", "pending"])
@pytest.mark.parametrize(
    "setting, message",
    [
        ("data.train=gone.csv", "data.train: no file or folder gone.csv; relative paths begin at /"),
        ("model=./gone", "model: no file or folder ./gone"),
        ("attack.victims=[theirs=gone]", "attack.victims: theirs: gone has no config.json"),
    ],
)
def test_named_files_that_are_not_there_are_refused_until_the_data_are_prepared(
    tmp_path, monkeypatch, capsys, command, setting, message
):
    monkeypatch.setattr(plan.cli, "run_dir", lambda _: run_of(tmp_path, setting))
    assert plan.main([command, "tiny", setting]) == 2
    assert f"error: {message}" in capsys.readouterr().err
    made_up_run.prepare(run_of(tmp_path, setting))
    assert plan.main([command, "tiny", setting]) == 0


def test_what_the_run_refuses_before_it_trains_the_plan_refuses(tmp_path, monkeypatch, capsys):
    """By the function of the training half that the run calls."""
    monkeypatch.setattr(plan.cli, "run_dir", lambda _: run_of(tmp_path))
    assert plan.main(["show", "tiny", "name=never-run", "tickets_from=gone"]) == 2
    assert "error: tickets_from: gone is neither a file nor an experiment that has run" in capsys.readouterr().err


def test_the_disk_space_of_a_search_is_told_where_it_counts(tmp_path):
    """BERT-base has 85.5 million prunable weights, of which each kept epoch leaves the scores in float32.

    Two epochs are kept at least, because every epoch is compared with the one before.
    """
    both = "methods=[robust,robust_no_adversary]"  # each has a search of its own
    for settings, size, epochs in (
        ("search.keep_epochs=null", "6.8", 20),
        ("search.keep_epochs=3", "1.0", 3),
        ("search.keep_epochs=1", "0.7", 2),
        (both, "13.7", 20),
        ("methods=[robust_no_adversary]", "6.8", 20),
    ):
        large = RunDir(schema.load("sst2", ["search.epochs=20", settings]), tmp_path)
        text = f"  disk: about {size} GB of mask scores: each search keeps its last epochs, {epochs} of them"
        assert estimate.Estimator(large).space()[0].startswith(text)
    shared = RunDir(schema.load("sst2", ["search.granularity=neuron"]), tmp_path)  # 768 weights have one score
    for small in (shared, run_of(tmp_path)):
        assert estimate.Estimator(small).space() == []
