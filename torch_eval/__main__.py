"""Command line of the scoring half.

python -m torch_eval setup                          make what the attacks need, once
python -m torch_eval choose CONFIG [key=value ...]  choose the reported ticket on dev
python -m torch_eval attack CONFIG [key=value ...]  score the victims of an experiment
python -m torch_eval merge CONFIG [key=value ...]   put the shards of attacks together
python -m torch_eval transfer CONFIG [key=value ...]  replay adversarial texts of one model on the others
python -m torch_eval report CONFIG ... [key=value ...]  tables and figures
python -m torch_eval watch CONFIG [key=value ...]   follow a long run
python -m torch_eval parity OFFICIAL_DIR            compare with a checkout of the official repository
python -m torch_eval bench [attacks] [key=value ...]  speed against the references
"""

from __future__ import annotations

import importlib
import os
import sys

from configs.contract.errors import UserError, command

# Nothing here or below may touch the network; only `python -m configs.contract.assets` does.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")


def setup(arguments: list[str]) -> int:
    if arguments:
        raise UserError("setup takes no arguments")
    from torch_eval.assets import packaged

    done = (packaged.mlm_folder() / "mlm.json").is_file()
    if not done:
        from torch_eval.assets import build_mlm

        build_mlm.build()
    facts = packaged.mlm_facts()
    print(
        f"masked language model {'is there already' if done else 'made'}: top-1 {facts['top1']:.1%} on hidden "
        f"pieces of unseen snippets, {facts['seconds']:.0f} s of training"
    )
    return 0


def _module(name: str, function: str = "main"):
    """A command of a module, which is loaded when the command is given."""
    return lambda arguments: getattr(importlib.import_module(f"torch_eval.{name}"), function)(arguments)


def bench(arguments: list[str]) -> int:
    if arguments[:1] == ["attacks"]:
        return _module("bench.attacks")(arguments[1:])
    return _module("bench.training_steps")(arguments)


COMMANDS = {
    "setup": setup,
    "choose": _module("attack.choose"),
    "attack": _module("attack.scoring"),
    "merge": _module("attack.merge"),
    "transfer": _module("attack.transfer"),
    "report": _module("report.build"),
    "watch": _module("report.watch"),
    "parity": _module("reference.parity"),
    "bench": bench,
}


@command
def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        from configs.contract import schema

        print(f"{__doc__}\nKeys of an experiment:\n\n{schema.help_text()}")
        return 0
    if arguments[0] not in COMMANDS:
        raise UserError(f"no sub-command `{arguments[0]}`: give one of {', '.join(COMMANDS)}")
    return COMMANDS[arguments[0]](arguments[1:]) or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
