"""Every field of the configuration: what it affects is refused by the stage, and stale in the report; both agree."""

import contextlib
import types
import typing
from pathlib import Path

import pytest

from configs.contract.basics.errors import Missing
from configs.contract.basics.files import file_hash, write_json, write_lines
from configs.contract.experiment import schema
from configs.contract.run.jobs import ModelJob, jobs
from configs.contract.run.run_dir import RunDir
from configs.contract.run.run_files import Results
from configs.contract.run.stage import Changed, Stage
from mindspore_rt.cells import backend
from mindspore_rt.stages import inputs
from tests.helpers import made_up_run
from tests.helpers.prepared import write_summary
from torch_eval.attack import choose, metrics, victims
from torch_eval.attack.sampling import Shard
from torch_eval.attack.scoring import Scoring
from torch_eval.recipes import recipes
from torch_eval.report.run_state import Run
from torch_eval.report.scores import Score

# All sections of the configuration train something here, and two tickets can be chosen from.
BASE = {
    "name": "base",
    "task": "snippets",
    "methods": "[finetune,freelb,infobert,lth,robust,transferred,robust_no_mask_learning,robust_no_structure]",
    "tickets_from": __file__,  # any file
    "sparsities": "[0.3,0.5]",
    "seeds": "[1]",
    "amp_level": "O1",
    "workers": "4",
    "nodes": "2",
    "master_port": "5000",
    "attack.recipes": "[bertattack]",
    "attack.examples": "4",
    "choice.examples": "4",
}
# Fields that make no finished stage another one, and why.
AFFECTS_NOTHING = {
    "name": "another run, which has a folder of its own",
    "seeds": "every seed has folders of its own",
    "sparsities": "every sparsity has folders of its own",
    "methods": "every method has folders of its own",
    "lengths": "the first is that of the sections here, and every other has folders of its own",
    "on_change": "what to do about a difference",
    "jit_level": "how graphs are compiled; results agree up to rounding",
    "device_id": "which of several devices of one kind",
    "device_memory": "a limit, which a training fits into or not",
    "profile_steps": "what is recorded of a training",
    "nodes": "where the workers are",
    "node_rank": "which machine this is",
    "master_addr": "where the workers meet",
    "master_port": "where the workers meet",
    "checkpoint_steps": "a resumed training ends with the same bytes",
    "checkpoint_minutes": "a resumed training ends with the same bytes",
    "log_steps": "lines of the log",
    "search.keep_epochs": "which files stay, not what is in them",
    "choice.epochs": "adds candidates, which have folders of their own",
    "attack.recipes": "every attack has a folder of its own",
    "attack.victims": "every victim has a folder of its own",
    "attack.resources_dir": "read with original resources only, whose files are hashed",
    "attack.shard": "every part has a folder of its own",
    "attack.workers": "an example is attacked by itself",
}
OTHER = {
    "name": "other",
    "task": "sst2",
    "model": "{tmp}/other_bert",
    "tickets_from": "{tmp}/text.csv",
    "seeds": "[2]",
    "sparsities": "[0.3,0.6]",
    "methods": "[finetune,robust,transferred]",
    "lengths": "[3,10]",
    "data.train": "{tmp}/text.csv",
    "data.dev": "{tmp}/text.csv",
    "data.test": "{tmp}/text.csv",
    "data.columns": "[sentence,label]",
    "data.text_columns": "[text]",
    "data.labels": "[bad,good]",
    "data.attacked": "sentence",
    "data.bad_rows": "1%",
    "attack.recipes": "[textfooler]",
    "attack.victims": "[mine={tmp}/bert]",
    "attack.shard": "1/2",
    "amp_level": "O0",
    "workers": "2",
    "infobert.anchor_high": "0.95",
}


def other_value(name: str) -> str:
    """Another allowed value of a field, as the command line takes it."""
    if name in OTHER:
        return OTHER[name]
    value = (
        getattr(load([]), name)
        if "." not in name
        else getattr(getattr(load([]), name.split(".")[0]), name.split(".")[1])
    )
    f, hint = schema.keys()[name]
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if f.metadata["choices"]:
        return next(choice for choice in f.metadata["choices"] if choice != value)
    if bool in kinds:
        return str(not value).lower()
    if int in kinds:
        low = f.metadata["low"] or 0
        return "7" if value is None else str(value - 1 if value > low else value + 1)
    if float in kinds:
        return str(0.25 if not value else value / 2)
    return "other"


def load(overrides: list[str]) -> schema.Experiment:
    return schema.load("base", [*(f"{key}={value}" for key, value in BASE.items()), *overrides])


def stages_of(run: RunDir) -> dict[Path, Stage]:
    """Every stage of a run, as the code of the two halves makes it, by its directory."""
    stages = {}
    for job in jobs(run):
        with contextlib.suppress(Missing):  # what it reads has not been made
            stages[job.directory] = inputs.stage_of(run, job)
    data = run.summary()
    test, dev = ([{"label": i % 2} for i in range(data.splits[name].count)] for name in ("test", "dev"))
    for seed in run.config.seeds:
        for name, model in run.victims(seed).items():
            if (model / "config.json").is_file():
                scoring = Scoring(None, run, seed, name, model, data)
                of_model = [scoring.clean_stage()]
                of_model += [scoring.recipe_stage(recipe, test, Shard())[0] for recipe in run.config.attack.recipes]
                stages |= {stage.directory: stage for stage in of_model}
        for candidate in run.candidates():
            model = run.model(seed, str(candidate))
            if (model / "config.json").is_file():
                stage = choose.stage_of(Scoring(None, run, seed, str(candidate), model, data), dev)
                stages[stage.directory] = stage
    return stages


@pytest.fixture(scope="module")
def patched():
    """No framework is asked, no resource and no victim is read; a fitted temperature changes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "current", lambda: backend.Backend.PRIMITIVES)
        patch.setattr(recipes, "describe_resources", lambda spec: {"from": spec.resources})
        patch.setattr(Scoring, "calibrate", lambda self: 2.5)
        patch.setattr(victims, "check_files", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def finished(patched, tmp_path_factory):
    """A run of which every stage is finished."""
    tmp = tmp_path_factory.mktemp("runs")
    for name in ("bert", "other_bert"):
        write_json(tmp / name / "config.json", {"name": name})
    (tmp / "text.csv").write_text("sentence,label\nfine,1\n")
    run = RunDir(load([f"model={tmp}/bert"]), tmp)
    for name in ("train", "dev", "test", "choice"):
        write_lines(run.split(name), [{"sentence": f"{name} {i}", "label": i % 2} for i in range(6)])
    write_summary(run)
    rows = [{**c.record(), "seed": 1, "aua": 0.5, "accuracy": 0.9} for c in run.candidates()]
    write_json(run.choice, {"rule": "", "candidates": rows, "chosen": run.candidates()[0].record()})
    for job in jobs(run):
        stage, results = inputs.stage_of(run, job), {"epochs": run.config.search.epochs}
        for path in job.leaves:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(job.model)
        if job.stage == "search":
            write_json(run.log_alpha(1, run.config.search.epochs, job.model), {})
        elif job.stage == "draw":
            write_json(run.ticket(1, job.model), {"model": job.model})
        elif isinstance(job, ModelJob):
            write_json(job.directory / "model" / "config.json", {"model": job.model})
            results = {"model_sha256": file_hash(job.directory / "model")}
        stage.finish(results)
    results = metrics.summarise(made_up_run.attacked(2, 1, 1)).to_dict()
    for stage in stages_of(run).values():
        if not stage.manifest.is_file():
            stage.finish({**results, "accuracy": 0.5, "n": 6, "aua": results["aua"]})
    return run


def refused(run: RunDir) -> set[Path]:
    """Directories of finished stages that refuse, because their settings have changed."""
    directories = set()
    for directory, stage in stages_of(run).items():
        try:
            stage.is_done()
        except Changed:
            directories.add(directory)
    return directories


def stale(run: RunDir) -> set[Path]:
    """The same, as the report sees it."""
    report = Run(run.config, ["base"], run.root.parent)
    directories = {step.file.parent for step in report.steps if step.stale and step.stage != "choose"}
    for seed in run.config.seeds:
        for candidate in map(str, run.candidates()):
            directory = run.choice_attack(seed, candidate)
            score = Score.read(directory, Results)
            if score and report.staleness.of_candidate(seed, candidate, score):
                directories.add(directory)
    return directories


def test_nothing_is_stale_before_a_change(finished):
    assert refused(finished) == stale(finished) == set()
    assert len(stages_of(finished)) > 40


@pytest.mark.parametrize("name", sorted(schema.keys()))
def test_a_field_affects_the_same_stages_in_both_halves_or_stands_in_the_list(finished, name):
    tmp = finished.root.parent
    run = RunDir(load([f"model={tmp}/bert", f"{name}={other_value(name).format(tmp=tmp)}"]), tmp)
    if name == "name":
        assert not run.root.exists()
        return
    by_stages = refused(run)
    assert by_stages == stale(run)
    assert bool(by_stages) == (name not in AFFECTS_NOTHING), f"{name} affects {sorted(map(str, by_stages))}"
