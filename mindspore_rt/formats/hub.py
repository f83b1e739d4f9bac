"""The Hugging Face hub for the training half: through mindnlp where it is installed, else by the hub's own client.

    python -m mindspore_rt.formats.hub model bert-base-uncased REVISION TARGET_DIR
    python -m mindspore_rt.formats.hub dataset nyu-mll/glue sst2 REVISION TARGET_DIR SPLIT [SPLIT ...]

mindnlp takes no MindSpore above 2.7.0. Importing it takes seconds and replaces the module `torch`: that too is why
downloads are processes of their own.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from configs.contract.basics.files import write_lines
from configs.contract.inputs import hub

CLIENT = "mindspore_rt.formats.hub"


def model_dir(name: str) -> Path:
    """Return the local directory of a hub model, downloaded on first use.

    Args:
        name: May end in `@REVISION`. Without a revision, the paper's model has a pinned one. Of another model the
            newest commit is taken on first use; the cache keeps it from then on, with its commit in `commit.txt`.
    """
    key = hub.model_key(name)
    return hub.download(hub.folder("model", *key), "model", key, instead="model=DIRECTORY", client=CLIENT)


def dataset_dir(id: str, config: str | None, revision: str, splits: list[str]) -> Path:
    """Return the directory of a hub data set, one `<split>.jsonl` for each split, downloaded on first use."""
    key, files = (id, config or "", revision), "data.train=FILE data.test=FILE"
    return hub.download(hub.folder("dataset", *key), "dataset", key, splits, instead=files, client=CLIENT)


def _save_model(name: str, revision: str, target: str) -> None:
    from mindnlp.transformers import AutoModelForSequenceClassification, AutoTokenizer

    # The hub's client compares sizes, not hashes; the stages of a run hash the files that they read.
    model = AutoModelForSequenceClassification.from_pretrained(name, revision=revision, trust_remote_code=False)
    commit = getattr(model.config, "_commit_hash", None)
    if revision == "main" and commit:  # the tokenizer must be of the same commit, whatever is pushed meanwhile
        revision = commit
        (Path(target) / hub.COMMIT).write_text(commit, encoding="utf-8")
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False).save_pretrained(target)


def _save_dataset(id: str, config: str, revision: str, target: str, *splits: str) -> None:
    from mindnlp.dataset import load_dataset

    for split in splits:
        rows = load_dataset(id, config or None, split=split, revision=revision)
        arrays = rows.create_dict_iterator(output_numpy=True, num_epochs=1)
        records = ({name: value.item() for name, value in row.items()} for row in arrays)
        write_lines(Path(target) / f"{split}.jsonl", records)


def main() -> int:
    """Run the command line; returns its exit status."""
    return hub.main(_save_model, _save_dataset) if find_spec("mindnlp") else hub.main()


if __name__ == "__main__":
    sys.exit(main())
