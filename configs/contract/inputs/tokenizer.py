"""How the tokenizer files of a directory are read: the one place that decides it, for both halves.

The rules are those of `AutoTokenizer` in transformers, whatever a directory says or leaves out:

- `tokenizer.json`, if it is there, else `vocab.txt` with BERT's own steps
- of BERT's tokenizers, `do_lower_case`, `strip_accents` and `tokenize_chinese_chars` of `tokenizer_config.json`, or
  their defaults where it says nothing, replace what `tokenizer.json` says
- a byte-level `tokenizer.json` puts a space before the first word only if `add_prefix_space` says so
- special and added tokens of `tokenizer_config.json` (`special_tokens_map.json` and `added_tokens.json` of older
  versions) are matched as a whole in a text

A model that is written says all of it in full, so that any reader gives the same ids.
"""

from __future__ import annotations

import collections
import functools
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import atomic_write, read_json, write_json
from configs.contract.inputs.families import BERTS_PIECES, READINGS, WORD_PIECES, Reading, family_of

PADDED_ROWS = 127  # an embedding table may be padded to a multiple of 8, 64 or 128: so many rows may have no piece
NORMALIZER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
DEFAULTS = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}
PLAIN = "PreTrainedTokenizerFast"  # the class that takes tokenizer.json as it is
TOKEN_IDS = "token_ids.json"  # beside the model of a training: some of its texts with the ids that it read
SAMPLE = 64  # texts in it


def load_tokenizer(directory: Path, max_length: int, vocab_size: int | None = None) -> Tokenizer:
    """Read the tokenizer of the directory of a model.

    Args:
        directory: Holds tokenizer.json or, for BERT's pieces, vocab.txt.
        max_length: Longest input in word pieces; of a pair, the longer text is cut first.
        vocab_size: Pieces of the model, if known.

    Raises:
        UserError: The tokenizer is broken, of another family, or of a model of another size.
    """
    settings = _settings(directory)
    reading, plain = _reading(directory, settings)
    file = directory / "tokenizer.json"
    if file.is_file():
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises a bare Exception for a broken file
            raise UserError(f"{file}: not a tokenizer ({error})") from None
    elif reading is WORD_PIECES and (file := directory / "vocab.txt").is_file():
        tokenizer = _from_vocabulary(_vocabulary(file, vocab_size), settings)
    else:
        bare = " nor vocab.txt" if reading is WORD_PIECES else ""
        raise UserError(
            f"{directory}: {'neither' if bare else 'no'} tokenizer.json{bare} is there"
            + ("" if bare else "; write it with AutoTokenizer.from_pretrained(..).save_pretrained(..) of transformers")
        )
    direction = settings.get("truncation_side", (tokenizer.truncation or {}).get("direction", "right"))
    padding = {"pad_token": tokenizer.padding["pad_token"]} if tokenizer.padding else {}
    tokenizer.no_padding()
    tokenizer.no_truncation()
    try:
        if not plain:
            _set_normalizer(tokenizer, settings, directory)
        _set_prefix_space(tokenizer, settings)
        _add_tokens(tokenizer, settings, padding if plain else reading.special)
        tokenizer.encode_special_tokens = bool(settings.get("split_special_tokens", False))
        if problem := _problem(tokenizer, vocab_size, reading):
            raise UserError(f"{file}: {problem}; give the file that belongs to the model")
        tokenizer.enable_truncation(max_length, direction=str(direction).lower())
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{directory}: settings of the tokenizer that cannot be used ({error})") from None
    return tokenizer


def _reading(directory: Path, settings: dict) -> tuple[Reading, bool]:
    """Return how the model of a directory reads texts, and whether its tokenizer is of the class `PLAIN`.

    Raises:
        UserError: The tokenizer is of another class than the family's.
    """
    config, default = directory / "config.json", WORD_PIECES
    if config.is_file():
        default = family_of(read_json(config, remedy="copy the model again")).reading
    elif settings.get("cls_token"):
        default = next((r for r in READINGS if r.special["cls_token"] == _text(settings["cls_token"])), WORD_PIECES)
    kind = str(settings.get("tokenizer_class") or default.tokenizers[0]).removesuffix("Fast")
    plain = kind == PLAIN.removesuffix("Fast")
    if not plain and kind not in default.tokenizers:
        raise UserError(
            f"{directory / 'tokenizer_config.json'}: a {kind}; the model needs a {' or '.join(default.tokenizers[:3])}"
        )
    return default, plain


def _settings(directory: Path) -> dict:
    """Read tokenizer_config.json, with what older versions of transformers wrote into files of their own."""

    def content(name: str) -> dict:
        file = directory / name
        return read_json(file, remedy="copy the tokenizer again") if file.is_file() else {}

    settings = content("tokenizer_config.json")
    if "added_tokens_decoder" not in settings:
        settings |= content("special_tokens_map.json")
        special = {_text(settings.get(key)) for key in BERTS_PIECES} | set(
            map(_text, settings.get("additional_special_tokens") or ())
        )
        tokens = sorted(content("added_tokens.json").items(), key=lambda item: item[1])
        settings["added_tokens_decoder"] = {
            str(number): {"content": token, "special": token in special, "normalized": token not in special}
            for token, number in tokens
        }
    if not settings.get("tokenizer_class"):
        settings["tokenizer_class"] = content("config.json").get("tokenizer_class")
    return settings


def _text(token: str | dict | None) -> str | None:
    """Return the text of a token, which settings write as text or as an object."""
    return token.get("content") if isinstance(token, dict) else token


def _from_vocabulary(vocabulary: dict[str, int], settings: dict) -> Tokenizer:
    """Build BERT's tokenizer from its pieces."""
    unknown, begin, end = (
        _text(settings.get(key, BERTS_PIECES[key])) for key in ("unk_token", "cls_token", "sep_token")
    )
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=str(unknown), max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    if begin in vocabulary and end in vocabulary:  # else the check that follows says what is missing
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin}:0 $A:0 {end}:0",
            pair=f"{begin}:0 $A:0 {end}:0 $B:1 {end}:1",
            special_tokens=[(begin, vocabulary[begin]), (end, vocabulary[end])],
        )
    return tokenizer


def _set_normalizer(tokenizer: Tokenizer, settings: dict, directory: Path) -> None:
    """Set how letters are normalised to what the settings say, or to BERT's defaults."""
    state = _normalizer(tokenizer)
    wanted = {inner: settings.get(name, DEFAULTS[name]) for name, inner in NORMALIZER.items()}
    if state.get("type") != "BertNormalizer" or wanted.items() <= state.items():
        return
    if (directory / "tokenizer.json").is_file():
        stated = {name for name in NORMALIZER if name in settings}
        for name, inner in NORMALIZER.items():
            if wanted[inner] != state[inner]:
                reason = (
                    "as tokenizer_config.json says" if name in stated else "as transformers does without that setting"
                )
                _print_once(
                    f"{directory}: {name} is {wanted[inner]}, {reason}, although tokenizer.json says {state[inner]}; "
                    f"if the model was made with that, write it into tokenizer_config.json"
                )
    tokenizer.normalizer = normalizers.BertNormalizer(clean_text=state.get("clean_text", True), **wanted)


def _set_prefix_space(tokenizer: Tokenizer, settings: dict) -> None:
    """Set whether a byte-level tokenizer puts a space before the first word, which transformers does not by default."""
    if isinstance(tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
        tokenizer.pre_tokenizer.add_prefix_space = bool(settings.get("add_prefix_space", False))


@functools.cache
def _print_once(message: str) -> None:
    """Print a message once."""
    print(f"  {message}", flush=True)


def _normalizer(tokenizer: Tokenizer) -> dict:
    return json.loads(tokenizer.to_str()).get("normalizer") or {}


def _add_tokens(tokenizer: Tokenizer, settings: dict, defaults: Mapping[str, str]) -> None:
    """Add tokens that are matched as a whole: those of the settings, then special ones that are pieces already."""
    present = {repr(token) for token in tokenizer.get_added_tokens_decoder().values()}
    named = [settings.get(key, defaults.get(key)) for key in ("bos_token", "eos_token", *BERTS_PIECES)]
    named += settings.get("additional_special_tokens") or ()
    special = [text for token in named if (text := _text(token))]
    decoder = sorted(settings["added_tokens_decoder"].items(), key=lambda item: int(item[0]))
    tokens = []
    for _, values in decoder:
        values = {key: value for key, value in values.items() if key != "__type"}
        token = AddedToken(**values)
        if repr(token) not in present:
            token.special = token.special or token.content in special
            tokens.append(token)
    matched = {token.content for token in (*tokenizer.get_added_tokens_decoder().values(), *tokens)}
    # A special token that is no piece has no row in the table of embeddings: it is left as text.
    new = [text for text in dict.fromkeys(special) if text not in matched and tokenizer.token_to_id(text) is not None]
    tokenizer.add_tokens([*tokens, *(AddedToken(text, special=True) for text in new)])


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
        raise UserError(f"{file}: the piece {piece!r} is in {count} lines; give the file that belongs to the model")
    missing = (vocab_size or 0) - len(pieces)
    if missing > PADDED_ROWS or missing > 0 and torn:
        raise UserError(f"{file}: cut off: {len(pieces)} lines, but the model has {vocab_size} pieces; copy it again")
    return vocabulary


def _problem(tokenizer: Tokenizer, vocab_size: int | None, reading: Reading) -> str | None:
    """Say how a tokenizer differs from those of its family, if it does."""
    vocabulary = tokenizer.get_vocab()
    begin, end, unknown, padding = (reading.special[f"{name}_token"] for name in ("cls", "sep", "unk", "pad"))
    missing = [piece for piece in (begin, end, unknown, padding) if piece not in vocabulary]
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
    if ends != [[vocabulary[begin]], [vocabulary[end]]] * 2:
        return f"does not put texts between {begin} and {end}"
    if len(single) < 4:
        return "does not part words at spaces"
    if pair.type_ids != ([0, 0, 0, 1, 1] if reading.segments else [0] * len(pair)):
        return "does not tell the two texts of a pair apart" if reading.segments else "has segments"
    return None


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write a tokenizer of `load_tokenizer` in full: four files that say the same, with nothing left to defaults."""
    truncation, state = tokenizer.truncation, _normalizer(tokenizer)
    bare = Tokenizer.from_str(tokenizer.to_str())
    bare.no_truncation()
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    added = tokenizer.get_added_tokens_decoder()
    matched = {token.content for token in added.values()}
    reading = next((r for r in READINGS if r.special["cls_token"] in vocabulary), WORD_PIECES)
    # Naming another one as special would make a text of its letters that token.
    tokens = {key: text if text in matched else None for key, text in reading.special.items()}
    byte_level = isinstance(tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel)
    bert = state.get("type") == "BertNormalizer"
    settings = {
        "tokenizer_class": WORD_PIECES.tokenizers[0] if bert else PLAIN,
        **({name: state[inner] for name, inner in NORMALIZER.items()} if bert else {}),
        **({"add_prefix_space": tokenizer.pre_tokenizer.add_prefix_space} if byte_level else {}),
        **tokens,
        "added_tokens_decoder": {
            str(number): {
                key: getattr(token, key)
                for key in ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
            }
            for number, token in sorted(added.items())
        },
        "split_special_tokens": tokenizer.encode_special_tokens,
        "truncation_side": truncation["direction"],
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "model_max_length": truncation["max_length"],
    }
    atomic_write(folder / "tokenizer.json", bare.to_str(pretty=True) + "\n")
    for name, content in (("tokenizer_config", settings), ("special_tokens_map", tokens)):
        write_json(folder / f"{name}.json", content)
    pieces = sorted(vocabulary, key=vocabulary.get)
    if isinstance(tokenizer.model, models.WordPiece) and [vocabulary[piece] for piece in pieces] == list(
        range(len(pieces))
    ):
        atomic_write(folder / "vocab.txt", "".join(f"{piece}\n" for piece in pieces))


def sample_ids(tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]]) -> list[dict]:
    """Choose the texts that say most about a tokenizer, those with the most characters other than plain letters.

    Args:
        tokenizer: Of a training.
        texts: One tuple of columns a sentence.

    Returns:
        Up to `SAMPLE` objects with `texts` and `ids`.

    Raises:
        UserError: The tokenizer would give other ids once it is written.
    """

    def unusual(text: tuple[str, ...]) -> int:
        return len({letter for part in text for letter in part if not "a" <= letter <= "z"})

    chosen = sorted(dict.fromkeys(texts[:10_000]), key=unusual, reverse=True)[:SAMPLE]
    sample = [{"texts": list(text), "ids": tokenizer.encode(*text).ids} for text in chosen]
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(tokenizer, Path(folder))
        written = load_tokenizer(Path(folder), tokenizer.truncation["max_length"])
    compare_ids(sample, lambda *text: written.encode(*text).ids, "the tokenizer of the trained model, once written,")
    return sample


def compare_ids(sample: list[dict], encode: Callable[..., list[int]], reader: str) -> None:
    """Compare the ids of a training's sample with those that another reader gives.

    Args:
        sample: From `sample_ids`.
        encode: Gives the ids of a text, or of the two texts of a pair.
        reader: Who reads, for the message.

    Raises:
        UserError: With the first text whose ids differ, and both lists.
    """
    for row in sample:
        ids = encode(*row["texts"])
        if ids != row["ids"]:
            text = " | ".join(row["texts"])
            raise UserError(
                f"{reader} does not read texts as the training did: {text[:80]!r} was {row['ids'][:40]} there, and "
                f"is {ids[:40]}; were tokenizer files changed, or other versions installed? else train the model again"
            )
