"""The card of a model, read back by the hub's own client."""

import pytest
from huggingface_hub import ModelCard

from configs.contract import schema
from configs.contract.model_card import Result, card
from configs.contract.model_id import ModelId

RESULTS = [
    Result("Clean", 0.923, None, None, 872),
    Result("Aua", 0.281, "textfooler", "packaged", 1000),
    Result("Aua", 0.35, "bertattack", "packaged", 1000),
]


def written(*overrides, model="robust-0.30", results=()):
    config = schema.load("sst2", overrides)
    return card(config, ModelId.parse(model), 3, ["negative", "positive"], results)


def test_the_hub_reads_it():
    text = written()
    data = ModelCard(text).data
    assert (data.base_model, data.datasets, data.license) == ("bert-base-uncased", ["nyu-mll/glue"], "apache-2.0")
    assert data.pipeline_tag == "text-classification" and data.eval_results is None
    for fact in (
        "Robust ticket",
        "30% of the prunable weights",
        "| Seed | 3 |",
        "negative, positive",
        "from_pretrained",
    ):
        assert fact in text


def test_results_are_metadata():
    data = ModelCard(written(results=RESULTS)).data
    metrics = {result.metric_name: result.metric_value for result in data.eval_results}
    assert metrics == {
        "Clean, test set": 0.923,
        "Aua, textfooler, packaged resources": 0.281,
        "Aua, bertattack, packaged resources": 0.35,
    }
    assert {result.dataset_type for result in data.eval_results} == {"nyu-mll/glue"}


@pytest.mark.parametrize("model, base, licence", [("packaged", None, "apache-2.0"), ("./own/bert", None, "other")])
def test_a_model_that_is_not_on_the_hub_has_no_base_there(model, base, licence):
    data = ModelCard(written(f"model={model}")).data
    assert (data.base_model, data.license) == (base, licence)


def test_the_same_training_writes_the_same_bytes():
    assert written() == written("name=another", "attack.examples=3", "device=GPU")
    assert "/" not in written("model=/home/somebody/bert").split("Base model")[1].split("\n")[0]
