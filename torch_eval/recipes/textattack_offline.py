"""TextAttack without a network: the files, variables and patches that it needs, by an explicit call."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from configs.contract.inputs import assets, hub
from torch_eval.assets import packaged


def set_environment() -> None:
    """Set the variables and write the files that `import textattack` needs offline.

    The import reads NLTK's English stop words. On its first use it also tries six downloads, unless a marker file says
    that they were done. The user's own NLTK_DATA and TA_CACHE_DIR stay in front, so that TextAttack's other recipes
    find there what they need.
    """
    home = assets.CACHE / "textattack"
    corpus = home / "nltk_data" / "corpora" / "stopwords"
    corpus.mkdir(parents=True, exist_ok=True)
    for folder in (home / "nltk_data", corpus.parent, corpus):
        folder.chmod(0o755)  # NLTK refuses folders that others may write, whatever the umask was
    if not (corpus / "english").exists():
        (corpus / "english").write_bytes(packaged.STOP_WORDS.read_bytes())
    cache = Path(os.environ.setdefault("TA_CACHE_DIR", str(home)))
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "post_install_check_3").touch()
    folders = [*filter(None, os.environ.get("NLTK_DATA", "").split(os.pathsep)), str(home / "nltk_data")]
    os.environ.update(hub.OFFLINE, NLTK_DATA=os.pathsep.join(dict.fromkeys(folders)), HF_HUB_DISABLE_TELEMETRY="1")


def prepare() -> None:
    """Import TextAttack offline, quiet, and unable to download. Call it before anything else imports TextAttack."""
    set_environment()
    import nltk
    import transformers  # before TextAttack, which sets a variable that transformers warns about

    transformers.logging.set_verbosity_error()
    import textattack

    textattack.shared.utils.logger.setLevel(logging.ERROR)
    textattack.shared.utils.download_from_s3 = local_file
    nltk.download = lambda *_, **__: False


def local_file(name: str, skip_if_cached: bool = True) -> str:
    """Return the path of a file of TextAttack's that the user has put into its cache folder.

    It replaces TextAttack's download. The files there are not verified, and some are pickles, which can run code.

    Args:
        name: Path below the cache folder.
        skip_if_cached: Ignored; TextAttack's function has it.

    Raises:
        FileNotFoundError: The file is not there.
    """
    path = Path(os.environ["TA_CACHE_DIR"], name)
    if not path.exists():
        raise FileNotFoundError(f"put https://textattack.s3.amazonaws.com/{name}, unpacked, at {path}")
    return str(path)
