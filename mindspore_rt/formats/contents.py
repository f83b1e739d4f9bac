"""What a model file or directory holds, whatever its format: weights and scores under Hugging Face names.

A ticket is read as the scores +20 (kept weight) and -20 (pruned weight), as in the official code: their masks are
exactly 1 and 0. Weights may share scores, always with the official code's stride (`ticket.spread`).
"""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors

from configs.contract.basics.errors import UserError, listed
from configs.contract.inputs.families import FAMILIES, family_of
from mindspore_rt.cells.encoder_config import EncoderConfig
from mindspore_rt.formats import huggingface
from mindspore_rt.ticket import Ticket, spread, unpack_mask

BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")  # counters that older transformers save
SCORES = "log_alpha.safetensors"
OUR_SCORES, THEIR_SCORES = ".log_alpha", ".mask.mask_scores"
SETTLED = 20.0  # the official code's score of a kept weight; a pruned one has -20
MASK_PREFIX, COMPACT = "mask:", "compact/1"


@dataclass
class Contents:
    """What a source holds.

    Attributes:
        path: Where it was read from.
        format: One of `convert.FORMATS`, or "scores" or "PyTorch weights".
        weights: Arrays under Hugging Face names; floats are float32.
        scores: Scores of the prunable matrices, under the matrices' names; float32.
        config: Content of config.json; empty if there is none.
        tokenizer: Directory with tokenizer files, if there is one.
    """

    path: Path
    format: str
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    tokenizer: Path | None = None

    @property
    def encoder(self) -> EncoderConfig:
        """The model's shape."""
        return EncoderConfig.from_dict(self.config, f"config of {self.path}")

    @property
    def head_labels(self) -> int:
        """Number of labels of the classifier; 0 if there is none."""
        bias = self.weights.get(self.encoder.family.head[-1])
        return 0 if bias is None else bias.size  # a damaged file may hold a scalar, which has no length

    @property
    def stated_labels(self) -> int:
        """Number of labels that config.json states; 2 where it states none, as in transformers."""
        names, count = self.config.get("id2label"), self.config.get("num_labels", 2)
        return len(names) if isinstance(names, dict) and names else count if type(count) is int else 2

    def ticket(self) -> Ticket | None:
        """Return the ticket that settled scores state or, without scores, exact zeros among the prunable weights."""
        shapes = self.encoder.prunable()
        if self.scores:
            settled = all((np.abs(s) == SETTLED).all() for s in self.scores.values())
            return Ticket({name: s > 0 for name, s in self.scores.items()}).spread(shapes) if settled else None
        masks = {name: self.weights[name] != 0 for name in shapes if name in self.weights}
        return Ticket(masks) if not all(m.all() for m in masks.values()) else None


def read(path: Path) -> Contents:
    """Recognise and read a source.

    Raises:
        UserError: It is missing, damaged, or of no format that is known.
    """
    if path.is_dir():
        return read_directory(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file or directory")
    if path.suffix == ".mindir":
        raise UserError(f"{path}: a graph, from which no weights are read; give the model that it was made from")
    with open(path, "rb") as file:
        start = file.read(9)
    if not start:
        raise UserError(f"{path}: empty; copy or convert it again")
    if start[8:] == b"{":
        return _read_safetensors(path)
    if start[:2] in (b"PK", b"\x80\x02"):
        return _sort_entries(path, "PyTorch weights", huggingface.pruned_weights(huggingface.unpickle(path), path))
    return _read_ckpt(path)


def read_directory(path: Path) -> Contents:
    """Read a Hugging Face directory, ours or the official code's."""
    config, arrays = huggingface.read_config(path), huggingface.read_weights(path)
    contents = _sort_entries(path, "huggingface", arrays, config, path)
    if contents.scores:
        contents.format = "official"
    elif (path / SCORES).is_file():
        contents.scores = huggingface.read_safetensors(path / SCORES)
    return contents


def _read_safetensors(path: Path) -> Contents:
    try:
        with safetensors.safe_open(path, "numpy") as file:
            about = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: not a complete safetensors file ({error})") from None
    if "ticket" in about:
        return Contents(path, "ticket", {}, settled_scores(Ticket.load(path)))
    arrays = huggingface.read_safetensors(path)
    config = _json(path, about["config"]) if "config" in about else {}
    if about.get("format") == COMPACT:
        return Contents(path, "compact", _unpack_compact(path, arrays, config), {}, config)
    if not any("embeddings" in name for name in arrays) and all(array.ndim == 2 for array in arrays.values()):
        return Contents(path, "scores", {}, arrays)  # as a search leaves them
    return _sort_entries(path, "mindspore" if about.get("format") != "pt" else "huggingface", arrays, config)


def _read_ckpt(path: Path) -> Contents:
    import mindspore as ms

    # MindSpore's own check calls damage a lack of permission, and warns of every file without a check sum.
    raw = path.read_bytes()
    if raw[-17:-10] == b"crc_num" and zlib.crc32(raw[:-17]) != int.from_bytes(raw[-10:], "big"):
        raise UserError(f"{path}: damaged, its content does not fit its check sum; copy or convert it again")
    with tempfile.TemporaryDirectory() as temporary:
        link = Path(temporary) / "model.ckpt"  # MindSpore goes by the name
        link.symlink_to(path.resolve())
        try:
            entries = ms.load_checkpoint(str(link))
        except (ValueError, TypeError, RuntimeError) as error:
            reason = str(error).replace(str(link), path.name).splitlines()[0]
            raise UserError(
                f"{path}: neither safetensors, PyTorch weights nor a MindSpore checkpoint ({reason}); give such a "
                f"file, or a Hugging Face directory"
            ) from None
    config = entries.pop("config", None)
    arrays = {name: value.asnumpy() for name, value in entries.items() if isinstance(value, ms.Tensor)}
    return _sort_entries(path, "mindspore", arrays, _json(path, config) if config else None)


def _json(path: Path, text: str) -> dict:
    try:
        config = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: its config is not JSON ({error}); convert it again from its source") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: its config is not a JSON object; convert it again from its source")
    return config


def _sort_entries(
    path: Path,
    format: str,
    arrays: dict[str, np.ndarray],
    config: dict | None = None,
    tokenizer: Path | None = None,
) -> Contents:
    """Sort arrays into weights and scores under Hugging Face names."""
    contents = Contents(path, format, config=config or {}, tokenizer=tokenizer)
    family = family_of(config or _guessed_config(arrays))
    for name, array in arrays.items():
        if name.endswith(BUFFERS):
            continue
        name = huggingface.standard_name(name, family)
        official = name.endswith(THEIR_SCORES)
        if official and array.ndim == 4 and array.shape[::2] == (1, 1):
            array = array[0, :, 0]
        target = contents.scores if official or name.endswith(OUR_SCORES) else contents.weights
        name = name.replace(THEIR_SCORES, ".weight").removesuffix(OUR_SCORES)
        if name in target:
            raise UserError(f"{path}: two entries are called {name} once names are put in Hugging Face's form")
        is_float = array.dtype.kind == "f" or array.dtype.name == "bfloat16"  # MindSpore's, which NumPy lacks
        target[name] = np.asarray(array, np.float32) if is_float else array
    return contents


def _guessed_config(names: Iterable[str]) -> dict[str, str]:
    """Return the first model type whose body the names of weights start with; nothing if none does."""
    parts = {part for name in names for part in name.split(".")[:2]}
    return next(({"model_type": kind} for kind, family in FAMILIES.items() if family.body in parts), {})


def settled_scores(ticket: Ticket) -> dict[str, np.ndarray]:
    """Return the scores that state a ticket: +20 for kept weights, -20 for pruned ones."""
    return {name: np.where(mask, SETTLED, -SETTLED).astype(np.float32) for name, mask in ticket.masks.items()}


def _unpack_compact(path: Path, arrays: dict[str, np.ndarray], config: dict) -> dict[str, np.ndarray]:
    weights, shapes = {}, EncoderConfig.from_dict(config, f"config of {path}").prunable()
    for name, array in arrays.items():
        if name.startswith(MASK_PREFIX):
            continue
        if MASK_PREFIX + name not in arrays:
            weights[name] = array
            continue
        try:
            mask = unpack_mask(arrays[MASK_PREFIX + name], shapes[name])
            if array.shape != (np.count_nonzero(mask),):
                raise ValueError("numbers of values and of kept weights differ")
        except (KeyError, ValueError):
            raise UserError(f"{path}: damaged: mask and values of {name} do not fit; make the file again") from None
        weights[name] = np.zeros(mask.shape, array.dtype)
        weights[name][mask] = array
    return weights


def complete(contents: Contents, like: Path | None) -> Contents:
    """Take what `contents` lacks from the Hugging Face directory `like`: config, tokenizer, weights.

    Raises:
        UserError: There is still no config; or the source is empty, and all weights would be those of `like`.
    """
    if not contents.weights and not contents.scores:
        raise UserError(f"{contents.path}: holds no weights, no scores and no ticket; give the file that holds them")
    if like:
        other = read_directory(like)
        contents.config, contents.tokenizer = contents.config or other.config, contents.tokenizer or other.tokenizer
        contents.weights = contents.weights or other.weights
    if not contents.config:
        raise UserError(
            f"{contents.path} ({contents.format}): its shape is unknown, since no config.json belongs to it; give "
            f"--like DIRECTORY, a Hugging Face directory of a model of the same shape"
        )
    return contents


def check(contents: Contents, missing: list[str], unknown: list[str]) -> None:
    """Compare the entries with those of a classifier of its family, and drop unknown ones that may be there.

    Args:
        contents: What is checked and changed.
        missing: Prefixes of entries that may be missing.
        unknown: Prefixes of unknown entries that are dropped.

    Raises:
        UserError: Entries are missing, unknown, misshapen, no floats or not finite; with their number and some names.
    """
    expected = contents.encoder.parameters(contents.head_labels or contents.stated_labels)
    for name in [n for n in contents.weights if n not in expected and n.startswith(tuple(unknown))]:
        del contents.weights[name]
    prunable = contents.encoder.prunable()
    strangers = [n for n in contents.weights if n not in expected] + [n for n in contents.scores if n not in prunable]
    absent = [n for n in expected if n not in contents.weights and not n.startswith(tuple(missing))]
    if contents.scores:
        absent += [n for n in prunable if n not in contents.weights and n not in absent]  # a score needs its weight
        absent += [f"scores of {n}" for n in prunable if n not in contents.scores]
    arrays = [*contents.weights.items(), *contents.scores.items()]
    problems = {
        "{} missing: {} (--allow-missing PREFIX lets them be)": absent,
        "{} unknown: {} (--allow-unknown PREFIX drops them)": strangers,
        "{} misshapen: {} (is config.json, or --like, of this model?)": _misshapen(contents, expected, prunable),
        "{} not of floats: {}": [f"{name} ({array.dtype})" for name, array in arrays if array.dtype.kind != "f"],
        "{} not finite: {}": [name for name, a in arrays if a.dtype.kind == "f" and not np.isfinite(a).all()],
    }
    # A wrong model lacks hundreds of weights, whose names are long.
    messages = [text.format(len(names), listed(names, 4, 160)) for text, names in problems.items() if names]
    if messages:
        raise UserError(f"{contents.path}: {'; '.join(messages)}")


def _misshapen(
    contents: Contents, expected: dict[str, tuple[int, ...]], prunable: dict[str, tuple[int, int]]
) -> list[str]:
    wrong = []
    for name, array in contents.weights.items():
        if array.shape != expected.get(name, array.shape):
            wrong.append(f"{name} is {list(array.shape)}, not {list(expected[name])}")
    for name in (name for name in prunable if name in contents.scores):  # in order: the message repeats
        shape = contents.scores[name].shape
        if contents.format == "ticket" and shape != prunable[name]:  # weights share scores, but no mask
            wrong.append(f"mask of {name} is {list(shape)}, not {list(prunable[name])}")
            continue
        try:
            spread(contents.scores[name], prunable[name])
        except ValueError as error:
            wrong.append(f"scores of {name}: {error}")
    return wrong
