"""Random classifiers are the same in every run: a benchmark of one version is compared with that of another."""

import pytest

from configs.contract.basics.files import file_hash
from tests.helpers.attacked_runs import SENTENCES
from torch_eval.bench.random_models import random_classifier


@pytest.mark.parametrize("family", ["roberta", "xlnet", "mpnet"])  # one of each kind of vocabulary
def test_the_same_files_each_time(family, tmp_path):
    one, other = (random_classifier(tmp_path / name, family, SENTENCES) for name in ("one", "other"))
    files = sorted(path.name for path in one.iterdir())
    assert "tokenizer.json" in files and "model.safetensors" in files
    assert [file_hash(one / name) for name in files] == [file_hash(other / name) for name in files]
