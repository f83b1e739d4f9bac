"""Models and data sets of the Hugging Face hub for the scoring half, which is offline otherwise."""

from __future__ import annotations

from pathlib import Path

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import with_home
from configs.contract.inputs import hub
from configs.contract.inputs.tasks import Hub

# The scoring half says the opposite to the libraries before it loads them.
ONLINE = dict.fromkeys(hub.OFFLINE, "0")


def model_dir(name: str) -> Path:
    """Return the directory of a model, downloaded on first use.

    Args:
        name: A Hugging Face directory, or a name on the hub, which may end in `@REVISION`.

    Raises:
        UserError: There is neither.
    """
    folder = with_home(name)
    if folder.is_dir():
        return folder.resolve()
    if folder.is_file():
        raise UserError(f"{name}: a file; give the folder that holds the model's files, and the data after the models")
    if folder.is_symlink():
        raise UserError(f"{name}: a link to what is not there; give the folder itself")
    if not hub.NAME.fullmatch(name):
        raise UserError(f"{name}: no such directory, and no name on the hub, which is OWNER/NAME")
    key = hub.model_key(name)
    target = hub.folder("classifier", *key)
    return hub.download(target, "model", key, instead="the path of a copy", environment=ONLINE)


def split_file(data: Hub, split: str) -> Path:
    """Return one split of a data set as JSON Lines, downloaded on first use."""
    key = (data.id, data.config or "", data.revision)
    target = hub.folder("split", *key, split)
    hub.download(target, "dataset", key, [split], instead="the path of a copy", environment=ONLINE)
    return target / f"{split}.jsonl"
