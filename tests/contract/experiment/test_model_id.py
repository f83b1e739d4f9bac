"""Names of model directories."""

import pytest

from configs.contract.basics.errors import UserError
from configs.contract.experiment.model_id import ModelId


@pytest.mark.parametrize(
    "name, model_id",
    [
        ("finetune", ModelId("finetune")),
        ("finetune@000120", ModelId("finetune", snapshot=120)),
        ("robust-0.30", ModelId("robust", 0.3)),
        ("robust-0.05-back-1", ModelId("robust", 0.05, 1)),
        ("freelb-epochs-10", ModelId("freelb", epochs=10)),
        ("robust-0.30-back-1-epochs-10@000120", ModelId("robust", 0.3, 1, 10, 120)),
        ("lth-0.875@1000000", ModelId("lth", 0.875, snapshot=1_000_000)),  # 0.88 would be another ticket
        ("robust-0.012345", ModelId("robust", 0.012345)),
    ],
)
def test_a_name_states_which_model_it_is(name, model_id):
    assert str(model_id) == name and ModelId.parse(name) == model_id


@pytest.mark.parametrize(
    "name", ["", "robust-", "robust-x", "robust-0.30-back", "../robust", "robust-0.30/model", "a@b"]
)
def test_other_names_are_refused(name):
    with pytest.raises(UserError, match="is not the name of a model"):
        ModelId.parse(name)
