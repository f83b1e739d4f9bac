"""Command line of the scoring half.

    python -m torch_eval setup                          make what the attacks need, once
    python -m torch_eval attack CONFIG [key=value ...]  score the victims of an experiment
    python -m torch_eval report CONFIG [key=value ...]  tables and figures
"""

from __future__ import annotations

import os
import sys

from configs.errors import UserError, command

# Nothing here or below may touch the network; only `python -m configs.assets` does.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")


def setup(arguments: list[str]) -> int:
    if arguments:
        raise UserError("setup takes no arguments")
    from torch_eval import packaged

    done = (packaged.mlm_folder() / "mlm.json").is_file()
    if not done:
        from torch_eval.packaged import build_mlm

        build_mlm.build()
    facts = packaged.mlm_facts()
    print(
        f"masked language model {'is there already' if done else 'made'}: top-1 {facts['top1']:.1%} on hidden "
        f"pieces of unseen snippets, {facts['seconds']:.0f} s of training"
    )
    return 0


def attack(arguments: list[str]) -> int:
    from torch_eval.attack import main

    return main(arguments)


def report(arguments: list[str]) -> int:
    from torch_eval.report import main

    return main(arguments)


COMMANDS = {"setup": setup, "attack": attack, "report": report}


@command
def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        from configs import schema

        print(f"{__doc__}\nKeys of an experiment:\n\n{schema.help_text()}")
        return 0
    if arguments[0] not in COMMANDS:
        raise UserError(f"no sub-command `{arguments[0]}`: give one of {', '.join(COMMANDS)}")
    return COMMANDS[arguments[0]](arguments[1:]) or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
