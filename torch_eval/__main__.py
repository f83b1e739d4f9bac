"""Command line of the scoring half: `python -m torch_eval COMMAND`, with `--help` for each command."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.contract.basics.errors import UserError, command, stop_with_starter
from configs.contract.experiment import schema
from configs.contract.run import cli
from configs.contract.run.receipts import Receipt
from configs.contract.run.run_dir import RUNS, RunDir

if TYPE_CHECKING:
    from torch_eval.report.run_state import Run

# This process and those that attack stay offline. What may use the network (the contract's `hub` and `assets`) has
# processes of its own.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
# Without a home, as a container's user may be, matplotlib and TextAttack cannot be imported. Docker names this one.
if os.path.expanduser("~") == "~":
    os.environ["HOME"] = "/"


def setup(options: argparse.Namespace) -> None:
    """Train the small masked language model of BERT-Attack, unless that is done already."""
    from torch_eval.assets import packaged

    if (packaged.mlm_folder() / "mlm.json").is_file():
        return
    from torch_eval.assets import build_mlm

    build_mlm.build()
    facts = packaged.mlm_facts()
    print(
        f"masked language model made: top-1 {facts['top1']:.1%} on hidden pieces of unseen snippets, "
        f"{facts['seconds']:.0f} s of training"
    )


def choose(options: argparse.Namespace) -> None:
    """Choose the reported ticket on dev.

    Every candidate (the last choice.epochs epochs of the search, at each sparsity) is attacked on a sample of dev.
    """
    from torch_eval.attack import choose

    run = cli.run_dir(options, options.runs)
    receipt = Receipt(run, "choose")
    choose.run(run)
    receipt.write()


def attack(options: argparse.Namespace) -> None:
    """Attack every model of an experiment.

    Measures the accuracy on the whole test set, then runs each recipe on the same sample of sentences. Finished attacks
    are skipped, and interrupted ones are resumed.
    """
    from torch_eval.attack import scoring

    run = cli.run_dir(options, options.runs)
    receipt = Receipt(run, "attack")
    scoring.run(run)
    receipt.write()


def merge(options: argparse.Namespace) -> None:
    """Merge the results of attacks with attack.shard=i/n.

    Give it the keys of these attacks, without attack.shard.
    """
    from torch_eval.attack import merge

    merge.merge(cli.run_dir(options, options.runs))


def score(options: argparse.Namespace) -> None:
    """Attack any classifiers on any data: MODEL [MODEL ...] DATA [key=value ...].

    MODEL is a Hugging Face directory or a name on the hub, DATA a CSV, TSV or JSON Lines file, a folder of texts for
    each label, or the name of a task. The keys are those of the sections attack and data, which
    `python -m torch_eval --help` lists, such as recipes=[textfooler], examples=100, label_column=stars,
    labels=[bad,good], text_columns=[review], max_length=128, name=FOLDER.
    """
    from torch_eval.library import run

    words, keys = cli.names_and_keys(options.arguments)
    if len(words) < 2:
        raise UserError("score: give a model and data, such as `python -m torch_eval score ./my-model reviews.csv`")
    run.run(words[:-1], words[-1], keys, options.runs, options.out)


def transfer(options: argparse.Namespace) -> None:
    """Let each model classify the adversarial texts of the others."""
    from torch_eval.attack import transfer

    transfer.run(cli.run_dir(options, options.runs))


def publish(options: argparse.Namespace) -> None:
    """Upload the models and tickets of an experiment to the Hugging Face hub, each with a card that has its results.

    Every model gets a repository OWNER/NAME-MODEL-seed-SEED, which is private unless --public is given. Nothing else
    in this project uploads anything.
    """
    from torch_eval.library import publish

    publish.publish(cli.run_dir(options, options.runs), options.to, options.public)


def report(options: argparse.Namespace) -> None:
    """Write tables and figures of one experiment or of several.

    The run may be unfinished. What has no result yet is shown as missing, with the command that makes it.
    `python -m torch_eval --help` lists every key of a configuration.
    """
    from torch_eval.report import build

    names, overrides = cli.names_and_keys(options.arguments)
    if not names:
        raise UserError("report: name a configuration, such as `python -m torch_eval report demo`")
    run = RunDir(schema.load(names[0], overrides), options.runs)
    receipt = Receipt(run, "report")
    build.report(names, overrides, options.out, options.runs)
    if len(names) == 1 and not options.out:
        receipt.write()


def zoo_add(options: argparse.Namespace) -> None:
    """Make an entry of the zoo from a finished run of one seed: its ticket, its configuration and its results."""
    from torch_eval.library import zoo, zoo_page

    folder = zoo.add(_run_state(options), options.name)
    zoo_page.write()
    print(f"entry: {folder}; docs/zoo.md has its rows")


def zoo_check(options: argparse.Namespace) -> int:
    """Compare a run of an entry of the zoo with the figures that the entry states; status 1 if one is not met."""
    from torch_eval.library import zoo

    return 0 if zoo.check(_run_state(options), options.config) else 1


def zoo_table(options: argparse.Namespace) -> None:
    """Write the tables of all entries of the zoo into docs/zoo.md, and their pictures into docs/results."""
    from torch_eval.library import zoo_page

    zoo_page.write()


def _run_state(options: argparse.Namespace) -> Run:
    from torch_eval.report.run_state import Run

    config = schema.load(options.config, options.overrides)
    return Run(config, [options.config, *options.overrides], options.runs)


def watch(options: argparse.Namespace) -> None:
    """Follow a long run from another terminal, or from another machine that sees its files."""
    from torch_eval.report import watch

    watch.watch(schema.load(options.config, options.overrides), options.once, options.every, options.runs)


def parity(options: argparse.Namespace) -> int:
    """Compare the MindSpore half with a checkout of the official repository; see parity --help."""
    from torch_eval.reference import parity

    return parity.main(options.arguments)


def bench(options: argparse.Namespace) -> int:
    """Measure the speed of training steps or of attacks against references, or estimate the speed of a device.

    bench [official=PATH] [only=[GROUP,...]] [rounds=N] [markdown=yes]   training steps
    bench attacks [CONFIG] [examples=200] [recipes=[...]] ...            attacks, against stock TextAttack
    bench families [families=[bert,...]] [examples=50] ...               the same on random models of all families
    bench gpu [examples=30] [seconds=300]                                attacks on a GPU, in five minutes
    bench device [layers=12]                                             least time of steps on a GPU, estimated

    `bench attacks --help` and so on list all keys.
    """
    kind, rest = next(iter(options.arguments), ""), options.arguments[1:]
    if kind in ("-h", "--help"):
        options.parser.print_help()
        return 0
    if kind == "attacks":
        from torch_eval.bench import attacks

        return attacks.main(rest, options.runs)
    if kind == "families":
        from torch_eval.bench import families

        return families.main(rest, options.runs)
    if kind == "gpu":
        from torch_eval.bench import gpu_check

        return gpu_check.main(rest, options.runs)
    if kind == "device":
        from torch_eval.bench import device_bound

        return device_bound.main(rest)
    from torch_eval.bench import training_steps

    return training_steps.main(options.arguments, options.runs)


def seconds(text: str) -> float:
    """Parse a time for `--every`."""
    value = float(text)
    if not 0 < value < threading.TIMEOUT_MAX:  # the longest sleep
        raise ValueError(text)
    return value


def parser() -> cli.Parser:
    """Create the parser of all commands."""
    top, commands = cli.program("torch_eval", "Attack the models of an experiment and report what they withstand.")
    cli.add_command(commands, setup, config=False)
    cli.add_command(commands, choose, sections=["choice"])
    cli.add_command(commands, attack, sections=["attack"])
    cli.add_command(commands, merge, sections=["attack"])
    scoring = cli.add_command(commands, score, config=False)
    scoring.usage = "%(prog)s MODEL [MODEL ...] DATA [key=value ...] [--out FOLDER]"
    scoring.add_argument("arguments", nargs="*", metavar="MODEL ... DATA key=value", help="what to score, as above")
    scoring.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: in runs/score)")
    cli.add_command(commands, transfer)
    publishing = cli.add_command(commands, publish)
    publishing.add_argument("--to", required=True, metavar="OWNER/NAME", help="how the repositories' names begin")
    publishing.add_argument("--public", action="store_true", help="let anybody see repositories that are made now")
    reporting = cli.add_command(commands, report, config=False)
    reporting.usage = "%(prog)s CONFIG [CONFIG ...] [key=value ...] [--out FOLDER]"
    reporting.add_argument(
        "arguments", nargs="*", metavar="CONFIG ... key=value", help="experiments, and changes to all"
    )
    place = "where to write (default: report/ of the run, of several runs runs/report/)"
    reporting.add_argument("--out", type=Path, metavar="FOLDER", help=place)
    adding = cli.add_command(commands, zoo_add, "zoo-add")
    adding.add_argument("--name", required=True, metavar="NAME", help="name of the entry's folder")
    cli.add_command(commands, zoo_check, "zoo-check")
    cli.add_command(commands, zoo_table, "zoo-table", config=False)
    watching = cli.add_command(commands, watch)
    watching.add_argument("--once", action="store_true", help="print the present state and end")
    watching.add_argument(
        "--every", type=seconds, default=5.0, metavar="SECONDS", help="time between two updates (default: 5)"
    )
    cli.add_command(commands, parity, config=False, delegates=True)
    benching = cli.add_command(commands, bench, config=False, delegates=True)
    benching.usage = "%(prog)s [attacks|families|gpu|device] [key=value ...]"
    return top


@command
def main(arguments: Sequence[str], runs: Path = RUNS) -> int:
    """Run one command; returns the exit status."""
    stop_with_starter()
    options = cli.parse(parser(), arguments)
    options.runs = runs
    return options.function(options) or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
