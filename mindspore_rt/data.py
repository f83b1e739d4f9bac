"""Text in, batches out: `prepare` writes normalised splits; `Batches` serves them tokenised, in length buckets."""

from __future__ import annotations

import collections
import csv
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import BertWordPieceTokenizer, Tokenizer

from configs import assets, schema
from configs.errors import UserError
from configs.run_dir import RunDir, file_hash, read_json, read_lines, write_json, write_lines
from configs.tasks import TASKS, Task
from mindspore_rt import noise

BUCKETS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
NEUTRAL = 0.5  # snippets rated nearer to 0 than this (on -4 to 4) have no clear label and are dropped
SNIPPETS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"


# --- reading -------------------------------------------------------------------------------------------------


def read_snippets() -> tuple[list[dict], str]:
    """The packaged Rotten Tomatoes snippets with a clear rating, and a sentence that says what was dropped."""
    with tarfile.open(assets.path("snippets") / "hutto_ICWSM_2014.tar.gz") as archive:
        text = archive.extractfile(SNIPPETS).read().decode("utf-8")
    rows = [line.split("\t") for line in text.splitlines() if line.count("\t") == 2]
    kept = {}
    for _, rating, sentence in rows:
        if abs(float(rating)) >= NEUTRAL and sentence.strip():
            # A sentence that stands twice would leak from one split into another.
            kept.setdefault(" ".join(sentence.split()), int(float(rating) > 0))
    records = [{"sentence": sentence, "label": label} for sentence, label in kept.items()]
    note = (
        f"{len(rows)} snippets with a mean rating from -4 to 4; label = sign of the rating; "
        f"ratings between -{NEUTRAL} and {NEUTRAL} and repeated sentences dropped, {len(records)} remain"
    )
    return records, note


def read_file(path: Path, task: Task) -> list[dict]:
    """Records of a CSV (RFC 4180), TSV (no quoting, as GLUE's) or JSON Lines file with the task's columns.

    Raises `UserError` with file, line and remedy.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: not UTF-8; convert it, for example with iconv") from None
    if path.suffix == ".jsonl":
        rows = enumerate(_json_rows(path, text), 1)
    elif path.suffix == ".tsv":
        rows = enumerate(_table_rows(path, (line.split("\t") for line in _lines(text))), 2)
    elif path.suffix == ".csv":
        rows = _csv_rows(path, text)
    else:
        raise UserError(f"{path}: give a .csv, .tsv or .jsonl file")
    records = [_record(path, line, row, task) for line, row in rows]
    if not records:
        raise UserError(f"{path}: no rows")
    return records


def _lines(text: str) -> list[str]:
    """Lines that LF or CRLF ends: `splitlines` also cuts at characters such as U+2028 inside a sentence."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines if lines[-1] else lines[:-1]


def _json_rows(path, text):
    for number, line in enumerate(_lines(text), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not valid JSON ({error.msg})") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: expected a JSON object")
        yield row


def _csv_rows(path, text):
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header, start = None, 1
    try:
        for values in reader:
            if header is None:
                header = values
            else:
                yield start, _zip(path, start, header, values)
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {start}: {error}; quote fields that hold quotes or commas") from None


def _table_rows(path, lines):
    header = None
    for number, values in enumerate(lines, 1):
        if header is None:
            header = values
        else:
            yield _zip(path, number, header, values)


def _zip(path, line, header, values):
    if len(values) != len(header):
        raise UserError(f"{path}, line {line}: {len(values)} fields, the header has {len(header)}")
    return dict(zip(header, values, strict=True))


def _record(path, line, row, task: Task) -> dict:
    for column in (*task.columns, task.label_column):
        if column not in row:
            raise UserError(f"{path}, line {line}: no column {column!r}; it has {', '.join(map(str, row))}")
    record = {}
    for column in task.columns:
        if not isinstance(row[column], str) or not row[column].strip():
            raise UserError(f"{path}, line {line}: column {column!r} holds no text")
        record[column] = row[column].strip()
    label = str(row[task.label_column]).strip()
    if label in task.labels:
        record["label"] = task.labels.index(label)
    elif label.isdecimal() and int(label) < len(task.labels):
        record["label"] = int(label)
    else:
        allowed = ", ".join(f"{i} or {name}" for i, name in enumerate(task.labels))
        raise UserError(f"{path}, line {line}: unknown label {label!r}; allowed: {allowed}")
    return record


# --- prepare -------------------------------------------------------------------------------------------------


def prepare(config: schema.Experiment, run: RunDir) -> dict:
    """Write train, dev and test as JSON Lines, and `summary.json` with counts, balance, lengths and hashes."""
    task = TASKS[config.task]
    splits, note = _load_splits(config.data, task, config.task)
    splits = _cut(splits, config.data)
    for name, records in splits.items():
        write_lines(run.split(name), records)
    summary = {
        "task": config.task,
        "columns": list(task.columns),
        "labels": list(task.labels),
        "attacked": list(task.attacked),
        "note": note,
        "splits": {name: _describe(records, task, run.split(name)) for name, records in splits.items()},
        "duplicates": _duplicates(splits, task),
    }
    write_json(run.data / "summary.json", summary)
    return summary


def _load_splits(data: schema.Data, task: Task, name: str) -> tuple[dict[str, list[dict]], str]:
    if data.train:
        files = {"train": data.train, "dev": data.dev, "test": data.test}
        splits = {split: read_file(Path(file), task) for split, file in files.items() if file}
        return splits, "files: " + ", ".join(Path(f).name for f in files.values() if f)
    if data.dev or data.test:
        raise UserError("data.train: unset, but data.dev or data.test is given; give the training file too")
    if task.hub is None:
        return _unseen_test(*read_snippets())
    from mindspore_rt import hub

    names = dict(zip(("train", "dev", "test"), task.hub.splits, strict=True))
    folder = hub.dataset_dir(task.hub.id, task.hub.config, task.hub.revision, [n for n in names.values() if n])
    splits = {split: read_file(folder / f"{n}.jsonl", task) for split, n in names.items() if n}
    return splits, f"{task.hub.id} {task.hub.config or ''} at {task.hub.revision[:8]}"


def _unseen_test(records: list[dict], note: str) -> tuple[dict[str, list[dict]], str]:
    """Test sentences are those that BERT-Attack's masked language model was neither trained nor measured on."""
    places = [assets.place(r["sentence"]) for r in records]
    order = sorted(range(len(records)), key=places.__getitem__)
    test = [i for i in order if assets.MLM_MEASURED <= places[i] < assets.MLM_UNSEEN]
    train = sorted(set(order) - set(test))
    note += f"; {len(test)} of them, unseen by the masked language model of BERT-Attack, are there for testing"
    return {"train": [records[i] for i in train], "test": [records[i] for i in test]}, note


def _cut(splits: dict[str, list[dict]], data: schema.Data) -> dict[str, list[dict]]:
    """Split test and dev off train where they are missing, and keep `train_size` of the rest; one fixed seed."""
    order = noise.generator(data.seed, noise.SHUFFLE).permutation(len(splits["train"]))
    train = [splits["train"][i] for i in order]
    sizes = {"test": data.test_size or data.dev_size, "dev": data.dev_size}
    if data.test_size and "test" in splits:
        if data.test_size > len(splits["test"]):
            raise UserError(f"data.test_size: {data.test_size} asked, there are {len(splits['test'])} test sentences")
        splits["test"] = splits["test"][: data.test_size]
    for name, size in sizes.items():
        if name not in splits:
            if size >= len(train):
                raise UserError(f"data.{name}_size: {size} asked, only {len(train)} training sentences are left")
            splits[name], train = train[:size], train[size:]
    return {"train": train[: data.train_size], "dev": splits["dev"], "test": splits["test"]}


def _describe(records: list[dict], task: Task, path: Path) -> dict:
    words = collections.Counter(10 * (sum(len(r[c].split()) for c in task.columns) // 10) for r in records)
    labels = collections.Counter(task.labels[r["label"]] for r in records)
    return {
        "count": len(records),
        "labels": {name: labels[name] for name in task.labels},
        "length": {f"{low}-{low + 9} words": words[low] for low in sorted(words)},
        "sha256": file_hash(path),
    }


def _duplicates(splits: dict[str, list[dict]], task: Task) -> dict[str, int]:
    """Sentences that stand in two splits."""
    texts = {name: {tuple(r[c] for c in task.columns) for r in records} for name, records in splits.items()}
    pairs = (("train", "dev"), ("train", "test"), ("dev", "test"))
    return {f"{a} and {b}": len(texts[a] & texts[b]) for a, b in pairs}


def load_split(run: RunDir, name: str) -> tuple[list[tuple[str, ...]], np.ndarray, dict]:
    """Texts (one tuple of columns a sentence), labels (n,) int64, and the summary, of a prepared split."""
    summary, path = read_json(run.data / "summary.json"), run.split(name)
    if file_hash(path) != summary["splits"][name]["sha256"]:
        raise UserError(f"{path} was changed after prepare; delete {run.data} and run again")
    records = read_lines(path)
    texts = [tuple(r[c] for c in summary["columns"]) for r in records]
    return texts, np.array([r["label"] for r in records]), summary


# --- batches -------------------------------------------------------------------------------------------------


def load_tokenizer(directory: Path, max_length: int) -> Tokenizer:
    """The tokenizer of a Hugging Face directory, cutting pairs longest part first."""
    if (directory / "tokenizer.json").is_file():
        try:
            tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        except Exception as error:  # the library raises a bare Exception for a broken file
            raise UserError(f"{directory / 'tokenizer.json'}: not a tokenizer ({error})") from None
    elif (directory / "vocab.txt").is_file():
        settings = directory / "tokenizer_config.json"
        lower = read_json(settings).get("do_lower_case", True) if settings.is_file() else True
        tokenizer = BertWordPieceTokenizer(str(directory / "vocab.txt"), lowercase=lower)
    else:
        raise UserError(f"{directory}: neither tokenizer.json nor vocab.txt is there")
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


@dataclass
class Batch:
    """One batch, padded to a bucket length and to the batch size with rows of weight zero.

    ids, token_types: (batch, length) int32. attention_mask: (batch, length) float32.
    targets: (batch, labels) float32, one-hot rows over the number of real sentences, zero for fillers.
    """

    ids: np.ndarray
    attention_mask: np.ndarray
    token_types: np.ndarray
    targets: np.ndarray
    indices: np.ndarray

    def tensors(self):
        from mindspore import Tensor

        return tuple(Tensor(a) for a in (self.ids, self.attention_mask, self.token_types, self.targets))


class Batches:
    """Tokenised sentences in batches of one size and few lengths, so that few graphs are compiled."""

    def __init__(self, texts, labels, classes: int, tokenizer: Tokenizer, max_length: int, batch_size: int, seed: int):
        encodings = tokenizer.encode_batch([t if len(t) > 1 else t[0] for t in texts])
        self.ids = [np.array(e.ids, np.int32) for e in encodings]
        self.types = [np.array(e.type_ids, np.int32) for e in encodings]
        self.labels, self.classes, self.batch_size, self.seed = labels, classes, batch_size, seed
        self.buckets = [b for b in BUCKETS if b < max_length] + [max_length]

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.ids) // self.batch_size)

    def epoch(self, number: int) -> list[np.ndarray]:
        """Indices of every batch of one epoch. Sentences of like length go together, which saves padding:
        shuffled, sorted by length within stretches of 16 batches, the batches shuffled again."""
        random = noise.generator(self.seed, noise.SHUFFLE, number)
        order, stretch = random.permutation(len(self.ids)), 16 * self.batch_size
        batches = []
        for start in range(0, len(order), stretch):
            part = sorted(order[start : start + stretch], key=lambda i: len(self.ids[i]))
            batches += [np.array(part[i : i + self.batch_size]) for i in range(0, len(part), self.batch_size)]
        return [batches[i] for i in random.permutation(len(batches))]

    def in_order(self) -> list[np.ndarray]:
        """All sentences by length: fewest padded rows, for evaluation."""
        order = np.argsort([len(i) for i in self.ids], kind="stable")
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]

    def batch(self, indices: np.ndarray) -> Batch:
        longest = max(len(self.ids[i]) for i in indices)
        length = next(b for b in self.buckets if b >= longest)
        shape = (self.batch_size, length)
        ids, mask, types = np.zeros(shape, np.int32), np.zeros(shape, np.float32), np.zeros(shape, np.int32)
        targets = np.zeros((self.batch_size, self.classes), np.float32)
        mask[:, 0] = 1  # a filler row attends to its first position, so that its softmax is defined
        for row, i in enumerate(indices):
            size = len(self.ids[i])
            ids[row, :size], mask[row, :size], types[row, :size] = self.ids[i], 1, self.types[i]
            targets[row, self.labels[i]] = 1 / len(indices)
        return Batch(ids, mask, types, targets, indices)
