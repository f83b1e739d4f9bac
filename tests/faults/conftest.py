"""A small finished run to damage, made once: its files are as the stages write them."""

from pathlib import Path

import pytest
from safetensors.numpy import save_file

from configs.contract.basics.files import append_line, file_hash, write_lines
from configs.contract.experiment import schema
from configs.contract.run.run_dir import RunDir
from configs.contract.run.stage import Stage
from mindspore_rt.cells.encoder_config import EncoderConfig
from mindspore_rt.ticket import Ticket
from tests.helpers.models import ONE_LAYER, copy_tokenizer, normal_arrays, write_encoder
from tests.helpers.prepared import write_choice, write_summary

CONFIG = {**ONE_LAYER, "vocab_size": 30522, "hidden_size": 4, "intermediate_size": 8}


def write_model(folder, packaged):
    """A one-layer BERT classifier of random weights with the packaged tokenizer; its weights."""
    weights = write_encoder(folder, CONFIG)
    copy_tokenizer(packaged, folder)
    return weights


@pytest.fixture(scope="session")
def finished(tmp_path_factory, packaged_model):
    """RunDir of `robust` with seed 1 up to an attack, every file with its true hash in the manifests."""
    config = schema.load("tiny", ["methods=[robust]", "attack.recipes=[textfooler]", "layers=null"])
    run = RunDir(config, tmp_path_factory.mktemp("runs"))
    config.model = str(tmp_path_factory.mktemp("model") / "bert")
    write_model(Path(config.model), packaged_model)
    for name in ("train", "dev", "test"):
        write_lines(run.split(name), [{"sentence": f"a {name} film {i}", "label": i % 2} for i in range(8)])
    write_summary(run, labels=("negative", "positive"))
    model = run.model(1, "finetune")
    weights = write_model(model, packaged_model)
    Stage(model.parent, "finetune", {}, {}).finish({"model_sha256": file_hash(model)})
    scores = normal_arrays(EncoderConfig.from_dict(CONFIG, "test").prunable(), random=1)
    run.log_alpha(1, 1).parent.mkdir(parents=True)
    save_file(scores, run.log_alpha(1, 1))
    hashes = {"epoch-01.safetensors": file_hash(run.log_alpha(1, 1))}
    Stage(run.stage(1, "search"), "search", {}, {}).finish({"epochs": 1, "scores_sha256": hashes})
    ticket = Ticket.from_scores(scores, 0.3, method="robust")
    ticket.save(run.ticket(1, "robust-0.30"))
    ticket.save(run.stage(1, "lth") / "ticket-0.30.safetensors")
    head = {name: weights[name] for name in ("classifier.weight", "classifier.bias")}
    first = Stage(run.stage(1, "lth") / "round-1", "prune", {}, {})
    first.directory.mkdir()
    save_file(head, first.directory / "classifier.safetensors")
    first.finish({"classifier_sha256": file_hash(first.directory / "classifier.safetensors")})
    write_choice(run, "robust-0.30")
    attack = Stage(run.attack(1, "robust-0.30") / "textfooler", "attack", {"seed": 1}, {"test": run.split("test")})
    attack.begin(attack.directory / "results.jsonl")
    for index in range(6):
        append_line(
            attack.directory / "results.jsonl",
            {
                "index": index,
                "label": index % 2,
                "outcome": "failure",
                "queries": 3,
                "original": {"sentence": f"a test film {index}"},
                "perturbed": {"sentence": f"a test movie {index}"},
                "original_prediction": index % 2,
                "perturbed_prediction": index % 2,
                "original_score": 0.9,
                "perturbed_score": 0.6,
                "words_changed": 1,
                "words": 4,
                "seconds": 0.1,
                "processor_seconds": 0.1,
            },
        )
    attack.finish({"n": 6})
    run.save_config()
    return run
