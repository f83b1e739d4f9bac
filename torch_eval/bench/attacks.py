"""Exactness and speed of the attacks against unmodified TextAttack ("stock"), on the same victim, texts, resources.

    ./run.sh bench attacks [CONFIG] [examples=200] [recipes=[...]] [candidates=[8,48]] [max_length=128]
                           [long_examples=20] [model=FOLDER] [data=FILE]

Ours runs in as many processes as there are cores, each with one thread. Stock runs in one process with as many threads,
but its sentence encoder has one, so that its vectors are the same. They take turns of a few examples: whatever else the
machine does slows both. Stock pads the `examples` to `max_length`, and attacks the first `long_examples` once more
padded to 512, as the official code does.

An example is exact if outcome, number of queries and adversarial text are all the same. Texts tie if they differ only
in characters for which the victim's tokenizer gives the same ids: all unknown ones are one token. With several threads,
stock gives such texts scores that differ in the last bits, by their place in a padded batch, and chooses by these bits.
They are counted as `same reading`. Stock attacks every example that is not exact once more, on one thread. The results
say how many are exact then, and in how many stock differs from itself.

BERT-Attack in stock goes through all K**n combinations for a word of n pieces: 254 million at K = 48 and n = 5. Only
examples without a word of more than `combinations` are compared; the results say how many are left out.

The victim is the first of the experiment CONFIG (demo), and the texts are its test set, unless a model and a JSON
Lines file are named. Results: `runs/bench.jsonl`, a line for each recipe; `runs/bench_attacks.md`, a table of them.
Unfinished work is in `runs/bench/attacks/` and is resumed; after a change of our code, ours attacks again.
"""

from __future__ import annotations

import functools
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from configs.contract.basics import markdown
from configs.contract.basics.files import append_line, atomic_write, file_hash, json_hash, read_lines
from configs.contract.basics.processes import usable_cores
from configs.contract.experiment import schema, sections
from configs.contract.experiment.options import read_options
from configs.contract.experiment.sections import option
from configs.contract.run.code import source_hashes
from configs.contract.run.run_dir import RUNS, RunDir
from configs.contract.run.stage import versions
from torch_eval.assets import packaged
from torch_eval.attack.example import attack_text
from torch_eval.attack.scoring import PACKAGES, read_examples
from torch_eval.attack.workers import Target, Workers, attack_example
from torch_eval.bench.step_results import in_words, machine
from torch_eval.recipes import textattack_offline
from torch_eval.recipes.recipes import Spec, describe

if TYPE_CHECKING:
    from textattack import Attack
    from transformers import PreTrainedTokenizerBase


@dataclass
class ComparisonOptions:
    """How ours and stock are compared."""

    examples: int = option(200, "examples that both sides attack", low=1)
    recipes: list[str] = option(sections.PAPERS_RECIPES, "attacks", choices=sections.RECIPES)
    candidates: list[int] = option([8, 48], "BERT-Attack: numbers of replacements tried for a word (K)", low=1)
    max_length: int = option(128, "word pieces to which ours cuts, and stock pads too", low=4)
    long_examples: int = option(20, "of the examples, how many stock attacks padded to 512 too", low=0)
    combinations: int = option(300_000, "BERT-Attack: most that stock goes through for a word", low=1)
    seed: int = option(1, "of the attacks", low=0)
    turn: int = option(20, "examples of one turn", low=1)


@dataclass
class Options(ComparisonOptions):
    """What the command line asks for."""

    model: str | None = option(None, "Hugging Face directory of the victim; unset: the first of the experiment")
    data: str | None = option(None, "JSON Lines file of the texts; unset: the experiment's test set")


LONG = 512
COUNTS = ("exact", "exact_with_one_thread", "same_reading", "same_outcome_and_queries")
COLUMNS = ["attack", "exact", "exact, stock on one thread", "same reading", "same outcome and queries"]
COLUMNS += ["examples a minute", "stock", "faster", f"faster than stock padded to {LONG}"]


def main(arguments: list[str], runs: Path = RUNS) -> int:
    """Run the command line `bench attacks [CONFIG] [key=value ...]`."""
    named = arguments and "=" not in arguments[0] and not arguments[0].startswith("-")
    configuration = arguments.pop(0) if named else "demo"
    options = read_options(Options, arguments, "bench attacks")
    run_dir = RunDir(schema.load(configuration), runs)
    task = run_dir.summary() if options.data is None else None
    model = Path(options.model or next(iter(run_dir.victims(run_dir.config.seeds[0]).values())))
    texts = Path(options.data or run_dir.split("test"))
    columns = tuple(task.columns) if task else tuple(k for k in (read_lines(texts) or [{}])[0] if k != "label")
    attacked = tuple(task.attacked) if task else columns[-1:]
    for line in compare(runs / "bench" / "attacks", model, texts, columns, attacked, options, usable_cores()):
        print(json.dumps(line, indent=2))
        append_line(runs / "bench.jsonl", line)
    write_table(runs)
    return 0


def compare(
    folder: Path,
    model: Path,
    texts: Path,
    columns: tuple[str, ...],
    attacked: tuple[str, ...],
    options: ComparisonOptions,
    cores: int,
) -> Iterator[dict]:
    """Attack a sample of texts by ours and by stock, and yield a line of results for each recipe.

    Args:
        folder: Where the records of both sides are kept.
        model: Hugging Face directory of the victim.
        texts: JSON Lines file of the examples.
        columns: Text columns that the victim reads.
        attacked: Those that attacks change.
        options: Of the command line.
        cores: Processes of ours, and threads of stock.
    """
    examples = read_examples(texts, list(columns))
    count = min(options.examples, len(examples))
    indices = random.Random(0).sample(range(len(examples)), count)  # not sorted: any beginning is a sample
    with Workers(cores) as ours, Workers(1, cores) as stock, Workers(1) as witness:
        for recipe in options.recipes:
            for candidates in options.candidates if recipe == "bertattack" else options.candidates[:1]:
                spec = Spec(recipe, columns, attacked, candidates=candidates)
                yield StockComparison(folder, model, texts, spec, options, examples).run(indices, ours, stock, witness)


class StockComparison:
    """One recipe, ours and stock, on one victim.

    Args:
        folder: Where the records of both sides are kept.
        model: Hugging Face directory of the victim.
        texts: File of the examples.
        spec: The recipe.
        options: Of the command line.
        examples: Content of `texts`.
    """

    def __init__(
        self, folder: Path, model: Path, texts: Path, spec: Spec, options: ComparisonOptions, examples: list[dict]
    ) -> None:
        self.model, self.spec, self.options, self.examples = model, spec, options, examples
        self.name = f"bertattack K={spec.candidates}" if spec.recipe == "bertattack" else spec.recipe
        decides = [file_hash(model), file_hash(texts), describe(spec), options.seed, versions(*PACKAGES)]
        self.folder = folder / f"{self.name.replace(' ', '-')}-{json_hash(decides)[:12]}"

    def sides(self, length: int) -> dict[str, str]:
        """Names of the records of both attacks. Ours contains a hash of the code: changed code attacks again."""
        return {"ours": f"ours-{length}-{code_hash()}", "stock": f"stock-{length}"}

    def affordable(self, index: int) -> bool:
        """Whether stock can go through the combinations of every word of an example."""
        if self.spec.recipe != "bertattack":
            return True
        words = {word for column in self.spec.changeable for word in self.examples[index][column].split()}
        tokenizer = load_tokenizer(packaged.mlm_folder())
        longest = max((len(tokenizer.encode(word, add_special_tokens=False)) for word in words), default=0)
        return self.spec.candidates**longest <= self.options.combinations

    def run(self, indices: list[int], ours: Workers, stock: Workers, witness: Workers) -> dict:
        """Attack examples by ours and by stock, and return the line of results.

        Args:
            indices: Examples to attack.
            ours: Processes of our attack, one thread each.
            stock: Process of stock's attack, with all threads.
            witness: Process of stock with one thread, for the examples on which the two differ.
        """
        length, asked = self.options.max_length, len(indices)
        indices = [index for index in indices if self.affordable(index)]
        long = indices[: self.options.long_examples]
        for padded, some in ((length, indices), (LONG, long)):
            pools, functions = (ours, stock), (attack_example, attack_stock)
            self._take_turns(list(zip(self.sides(padded).values(), pools, functions)), padded, some)

        mine, theirs = map(self._read, self.sides(length).values())
        unlike = [index for index in indices if not same(mine[index], theirs[index])]
        one_thread = f"stock-one-thread-{length}"
        self._take_turns([(one_thread, witness, attack_stock)], length, unlike)
        again = self._read(one_thread)
        return {
            "name": f"attack {self.name}",
            "of": len(indices),
            "left_out": asked - len(indices),
            "exact": len(indices) - len(unlike),
            "differ": unlike,
            "same_outcome_and_queries": sum(same(mine[i], theirs[i], text=False) for i in indices),
            "same_reading": sum(self._reads_alike(mine[i], theirs[i]) for i in indices),
            "exact_with_one_thread": len(indices) - sum(not same(mine[i], again[i]) for i in unlike),
            "stock_differs_from_itself": sum(not same(theirs[i], again[i]) for i in unlike),
            "queries": sum(theirs[i]["queries"] for i in indices),
            **self._speed(length, indices, ""),
            **self._speed(LONG, long, f"_{LONG}"),
            "reference": f"TextAttack {versions('textattack')['textattack']}, inputs padded to {length}",
            "model": str(self.model),
            "versions": versions(*PACKAGES),
            "machine": in_words(machine()),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }

    def _take_turns(self, sides: list[tuple], length: int, indices: list[int]) -> None:
        """Attack the examples that have no record yet, some of them by each side in turn.

        Args:
            sides: Name, workers and function of each side.
            length: Word pieces to which inputs are cut.
            indices: Examples to attack.
        """
        done, warm, turn = {name: self._read(name) for name, _, _ in sides}, set(), self.options.turn
        label = f"{self.name}: {' and '.join(name for name, _, _ in sides)}"
        for start in tqdm(range(0, len(indices), turn), desc=label, unit="turn"):
            for name, workers, function in sides:
                some = [index for index in indices[start : start + turn] if index not in done[name]]
                if not some:
                    continue
                if name not in warm:  # what loads at the first attack is no part of one
                    warm.add(name)
                    list(workers.map(function, *zip(*[self._task(length, some[0])] * workers.count)))
                records = list(workers.map(function, *zip(*[self._task(length, index) for index in some])))
                for record in records:  # processes attack at the same time: each example's share of the wall clock
                    wall = record["seconds"] / workers.count
                    append_line(self.folder / f"{name}.jsonl", {**record, "wall": wall})

    def _task(self, length: int, index: int) -> tuple:
        return Target(self.model, length), self.spec, self.options.seed, index, self.examples[index]

    def _read(self, name: str) -> dict[int, dict]:
        path = self.folder / f"{name}.jsonl"
        return {record["index"]: record for record in read_lines(path)} if path.is_file() else {}

    def _speed(self, length: int, indices: list[int], suffix: str) -> dict:
        """Examples a minute and processor seconds an example; ratios are of times, stock by ours."""
        if not indices:
            return {}
        sides = {side: self._read(name) for side, name in self.sides(length).items()}
        wall = {side: sum(records[i]["wall"] for i in indices) for side, records in sides.items()}
        cpu = {side: sum(records[i]["processor_seconds"] for i in indices) for side, records in sides.items()}
        return {
            f"ratio{suffix}": round(wall["stock"] / wall["ours"], 2),
            f"processor_ratio{suffix}": round(cpu["stock"] / cpu["ours"], 2),
            **{f"{side}_examples_a_minute{suffix}": round(60 * len(indices) / wall[side], 1) for side in wall},
        }

    def _reads_alike(self, a: dict, b: dict) -> bool:
        """Same outcome and queries, and texts that are the same tokens."""
        tokenizer = load_tokenizer(self.model)
        ids = [tokenizer(*record["perturbed"].values())["input_ids"] for record in (a, b)]
        return same(a, b, text=False) and ids[0] == ids[1]


def attack_stock(target: Target, spec: Spec, seed: int, index: int, example: dict) -> dict:
    """Attack one example with unmodified TextAttack; runs in a worker, as `workers.attack_example` does."""
    attack = load_stock(target, spec)
    from textattack.shared import AttackedText

    return attack_text(attack, spec, seed, index, example, text_type=AttackedText)


@functools.lru_cache(maxsize=1)
def load_stock(target: Target, spec: Spec) -> Attack:
    """Build TextAttack's own attack on its own wrapper of a victim; the last one stays loaded."""
    textattack_offline.prepare()
    from torch_eval.bench import stock_textattack

    return stock_textattack.build(spec, stock_textattack.victim(target.model, target.max_length, target.device))


@functools.cache
def code_hash() -> str:
    """Return a hash of the code that decides what an attack computes."""
    return json_hash(source_hashes("attack"))[:12]


@functools.cache
def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a Hugging Face directory."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def same(a: dict, b: dict, text: bool = True) -> bool:
    """Return whether two records agree in outcome and queries, and in the text if `text`."""
    keys = ("outcome", "queries", "perturbed") if text else ("outcome", "queries")
    return all(a[key] == b[key] for key in keys)


def write_table(runs: Path) -> None:
    """Write `bench_attacks.md`: the last result of every attack."""
    last = {line["name"]: line for line in read_lines(runs / "bench.jsonl") if line["name"].startswith("attack ")}
    rows = [
        [
            line["name"].removeprefix("attack "),
            *(f"{line[key]}/{line['of']}" for key in COUNTS),
            line["ours_examples_a_minute"],
            line["stock_examples_a_minute"],
            f"{line['ratio']}x",
            f"{line[f'ratio_{LONG}']}x" if f"ratio_{LONG}" in line else "-",
        ]
        for line in last.values()
    ]
    machines = "; ".join(sorted({line["machine"] for line in last.values()}))
    atomic_write(runs / "bench_attacks.md", f"{markdown.table(COLUMNS, rows)}\n\n{machines}, float32.\n")
