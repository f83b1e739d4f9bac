"""Turn a PyTorch weight file into safetensors without running anything that is in it.

    python -m torch_eval.weights pytorch_model.bin model.safetensors
"""

import pickle
import sys

import torch
from safetensors.torch import save_file

from configs.errors import UserError, command


@command
def main() -> int:
    source, target = sys.argv[1:]
    try:
        weights = torch.load(source, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(f"{source}: not a PyTorch weight file ({str(error).splitlines()[0]})") from None
    if not isinstance(weights, dict) or not all(isinstance(w, torch.Tensor) for w in weights.values()):
        raise UserError(f"{source}: not a dictionary of weights")
    save_file({name: w.contiguous().clone() for name, w in weights.items()}, target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
