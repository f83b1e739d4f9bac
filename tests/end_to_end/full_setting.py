"""One update of fine-tuning and one of the search of a data set at full size, through the real command line.

    python tests/end_to_end/full_setting.py TASK [key=value ...]

BERT-base (12 layers of 768) with random weights, the task's own batch size, length, K and number of labels, on made-up
texts that fill the length. Prints seconds (the first update compiles its graph) and the peak memory of each process.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from configs.contract.basics.files import read_lines
from configs.contract.basics.processes import with_project
from configs.contract.experiment import schema
from configs.contract.inputs import assets
from configs.contract.run.run_dir import RunDir
from tests.end_to_end import six_tasks
from tests.helpers.models import copy_tokenizer


def write_model(folder: Path) -> None:
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(BertConfig()).save_pretrained(folder)
    copy_tokenizer(assets.fetched_folder("minilm"), folder)


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds and peak memory (GB) of a command that succeeds."""
    started = time.time()
    child = subprocess.Popen(command, env=with_project(os.environ))
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"failed with status {child.returncode}: {' '.join(command)}")
    return time.time() - started, usage.ru_maxrss / 1e6


def main() -> None:
    task, *overrides = sys.argv[1:]
    six_tasks.TRAIN = 72  # two batches, after a dev set of 8
    words = six_tasks.sentence
    six_tasks.sentence = lambda label: " ".join(words(label) for _ in range(45))
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "bert-base"
        write_model(model)
        overrides = [
            f"name=full-{task}-{os.getpid()}",
            f"model={model}",
            *six_tasks.write_files(task, Path(folder)),
            "data.dev_size=8",
            "finetune.max_steps=1",
            "search.max_steps=1",
            "log_steps=1",
            *overrides,
        ]
        config = schema.load(task, overrides)
        run = RunDir(config)
        try:
            for stage in ("prepare", "finetune", "search"):
                seconds, memory = timed([sys.executable, "-m", "mindspore_rt", stage, task, *overrides])
                line = f"{task} {stage}: {seconds:.0f} s in all, at most {memory:.2f} GB"
                if stage != "prepare":
                    settings, folder_of = getattr(config, stage), run.stage(config.seeds[0], stage)
                    begun = (folder_of / "begun.json").stat().st_mtime
                    first = read_lines(folder_of / "metrics.jsonl")[0]["seconds"] - begun
                    passes = f", K={settings.ascent_steps}" if stage == "search" else ""
                    line += (
                        f"; {settings.batch_size} texts of {config.data.max_length} pieces{passes}: "
                        f"{first:.0f} s for the first update with its compilation"
                    )
                print(line, flush=True)
        finally:
            shutil.rmtree(run.root, ignore_errors=True)


if __name__ == "__main__":
    main()
