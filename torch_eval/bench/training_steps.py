"""Speed against the references: ratios of one run, measured turn by turn.

    python -m torch_eval bench [official=PATH] [only=GROUP,...] [rounds=N] [markdown=yes]

Everything that is compared keeps one step ready in a process of its own, with the same inputs and two processors; the
bench asks for steps in turns, so that whatever else the machine does meets all alike. A ratio is the median over the
rounds of ours / reference. With `official=` the reference of search and retraining is that checkout of the official
repository (`checkout.py`), otherwise our restatement of it (`official.py`).

As a module of its own it is a worker: python -m torch_eval.bench.training_steps CASE VARIANT [official=PATH].
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from configs.contract import bench_case
from configs.contract.bench_case import LABELS, TOTAL_STEPS, Case
from configs.contract.errors import UserError
from configs.contract.files import ROOT, append_line, atomic_write
from configs.contract.run_dir import RUNS
from configs.contract.stage import versions

LEAST_ROUNDS, MOST_ROUNDS = 3, 30
PACKAGES = ("torch", "transformers", "mindspore", "mindnlp", "numpy")


# --- what is compared -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contender:
    """One way to compute a step: the module and the variant of its worker, and what its environment adds."""

    title: str
    module: str
    variant: str
    environment: tuple[tuple[str, str], ...] = ()

    def command(self, case: Case, official: Path | None) -> list[str]:
        checkout = [f"official={official}"] if official and self.variant in OFFICIAL else []
        return [sys.executable, "-m", self.module, case.to_json(), self.variant, *checkout]


PLAIN = (("ROBUST_TICKETS_KERNELS", "plain"),)
CONTENDERS = {
    "official": Contender("official PyTorch", "torch_eval.bench.training_steps", "official"),
    "frozen": Contender("official PyTorch, weights frozen", "torch_eval.bench.training_steps", "frozen"),
    "transformers": Contender("transformers", "torch_eval.bench.training_steps", "transformers"),
    "mindnlp": Contender("mindnlp", "mindspore_rt.compare.step_worker", "mindnlp"),
    "fused": Contender("MindSpore, fused kernels", "mindspore_rt.compare.step_worker", "ours"),
    "plain": Contender("MindSpore, plain primitives", "mindspore_rt.compare.step_worker", "ours", PLAIN),
}
OFFICIAL = ("official", "frozen")
REPOSITORY = "github.com/ruizheng20/robust_ticket"


@dataclass(frozen=True)
class Group:
    """One step by a reference and by others, with the most that wall time and memory may be of the reference's.

    `seconds` is what the group takes on two cores of a server, and the time it gets; `memory` what its largest worker
    takes, in GB. With `throughput`, the wall ratio is reference / ours, and its target the least. `first_step` is the
    most seconds that compiling and the first step may take.
    """

    title: str
    case: Case
    reference: str
    others: dict[str, tuple[float | None, float | None]]
    seconds: float
    memory: float
    throughput: bool = False
    first_step: float | None = None


MINILM, BERT_BASE = {"layers": 6, "hidden": 384}, {"layers": 12, "hidden": 768}
GROUPS = {
    "search-minilm": Group(
        "search step, 6 layers x 384, batch 16, length 64, K=3",
        Case("search", **MINILM, batch=16, passes=3),
        "official",
        {"fused": (0.70, 0.90), "plain": (1.04, 1.33), "frozen": (None, None)},
        110,
        2.4,
        first_step=10,
    ),
    "search-bert-base": Group(
        "search step, 12 layers x 768, batch 8, length 64, K=2",
        Case("search", **BERT_BASE, batch=8, passes=2),
        "official",
        {"fused": (0.55, 0.65), "frozen": (None, None), "plain": (None, None)},
        240,
        7.3,
    ),
    "retrain": Group(
        "retraining step of a ticket, 6 layers x 384, batch 32, length 64",
        Case("retrain", **MINILM, batch=32),
        "official",
        {"fused": (0.60, None)},
        50,
        2.5,
    ),
    "finetune": Group(
        "fine-tuning step, 6 layers x 384, batch 32, length 64",
        Case("finetune", **MINILM, batch=32),
        "transformers",
        {"fused": (1.05, None), "mindnlp": (None, None)},
        90,
        4.0,
    ),
    "evaluate": Group(
        "evaluation, 6 layers x 384, batch 32, length 64",
        Case("evaluate", **MINILM, batch=32),
        "transformers",
        {"fused": (1.0, None)},
        40,
        1.5,
        throughput=True,
    ),
}


# --- the arithmetic ---------------------------------------------------------------------------------------


def median_ratio(ours: list[float], reference: list[float]) -> float:
    """Median over the rounds of ours / reference, so that a slow spell of the machine cancels out."""
    return statistics.median(a / b for a, b in zip(ours, reference, strict=True))


def figure(name: str, group: Group, key: str, ours: dict, reference: dict, rounds: int) -> dict:
    """One line of the results, from what two workers answered: lists `wall` and `cpu` of `rounds` or more steps, of
    which the last ones belong together, and `memory`."""
    walls = [worker["wall"][-rounds:] for worker in (ours, reference)]
    ratio = median_ratio(*walls)
    if group.throughput:
        ratio = median_ratio(*reversed(walls))
    memory = ours["memory"] / reference["memory"]
    wall_target, memory_target = group.others[key]
    target = {k: v for k, v in (("ratio", wall_target), ("memory_ratio", memory_target)) if v is not None}
    met = None
    if target:
        met = ratio >= wall_target if group.throughput else ratio <= wall_target
        met = met and (memory_target is None or memory <= memory_target)
    return {
        "name": f"{name}/{key}",
        "figure": group.title,
        "ours": CONTENDERS[key].title,
        "reference": reference["title"],
        "unit": "sentences per second" if group.throughput else "seconds per step",
        "ratio": round(ratio, 3),
        "cpu_ratio": round(median_ratio(ours["cpu"][-rounds:], reference["cpu"][-rounds:]), 3),
        "memory_ratio": round(memory, 3),
        "seconds": round(statistics.median(walls[0]), 4),
        "reference_seconds": round(statistics.median(walls[1]), 4),
        "memory_gb": round(ours["memory"] / 1e9, 2),
        "reference_memory_gb": round(reference["memory"] / 1e9, 2),
        "first_step_seconds": round(ours["first"], 1),
        "rounds": rounds,
        "target": target,
        "met": met,
        "kernels": ours.get("kernels"),
    }


def first_step(name: str, group: Group, key: str, ours: dict) -> dict:
    """The line for the time from a built model to the end of its first step."""
    return {
        "name": f"{name}/{key}/first-step",
        "figure": f"compiling and first step: {group.title}",
        "ours": CONTENDERS[key].title,
        "seconds": round(ours["first"], 1),
        "target": {"seconds": group.first_step},
        "met": ours["first"] <= group.first_step,
        "kernels": ours.get("kernels"),
    }


def machine() -> dict:
    """Processor, cores that may be used, memory in GB."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (FileNotFoundError, StopIteration):
        processor = platform.processor() or platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": processor, "cores": cores, "memory_gb": round(memory / 1e9, 1)}


def available_memory() -> float:
    """GB that new processes can take without swapping; without /proc, all there is."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024 / 1e9
    except FileNotFoundError:
        return machine()["memory_gb"]


# --- the bench's end of the protocol ----------------------------------------------------------------------


class Worker:
    """A process with a step ready. Raises `UserError` with its last words when it stops.

    `answers` gathers `wall` and `cpu` seconds of every step asked for, `first` of the one before them, and peak
    `memory` in bytes.
    """

    def __init__(self, contender: Contender, command: list[str]):
        self.contender, self.log = contender, tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        threads = str(bench_case.THREADS)
        environment = {
            **os.environ,
            **dict(contender.environment),
            "GLOG_v": "3",
            "OMP_WAIT_POLICY": "passive",
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        if contender.variant == "ours" and not contender.environment:
            environment.pop("ROBUST_TICKETS_KERNELS", None)
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            cwd=tempfile.gettempdir(),  # where libraries may leave what they like to leave
        )
        try:
            answer = self._answer()
        except BaseException:
            self.close()
            raise
        self.answers = {**answer, "title": contender.title, "first": answer["wall"], "wall": [], "cpu": []}

    def step(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # what went wrong stands in the log
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        answer = self._answer()
        self.answers["wall"].append(answer["wall"])
        self.answers["cpu"].append(answer["cpu"])
        self.answers["memory"] = answer["memory"]

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.log.seek(0)
            words = [text.strip() for text in self.log if text.strip()] or ["no message"]
            raise UserError(f"{self.contender.title}: stopped with status {self.process.returncode}: {words[-1]}")
        return json.loads(line)

    def close(self) -> None:
        """End the process and wait for it."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


@dataclass
class Options:
    official: Path | None = None
    only: tuple[str, ...] = tuple(GROUPS)
    rounds: int | None = None
    markdown: bool = False

    @classmethod
    def read(cls, arguments: Iterable[str]) -> Options:
        """From `key=value`. Raises `UserError` naming the key and what is allowed."""
        options = cls()
        for argument in arguments:
            key, _, value = argument.partition("=")
            if key == "official":
                options.official = Path(value).resolve()
                if not (options.official / "masked_bert.py").is_file():
                    raise UserError(f"official={value}: no masked_bert.py there; give a checkout of {REPOSITORY}")
            elif key == "only":
                options.only = tuple(value.split(","))
                unknown = [name for name in options.only if name not in GROUPS]
                if unknown:
                    raise UserError(f"only={value}: no group `{unknown[0]}`; there are {', '.join(GROUPS)}")
            elif key == "rounds":
                if not value.isdecimal() or int(value) < 1:
                    raise UserError(f"rounds={value}: give a number of rounds, 1 or more")
                options.rounds = int(value)
            elif key == "markdown":
                if value not in ("yes", "no"):
                    raise UserError(f"markdown={value}: give yes or no")
                options.markdown = value == "yes"
            else:
                raise UserError(f"bench: unknown argument `{argument}`; there are official=, only=, rounds=, markdown=")
        return options


class Clock:
    """Says how far the bench is, and how long it still takes: the time of the groups that are left."""

    def __init__(self, options: Options):
        self.left, self.said = {name: GROUPS[name].seconds for name in options.only}, -math.inf

    def say(self, name: str, text: str, share_done: float = 0.0) -> None:
        """`share_done` of group `name`, 0 to 1. At most one line in five seconds."""
        if time.monotonic() - self.said >= 5:
            self.said = time.monotonic()
            seconds = int(sum(self.left.values()) - self.left[name] * min(1.0, share_done))
            print(f"[{name}] {text}; about {seconds // 60} min {seconds % 60:02d} s left", flush=True)


def run_group(name: str, options: Options, clock: Clock, failed: list[str]) -> Iterator[dict]:
    """The figures of one group. As many workers live at once as memory allows, the reference always one of them.

    One that cannot be started is left out, and the reason added to `failed`; without the reference, `UserError`.
    """
    group, started = GROUPS[name], time.monotonic()
    at_once = int(available_memory() // group.memory)
    if at_once < 2:
        raise UserError(f"needs {2 * group.memory:.0f} GB of free memory, {available_memory():.0f} GB are there")
    keys = list(group.others)
    turns = [keys[i : i + at_once - 1] for i in range(0, len(keys), at_once - 1)]
    with contextlib.ExitStack() as stack:

        def begin(key):
            contender = CONTENDERS[key]
            clock.say(name, f"starting {contender.title}", (time.monotonic() - started) / group.seconds)
            worker = Worker(contender, contender.command(group.case, options.official))
            stack.callback(worker.close)
            return worker

        reference, measured = begin(group.reference), {}
        if options.official and group.reference in OFFICIAL:
            reference.answers["title"] += " (the checkout itself)"
        for number, keys in enumerate(turns, 1):
            workers = {}
            for key in keys:
                try:
                    workers[key] = begin(key)
                except UserError as error:
                    failed.append(f"{name}: {error}")
            if not workers:
                continue
            until = started + group.seconds * number / len(turns)
            least, most = (options.rounds,) * 2 if options.rounds else (LEAST_ROUNDS, MOST_ROUNDS)
            done = 0
            while done < least or (done < most and time.monotonic() < until):
                for worker in (reference, *workers.values()):
                    worker.step()
                done += 1
                clock.say(name, f"round {done}", (time.monotonic() - started) / group.seconds)
            for key, worker in workers.items():
                yield figure(name, group, key, worker.answers, reference.answers, done)
                worker.close()
            measured.update(workers)
        if group.first_step and "fused" in measured:
            yield first_step(name, group, "fused", measured["fused"].answers)


# --- the results ------------------------------------------------------------------------------------------


def shown_target(record: dict) -> str:
    names = {"ratio": "speed" if record.get("unit") == "sentences per second" else "time"}
    names |= {"memory_ratio": "memory", "seconds": "time"}
    sign = ">=" if names.get("ratio") == "speed" else "<="
    unit = {"seconds": " s"}
    return ", ".join(f"{names[k]} {sign} {v:.4g}{unit.get(k, '')}" for k, v in record["target"].items()) or "none"


def row(record: dict) -> list[str]:
    """The cells of one figure: ours, reference, ratios, target, met."""
    met = {True: "met", False: "NOT met", None: ""}[record["met"]]
    if "ratio" not in record:
        return [record["ours"], "", f"{record['seconds']:.1f} s", "", "", "", shown_target(record), met]
    return [
        record["ours"],
        record["reference"],
        f"{record['seconds']:.3g} / {record['reference_seconds']:.3g} s",
        f"{record['ratio']:.2f}" + ("x speed" if record["unit"] == "sentences per second" else ""),
        f"{record['cpu_ratio']:.2f}",
        f"{record['memory_ratio']:.2f}",
        shown_target(record),
        met,
    ]


COLUMNS = ["ours", "reference", "ours / reference", "time", "processor", "memory", "target", ""]
LEGEND = (
    "Time, processor seconds and peak memory are ratios, ours / reference: below 1 is faster, or smaller. Only a speed "
    "(x) is better above 1. Float32, two processors each, median over rounds in which all take turns."
)


def table(records: list[dict]) -> str:
    """For the terminal: figures under their step, columns aligned."""
    cells = [COLUMNS, *map(row, records)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]

    def line(values):
        return "  " + "  ".join(v.ljust(w) for v, w in zip(values, widths, strict=True)).rstrip()

    lines, figure_before = [line(COLUMNS)], None
    for record, values in zip(records, cells[1:], strict=True):
        if record["figure"] != figure_before:
            lines += ["", record["figure"]]
            figure_before = record["figure"]
        lines.append(line(values))
    return "\n".join([*lines, "", LEGEND])


def markdown(records: list[dict]) -> str:
    """For a README: one table, and the machine and versions it holds for."""
    about = records[0]
    packages = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"{about['machine']['cpu']}, {about['machine']['cores']} cores; {packages}; {about['date'][:10]}. {LEGEND}",
        "",
        "| step | " + " | ".join(COLUMNS[:-1]) + " | met |",
        "| --- " * (len(COLUMNS) + 1) + "|",
        *("| " + " | ".join([record["figure"], *row(record)]) + " |" for record in records),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str], runs: Path = RUNS) -> int:
    """The whole bench; 0 if everything could be measured. Targets missed are shown, not an error."""
    options = Options.read(arguments)
    clock, records, failed = Clock(options), [], []
    about = {
        "versions": versions(*PACKAGES),
        "machine": machine(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    for name in options.only:
        try:
            for record in run_group(name, options, clock, failed):
                records.append({**record, **about})
                append_line(runs / "bench.jsonl", records[-1])
        except UserError as error:
            failed.append(f"{name}: {error}")
        clock.left[name] = 0
    if records:
        print("\n" + table(records) + f"\n\nAdded to {runs / 'bench.jsonl'}")
        if options.markdown:
            atomic_write(runs / "bench.md", markdown(records))
            print(f"Written: {runs / 'bench.md'}")
    for text in failed:
        print(f"error: {text}", file=sys.stderr)
    return 1 if failed else 0


# --- the workers ------------------------------------------------------------------------------------------


def load(model) -> None:
    """Set every weight of a PyTorch BERT classifier to its random value; scores stay."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "log_alpha" not in name and "mask_scores" not in name:
                parameter.copy_(torch.from_numpy(bench_case.weight(name, tuple(parameter.shape))))


def torch_inputs(case: Case):
    """Inputs by the names of transformers, and labels (batch,)."""
    import torch

    ids, labels = map(torch.from_numpy, case.inputs())
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}, labels


def torch_config(case: Case):
    from transformers import BertConfig

    return BertConfig(**case.config(), num_labels=LABELS)


def transformers_step(case: Case) -> Callable[[], float]:
    """transformers' BERT as it comes: a fine-tuning step with PyTorch's AdamW and clip 1, or an evaluation, which
    returns the sum of the logits."""
    import torch
    from torch.nn.functional import cross_entropy
    from transformers import BertForSequenceClassification

    model, (inputs, labels) = BertForSequenceClassification(torch_config(case)), torch_inputs(case)
    load(model)
    if case.task == "evaluate":
        model.eval()
        return torch.no_grad()(lambda: model(**inputs).logits.sum().item())
    if case.task != "finetune":
        raise ValueError(f"transformers has no {case.task} step")
    from torch_eval.reference.restatement import linear_schedule

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.01)
    index = itertools.count()

    def step():
        optimizer.zero_grad()
        loss = cross_entropy(model(**inputs).logits, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = 2e-5 * linear_schedule(next(index), TOTAL_STEPS, 0.1)
        optimizer.step()
        return loss.item()

    return step


def official_step(case: Case, freeze: bool) -> Callable[[], float]:
    """Search or retraining as the official code runs it, restated; `freeze`: with the weights frozen in search."""
    from torch_eval.reference import restatement

    model, (inputs, labels) = restatement.MaskedBert(torch_config(case)), torch_inputs(case)
    load(model)
    if case.task == "search":
        trained = restatement.Search(
            model, restatement.SearchSettings(TOTAL_STEPS, ascent_steps=case.passes, freeze=freeze)
        )
    elif case.task == "retrain":
        model.fix_ticket(torch_masks(model.log_alpha()))
        trained = restatement.Retraining(model, TOTAL_STEPS)
    else:
        raise ValueError(f"the official code has no {case.task} step of its own")
    index = itertools.count()
    return lambda: trained.step(inputs, labels, next(index))["loss"]


def torch_masks(log_alpha: dict) -> dict:
    import torch

    return {name: torch.from_numpy(bench_case.ticket(name, tuple(a.shape))) for name, a in log_alpha.items()}


def run_checkout(path: Path, case: Case, freeze: bool, turns: Iterable) -> None:
    """A checkout's own loop, one step for each of `turns`."""
    from torch_eval.reference.official_checkout import Checkout

    checkout = Checkout(path)
    model, (inputs, labels) = checkout.model(torch_config(case)), torch_inputs(case)
    load(model)
    scores = checkout.log_alpha(model)
    for parameter in model.parameters():
        parameter.requires_grad_(not freeze or any(parameter is s for s in scores.values()))
    batches = ((inputs, labels) for _ in turns)
    if case.task == "search":
        checkout.search(model, batches, TOTAL_STEPS, adv_steps=case.passes, lambda_amp=0.5)
    else:
        masks = {name: torch_masks({name: a[0, :, 0]})[name] for name, a in scores.items()}
        checkout.retrain(model, masks, batches, TOTAL_STEPS)


def worker() -> None:
    case, (variant, *others), answers = bench_case.start()
    import torch

    torch.set_num_threads(bench_case.THREADS)
    torch.manual_seed(0)
    turns = bench_case.serve(answers, {"versions": versions("torch", "transformers")})
    freeze = variant == "frozen"
    if others:
        run_checkout(Path(others[0].removeprefix("official=")), case, freeze, turns)
        return
    step = transformers_step(case) if variant == "transformers" else official_step(case, freeze)
    for _ in turns:
        if not math.isfinite(step()):
            sys.exit("the loss is not finite")


if __name__ == "__main__":
    worker()
