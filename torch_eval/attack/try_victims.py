"""Load classifiers that are to be attacked, and let each classify a text. The training half asks for it first of all.

python -m torch_eval.attack.try_victims LENGTH COLUMNS FOLDER [FOLDER ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

from configs.contract.errors import UserError, command
from torch_eval.attack import workers
from torch_eval.attack.workers import Target


@command
def main(length: str, columns: str, *folders: str) -> int:
    """Try some classifiers.

    Args:
        length: Word pieces to which inputs are cut.
        columns: Number of texts of an input.
        folders: Hugging Face directories.

    Returns:
        The exit status.
    """
    for folder in folders:
        refusal = workers.inspect(Target(Path(folder), int(length)), [("a text",) * int(columns)]).refusal
        if refusal:
            raise UserError(refusal)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
