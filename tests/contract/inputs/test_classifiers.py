"""What is known of a classifier before it is loaded: its labels by name, its positions, its files."""

import pytest

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import write_json
from configs.contract.inputs import classifiers

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


def test_an_accent_may_be_a_character_of_its_own(folder):
    """As files from macOS have it."""
    names = ["n\u00e9gatif", "positif"]
    model = folder(id2label=named(names))
    assert classifiers.check(model, ["POSITIF", "ne\u0301gatif"], 128) == (1, 0)


def test_another_number_of_labels_is_refused(folder):
    with pytest.raises(UserError, match="a classifier of 2 labels for data of 3: its labels are LABEL_0.*; give a"):
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
    with pytest.raises(UserError, match=message) as error:
        classifiers.check(model, ["a", "b"], 128)
    assert "delete" not in str(error.value)


@pytest.mark.parametrize("part", ["model-00001-of-00002.safetensors", "pytorch_model-00002-of-00002.bin"])
def test_parts_of_weights_without_their_index_are_named(folder, part):
    model = folder()
    (model / "model.safetensors").rename(model / part)
    index = f"{part.partition('-')[0]}{part[part.index('.') :]}.index.json"
    with pytest.raises(UserError, match=f"parts of weights, such as {part}; copy {index} too"):
        classifiers.check(model, ["a", "b"], 128)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_is_no_file_of_weights(folder, file):
    model = folder()
    (model / "model.safetensors").unlink()
    (model / file).mkdir()
    with pytest.raises(UserError, match="no weights .*; save the model's weights there too"):
        classifiers.check(model, ["a", "b"], 128)


@pytest.mark.parametrize("file", ["tokenizer.model", "sentencepiece.model", "spiece.model", "vocab.json"])
def test_the_only_file_of_a_tokenizer_may_be_any_that_transformers_reads(folder, file):
    """LLaMA, Mistral and Gemma call it tokenizer.model."""
    model = folder()
    (model / "vocab.txt").rename(model / file)
    if file.endswith(".json"):
        (model / file).write_text("{}")
    assert classifiers.check(model, ["a", "b"], 128) is None


@pytest.mark.parametrize(
    "config, message",
    [
        ({"id2label": {"bad": 0, "good": 1}}, "config.json: id2label must number the labels from 0 on, not bad, good"),
        ({"id2label": ["bad", "good"]}, "config.json: id2label must number the labels from 0 on, not bad, good"),
        ({"id2label": 5}, "config.json: id2label must number the labels from 0 on, not 5"),
        ({"id2label": {"0": "LABEL_0"}}, "config.json: one label only, or a regression; give a classifier of two"),
        ({"num_labels": 1}, "config.json: one label only, or a regression"),
        ({"problem_type": "regression"}, "config.json: one label only, or a regression"),
        ({"num_labels": "2"}, "config.json: num_labels must be a whole number, not '2'"),
        (
            {"id2label": {"0": "bad", "1": "good"}, "label2id": {"bad": 1, "good": 0}},
            "config.json: id2label calls the label 0 bad, label2id says that bad is 1; correct the one that is wrong",
        ),
        (
            {"label2id": {"good": 0, "bad": 1}},
            'config.json: label2id alone names the labels, and transformers reads them from id2label; add "id2label": '
            '{"0": "good", "1": "bad"}',
        ),
        (
            {"id2label": {"0": None, "1": None}},
            "config.json: id2label must give every label a name of its own, not None",
        ),
        ({"id2label": {"0": " ", "1": "good"}}, "config.json: id2label must give every label a name of its own, not  "),
        ({"id2label": {"0": {"a": 1}, "1": "b"}}, "config.json: id2label must give every label a name of its own"),
    ],
)
def test_labels_that_no_classifier_has_are_refused(folder, config, message):
    for read in (classifiers.label_names, lambda model: classifiers.check(model, ["a", "b"], 128)):
        with pytest.raises(UserError, match=message):
            read(folder(**config))


def test_labels_without_names_are_counted(folder):
    assert classifiers.label_names(folder(num_labels=3)) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert classifiers.label_names(folder()) == ["LABEL_0", "LABEL_1"]


NO_WHOLE_MODELS = {
    "adapter_config.json": (b"{}", "holds an adapter .*not a whole model; .*merge_and_unload"),
    "model-00001-of-00002.safetensors": (classifiers.POINTER + b"/spec/v1\n", "only points to its content; .*git lfs"),
    "config.json": (b'{"model_type": ', "config.json, line 1: not valid JSON.*; copy the model again"),
    "tokenizer.json": (b'{"version": "1.0"', "tokenizer.json, line 1: not valid JSON.*; copy it again"),
    "tokenizer_config.json": (b"[]", "tokenizer_config.json: expected an object, got a list; copy it again"),
    "spiece.model": (classifiers.POINTER + b"/spec/v1\n", "spiece.model only points to its content; .*git lfs"),
}


@pytest.mark.parametrize("name", NO_WHOLE_MODELS)
def test_folders_that_hold_no_whole_model_are_refused_with_the_remedy(folder, name):
    model, (content, message) = folder(), NO_WHOLE_MODELS[name]
    (model / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        classifiers.check(model, ["a", "b"], 128)
    assert "delete" not in str(error.value)


def test_a_model_that_does_not_say_its_family_is_refused_with_the_line_to_add(folder):
    with pytest.raises(UserError, match='config.json: no model_type; add the model\'s family: "model_type": "bert"'):
        classifiers.check(folder(model_type=""), ["a", "b"], 128)


@pytest.mark.parametrize("kind", [["bert"], 3])
def test_a_family_that_is_no_text_is_refused(folder, kind):
    for read in (classifiers.label_names, lambda model: classifiers.longest_common_input([model])):
        with pytest.raises(UserError, match="config.json: model_type must be text"):
            read(folder(model_type=kind))


def test_a_family_that_counts_from_its_padding_needs_the_number(folder):
    with pytest.raises(UserError, match="config.json: pad_token_id is None, not a whole number"):
        classifiers.check_length(folder(model_type="roberta", pad_token_id=None), 128)
    classifiers.check_length(folder(model_type="gpt2", pad_token_id=None), 128)


def test_a_folder_of_checkpoints_is_told_from_one_of_them(folder, tmp_path):
    inner = tmp_path / "checkpoint-500"
    inner.mkdir()
    folder().joinpath("config.json").rename(inner / "config.json")
    with pytest.raises(UserError, match="has no config.json; give a Hugging Face directory, such as checkpoint-500 in"):
        classifiers.label_names(tmp_path)


@pytest.mark.parametrize(
    "config, positions",
    [
        ({"model_type": "bert"}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "data2vec-text", "max_position_embeddings": 130}, 128),
        ({"model_type": "gpt2", "n_positions": 64}, 64),
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


@pytest.mark.parametrize("stated, length", [(10**30, 512), (1e30, 512), (-1, 512), (0, 512), (64, 64), ("512", 512)])
def test_texts_are_cut_where_a_tokenizer_states_a_limit_that_can_be_one(folder, tmp_path, stated, length):
    write_json(tmp_path / "tokenizer_config.json", {"model_max_length": stated})
    assert classifiers.longest_common_input([folder()]) == length


@pytest.mark.parametrize("stated", [1, 2, 3.0])
def test_a_limit_that_leaves_nothing_of_a_text_is_refused(folder, tmp_path, stated):
    write_json(tmp_path / "tokenizer_config.json", {"model_max_length": stated})
    with pytest.raises(UserError, match=rf"a text to {int(stated)} word pieces.*max_length=128"):
        classifiers.longest_common_input([folder()])
