"""The original resources: files that TextAttack's recipes download, in a folder that is filled by hand.

`attack.resources_dir` names the folder, and docs/attacks.md says where the files come from. Not all of their makers
publish hashes. So files are checked by name, and by whether they fit together, and their SHA-256 goes into every
manifest.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import file_hash
from torch_eval.assets import packaged

_hash = functools.cache(file_hash)  # every recipe of every victim asks for them
TAGGER = "nltk_data/taggers/averaged_perceptron_tagger_eng"
FILES = {
    "synonyms": ["paragramcf/paragram.npy", "paragramcf/wordlist.pickle", "paragramcf/nn.npy"],
    "sentence encoder": [
        f"universal-sentence-encoder/{name}"
        for name in ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001")
    ],
    "tagger": [
        *[f"{TAGGER}/averaged_perceptron_tagger_eng.{part}.json" for part in ("weights", "tagdict", "classes")],
        "nltk_data/taggers/universal_tagset/en-ptb.map",
    ],
    "stop words": ["nltk_data/corpora/stopwords/english"],
    "masked language model": [
        f"bert-base-uncased/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt")
    ],
}


def describe(name: str, folder: str, recipe: str) -> dict:
    """Return the files of one resource of a recipe with their hashes, for manifests.

    The stop words of TextFooler are its own list, which is part of this project.

    Raises:
        UserError: Files are missing; the message names all of them. Or a package is missing.
    """
    if (name, recipe) == ("stop words", "textfooler"):
        return packaged.describe(name)
    if not folder:
        raise UserError("attack.resources=original: say with attack.resources_dir=FOLDER where the files are")
    root = Path(folder)
    missing = [file for file in FILES[name] if not (root / file).is_file()]
    if missing:
        raise UserError(
            f"attack.resources=original, {name}: put {', '.join(missing)} into {root} "
            f"(docs/attacks.md says where they come from), or use attack.resources=packaged"
        )
    if name == "sentence encoder" and importlib.util.find_spec("tensorflow_hub") is None:
        raise UserError(
            "attack.resources=original, sentence encoder: the package tensorflow_hub is missing: "
            "run `pip install tensorflow tensorflow_hub` in this environment, or use attack.resources=packaged"
        )
    return {file: _hash(root / file) for file in FILES[name]}
