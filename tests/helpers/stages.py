"""Stages without training: a recorder of what would be trained, and a search whose scores are given."""

from types import SimpleNamespace

import numpy as np

from configs.contract.basics.files import file_hash
from configs.contract.run.jobs import TrainingJob, jobs
from configs.contract.run.stage import Stage
from mindspore_rt.formats import huggingface
from mindspore_rt.stages import inputs, search
from tests.helpers.models import normal_arrays


def jobs_of(run, stage):
    """Return the jobs of one stage."""
    return [job for job in jobs(run) if job.stage == stage]


class Recorder:
    """Stands in for a training: records what it starts from, doubles every weight and moves the classifier."""

    def __init__(self):
        self.calls = []

    def __call__(self, run, job, stage, source, weights, ticket=None):
        start = ticket.apply(weights) if ticket else weights
        self.calls.append({"model": job.model, "weights": start, "ticket": ticket, "section": job.section})
        step = np.float32(1 + len(self.calls))
        end = {n: w + step if n.startswith("classifier") else w * 2 for n, w in start.items()}
        training = SimpleNamespace(stage=stage, source=source, dev_accuracy=lambda: 0.5, weights=lambda: end)
        training.run, training.export = lambda: training, lambda **results: stage.finish(results)
        return training


def run_search(run, monkeypatch, epochs, name="search"):
    """Run the search stage with the given scores of every epoch in place of a training; return what it used."""
    source = huggingface.load(huggingface.resolve(run.config.model))
    tuned = run.model(1, "finetune")
    huggingface.save_classifier(tuned, source, huggingface.with_classifier(source, 2, 1), ["a", "b"], 16)
    Stage(tuned.parent, "finetune", {}, {}).finish({"model_sha256": file_hash(tuned)})
    record = {}

    class Search:
        def __init__(self, model, settings, *_):
            record["settings"], self.scores = settings, []

        def metrics(self):
            return {}

        def state(self):
            return {}

    class Trained:
        def __init__(self, stage, objective, batches, steps, config, title, on_epoch, should_stop):
            self.objective, self.on_epoch, self.should_stop = objective, on_epoch, should_stop

        def run(self):
            for epoch, scores in enumerate(epochs, 1):
                self.objective.scores = [
                    SimpleNamespace(name=f"{n}.log_alpha", asnumpy=lambda v=v: v) for n, v in scores.items()
                ]
                record["figures"] = self.on_epoch(epoch, epoch)
                if self.should_stop(record["figures"]):
                    break
            return epoch

    monkeypatch.setattr(search, "RobustSearch", Search)
    monkeypatch.setattr(search, "Trainer", Trained)
    monkeypatch.setattr(search, "Evaluator", lambda *_: SimpleNamespace(accuracy=lambda: 0.5))
    monkeypatch.setattr(inputs, "batches", lambda *_: [None])
    monkeypatch.setattr(TrainingJob, "steps", lambda *_: len(epochs))
    search.search(run, next(one for one in jobs_of(run, "search") if one.model == name))
    return record


def random_scores(run, seed, block=(1, 1)):
    shapes = huggingface.load(huggingface.resolve(run.config.model)).config.prunable()
    return normal_arrays({n: (s[0] // block[0], s[1] // block[1]) for n, s in shapes.items()}, random=seed)
