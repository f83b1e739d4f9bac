"""The packaged movie snippets: their labels, and which of them may be attacked."""

from __future__ import annotations

import hashlib
import tarfile
from typing import IO, cast

from configs.contract.inputs import assets

MEMBER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
NEUTRAL = 0.5  # ratings run from -4 to 4; a snippet rated closer to 0 than this has no clear label and is dropped


# The masked language model of BERT-Attack is trained on packaged text, and must see no sentence that is attacked. Movie
# snippets whose `text_hash` is below MLM_UNSEEN are left out of its training; those below MLM_MEASURED measure it.
MLM_MEASURED, MLM_UNSEEN = 0.05, 0.20


def text_hash(text: str) -> float:
    """Hash the words of a text to a number in [0, 1), for splits that never change."""
    return int.from_bytes(hashlib.sha256(" ".join(text.split()).encode()).digest()[:8], "big") / 2**64


def rated_texts(member: str) -> list[str]:
    """Return the lines of a file of the packaged archive: number, mean rating and text, separated by tabs."""
    with tarfile.open(assets.fetched_folder("snippets") / "hutto_ICWSM_2014.tar.gz") as archive:
        return cast(IO[bytes], archive.extractfile(member)).read().decode("utf-8").splitlines()


def read_snippets() -> tuple[list[dict], str]:
    """Read the Rotten Tomatoes snippets that have a clear rating.

    Returns:
        The records, each sentence once, and a note on what was dropped.
    """
    rows = [line.split("\t") for line in rated_texts(MEMBER) if line.count("\t") == 2]
    labels: dict[str, int] = {}
    for _, rating, sentence in rows:
        if abs(float(rating)) >= NEUTRAL and sentence.strip():
            # A repeated sentence would leak from one split into another: only the first one stays.
            labels.setdefault(" ".join(sentence.split()), int(float(rating) > 0))
    note = (
        f"{len(rows)} snippets with a mean rating from -4 to 4; label = sign of the rating; "
        f"ratings between -{NEUTRAL} and {NEUTRAL} and repeated sentences dropped, {len(labels)} remain"
    )
    return [{"sentence": sentence, "label": label} for sentence, label in labels.items()], note


def split_snippets() -> tuple[dict[str, list[dict]], str]:
    """Set aside as test set the snippets that the masked language model of BERT-Attack was not trained or measured on.

    Returns:
        The splits train and test, and the note of `read_snippets` with a sentence on the test set.
    """
    records, note = read_snippets()
    hashes = [text_hash(record["sentence"]) for record in records]
    order = sorted(range(len(records)), key=hashes.__getitem__)
    test = [i for i in order if MLM_MEASURED <= hashes[i] < MLM_UNSEEN]
    train = sorted(set(order) - set(test))
    note += f"; {len(test)} of them, unseen by the masked language model of BERT-Attack, are there for testing"
    return {"train": [records[i] for i in train], "test": [records[i] for i in test]}, note
