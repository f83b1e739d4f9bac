"""How a directory's tokenizer files become a tokenizer: the one place that decides it."""

from __future__ import annotations

import collections
from pathlib import Path

from tokenizers import BertWordPieceTokenizer, Tokenizer

from configs.contract.errors import UserError
from configs.contract.files import read_json

PADDED_ROWS = 127  # an embedding table may be padded to a multiple of 8, 64 or 128: so many rows may have no piece


def load_tokenizer(directory: Path, max_length: int, vocab_size: int | None = None) -> Tokenizer:
    """Read the tokenizer of a Hugging Face BERT directory.

    Args:
        directory: Holds tokenizer.json, or vocab.txt.
        max_length: Longest input in word pieces; of a pair, the longer text is cut first.
        vocab_size: Pieces of the model, if known.

    Raises:
        UserError: The tokenizer is broken, is not BERT's, or is of a model of another size.
    """
    file = directory / "tokenizer.json"
    if file.is_file():
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises a bare Exception for a broken file
            raise UserError(f"{file}: not a tokenizer ({error})") from None
    elif (file := directory / "vocab.txt").is_file():
        settings = directory / "tokenizer_config.json"
        lower = read_json(settings).get("do_lower_case", True) if settings.is_file() else True
        try:
            tokenizer = BertWordPieceTokenizer(_vocabulary(file, vocab_size), lowercase=lower)
        except TypeError as error:  # what the library makes of a missing [CLS] or [SEP]
            raise UserError(f"{file}: not a vocabulary of BERT ({error})") from None
    else:
        raise UserError(f"{directory}: neither tokenizer.json nor vocab.txt is there")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if problem := _problem(tokenizer, vocab_size):
        raise UserError(f"{file}: {problem}; give the file that belongs to the model")
    tokenizer.enable_truncation(max_length)
    return tokenizer


def _vocabulary(file: Path, vocab_size: int | None) -> dict[str, int]:
    """Read pieces and their ids, one a line as transformers does.

    Raises:
        UserError: The file was cut or edited.
    """
    try:
        pieces = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8 text; give the file that belongs to the model") from None
    torn = bool(pieces[-1])
    pieces = pieces if torn else pieces[:-1]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    if len(vocabulary) < len(pieces):
        piece, count = collections.Counter(pieces).most_common(1)[0]
        raise UserError(f"{file}: the piece {piece!r} stands in {count} lines; give the file that belongs to the model")
    missing = (vocab_size or 0) - len(pieces)
    if missing > PADDED_ROWS or missing > 0 and torn:
        raise UserError(f"{file}: cut off: {len(pieces)} lines, but the model has {vocab_size} pieces; copy it again")
    return vocabulary


def _problem(tokenizer: Tokenizer, vocab_size: int | None) -> str | None:
    """Say how a tokenizer differs from BERT's, if it does."""
    vocabulary = tokenizer.get_vocab()
    missing = [piece for piece in ("[CLS]", "[SEP]", "[UNK]", "[PAD]") if piece not in vocabulary]
    if missing:
        return f"has no piece {', '.join(missing)}"
    if vocab_size and max(vocabulary.values()) >= vocab_size:
        return f"has a piece with the id {max(vocabulary.values())}, the model {vocab_size} pieces"
    try:
        single, pair = tokenizer.encode("a b"), tokenizer.encode("a", "b")
        tokenizer.encode("x" * 1000)  # a word that is too long is unknown
    except Exception as error:  # again a bare one
        return f"cannot encode a text ({error})"
    ends = [piece for encoding in (single, pair) for piece in (encoding.ids[:1], encoding.ids[-1:])]
    if ends != [[vocabulary["[CLS]"]], [vocabulary["[SEP]"]]] * 2:
        return "does not put texts between [CLS] and [SEP]"
    if len(single) < 4:
        return "does not part words at spaces"
    if pair.type_ids != [0, 0, 0, 1, 1]:
        return "does not tell the two texts of a pair apart"
    return None
