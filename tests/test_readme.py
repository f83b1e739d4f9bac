"""What the README shows runs as it stands there."""

import re
from pathlib import Path

import numpy as np
from transformers import AutoModelForSequenceClassification

from configs.contract import schema
from configs.contract.tasks import task_of
from mindspore_rt.ticket import Ticket

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_example_of_a_ticket_alone_prunes_the_readers_own_bert(tmp_path, tiny_bert):
    """Every weight that the ticket prunes is zero afterwards, every other one as it was."""
    before = AutoModelForSequenceClassification.from_pretrained(tiny_bert).state_dict()
    matrices = {n: w.numpy() for n, w in before.items() if w.ndim == 2 and n.startswith("bert.encoder")}
    ticket = Ticket.from_magnitudes(matrices, 0.3)
    ticket.save(tmp_path / "ticket.safetensors")
    code = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    code = code.replace("runs/demo/seed-1/tickets/robust-0.30/ticket.safetensors", str(tmp_path / "ticket.safetensors"))
    names = {}
    exec(code.replace("your-bert", str(tiny_bert)), names)
    after = names["model"].state_dict()
    for name, weight in before.items():
        mask = ticket.masks.get(name, np.ones(weight.shape, bool))
        np.testing.assert_array_equal(after[name].numpy(), np.where(mask, weight.numpy(), 0))
    assert sum(int((after[n].numpy() == 0).sum()) for n in matrices) >= round(0.3 * ticket.weights)


def test_the_example_configuration_of_own_data_is_read(tmp_path):
    text = re.search(r"```yaml\n(.*?)```", README, re.S).group(1)
    (tmp_path / "mine.yaml").write_text(text)
    config = schema.load(str(tmp_path / "mine.yaml"))
    assert (config.name, config.data.train) == ("mine", "reviews.csv")
    task = task_of(config)
    assert task.columns == ("title+body",) and task.labels == ("bad", "fair", "good")
    assert len([line for line in text.splitlines() if not line.startswith("#")]) <= 10
