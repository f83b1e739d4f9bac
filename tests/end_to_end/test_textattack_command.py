"""TextAttack's own command line attacks an exported directory, offline, with no code of ours in its process."""

import csv
import os
import subprocess
import sys

from mindspore_rt.formats import huggingface
from tests.helpers.attacked_runs import SENTENCES
from torch_eval.recipes import textattack_offline

DATASET = """
from textattack.datasets import Dataset
dataset = Dataset({rows!r}, label_names=["bad", "good"])
"""


def test_textattack_attacks_an_exported_directory(tiny_bert, tmp_path):
    source = huggingface.load(tiny_bert)
    huggingface.save_classifier(tmp_path / "model", source, source.weights, ["bad", "good"], 48)
    rows = [(text, number % 2) for number, text in enumerate(SENTENCES)]
    (tmp_path / "data.py").write_text(DATASET.format(rows=rows))
    textattack_offline.set_environment()  # NLTK's stop words, without which `import textattack` fails offline
    command = [sys.executable, "-m", "textattack", "attack", "--recipe", "deepwordbug", "--num-examples", "6"]
    command += ["--model-from-huggingface", str(tmp_path / "model"), "--dataset-from-file", str(tmp_path / "data.py")]
    command += ["--log-to-csv", str(tmp_path / "log.csv"), "--disable-stdout"]
    result = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    with open(tmp_path / "log.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 6
    assert {line["result_type"] for line in lines} <= {"Successful", "Failed", "Skipped"}
    assert any(line["result_type"] != "Skipped" for line in lines)
