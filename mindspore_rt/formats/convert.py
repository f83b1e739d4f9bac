"""Convert models, scores and tickets: `python -m mindspore_rt convert SOURCE TARGET`."""

from __future__ import annotations

import argparse
import contextlib
import glob
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from configs.contract.basics.errors import UserError, command, listed
from configs.contract.basics.files import atomic_write, file_hash, sweep, temporary_path, whole_directory
from configs.contract.inputs.families import FAMILIES
from configs.contract.run.cli import Parser
from mindspore_rt.formats import huggingface
from mindspore_rt.formats.contents import (
    COMPACT,
    MASK_PREFIX,
    OUR_SCORES,
    SCORES,
    SETTLED,
    THEIR_SCORES,
    Contents,
    check,
    complete,
    read,
    settled_scores,
)
from mindspore_rt.ticket import Ticket

FORMATS = {
    "huggingface": "directory with config.json and model.safetensors (or, as a source, pytorch_model.bin), as\n"
    "transformers loads it; pruned weights are exact zeros, scores stand in log_alpha.safetensors",
    "mindspore": "checkpoint of MindSpore: TARGET.ckpt, or TARGET.safetensors; scores end in .log_alpha",
    "official": "directory of the official PyTorch code: weights and ...mask.mask_scores in pytorch_model.bin",
    "ticket": "one bit a weight: which weights are kept, not their values",
    "mindir": "graph of the classifier with its weights, which MindSpore runs without this code:\n"
    "ids (int32), attention mask (float32) and token types (int32) of one shape, to logits",
    "compact": "a ticket and the values of the kept weights in one safetensors file",
}
SUFFIXES = {"mindspore": (".ckpt", ".safetensors"), "mindir": (".mindir",)}  # of targets that MindSpore knows by them
DEFAULT_SHAPE = (1, 128)
NOT_WRITTEN = {".air", ".bin", ".gguf", ".h5", ".npz", ".om", ".onnx", ".pb", ".pt", ".pth", ".tflite"}
DESCRIPTION = """\
Convert a model, its scores or a ticket. The format of SOURCE is recognised from its content; that of TARGET follows
from its name (no suffix: huggingface, .ckpt: mindspore, .mindir: mindir) or from --to. Float32 values are copied bit
for bit, half precision is widened to float32.

"""
EXAMPLES = """
examples:
  a fine-tuned model for MindSpore, and back
    convert runs/sst2/seed-1/finetune/model model.ckpt
    convert model.ckpt model --like runs/sst2/seed-1/finetune/model
  a trained ticket for deployment, one text of up to 64 word pieces at a time
    convert runs/sst2/seed-1/robust-0.30/model ticket.mindir --shape 1 64
  a ticket from a search of the official code, as that code would draw it
    convert saved_models/search-ticket/epoch19 robust-0.30.safetensors --to ticket --sparsity 0.3 --compat official
  scores of our search, with the model they belong to, for the official code
    convert runs/sst2/seed-1/search/log_alpha/epoch-20.safetensors theirs --to official --like MODEL_DIRECTORY
  the published bert-base-uncased, whose pre-training heads are not wanted
    convert bert-base-uncased base.ckpt --allow-missing classifier --allow-unknown cls
"""


def write(contents: Contents, target: Path, format: str, options: argparse.Namespace) -> str:
    """Write `target`.

    Args:
        contents: What to write, checked and complete.
        target: File or directory, which does not exist yet.
        format: One of `FORMATS`.
        options: Of the command line; `sparsity` and `compat` decide which ticket is drawn.

    Returns:
        A few words on what was written.

    Raises:
        UserError: The contents cannot be written in this format.
    """
    labels, stated = contents.head_labels, contents.stated_labels
    if format not in ("ticket", "mindir") and labels not in (0, stated):  # these two hold no config.json
        raise UserError(
            f"{contents.path}: a classifier of {labels} labels, but config.json states {stated}; name all of them in "
            f"its id2label (of --like FOLDER, if that is given)"
        )
    if format == "huggingface":
        return _write_huggingface(contents, target)
    if format == "mindspore":
        return _write_mindspore(contents, target)
    if format == "official":
        return _write_official(contents, target)
    if format == "mindir":
        return _write_mindir(contents, target, *options.shape or DEFAULT_SHAPE)
    ticket = _ticket(contents, options.sparsity, options.compat or "paper")
    if format == "compact":
        return _write_compact(contents, ticket, target)
    if absent := [name for name in contents.encoder.prunable() if name not in ticket.masks]:
        raise UserError(
            f"{contents.path}: lacks {listed(absent, 4, 160)}, so its ticket would have no mask of them, and fit no "
            f"model; give the whole model"
        )
    return _write_ticket(ticket, target)


def _write_huggingface(contents: Contents, target: Path) -> str:
    ticket = contents.ticket() if contents.scores else None
    weights = ticket.apply(contents.weights) if ticket else contents.weights
    with whole_directory(target) as folder:
        huggingface.write_model(folder, contents.config, weights, contents.tokenizer)
        if contents.scores and not ticket:
            atomic_write(folder / SCORES, save(contents.scores, metadata={"format": "pt"}))
    if ticket:
        return f"{len(weights)} weights, the {ticket.pruned} pruned values as exact zeros"
    return f"{len(weights)} weights" + (f", and the scores in {SCORES}" if contents.scores else "")


def _write_mindspore(contents: Contents, target: Path) -> str:
    arrays = {**contents.weights, **{name + OUR_SCORES: s for name, s in contents.scores.items()}}
    if target.suffix == ".safetensors":
        atomic_write(target, save(arrays, metadata={"format": "ms", "config": json.dumps(contents.config)}))
    else:
        import mindspore as ms

        entries = [{"name": name, "data": ms.Parameter(array, name=name)} for name, array in arrays.items()]
        with _whole_file(target) as temporary:
            ms.save_checkpoint(
                entries, str(temporary), append_dict={"config": json.dumps(contents.config)}, crc_check=True
            )
    scores = f" and scores of {len(contents.scores)} matrices" if contents.scores else ""
    return f"{len(contents.weights)} weights{scores}"


def _write_mindir(contents: Contents, target: Path, batch: int, length: int) -> str:
    import mindspore as ms

    from mindspore_rt.cells import kernels
    from mindspore_rt.cells.encoder import Deployed, EncoderClassifier

    os.environ[kernels.SWITCH] = "plain"  # our kernels are no part of the file
    config, labels = contents.encoder, contents.head_labels
    if not labels or batch < 1 or not 1 <= length <= config.positions:
        raise UserError(
            f"{target}: a .mindir file holds a classifier, for one text or more of 1 to {config.positions} word "
            f"pieces (--shape); {contents.path} has {labels} labels"
        )
    ticket = contents.ticket() if contents.scores else None
    if contents.scores and not ticket:
        raise UserError(
            f"{contents.path}: its scores state no ticket; draw one first, with --to ticket --sparsity SHARE"
        )
    model = EncoderClassifier(config, labels)
    model.load(ticket.apply(contents.weights) if ticket else contents.weights)
    inputs = [ms.Tensor(np.ones((batch, length)), dtype) for dtype in (ms.int32, ms.float32, ms.int32)]
    with _whole_file(target) as temporary:
        ms.export(Deployed(model), *inputs, file_name=str(temporary), file_format="MINDIR")
    return f"graph of {labels} labels, for {batch} x {length} word pieces"


@contextlib.contextmanager
def _whole_file(target: Path) -> Iterator[Path]:
    """Give a file of the same name to write, in a folder of its own; it becomes `target` when the block ends well."""
    folder = temporary_path(target)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        temporary = folder / target.name
        yield temporary
        temporary.chmod(0o644)  # MindSpore writes files that nobody may change
        os.replace(temporary, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_official(contents: Contents, target: Path) -> str:
    family = contents.encoder.family
    if family is not FAMILIES["bert"]:
        raise UserError(f"{contents.path}: of {family.title}; the official code has BERT alone")
    scores = contents.scores
    ticket = None if scores else contents.ticket()
    if ticket:
        scores = settled_scores(ticket)
    if not scores:
        raise UserError(
            f"{contents.path}: holds neither scores nor pruned weights; the official code starts its search from a "
            f"Hugging Face directory as it is: use --to huggingface"
        )
    scores = {name.removesuffix(".weight") + THEIR_SCORES: s[None, :, None] for name, s in scores.items()}
    with whole_directory(target) as folder:
        huggingface.write_model(folder, contents.config, {**contents.weights, **scores}, contents.tokenizer)
        # The PyTorch version of the official code cannot read safetensors.
        huggingface.convert_pytorch_file(folder / "model.safetensors", folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    return f"{len(contents.weights)} weights and scores of {len(scores)} matrices"


def _ticket(contents: Contents, sparsity: float | None, compat: str) -> Ticket:
    about = {"method": "converted", "source": contents.path.name, "source_sha256": file_hash(contents.path)}
    if sparsity is None:
        ticket = contents.ticket()
        if ticket is None:
            remedy = "give --sparsity" if contents.scores else "give scores: a search's, or an official checkpoint's"
            raise UserError(f"{contents.path}: states no ticket (no exact zeros, no scores of +-{SETTLED:g}); {remedy}")
        return Ticket(ticket.masks, about)
    if not contents.scores:
        raise UserError(f"{contents.path}: holds no scores to draw a ticket from; leave --sparsity out, or give scores")
    if not 0 <= sparsity <= 1:
        raise UserError(f"--sparsity {sparsity}: give a share between 0 and 1")
    shapes = contents.encoder.prunable()
    scores = {name: contents.scores[name] for name in shapes}  # ties go by the order of the matrices
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


def _write_compact(contents: Contents, ticket: Ticket, target: Path) -> str:
    arrays = ticket.apply(contents.weights)
    for name, mask in ticket.masks.items():
        # The mask is stored, because a weight that stays may be zero itself.
        arrays[MASK_PREFIX + name], arrays[name] = np.packbits(mask, axis=None), arrays[name][mask]
    content = save(arrays, metadata={"format": COMPACT, "config": json.dumps(contents.config)})
    atomic_write(target, content)
    dense = sum(w.nbytes for w in contents.weights.values())
    return (
        f"ticket at sparsity {ticket.sparsity:.6f}: {len(content):,} bytes against {dense:,} of the dense weights "
        f"({len(content) / dense:.1%})"
    )


def parser() -> Parser:
    """Build the parser of the command line."""
    formats = "\n".join(f"  {name:12s} " + text.replace("\n", "\n" + " " * 15) for name, text in FORMATS.items())
    description = DESCRIPTION + "formats:\n" + formats
    result = Parser(prog="python -m mindspore_rt convert", description=description, epilog=EXAMPLES)
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
        "--shape",
        type=int,
        nargs=2,
        metavar=("BATCH", "LENGTH"),
        help=f"of a mindir's inputs (default: {DEFAULT_SHAPE[0]} {DEFAULT_SHAPE[1]})",
    )
    add(
        "--compat",
        choices=("paper", "official"),
        help="with --sparsity: rank raw scores, or float32 sigmoids as the official code does (default: paper)",
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
    """Return the format that was asked for, or the one that the name of the target implies.

    Raises:
        UserError: The name implies none, or is none of the format that was asked for.
    """
    if asked:
        if target.suffix not in SUFFIXES.get(asked, (target.suffix,)):
            suffixes = " or ".join(SUFFIXES[asked])
            raise UserError(f"{target}: a target of the format {asked} is called {suffixes}; rename TARGET")
        return asked
    if target.suffix == ".safetensors":
        raise UserError(f"{target}: the name does not tell the format; give --to mindspore, ticket or compact")
    if target.suffix in NOT_WRITTEN:
        raise UserError(
            f"{target}: files of this kind are not written; a TARGET without extension becomes a Hugging Face folder, "
            f"NAME.ckpt a MindSpore checkpoint, NAME.mindir a graph"
        )
    return {".ckpt": "mindspore", ".mindir": "mindir"}.get(target.suffix, "huggingface")


@command
def main(arguments: list[str]) -> int:
    """Run the command line; returns its exit status."""
    options = parser().parse_args(arguments)
    format = target_format(options.target, options.to)
    if os.path.lexists(options.target):
        raise UserError(f"{options.target} is there already: delete it or choose another TARGET")
    if options.sparsity is not None and format not in ("ticket", "compact"):
        raise UserError(
            f"--sparsity draws a ticket, and {options.target} would be in the format {format}: convert with "
            f"--to ticket --sparsity {options.sparsity:g}, then convert that ticket with --like"
        )
    if options.compat and options.sparsity is None:
        raise UserError("--compat says how --sparsity draws a ticket, and --sparsity is not given: give it too")
    if options.shape and format != "mindir":
        raise UserError(f"--shape is of a .mindir file, and {options.target} would be in the format {format}")
    contents = read(options.source)
    if contents.format == format and format in ("ticket", "compact"):
        raise UserError(f"{options.source}: is in the format {format} already")
    complete(contents, options.like)
    check(contents, options.allow_missing, options.allow_unknown)
    sweep(options.target.parent, f".{glob.escape(options.target.name)}.*.tmp")
    matrices = f"scores of {len(contents.scores)} matrices"
    print(f"{contents.path} ({contents.format}): {len(contents.weights)} weights, {matrices}")
    print(f"{options.target} ({format}): {write(contents, options.target, format, options)}")
    return 0
