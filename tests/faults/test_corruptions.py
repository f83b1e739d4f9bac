"""Damaged files: each is refused in one line that names it, or repaired where that is safe; never quietly different.

What no reader can notice is left out here: a flipped bit among the values of a pre-trained model, a tokenizer or a
configuration, which nothing vouches for, and in the figures of a manifest. What our stages hand on is vouched for: the
splits, models, scores, classifiers and tickets by a hash, a checkpoint by its sum.
"""

import dataclasses
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import read_lines
from configs.contract.experiment import schema
from configs.contract.inputs.tokenizer import load_tokenizer
from configs.contract.run import jobs as plan
from configs.contract.run.stage import Stage, verified
from mindspore_rt.data import splits
from mindspore_rt.formats import huggingface
from mindspore_rt.stages import tickets
from mindspore_rt.ticket import Ticket

RANDOM = random.Random(0)  # at import: the same corruptions in every run


def header_end(raw):
    return 8 + int.from_bytes(raw[:8], "little")


def flip(where):
    """One bit, in a place that a function of the content tells from a number between 0 and 1."""
    share, bit = RANDOM.random(), RANDOM.randrange(8)

    def damage(raw):
        at = where(raw, share)
        return raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]

    return damage


def cut(share):
    return lambda raw: raw[: int(share * len(raw))]


CUTS = {f"cut to {share}": cut(share) for share in (0, 0.001, 0.1, 0.5, 0.9)}
CUTS |= {"one byte short": lambda raw: raw[:-1]}
BINARY = {
    **CUTS,
    "zeros": lambda raw: bytes(len(raw)),
    "noise": lambda raw: random.Random(1).randbytes(len(raw)),
    "text": lambda raw: b"<html>404 not found</html>\n",
    "halves swapped": lambda raw: raw[len(raw) // 2 :] + raw[: len(raw) // 2],
}
HEADER_FLIPS = {f"header flip {i}": flip(lambda raw, share: int(share * header_end(raw))) for i in range(12)}
DATA_FLIPS = {
    f"data flip {i}": flip(lambda raw, share: header_end(raw) + int(share * (len(raw) - header_end(raw))))
    for i in range(12)
}


def edited(change):
    """Change one array of a safetensors file; keeps its metadata."""

    def damage(raw):
        arrays = load(raw)
        metadata = json.loads(raw[8 : header_end(raw)]).get("__metadata__")
        name = sorted(arrays)[0]
        value = change(arrays.pop(name).copy())
        return save({**arrays, **({name: value} if value is not None else {})}, metadata=metadata)

    return damage


def with_value(value):
    def change(array):
        array.flat[-1] = value
        return array

    return change


ARRAYS = {
    "missing": edited(lambda a: None),
    "too short": edited(lambda a: np.ascontiguousarray(a[:-1])),
    "other shape": edited(lambda a: a.reshape(-1, 1, 1)),
    "integers": edited(lambda a: a.astype(np.int32)),
    "no metadata, no arrays": lambda raw: save({}),
}
NOT_FINITE = {"NaN": edited(with_value(np.nan)), "infinite": edited(with_value(-np.inf))}
HALF = {"half precision": edited(lambda a: a.astype(np.float16))}

JSON = {
    **CUTS,
    **{
        f"is {text[:12]}": lambda raw, text=text: text.encode()
        for text in ("[]", "{}", "null", "3", '"text"', "NaN", "[" * 100_000, "9" * 5000, '{"a": 1')
    },
    "not UTF-8": lambda raw: b"\xff\xfe" + raw,
    "noise": lambda raw: random.Random(2).randbytes(len(raw)),
}


def keys(raw, *path):
    value = json.loads(raw)
    for key in path:
        value = value[key]
    return value


def setting(*path, to=None):
    """One value of a JSON file replaced."""

    def damage(raw):
        whole = json.loads(raw)
        place = whole
        for key in path[:-1]:
            place = place[key]
        if to is KeyError:
            del place[path[-1]]
        else:
            place[path[-1]] = to
        return json.dumps(whole).encode()

    return damage


def settings(*paths):
    values = {"null": None, "a list": [1], "a number": 7, "absent": KeyError}
    return {f"{'.'.join(map(str, p))} {n}": setting(*p, to=v) for p in paths for n, v in values.items()}


# --- what reads the files, as the stages do ------------------------------------------------------------------


def read_pretrained(run):
    model = huggingface.load(Path(run.config.model))
    return model.weights, dataclasses.asdict(model.config)


def read_tuned(run):
    return huggingface.load(verified(run.model(1, "finetune"))).weights


def read_ticket(run):
    return Ticket.load(run.ticket(1, "robust-0.30")).masks


def read_by_drawing(run):
    job = next(job for job in plan.jobs(run) if job.stage == "draw")
    try:
        tickets.draw(run, job)
        return read_ticket(run)
    finally:
        (job.directory / "manifest.json").unlink(missing_ok=True)


def read_split(run):
    return *splits.read(run, "train"), run.summary().labels


def read_classifier(run):
    return huggingface.read_safetensors(verified(run.stage(1, "lth") / "round-1" / "classifier.safetensors"))


def attack_stage(run):
    return Stage(run.attack(1, "robust-0.30") / "textfooler", "attack", {"seed": 1}, {"test": run.split("test")})


def read_manifest(run):
    return attack_stage(run).is_done(), attack_stage(run).results()


def read_begun(run):
    attack_stage(run).begin(attack_stage(run).directory / "results.jsonl")


def read_results(run):
    from torch_eval.attack.scoring import resume

    expected = [
        {"index": i, "label": e["label"], "original": {"sentence": e["sentence"]}}
        for i, e in enumerate(read_lines(run.split("test"))[:6])
    ]
    return resume(attack_stage(run), expected, 1)


def read_test(run):
    from torch_eval.attack.scoring import read_split

    return read_split(run, "test")


def read_tokenizer(run):
    folder = Path(run.config.model)
    tokenizer = load_tokenizer(folder, 16, 30522)
    return tokenizer.encode("an unfilmable film").ids


def read_vocabulary(run):
    folder = Path(run.config.model)
    aside = folder.parent / "tokenizer.json"
    shutil.move(folder / "tokenizer.json", aside)
    try:
        return read_tokenizer(run)
    finally:
        shutil.move(aside, folder / "tokenizer.json")


def read_log(run):
    return read_lines(attack_stage(run).directory / "results.jsonl")


def path_of(name):
    return {
        "pretrained": lambda run: Path(run.config.model) / "model.safetensors",
        "config": lambda run: Path(run.config.model) / "config.json",
        "tokenizer": lambda run: Path(run.config.model) / "tokenizer.json",
        "vocabulary": lambda run: Path(run.config.model) / "vocab.txt",
        "tuned": lambda run: run.model(1, "finetune") / "model.safetensors",
        "tuned tokenizer": lambda run: run.model(1, "finetune") / "tokenizer.json",
        "ticket": lambda run: run.ticket(1, "robust-0.30"),
        "scores": lambda run: run.log_alpha(1, 1),
        "search manifest": lambda run: run.stage(1, "search") / "manifest.json",
        "tuned manifest": lambda run: run.stage(1, "finetune") / "manifest.json",
        "classifier": lambda run: run.stage(1, "lth") / "round-1" / "classifier.safetensors",
        "split": lambda run: run.split("train"),
        "test split": lambda run: run.split("test"),
        "summary": lambda run: run.data / "summary.json",
        "manifest": lambda run: attack_stage(run).manifest,
        "begun": lambda run: attack_stage(run).directory / "begun.json",
        "results": lambda run: attack_stage(run).directory / "results.jsonl",
        "choice": lambda run: run.choice,
    }[name]


LINES = {
    "a line torn": lambda raw: raw.replace(b'"label": 1}', b'"la', 1).replace(b'"outcome": "failure"', b'"o', 1),
    "line of a list": lambda raw: b"[1]\n" + raw,
    "not UTF-8": lambda raw: raw.replace(b'"', b'"\xff', 1),
    "NUL bytes": lambda raw: raw[:30] + bytes(30) + raw[60:],
    "blank line": lambda raw: b"\n" + raw,
    "digits without end": lambda raw: b'{"index": ' + b"9" * 5000 + b"}\n" + raw,
    "lines swapped": lambda raw: b"".join(reversed(raw.splitlines(True))),
    "first line twice": lambda raw: raw.splitlines(True)[0] + raw,
}


def line_with(name, value):
    """The third line with another value of one field."""

    def damage(raw):
        lines = raw.splitlines(True)
        record = json.loads(lines[2])
        changed = {key: v for key, v in {**record, name: value}.items() if v is not KeyError}
        return b"".join([*lines[:2], json.dumps(changed).encode() + b"\n", *lines[3:]])

    return damage


FIELDS = {
    f"{name} {value!r:.9}": line_with(name, value)
    for name in (
        "index",
        "label",
        "outcome",
        "queries",
        "original",
        "perturbed",
        "original_prediction",
        "perturbed_prediction",
        "original_score",
        "perturbed_score",
        "words_changed",
        "words",
    )
    for value in (KeyError, None, "crashed", -1, [], float("nan"), True, 1e300)
}
MANY_FLIPS = {f"flip {i}": flip(lambda raw, share: int(share * len(raw))) for i in range(16)}

CASES = [
    ("pretrained", read_pretrained, {**BINARY, **HEADER_FLIPS, **ARRAYS, **NOT_FINITE}),
    (
        "config",
        read_pretrained,
        {
            **JSON,
            **settings(
                *[
                    [key]
                    for key in (
                        "model_type",
                        "vocab_size",
                        "hidden_size",
                        "num_hidden_layers",
                        "intermediate_size",
                        "layer_norm_eps",
                    )
                ]
            ),
        },
    ),
    ("tokenizer", read_tokenizer, {**JSON, "noise": BINARY["noise"], "zeros": BINARY["zeros"]}),
    ("vocabulary", read_vocabulary, {**CUTS, "noise": BINARY["noise"], "zeros": BINARY["zeros"]}),
    ("tuned", read_tuned, {**BINARY, **DATA_FLIPS, **HALF, **ARRAYS}),
    ("tuned tokenizer", read_tuned, {**CUTS, **MANY_FLIPS}),
    ("ticket", read_ticket, {**BINARY, **HEADER_FLIPS, **DATA_FLIPS, **ARRAYS, **HALF}),
    ("scores", read_by_drawing, {**BINARY, **HEADER_FLIPS, **DATA_FLIPS, **ARRAYS, **NOT_FINITE, **HALF}),
    (
        "search manifest",
        read_by_drawing,
        {**JSON, **settings(["results"], ["results", "epochs"], ["results", "scores_sha256"])},
    ),
    ("tuned manifest", read_tuned, {**JSON, **settings(["results"], ["results", "model_sha256"])}),
    ("classifier", read_classifier, {**BINARY, **HEADER_FLIPS, **DATA_FLIPS, **ARRAYS, **NOT_FINITE, **HALF}),
    ("split", read_split, {**CUTS, **LINES, **MANY_FLIPS}),
    ("summary", read_split, {**JSON, **settings(["labels"], ["columns"], ["splits"], ["splits", "train"])}),
    ("test split", read_test, {**CUTS, **LINES, **MANY_FLIPS}),
    ("summary", read_test, {**JSON, **settings(["labels"], ["columns"], ["attacked"], ["splits"], ["splits", "test"])}),
    (
        "manifest",
        read_manifest,
        {**JSON, **settings(["results"], ["settings"], ["inputs"], ["versions"], ["inputs", "test"])},
    ),
    ("begun", read_begun, {**JSON, **settings(["settings"], ["inputs"], ["inputs", "test"])}),
    ("results", read_results, {**CUTS, **LINES, **FIELDS, "noise": BINARY["noise"]}),
    ("results", read_log, {**CUTS, "noise": BINARY["noise"], "zeros": BINARY["zeros"]}),
    (
        "choice",
        lambda run: run.chosen(),
        {
            **JSON,
            **settings(["chosen"], ["chosen", "model"], ["chosen", "sparsity"]),
            "outside": setting("chosen", "model", to="../../elsewhere"),
        },
    ),
]


def same(one, other, lines=None) -> bool:
    """Equal, arrays included. `lines`: how many whole records are left of a log with a torn last line."""
    if isinstance(one, list) and one and isinstance(one[0], dict):
        return other == one[:lines]
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


@pytest.mark.parametrize(
    "file, read, damage",
    [
        pytest.param(file, read, damage, id=f"{file}: {name}")
        for file, read, damages in CASES
        for name, damage in damages.items()
    ],
)
def test_a_damaged_file_is_refused_by_name_or_harmless(finished, file, read, damage):
    path = path_of(file)(finished)
    whole, before = path.read_bytes(), read(finished)
    damaged = damage(whole)
    assert damaged != whole, "nothing was damaged"
    path.write_bytes(damaged)
    try:
        after = read(finished)
    except UserError as error:
        assert path.name in str(error) or str(path.parent) in str(error), error
        assert "\n" not in str(error).strip(), error
    else:
        left = damaged.split(b"\n")[:-1]
        torn = file == "results" and left == whole.split(b"\n")[: len(left)]
        assert same(before, after, len(left) if torn else None), "another result, and no word about it"
    finally:
        path.write_bytes(whole)


YAML = {
    **{f"cut {i}": cut(i / 10) for i in range(10)},
    **{f"flip {i}": flip(lambda raw, share: int(share * len(raw))) for i in range(40)},
    "tabs": lambda raw: raw.replace(b"  ", b"\t"),
    "not UTF-8": lambda raw: raw + b"\xff",
    "a list": lambda raw: b"- a\n- b\n",
    "NUL": lambda raw: raw[:40] + b"\0" + raw[40:],
    "a Python object": lambda raw: b"name: !!python/object/apply:os.system ['true']\n",
    "an alias of itself": lambda raw: b"search: &a\n  epochs: *a\n",
    "a mapping as key": lambda raw: b"? {a: b}\n: 1\n",
    "aliases without end": lambda raw: b"a: &a [x, x]\nb: &b [*a, *a]\nsearch: {epochs: [*b, *b]}\n",
    "numbers as keys": lambda raw: b"1: 2\nsearch: {3: 4}\n",
    "a date": lambda raw: b"name: 2026-01-01\n",
    "an endless number": lambda raw: b"seeds: [" + b"9" * 5000 + b"]\n",
    "deep": lambda raw: b"a: " + b"[" * 500,
}


@pytest.mark.parametrize("name, damage", YAML.items(), ids=list(YAML))
def test_a_damaged_configuration_is_refused_or_an_experiment(tmp_path, finished, name, damage):
    path = tmp_path / "damaged.yaml"
    path.write_bytes(damage((finished.root / "config.yaml").read_bytes()))
    try:
        assert isinstance(schema.load(str(path)), schema.Experiment)
        assert name.startswith(("cut", "flip", "a date")), "it can be no experiment"
    except UserError as error:
        assert "\n" not in str(error).strip()
