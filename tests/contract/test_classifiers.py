"""What is known of a classifier before it is loaded: its labels by name, its positions, its files."""

import pytest

from configs.contract import classifiers
from configs.contract.errors import UserError
from configs.contract.files import write_json

MNLI = ["entailment", "neutral", "contradiction"]


@pytest.fixture
def folder(tmp_path):
    """A directory with files of the right names; call with what its configuration says otherwise."""
    for name in ("vocab.txt", "model.safetensors"):
        (tmp_path / name).touch()

    def make(**config):
        write_json(tmp_path / "config.json", {"model_type": "bert", **config})
        return tmp_path

    return make


def named(names):
    return {str(number): name for number, name in enumerate(names)}


@pytest.mark.parametrize(
    "names, labels, order",
    [
        (["contradiction", "entailment", "neutral"], MNLI, (1, 2, 0)),
        (["CONTRADICTION", "Entailment", " neutral "], MNLI, (1, 2, 0)),
        (MNLI, MNLI, None),
        (["LABEL_0", "LABEL_1", "LABEL_2"], MNLI, None),
        (["not entailment", "ENTAILMENT"], ["entailment", "not_entailment"], (1, 0)),
        (["POSITIVE", "NEGATIVE"], ["neg", "pos"], (1, 0)),
        (["negative", "positive"], ["neg", "pos"], None),
        (["POSITIVE", "NEGATIVE"], ["0", "1"], None),
        (["Sci/Tech", "business", "sports", "world"], ["World", "Sports", "Business", "Sci/Tech"], (3, 2, 1, 0)),
        (["1", "0"], ["0", "1"], (1, 0)),
    ],
)
def test_labels_are_matched_by_name(folder, names, labels, order):
    assert classifiers.check(folder(id2label=named(names)), labels, 128) == order


@pytest.mark.parametrize(
    "names, labels",
    [
        (["toxic", "fine"], ["neg", "pos"]),
        (["entailment", "neutral", "other"], MNLI),
        (["positive", "good"], ["bad", "good"]),
    ],
)
def test_other_labels_are_refused_with_both_lists(folder, names, labels):
    with pytest.raises(UserError, match=f"labels are {', '.join(names)}; the data's are {', '.join(labels)}: which"):
        classifiers.check(folder(id2label=named(names)), labels, 128)


def test_another_number_of_labels_is_refused(folder):
    with pytest.raises(UserError, match="a classifier of 2 labels for data of 3: its labels are LABEL_0, LABEL_1"):
        classifiers.check(folder(), MNLI, 128)


@pytest.mark.parametrize("positions, length", [(128, 512), (64, 128)])
def test_fewer_positions_than_the_inputs_are_refused_with_both_numbers(folder, positions, length):
    model = folder(max_position_embeddings=positions)
    with pytest.raises(UserError, match=f"a model of {positions} positions, but inputs have up to {length}"):
        classifiers.check(model, ["a", "b"], length)
    assert classifiers.check(model, ["a", "b"], positions) is None


@pytest.mark.parametrize("file, message", [("vocab.txt", "no tokenizer"), ("model.safetensors", "no weights")])
def test_missing_files_are_named_and_nothing_is_to_be_deleted(folder, file, message):
    model = folder()
    (model / file).unlink()
    with pytest.raises(UserError, match=message) as refused:
        classifiers.check(model, ["a", "b"], 128)
    assert "delete" not in str(refused.value)


@pytest.mark.parametrize(
    "config, positions",
    [
        ({"model_type": "bert"}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "mpnet", "max_position_embeddings": 514}, 512),
        ({"model_type": "modernbert"}, 8192),
        ({"model_type": "xlnet"}, None),
    ],
)
def test_positions_of_a_family_without_those_before_its_first(config, positions):
    assert classifiers.longest_input(config) == positions


def test_one_label_is_found_as_all_are_matched():
    names = ["NEGATIVE", "neutral", "Positive"]
    assert [classifiers.find_label(label, names) for label in ("neg", "positive", "Neutral ", "n", "mixed")] == [
        0,
        2,
        1,
        None,
        None,
    ]
