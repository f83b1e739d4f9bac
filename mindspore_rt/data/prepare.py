"""Text in, batches out: `prepare` writes normalised splits; `Batches` serves them tokenised, in length buckets."""

from __future__ import annotations

import collections
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import BertWordPieceTokenizer, Tokenizer

from configs.contract import assets, schema
from configs.contract.errors import UserError
from configs.contract.files import file_hash, read_json, read_lines, write_json, write_lines
from configs.contract.run_dir import RunDir
from configs.contract.tasks import TASKS, Task, task_of
from mindspore_rt.cells import noise
from mindspore_rt.data.read_files import read_file

BUCKETS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
TOKENISED_AT_ONCE = 4096  # an encoding of the tokenizer takes many times the memory of its ids
PADDED_ROWS = 127  # a table of embeddings may be padded to a multiple of 8, 64 or 128: rows without a piece
NEUTRAL = 0.5  # snippets rated nearer to 0 than this (on -4 to 4) have no clear label and are dropped
SNIPPETS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"


# --- the packaged text ----------------------------------------------------------------------------------------


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


# --- prepare -------------------------------------------------------------------------------------------------


def prepare(config: schema.Experiment, run: RunDir) -> dict:
    """Write train, dev and test as JSON Lines, and `summary.json` with counts, balance, lengths and hashes.

    Its `warnings` are for the user: rows that were skipped, texts in two splits, labels that a split lacks.
    """
    task = task_of(config)
    splits, note, warnings = _load_splits(config, task)
    splits = _cut(splits, config.data)
    duplicates = _duplicates(splits, task)
    warnings += [f"{count} texts stand in both {pair}" for pair, count in duplicates.items() if count]
    warnings += _one_sided(splits, task, config.data.train or "the data set")
    for name, records in splits.items():
        write_lines(run.split(name), records)
    summary = {
        "task": config.task,
        "columns": list(task.columns),
        "labels": list(task.labels),
        "attacked": list(task.attacked),
        "note": note,
        "splits": {name: _describe(records, task, run.split(name)) for name, records in splits.items()},
        "duplicates": duplicates,
        "warnings": warnings,
    }
    write_json(run.data / "summary.json", summary)
    return summary


def _load_splits(config: schema.Experiment, task: Task) -> tuple[dict[str, list[dict]], str, list[str]]:
    """The splits that there are, a sentence on their source, and warnings."""
    data = config.data
    if data.train:
        files = {split: file for split in ("train", "dev", "test") if (file := getattr(data, split))}
        splits, warnings = _read_files({split: Path(file) for split, file in files.items()}, task, data)
        return splits, "files: " + ", ".join(Path(f).name for f in files.values()), warnings
    if data.dev or data.test:
        raise UserError("data.train: unset, but data.dev or data.test is given; give the training file too")
    if config.task == "snippets":
        return *_unseen_test(*read_snippets()), []
    from mindspore_rt.formats import hub

    source = task.hub
    names = {split: name for split, name in zip(("train", "dev", "test"), source.splits, strict=True) if name}
    folder = hub.dataset_dir(source.id, source.config, source.revision, list(names.values()))
    files = {split: folder / f"{name}.jsonl" for split, name in names.items()}
    # The hub names columns as the table of tasks does, whatever the configuration says about files.
    splits, warnings = _read_files(files, TASKS[config.task], data)
    return splits, " ".join(filter(None, (source.id, source.config, "at", source.revision[:8]))), warnings


def _read_files(files: dict[str, Path], task: Task, data: schema.Data) -> tuple[dict[str, list[dict]], list[str]]:
    splits, warnings = {}, []
    for split, file in files.items():
        splits[split], skipped = read_file(file, task, data.columns, data.bad_rows)
        if skipped:
            warnings.append(f"{len(skipped)} broken rows skipped: " + "; ".join(skipped[:3]))
    return splits, warnings


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
    train, test = [splits["train"][i] for i in order], splits.get("test")
    sizes = {"test": data.test_size or data.dev_size, "dev": data.dev_size}
    if data.test_size and test is not None:
        if data.test_size > len(test):
            raise UserError(f"data.test_size: {data.test_size} asked, of {len(test)} test sentences; ask for fewer")
        # At random: the test set of IMDB is sorted by label.
        chosen = noise.generator(data.seed, noise.SHUFFLE, 1).permutation(len(test))[: data.test_size]
        splits["test"] = [test[i] for i in sorted(chosen)]
    for name, size in sizes.items():
        if name not in splits:
            if size >= len(train):
                source = data.train or "the data set"
                raise UserError(
                    f"data.{name}_size: {size} asked, only {len(train)} training sentences of {source} are left; "
                    f"ask for fewer, or give a file with data.{name}"
                )
            splits[name], train = train[:size], train[size:]
    return {"train": train[: data.train_size], "dev": splits["dev"], "test": splits["test"]}


def _one_sided(splits: dict[str, list[dict]], task: Task, source: str) -> list[str]:
    """Warnings about labels that a split lacks. Raises `UserError` if all training sentences have the same one."""
    warnings = []
    for name, records in splits.items():
        there = {record["label"] for record in records}
        absent = [label for number, label in enumerate(task.labels) if number not in there]
        if name == "train" and len(there) < 2:
            raise UserError(
                f"{source}: all {len(records)} training sentences have the label {task.labels[there.pop()]!r}; give "
                "sentences of every label (is data.label_column the right one?)"
            )
        if absent:
            warnings.append(f"no sentence of {name} has the label {', '.join(absent)}")
    return warnings


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
    summary, path = run.summary("columns", "labels"), run.whole_split(name)
    records = read_lines(path)
    try:
        texts = [tuple(r[c] for c in summary["columns"]) for r in records]
    except KeyError as error:
        raise UserError(f"{run.data / 'summary.json'}: {path.name} has no column {error}; delete {run.data}") from None
    labels = np.array([r["label"] for r in records])
    if labels.max() >= len(summary["labels"]):
        raise UserError(f"{run.data / 'summary.json'}: {path.name} has more labels than it names; delete {run.data}")
    return texts, labels, summary


# --- batches -------------------------------------------------------------------------------------------------


def load_tokenizer(directory: Path, max_length: int, vocab_size: int | None = None) -> Tokenizer:
    """The tokenizer of a Hugging Face directory, cutting pairs longest part first. Raises `UserError` if it is not
    BERT's, or not of a model of `vocab_size` pieces."""
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
    if fault := _fault(tokenizer, vocab_size):
        raise UserError(f"{file}: {fault}; give the file that belongs to the model")
    tokenizer.enable_truncation(max_length)
    return tokenizer


def _vocabulary(file: Path, vocab_size: int | None) -> dict[str, int]:
    """Pieces to ids, one a line as transformers reads them. Raises `UserError` for a file that was cut or edited."""
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


def _fault(tokenizer: Tokenizer, vocab_size: int | None) -> str | None:
    """What about a tokenizer is not as BERT's, if anything."""
    vocabulary = tokenizer.get_vocab()
    missing = [piece for piece in ("[CLS]", "[SEP]", "[UNK]", "[PAD]") if piece not in vocabulary]
    if missing:
        return f"has no piece {', '.join(missing)}"
    if vocab_size and max(vocabulary.values()) >= vocab_size:
        return f"has a piece with the id {max(vocabulary.values())}, the model {vocab_size} pieces"
    try:
        single, pair = tokenizer.encode("a b"), tokenizer.encode("a", "b")
        tokenizer.encode("x" * 1000)  # too long a word, so unknown
    except Exception as error:  # again a bare one
        return f"cannot encode a text ({error})"
    ends = [found for encoding in (single, pair) for found in (encoding.ids[:1], encoding.ids[-1:])]
    if ends != [[vocabulary["[CLS]"]], [vocabulary["[SEP]"]]] * 2:
        return "does not put texts between [CLS] and [SEP]"
    if len(single) < 4:
        return "does not part words at spaces"
    if pair.type_ids != [0, 0, 0, 1, 1]:
        return "does not tell the two texts of a pair apart"
    return None


@dataclass
class Batch:
    """One batch (or one worker's part of it), padded to a bucket length and to its full size with rows of weight zero.

    ids, token_types: (rows, length) int32. attention_mask: (rows, length) float32.
    targets: (rows, labels) float32, one-hot rows over the number of real sentences, zero for fillers.
    indices: the real sentences, in the order of the rows.
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
        self.ids, self.types = [], []
        for start in range(0, len(texts), TOKENISED_AT_ONCE):
            part = [t if len(t) > 1 else t[0] for t in texts[start : start + TOKENISED_AT_ONCE]]
            encodings = tokenizer.encode_batch(part)
            self.ids += [np.array(e.ids, np.int32) for e in encodings]
            self.types += [np.array(e.type_ids, np.int32) for e in encodings]
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

    def length(self, indices: np.ndarray) -> int:
        """The bucket of a batch: its longest sentence, rounded up. Every bucket is a graph of its own."""
        longest = max(len(self.ids[i]) for i in indices)
        return next(b for b in self.buckets if b >= longest)

    def lengths(self, number: int) -> list[int]:
        """The buckets of an epoch, in rising order: so many graphs it compiles."""
        return sorted({self.length(indices) for indices in self.epoch(number)})

    def batch(self, indices: np.ndarray, rank: int = 0, ranks: int = 1) -> Batch:
        """The batch of these sentences, or the part of it that worker `rank` of `ranks` takes: every `ranks`-th one.

        All parts have the length and the number of rows of each other, so that the workers compile the same graphs. A
        sentence weighs `ranks` / (sentences of the whole batch) in its part: the mean over the workers of their losses,
        or gradients, is that of the whole batch, also where one has a sentence less than another, or none.
        """
        part = indices[rank::ranks]
        shape = (-(-self.batch_size // ranks), self.length(indices))
        ids, mask, types = np.zeros(shape, np.int32), np.zeros(shape, np.float32), np.zeros(shape, np.int32)
        targets = np.zeros((shape[0], self.classes), np.float32)
        mask[:, 0] = 1  # a filler row attends to its first position, so that its softmax is defined
        for row, i in enumerate(part):
            size = len(self.ids[i])
            ids[row, :size], mask[row, :size], types[row, :size] = self.ids[i], 1, self.types[i]
            targets[row, self.labels[i]] = ranks / len(indices)
        return Batch(ids, mask, types, targets, part)
