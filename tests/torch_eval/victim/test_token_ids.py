"""A victim that reads texts otherwise than its training did is refused before it is attacked."""

import shutil

import pytest

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import write_json
from configs.contract.inputs.tokenizer import TOKEN_IDS, load_tokenizer, sample_ids, save_tokenizer
from tests.helpers.files import edit_json
from torch_eval.victim.token_ids import check_token_ids

TEXTS = [
    ("A Fine Film", "It is."),
    ("Café 北京", "one two three four five six seven eight nine ten eleven twelve thirteen"),
    ("plain", "words"),
]


@pytest.fixture
def model(packaged_model, tmp_path):
    """A model directory as a training exports it, with the sample beside it."""
    shutil.copytree(packaged_model, tmp_path / "source", ignore=shutil.ignore_patterns("*.safetensors"))
    tokenizer = load_tokenizer(tmp_path / "source", 16)
    save_tokenizer(tokenizer, tmp_path / "model")
    shutil.copyfile(packaged_model / "config.json", tmp_path / "model" / "config.json")
    write_json(tmp_path / TOKEN_IDS, {"max_length": 16, "texts": sample_ids(tokenizer, TEXTS)})
    return tmp_path / "model"


def test_the_same_ids_pass_and_a_model_from_elsewhere_has_none(model):
    check_token_ids(model)
    (model.parent / TOKEN_IDS).unlink()
    edit_json(model / "tokenizer_config.json", do_lower_case=False)
    check_token_ids(model)


@pytest.mark.parametrize(
    "key, value", [("do_lower_case", False), ("strip_accents", False), ("truncation_side", "left")]
)
def test_other_ids_are_refused_with_both_lists(model, key, value):
    edit_json(model / "tokenizer_config.json", **{key: value})
    with pytest.raises(
        UserError, match=r"does not read texts as the training did: .* was \[101, .* there, and is \[101, "
    ):
        check_token_ids(model)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"max_length": 16, "texts": [{"ids": 3}]}'])
def test_a_damaged_sample_is_refused(model, content):
    (model.parent / TOKEN_IDS).write_text(content)
    with pytest.raises(UserError, match="token_ids.json.*; delete .* to train the model again"):
        check_token_ids(model)
