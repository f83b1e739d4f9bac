"""The six data sets in miniature: made-up files in each one's own format, and the whole command line on them.

    python tests/end_to_end/six_tasks.py [TASK ...]

runs every stage of ./run.sh for each task, in one process: the first layer of a small model, one epoch of a few steps,
two attacked sentences.
"""

import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from configs.contract.experiment import schema
from configs.contract.run import jobs
from configs.contract.run.run_dir import RunDir
from tests.helpers.commands import run_commands

TASKS = ("sst2", "imdb", "agnews", "qnli", "mnli", "qqp")
TRAIN, TEST = 40, 6
SMALL = [
    "layers=1",
    "data.max_length=16",
    "data.dev_size=8",
    "finetune.epochs=1",
    "finetune.batch_size=8",
    "search.epochs=1",
    "search.batch_size=8",
    "search.ascent_steps=2",
    "retrain.epochs=1",
    "retrain.batch_size=8",
    "attack.examples=2",
    "attack.recipes=[textfooler]",
    "attack.workers=1",
    "choice.examples=2",
]


DRAW = random.Random()


def sentence(label: int) -> str:
    """A dozen English words, some of which tell the label."""
    telling = ("dull slow poor", "fine warm funny", "odd loud bold", "new fast small")[label].split()
    words = DRAW.choices(["film", "story", "actor", "question", "answer", "city", "game", "market"], k=9)
    return " ".join(DRAW.sample(words + telling, 12)) + " ."


def write_files(task: str, folder: Path) -> list[str]:
    """Write train and test files of a task as its authors hand them out; the keys that name them."""
    DRAW.seed(task)
    names = {"imdb": ("train", "test"), "agnews": ("train.csv", "test.csv"), "mnli": ("train.tsv", "dev_matched.tsv")}
    train, test = (folder / name for name in names.get(task, ("train.tsv", "dev.tsv")))
    for path, count, ids in ((train, TRAIN, 0), (test, TEST, 1000)):
        WRITERS[task](path, [(i + ids, i % LABELS.get(task, 2)) for i in range(count)])
    columns = ["data.columns=[label, title, description]"] if task == "agnews" else []
    return [f"data.train={train}", f"data.test={test}", *columns]


LABELS = {"agnews": 4, "mnli": 3}


def write_table(path: Path, header: list[str], rows: list[list]) -> None:
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in [header, *rows]), encoding="utf-8")


def write_sst2(path, rows):
    write_table(path, ["sentence", "label"], [[sentence(label) + " ", label] for _, label in rows])


def write_imdb(path, rows):
    for i, label in rows:
        name = path / ("neg", "pos")[label] / f"{i}_{2 + 6 * label}.txt"
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_text(f"{sentence(label)}<br /><br />{sentence(label)}", encoding="utf-8")
    (path / "unsup").mkdir()
    (path / "unsup" / "0_0.txt").write_text("of nobody's opinion", encoding="utf-8")


def write_agnews(path, rows):
    lines = [f'"{label + 1}","{sentence(label)} ""{i}""","{sentence(label)}"\n' for i, label in rows]
    path.write_text("".join(lines), encoding="utf-8")


def write_qnli(path, rows):
    names = ("entailment", "not_entailment")
    body = [[i, f'Who said "it {i}?', sentence(label), names[label]] for i, label in rows]
    write_table(path, ["index", "question", "sentence", "label"], body)


def write_mnli(path, rows):
    parses = ["sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse", "sentence2_parse"]
    header = ["index", "promptID", "pairID", "genre", *parses, "sentence1", "sentence2", "label1", "gold_label"]
    names = ("entailment", "neutral", "contradiction")
    body = [
        [i, i, f"{i}n", "fiction", *["( x )"] * 4, sentence(label), sentence(label), "neutral", names[label]]
        for i, label in rows
    ]
    write_table(path, header, body)


def write_qqp(path, rows):
    """With a torn line and a question without text, as the real training file has."""
    body = [[i, 2 * i, 2 * i + 1, sentence(label), sentence(label), label] for i, label in rows]
    if len(rows) == TRAIN:
        body += [["?\tWas it torn", 0], [9, 1, 2, "How?", "", 0]]
    write_table(path, ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"], body)


WRITERS = {name: globals()[f"write_{name}"] for name in TASKS}


@contextlib.contextmanager
def run(task: str, folder: Path, *more: str, runner=run_commands):
    """The run directory of one task after all stages; removed at the end. `more` are keys."""
    overrides = [f"name=test-{task}-{os.getpid()}", "model=packaged", *write_files(task, folder), *SMALL, *more]
    directory = RunDir(schema.load(task, overrides))
    commands = [[f"{jobs.HALVES[stage]}.__main__", stage, task, *overrides] for stage in jobs.stages(directory)]
    try:
        print(runner(commands, folder), flush=True)
        yield directory
    finally:
        shutil.rmtree(directory.root, ignore_errors=True)


def main() -> None:
    for task in sys.argv[1:] or TASKS:
        started = time.time()
        with tempfile.TemporaryDirectory() as folder, run(task, Path(folder)) as directory:
            assert (directory.report / "report.md").is_file()
        print(f"{task}: from files to report in {time.time() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
