"""Hugging Face directories: read encoders of `FAMILIES`, write classifiers for transformers, shrink pruned ones."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import save

from configs.contract.basics.errors import UserError, listed
from configs.contract.basics.files import atomic_write, read_json, whole_directory
from configs.contract.basics.processes import run_module
from configs.contract.experiment.check_config import is_path
from configs.contract.inputs import assets, classifiers
from configs.contract.inputs.families import Family, family_of
from configs.contract.inputs.matrices import LAYER_MATRICES, matrix_name
from configs.contract.inputs.tokenizer import load_tokenizer, save_tokenizer
from configs.contract.run import model_card
from mindspore_rt.cells import noise
from mindspore_rt.cells.encoder_config import EncoderConfig
from mindspore_rt.ticket import Ticket

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
)
INITIALIZER_RANGE = 0.02
WRAPPERS = ("module.", "model.", "_orig_mod.")  # what data-parallel, Lightning and compiled models put before names
PRUNED = (".weight_orig", ".weight_mask", ".bias_orig", ".bias_mask")  # names that torch.nn.utils.prune makes
# What a config.json says of another head, of code of its own, or of outputs that readers do not expect.
NOT_OURS = (
    *("num_labels", "problem_type", "auto_map", "quantization_config", "return_dict", "torchscript"),
    "_attn_implementation",
)
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
ALIASES = {".gamma": ".weight", ".beta": ".bias", ".embedding_table": ".weight"}  # TensorFlow's and MindSpore's


def resolve(model: str) -> Path:
    """Return the directory of a model.

    Args:
        model: `packaged`, a local directory, or a name on the hub, which is downloaded on first use.

    Raises:
        UserError: There is no such directory, or the hub cannot be reached.
    """
    if model == "packaged":
        return assets.fetched_folder("minilm")
    if Path(model).is_dir():
        return Path(model)
    if is_path(model):
        raise UserError(f"model: no directory {model}; give a Hugging Face directory, or a name on the hub")
    from mindspore_rt.formats import hub

    return hub.model_dir(model)


@dataclass
class Model:
    """A model on disk.

    Attributes:
        config: Its shape.
        raw: The content of its config.json.
        weights: float32, under the names of Hugging Face's classifier. A pre-trained model has no classifier, and
            perhaps no pooler; `with_classifier` gives it both. RoBERTa's head is its classifier.
        directory: Where it was read from.
    """

    config: EncoderConfig
    raw: dict
    weights: dict[str, np.ndarray]
    directory: Path


def load(directory: Path, layers: int | None = None) -> Model:
    """Read the directory of an encoder.

    Args:
        directory: Holds config.json and weights, under the names of `standard_name` or those that it translates.
        layers: Read only so many first layers; None for all.

    Raises:
        UserError: This is not a whole model; the message names the file and the weight.
    """
    raw, config = read_shape(directory, layers)
    arrays = read_weights(directory)
    names, family = {name: standard_name(name, config.family) for name in arrays}, config.family
    named = {names[name]: value for name, value in arrays.items()}
    if len(named) < len(arrays):
        repeated = next(name for name in named if sum(other == name for other in names.values()) > 1)
        raise UserError(f"{directory}: holds {repeated} twice, under two names")
    dense, output = family.head[:2], family.head[2:]
    shapes, weights = config.parameters(len(np.atleast_1d(named.get(output[1], 0)))), {}
    for name, shape in shapes.items():
        value = named.get(name)
        if value is None and name in output:
            continue  # a pre-trained model has none
        if value is None and name in dense and not named.keys() & {*dense, output[0]}:
            continue  # nor a head of RoBERTa's kind; training on masked words alone leaves no pooler
        if value is None:
            raise UserError(f"{directory}: weight {name} is missing")
        weights[name] = _checked(value, shape, f"{directory}: {name}")
    return Model(config, raw, weights, directory)


def read_shape(directory: Path, layers: int | None = None) -> tuple[dict, EncoderConfig]:
    """Read config.json: its content, and the shape that it states. `layers` as for `load`.

    Raises:
        UserError: It does not describe such a model.
    """
    raw = read_config(directory)
    config = EncoderConfig.from_dict(raw, str(directory / "config.json"))
    if layers is None:
        return raw, config
    if layers > config.num_hidden_layers:
        raise UserError(f"layers: {layers} requested, {directory} has {config.num_hidden_layers}")
    return {**raw, "num_hidden_layers": layers}, replace(config, num_hidden_layers=layers)


def standard_name(name: str, family: Family) -> str:
    """Return the name of a weight in Hugging Face's classifier, such as `bert.pooler.dense.weight`."""
    while name.startswith(WRAPPERS):
        name = name.partition(".")[2]
    for alias, suffix in ALIASES.items():
        if name.endswith(alias):
            name = name.removesuffix(alias) + suffix
    return f"{family.body}.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name


def _checked(value: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Return a weight as float32, or raise `UserError` if it is not of this shape, of floats and finite."""
    if value.shape != shape:
        raise UserError(f"{where} is {list(value.shape)}, config.json says {list(shape)}")
    if value.dtype.kind != "f":
        raise UserError(f"{where} is of {value.dtype}, not of floats")
    with np.errstate(over="ignore"):
        value = np.asarray(value, np.float32)  # first: a float64 may be too large for it
    if not np.isfinite(value).all():
        raise UserError(f"{where} holds values that are not finite as float32")
    return value


def read_config(directory: Path) -> dict:
    """Read config.json. It gets the `model_type` of BERT if it has none, as in BERT's first years.

    Raises:
        UserError: It is missing or damaged, or of a shrunk model, whose matrices lack heads.
    """
    raw = classifiers.read_config(directory)
    if raw.get("pruned_heads"):
        raise UserError(
            f"{directory / 'config.json'}: pruned_heads is set: a shrunk model is for inference with "
            f"transformers only; give the masked model that it came from"
        )
    return raw if raw.get("model_type") else {**raw, "model_type": "bert"}


def read_weights(directory: Path) -> dict[str, np.ndarray]:
    """Read every array of model.safetensors, else of pytorch_model.bin, in one file or in parts.

    Returns:
        Arrays under the file's own names, but for `pruned_weights`.

    Raises:
        UserError: There is no such file, or it is damaged.
    """
    for name, read in zip(WEIGHT_FILES, (read_safetensors, unpickle), strict=True):
        if (directory / name).is_file():
            return pruned_weights(read(directory / name), directory)
        if (directory / f"{name}.index.json").is_file():
            return pruned_weights(_read_parts(_parts(directory / f"{name}.index.json"), read), directory)
    classifiers.refuse_parts(directory)
    present = listed(sorted(path.name for path in directory.iterdir()))
    raise UserError(
        f"{directory}: neither {' nor '.join(WEIGHT_FILES)} is there, only {present}; save the model with "
        "save_pretrained of transformers (from_tf=True and from_flax=True read other frameworks' weights)"
    )


def _parts(index: Path) -> list[Path]:
    """Return the files that an index of weights names, or raise `UserError` if one is missing or elsewhere."""
    content: dict = read_json(index, remedy="copy the model again")
    names = content.get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise UserError(f"{index}: names no files (weight_map); copy the model again")
    parts = [index.parent / name for name in dict.fromkeys(names.values())]
    for part in parts:
        if part.parent != index.parent or not part.is_file():
            raise UserError(f"{index}: the part {part.name} is missing; copy the whole model")
    return parts


def _read_parts(parts: list[Path], read: Callable[[Path], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Read the arrays of all parts, or raise `UserError` if one stands in two of them."""
    arrays, holder = dict[str, np.ndarray](), dict[str, str]()
    for part in parts:
        for key, value in read(part).items():
            if key in arrays:
                raise UserError(f"{part}: holds {key}, which {holder[key]} holds too; save the model again")
            arrays[key], holder[key] = value, part.name
    return arrays


def pruned_weights(arrays: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Multiply the pairs `weight_orig` and `weight_mask` that torch.nn.utils.prune leaves in place of a weight.

    Raises:
        UserError: One of a pair is missing or of another shape; the message names it after `path`.
    """
    halves = [name for name in arrays if name.endswith(PRUNED)]
    weights = {name: value for name, value in arrays.items() if name not in halves}
    for name in sorted({half.rpartition("_")[0] for half in halves}):
        original, mask = arrays.get(f"{name}_orig"), arrays.get(f"{name}_mask")
        if original is None or mask is None or original.shape != mask.shape or name in weights:
            raise UserError(
                f"{path}: {name}_orig and {name}_mask do not make a pair; call torch.nn.utils.prune.remove on every "
                "pruned module, and save the model again"
            )
        weights[name] = original * mask.astype(original.dtype)
    return weights


def unpickle(path: Path) -> dict[str, np.ndarray]:
    """Read a PyTorch weight file, through the scoring half: it unpickles tensors only, and runs no code of the file."""
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary) / "model.safetensors"
        convert_pytorch_file(path, target)
        return read_safetensors(target, path)


def convert_pytorch_file(source: Path, target: Path) -> None:
    """Convert a PyTorch weight file to safetensors or back, in a process of the scoring half.

    Raises:
        UserError: The source cannot be read.
    """
    try:
        run_module("torch_eval.victim.pytorch_weights", [str(source.resolve()), str(target.resolve())])
    except UserError as error:
        raise UserError(f"{source}: {str(error).removeprefix(f'{source.resolve()}: ')}") from None


def read_safetensors(path: Path, source: Path | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of a safetensors file; bfloat16, which NumPy lacks, becomes float32.

    Args:
        path: The file.
        source: The file that it was made from, for messages.

    Raises:
        UserError: It is damaged, or holds a type that NumPy lacks, such as float8.
    """
    try:
        with safetensors.safe_open(path, "numpy") as file:
            names = list(file.keys())
            bfloat16 = {name for name in names if file.get_slice(name).get_dtype() == "BF16"}
            arrays = {name: file.get_tensor(name) for name in names if name not in bfloat16}
        if bfloat16:
            entries = dict(safetensors.deserialize(path.read_bytes()))
            arrays |= {name: _widened(entries[name]) for name in bfloat16}
        return {name: arrays[name] for name in names}
    except (safetensors.SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{source or path}: not a complete safetensors file of float weights ({error})") from None


def _widened(entry: dict) -> np.ndarray:
    """Widen bfloat16, which is the upper half of a float32, bit for bit."""
    upper = np.frombuffer(entry["data"], "<u2").astype(np.uint32)
    return (upper << 16).view(np.float32).reshape(entry["shape"])


def with_classifier(model: Model, labels: int, seed: int) -> dict[str, np.ndarray]:
    """Return the pre-trained weights and a fresh classifier, drawn as BERT's: normal(0, 0.02), bias 0.

    A model without a pooler gets a fresh one as well, and RoBERTa a whole head.
    """
    hidden, family = model.config.hidden_size, model.config.family
    if family.pooled and family.head[0] not in model.weights:
        print(f"  {model.directory} has no pooler: a fresh one is drawn, as for the classifier", flush=True)
    layers = (*_fresh_layer(hidden, hidden, seed, 1), *_fresh_layer(labels, hidden, seed, 0))
    head = dict(zip(family.head, layers, strict=True))
    fresh = {name: value for name, value in head.items() if name in family.fresh or name not in model.weights}
    return {**model.weights, **fresh}


def _fresh_layer(outputs: int, inputs: int, seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw weights (outputs, inputs) and biases (outputs,) of a linear layer, float32, anew for each `number`."""
    draw = noise.generator(seed, noise.INITIAL, number).standard_normal((outputs, inputs), np.float32)
    return draw * np.float32(INITIALIZER_RANGE), np.zeros(outputs, np.float32)


def save_classifier(
    target: Path,
    model: Model,
    weights: dict[str, np.ndarray],
    labels: list[str],
    max_length: int,
    card: str | None = None,
) -> None:
    """Write a directory that `AutoModelForSequenceClassification.from_pretrained` loads, whole or not at all.

    Args:
        target: Directory to write or replace.
        model: Gives config.json and the tokenizer.
        weights: Of the trained classifier; pruned ones are exact zeros.
        labels: Names of the labels, in the order of their numbers.
        max_length: Longest input in word pieces, at which texts are cut.
        card: Text of its README.md, if it has one.
    """
    config = {
        **{key: value for key, value in model.raw.items() if key not in NOT_OURS},
        "id2label": {str(i): name for i, name in enumerate(labels)},
        "label2id": {name: i for i, name in enumerate(labels)},
    }
    with whole_directory(target) as folder:
        write_model(folder, config, weights, None)
        # As training read it, in full: whoever reads it must get the same ids, and cut texts at the same length.
        save_tokenizer(load_tokenizer(model.directory, max_length, model.config.vocab_size), folder)
        if card:
            atomic_write(folder / model_card.FILE, card)


def write_model(folder: Path, config: dict, weights: dict[str, np.ndarray], tokenizer: Path | None) -> None:
    """Write a classifier's config.json and weights, and copy the tokenizer files that `tokenizer` has."""
    config = {**config, "architectures": [family_of(config).architecture], "torch_dtype": "float32"}
    config.pop("_name_or_path", None)
    atomic_write(folder / "config.json", json.dumps(config, indent=2) + "\n")
    atomic_write(folder / "model.safetensors", save(weights, metadata={"format": "pt"}))
    for name in TOKENIZER_FILES:
        if tokenizer and (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / name)


def shrink(weights: dict[str, np.ndarray], config: dict, ticket: Ticket) -> tuple[dict[str, np.ndarray], dict]:
    """Cut out the heads and neurons that `ticket` prunes whole: a smaller model that computes what the masked one does.

    The other pruned weights become exact zeros. If layers differ in their number of neurons, all get that of the
    largest.

    Args:
        weights: Of the unpruned model.
        config: The content of its config.json.
        ticket: Over its prunable matrices.

    Returns:
        Weights and config for `write_model`. Plain transformers loads the result through `pruned_heads` and
        `intermediate_size`.

    Raises:
        KeyError: The ticket is of another model: a matrix is missing.
        ValueError: The ticket is of another model: a matrix has another shape. Or it leaves a layer without heads.
    """
    heads, layers = config["num_attention_heads"], config["num_hidden_layers"]
    small, cut, body = ticket.apply(weights), {}, family_of(config).body
    dead = [{kind: ~ticket.masks[matrix_name(i, kind, body)] for kind in LAYER_MATRICES} for i in range(layers)]
    neurons = [d["output"].all(0) for d in dead]  # a neuron whose output counts nowhere
    size = max(1, *(int((~gone).sum()) for gone in neurons))
    for i in range(layers):
        lost = dead[i]["attention output"].all(0).reshape(heads, -1).all(1)
        if lost.all():
            raise ValueError(f"the ticket leaves no attention head in layer {i}")
        if lost.any():
            cut[str(i)] = np.flatnonzero(lost).tolist()
        rows = np.flatnonzero(np.repeat(~lost, len(dead[i]["query"]) // heads))
        for kind in ("query", "key", "value"):
            _keep_only(small, matrix_name(i, kind, body), rows)
        _keep_only(small, matrix_name(i, "attention output", body), rows, axis=1)
        # Live neurons first; a layer with fewer than the largest is filled up with dead ones, which add nothing.
        rows = np.sort(np.argsort(neurons[i], kind="stable")[:size])
        _keep_only(small, matrix_name(i, "intermediate", body), rows)
        _keep_only(small, matrix_name(i, "output", body), rows, axis=1)
    return small, {**config, "pruned_heads": cut, "intermediate_size": size}


def _keep_only(weights: dict[str, np.ndarray], name: str, indices: np.ndarray, axis: int = 0) -> None:
    """Keep only these rows (axis 0, with their biases) or columns (axis 1) of a matrix."""
    weights[name] = np.ascontiguousarray(weights[name].take(indices, axis))
    if axis == 0:
        bias = name.replace(".weight", ".bias")
        weights[bias] = weights[bias][indices]
