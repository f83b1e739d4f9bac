"""Models, scores and tickets from one format to another: `python -m mindspore_rt convert SOURCE TARGET`.

What is read becomes `Contents`: weights and scores under Hugging Face names, and what is written is made from it.
Scores may be shared by weights, everywhere with the official code's stride (`ticket.spread`). A ticket is the scores
+20 (kept) and -20 (pruned), as in the official code: their masks are exactly 1 and 0.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import save

from configs.contract.errors import UserError, command
from configs.contract.files import atomic_write, file_hash
from mindspore_rt.cells.bert import BertConfig
from mindspore_rt.formats import huggingface
from mindspore_rt.ticket import Ticket, spread

FORMATS = {
    "huggingface": "directory with config.json and model.safetensors (or, as a source, pytorch_model.bin), as\n"
    "transformers loads it; pruned weights are exact zeros, scores stand in log_alpha.safetensors",
    "mindspore": "checkpoint of MindSpore: TARGET.ckpt, or TARGET.safetensors; scores end in .log_alpha",
    "official": "directory of the official PyTorch code: weights and ...mask.mask_scores in pytorch_model.bin",
    "ticket": "one bit a weight: which weights are kept, not their values",
    "compact": "a ticket and the values of the kept weights in one safetensors file",
}
DESCRIPTION = """\
Convert a model, its scores or a ticket. The format of SOURCE is recognised from its content; that of TARGET follows
from its name (no suffix: huggingface, .ckpt: mindspore) or from --to. Float32 values are copied bit for bit, half
precision is widened to float32.

"""
EXAMPLES = """
examples:
  a fine-tuned model for MindSpore, and back
    convert runs/sst2/seed-1/finetune/model model.ckpt
    convert model.ckpt model --like runs/sst2/seed-1/finetune/model
  a ticket from a search of the official code, as that code would draw it
    convert saved_models/search-ticket/epoch19 robust-0.30.safetensors --to ticket --sparsity 0.3 --compat official
  scores of our search, with the model they belong to, for the official code
    convert runs/sst2/seed-1/search/log_alpha/epoch-20.safetensors theirs --to official --like MODEL_DIRECTORY
  the published bert-base-uncased, whose pre-training heads are not wanted
    convert bert-base-uncased base.ckpt --allow-missing classifier --allow-unknown cls
"""
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")  # counters that older transformers save
SCORES = "log_alpha.safetensors"
OUR_SCORES, THEIR_SCORES = ".log_alpha", ".mask.mask_scores"
SETTLED = 20.0  # the official code's score of a kept weight; minus that of a pruned one
MASK_PREFIX, COMPACT = "mask:", "compact/1"


@dataclass
class Contents:
    """What a source holds: arrays under Hugging Face names (float32), and where they came from."""

    path: Path
    format: str
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    config: dict | None = None
    tokenizer: Path | None = None

    @property
    def bert(self) -> BertConfig:
        return BertConfig.from_dict(self.config, f"config of {self.path}")

    def ticket(self) -> Ticket | None:
        """The ticket that settled scores or, without scores, exact zeros among the prunable weights state."""
        shapes = self.bert.prunable()
        if self.scores:
            settled = all((np.abs(s) == SETTLED).all() for s in self.scores.values())
            return Ticket({name: s > 0 for name, s in self.scores.items()}).spread(shapes) if settled else None
        masks = {name: self.weights[name] != 0 for name in shapes if name in self.weights}
        return Ticket(masks) if not all(m.all() for m in masks.values()) else None


# --- reading -------------------------------------------------------------------------------------------------


def read(path: Path) -> Contents:
    """Recognise and read a source. Raises `UserError` naming the file and what it would have to be."""
    if path.is_dir():
        return _read_directory(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file or directory")
    with open(path, "rb") as file:
        start = file.read(9)
    if start[8:] == b"{":
        return _read_safetensors(path)
    if start[:2] in (b"PK", b"\x80\x02"):
        return _named(path, "PyTorch weights", huggingface.unpickle(path))
    return _read_ckpt(path)


def _read_directory(path: Path) -> Contents:
    config, arrays = huggingface.read_config(path), huggingface.read_weights(path)
    found = _named(path, "huggingface", arrays, config, path)
    if found.scores:
        found.format = "official"
    elif (path / SCORES).is_file():
        found.scores = huggingface.read_safetensors(path / SCORES)
    return found


def _read_safetensors(path: Path) -> Contents:
    try:
        with safetensors.safe_open(path, "numpy") as file:
            about = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({error})") from None
    if "ticket" in about:
        return Contents(path, "ticket", {}, _settled(Ticket.load(path)))
    arrays = huggingface.read_safetensors(path)
    config = _json(path, about["config"]) if "config" in about else None
    if about.get("format") == COMPACT:
        return Contents(path, "compact", _unpack_compact(path, arrays, config), {}, config)
    if not any("embeddings" in name for name in arrays) and all(array.ndim == 2 for array in arrays.values()):
        return Contents(path, "scores", {}, arrays)  # as a search leaves them
    return _named(path, "mindspore" if about.get("format") != "pt" else "huggingface", arrays, config)


def _read_ckpt(path: Path) -> Contents:
    import mindspore as ms

    with tempfile.TemporaryDirectory() as temporary:
        link = Path(temporary) / "model.ckpt"  # MindSpore goes by the name
        link.symlink_to(path.resolve())
        try:
            entries = ms.load_checkpoint(str(link))
        except (ValueError, TypeError, RuntimeError) as error:
            reason = str(error).replace(str(link), path.name).splitlines()[0]
            raise UserError(
                f"{path}: neither safetensors, PyTorch weights nor a MindSpore checkpoint ({reason})"
            ) from None
    config = entries.pop("config", None)
    arrays = {name: value.asnumpy() for name, value in entries.items() if isinstance(value, ms.Tensor)}
    return _named(path, "mindspore", arrays, _json(path, config) if config else None)


def _json(path: Path, text: str) -> dict:
    try:
        config = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: its config is not JSON ({error}); convert it again from its source") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: its config is not a JSON object; convert it again from its source")
    return config


def _named(path: Path, format: str, arrays: dict, config: dict | None = None, tokenizer=None) -> Contents:
    """Sort arrays into weights and scores under Hugging Face names."""
    found = Contents(path, format, config=config, tokenizer=tokenizer)
    for name, array in arrays.items():
        if name.endswith(BUFFERS):
            continue
        name = huggingface.standard_name(name)
        official = name.endswith(THEIR_SCORES)
        if official and array.ndim == 4 and array.shape[::2] == (1, 1):
            array = array[0, :, 0]
        target = found.scores if official or name.endswith(OUR_SCORES) else found.weights
        name = name.replace(THEIR_SCORES, ".weight").removesuffix(OUR_SCORES)
        if name in target:
            raise UserError(f"{path}: two entries are called {name} once names are put in Hugging Face's form")
        target[name] = np.asarray(array, np.float32) if array.dtype.kind == "f" else array
    return found


def _settled(ticket: Ticket) -> dict[str, np.ndarray]:
    return {name: np.where(mask, SETTLED, -SETTLED).astype(np.float32) for name, mask in ticket.masks.items()}


def complete(found: Contents, like: Path | None) -> Contents:
    """Take from the Hugging Face directory `like` what `found` lacks: config, tokenizer, weights."""
    if like:
        other = _read_directory(like)
        found.config, found.tokenizer = found.config or other.config, found.tokenizer or other.tokenizer
        found.weights = found.weights or other.weights
    if found.config is None:
        raise UserError(
            f"{found.path}: {found.format} holds no config.json; give --like DIRECTORY, a Hugging Face directory of "
            f"the same shape"
        )
    return found


def check(found: Contents, missing: list[str], unknown: list[str]) -> None:
    """Drop the unknown entries under the prefixes `unknown`. Raises `UserError` with the names of all others, of
    missing ones but for the prefixes `missing`, and of misshapen ones."""
    expected = found.bert.parameters(_labels(found))
    for name in [n for n in found.weights if n not in expected and n.startswith(tuple(unknown))]:
        del found.weights[name]
    prunable, problems = found.bert.prunable(), []
    strangers = [n for n in found.weights if n not in expected] + [n for n in found.scores if n not in prunable]
    absent = [n for n in expected if n not in found.weights and not n.startswith(tuple(missing))]
    if found.scores:
        absent += [n for n in prunable if n not in found.weights and n not in absent]  # a score needs its weight
        absent += [f"scores of {n}" for n in prunable if n not in found.scores]
    wrong = _misshapen(found, expected, prunable)
    arrays = [*found.weights.items(), *found.scores.items()]
    other = [f"{name} ({array.dtype})" for name, array in arrays if array.dtype.kind != "f"]
    infinite = [name for name, array in arrays if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if absent:
        problems.append(f"missing: {_listed(absent)} (--allow-missing PREFIX lets them be)")
    if strangers:
        problems.append(f"unknown: {_listed(strangers)} (--allow-unknown PREFIX drops them)")
    if wrong:
        problems.append(f"misshapen: {_listed(wrong)} (is config.json, or --like, of this model?)")
    if other:
        problems.append(f"not of floats: {_listed(other)}")
    if infinite:
        problems.append(f"not finite: {_listed(infinite)}")
    if problems:
        raise UserError(f"{found.path}: {'; '.join(problems)}")


def _misshapen(found: Contents, expected: dict, prunable: dict) -> list[str]:
    wrong = []
    for name, array in found.weights.items():
        if array.shape != expected.get(name, array.shape):
            wrong.append(f"{name} is {list(array.shape)}, not {list(expected[name])}")
    for name in (name for name in prunable if name in found.scores):  # in order: the message repeats
        try:
            spread(found.scores[name], prunable[name])
        except ValueError as error:
            wrong.append(f"scores of {name}: {error}")
    return wrong


def _labels(found: Contents) -> int:
    if "classifier.bias" in found.weights:
        return found.weights["classifier.bias"].size
    names = found.config.get("id2label")
    return len(names) if isinstance(names, dict) and names else 2


def _listed(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


# --- writing -------------------------------------------------------------------------------------------------


def write(found: Contents, target: Path, format: str, options: argparse.Namespace) -> str:
    """Write `target` and say in a few words what stands in it."""
    if format == "huggingface":
        return _write_huggingface(found, target)
    if format == "mindspore":
        return _write_mindspore(found, target)
    if format == "official":
        return _write_official(found, target)
    ticket = _ticket(found, options.sparsity, options.compat)
    return _write_compact(found, ticket, target) if format == "compact" else _write_ticket(ticket, target)


def _write_huggingface(found: Contents, target: Path) -> str:
    ticket = found.ticket() if found.scores else None
    weights = ticket.apply(found.weights) if ticket else found.weights
    with huggingface.whole_directory(target) as folder:
        huggingface.write_model(folder, found.config, weights, found.tokenizer)
        if found.scores and not ticket:
            atomic_write(folder / SCORES, save(found.scores, metadata={"format": "pt"}))
    if ticket:
        return f"{len(weights)} weights, the {ticket.pruned} pruned values as exact zeros"
    return f"{len(weights)} weights" + (f", and the scores in {SCORES}" if found.scores else "")


def _write_mindspore(found: Contents, target: Path) -> str:
    arrays = {**found.weights, **{name + OUR_SCORES: s for name, s in found.scores.items()}}
    if target.suffix == ".safetensors":
        atomic_write(target, save(arrays, metadata={"format": "ms", "config": json.dumps(found.config)}))
    elif target.suffix == ".ckpt":
        import mindspore as ms

        entries = [{"name": name, "data": ms.Parameter(array, name=name)} for name, array in arrays.items()]
        temporary = target.with_name(f".{target.stem}.{os.getpid()}.tmp.ckpt")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            ms.save_checkpoint(entries, str(temporary), append_dict={"config": json.dumps(found.config)})
            temporary.chmod(0o644)
            os.replace(temporary, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
    else:
        raise UserError(f"{target}: a MindSpore checkpoint is called .ckpt or .safetensors; rename TARGET")
    return f"{len(found.weights)} weights" + (f" and scores of {len(found.scores)} matrices" if found.scores else "")


def _write_official(found: Contents, target: Path) -> str:
    scores, ticket = found.scores, found.ticket()
    if not scores and not ticket:
        raise UserError(
            f"{found.path}: holds neither scores nor pruned weights; the official code starts its search from a "
            f"Hugging Face directory as it is: use --to huggingface"
        )
    scores = scores or _settled(ticket)
    scores = {name.removesuffix(".weight") + THEIR_SCORES: s[None, :, None] for name, s in scores.items()}
    with huggingface.whole_directory(target) as folder:
        huggingface.write_model(folder, found.config, {**found.weights, **scores}, found.tokenizer)
        # The PyTorch of that code's day reads no safetensors.
        huggingface.torch_half(folder / "model.safetensors", folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    return f"{len(found.weights)} weights and scores of {len(scores)} matrices"


def _ticket(found: Contents, sparsity: float | None, compat: str) -> Ticket:
    about = {"method": "converted", "source": found.path.name, "source_sha256": file_hash(found.path)}
    if sparsity is None:
        ticket = found.ticket()
        if ticket is None:
            remedy = "give --sparsity" if found.scores else "draw from scores: a search's, or an official checkpoint's"
            raise UserError(f"{found.path}: states no ticket (no exact zeros, no scores of +-{SETTLED:g}); {remedy}")
        return Ticket(ticket.masks, about)
    if not found.scores:
        raise UserError(f"{found.path}: holds no scores to draw a ticket from; leave --sparsity out, or give scores")
    if not 0 <= sparsity <= 1:
        raise UserError(f"--sparsity {sparsity}: give a share between 0 and 1")
    shapes = found.bert.prunable()
    scores = {name: found.scores[name] for name in shapes}  # ties go by the order of the matrices
    return Ticket.from_scores(scores, sparsity, official=compat == "official", **about, compat=compat).spread(shapes)


def _write_ticket(ticket: Ticket, target: Path) -> str:
    ticket.save(target)
    text = f"ticket at sparsity {ticket.sparsity:.6f}: {ticket.pruned} of {ticket.weights} weights pruned"
    if "tied" in ticket.about:
        text += (
            f"; {ticket.about['tied']} scores tie at the threshold as float32 sigmoids, "
            f"{ticket.about['tied_pruned']} of them are pruned: only among these can the official draw differ"
        )
    return text


def _write_compact(found: Contents, ticket: Ticket, target: Path) -> str:
    arrays = ticket.apply(found.weights)
    for name, mask in ticket.masks.items():
        # A kept weight may be zero, and a negative zero is not nothing: the mask is the ticket's, not the values'.
        arrays[MASK_PREFIX + name], arrays[name] = np.packbits(mask, axis=None), arrays[name][mask]
    content = save(arrays, metadata={"format": COMPACT, "config": json.dumps(found.config)})
    atomic_write(target, content)
    dense = sum(w.nbytes for w in found.weights.values())
    return (
        f"ticket at sparsity {ticket.sparsity:.6f}: {len(content):,} bytes against {dense:,} of the dense weights "
        f"({len(content) / dense:.1%})"
    )


def _unpack_compact(path: Path, arrays: dict[str, np.ndarray], config: dict) -> dict[str, np.ndarray]:
    weights, shapes = {}, BertConfig.from_dict(config, f"config of {path}").prunable()
    for name, array in arrays.items():
        if name.startswith(MASK_PREFIX):
            continue
        if MASK_PREFIX + name not in arrays:
            weights[name] = array
            continue
        packed, shape = arrays[MASK_PREFIX + name], shapes.get(name, (0, 0))
        fits = packed.dtype == np.uint8 and packed.size == -(-shape[0] * shape[1] // 8) and array.ndim == 1
        mask = np.unpackbits(packed, count=shape[0] * shape[1]).astype(bool) if fits else np.zeros(0, bool)
        if not fits or np.count_nonzero(mask) != array.size:
            raise UserError(f"{path}: damaged: mask and values of {name} do not fit; make the file again")
        weights[name] = np.zeros(shape, array.dtype)
        weights[name][mask.reshape(shape)] = array
    return weights


def load_compact(path: Path) -> dict[str, np.ndarray]:
    """The weights of a compact file under their Hugging Face names, pruned ones as exact zeros."""
    return _read_safetensors(Path(path)).weights


# --- command line --------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    formats = "\n".join(f"  {name:12s} " + text.replace("\n", "\n" + " " * 15) for name, text in FORMATS.items())
    result = argparse.ArgumentParser(
        prog="python -m mindspore_rt convert",
        description=DESCRIPTION + "formats:\n" + formats,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add("source", type=Path, metavar="SOURCE", help="what to convert; also a bare PyTorch file, or a search's scores")
    add("target", type=Path, metavar="TARGET", help="file or directory to write; must not be there yet")
    add("--to", choices=FORMATS, help="format of TARGET")
    add(
        "--like",
        type=Path,
        metavar="DIRECTORY",
        help="Hugging Face directory that gives what SOURCE lacks: config.json, tokenizer, weights",
    )
    add("--sparsity", type=float, help="draw a ticket from the scores of SOURCE: share of weights to prune, 0 to 1")
    add(
        "--compat",
        choices=("paper", "official"),
        default="paper",
        help="rank raw scores, or float32 sigmoids as the official code does (default: %(default)s)",
    )
    add(
        "--allow-missing",
        nargs="+",
        action="extend",
        default=[],
        metavar="PREFIX",
        help="entries whose names begin so may be missing, such as classifier",
    )
    add(
        "--allow-unknown",
        nargs="+",
        action="extend",
        default=[],
        metavar="PREFIX",
        help="unknown entries whose names begin so are dropped, such as cls",
    )
    return result


def target_format(target: Path, asked: str | None) -> str:
    if asked:
        return asked
    if target.suffix == ".safetensors":
        raise UserError(f"{target}: the name does not tell the format; give --to mindspore, ticket or compact")
    return "mindspore" if target.suffix == ".ckpt" else "huggingface"


@command
def main(arguments: list[str]) -> int:
    options = parser().parse_args(arguments)
    format = target_format(options.target, options.to)
    if options.target.exists():
        raise UserError(f"{options.target} is there already: delete it or choose another TARGET")
    found = read(options.source)
    if found.format == format and format in ("ticket", "compact"):
        raise UserError(f"{options.source}: is in the format {format} already")
    complete(found, options.like)
    check(found, options.allow_missing, options.allow_unknown)
    print(f"{found.path} ({found.format}): {len(found.weights)} weights, scores of {len(found.scores)} matrices")
    print(f"{options.target} ({format}): {write(found, options.target, format, options)}")
    return 0
