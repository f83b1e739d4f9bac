"""The card of a model, read back by the hub's own client."""

import pytest
from huggingface_hub import ModelCard

from configs.contract.experiment import schema
from configs.contract.experiment.model_id import ModelId
from configs.contract.run.model_card import Result, card

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


@pytest.mark.parametrize(
    "model, overrides, fact",
    [
        ("robust-0.30", [], "30% of the prunable weights are exact zeros"),
        ("robust-0.875", [], "87.5% of the prunable weights are exact zeros"),
        ("robust-0.30", ["structured=true"], "about 30% of the prunable weights are cut out"),
        ("robust_no_structure-0.30", [], None),
        ("finetune", [], None),
    ],
)
def test_it_says_what_was_pruned(model, overrides, fact):
    """The control without the ticket's structure has a sparsity in its name, and trains all weights."""
    text = written(*overrides, model=model)
    assert fact in text if fact else "prunable" not in text


def test_the_language_of_the_users_own_data_is_not_stated():
    own = ["task=custom", "data.train=a.csv", "data.text_columns=[text]", "data.labels=[neg,pos]"]
    languages = [ModelCard(written(*overrides)).data.language for overrides in ([], own)]
    assert languages == ["en", None]


def test_a_pair_of_texts_is_read_as_a_pair():
    own = ["task=custom", "data.train=a.csv", "data.text_columns=[question,answer]", "data.labels=[bad,good]"]
    for overrides, texts in (([], "text"), (own, "text, pair"), (["task=qnli"], "text, pair")):
        assert f"inputs = tokenizer({texts}, truncation" in written(*overrides)


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
