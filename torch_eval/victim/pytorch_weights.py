"""PyTorch weight files from and to safetensors, without running anything that is in them.

python -m torch_eval.victim.pytorch_weights pytorch_model.bin model.safetensors
python -m torch_eval.victim.pytorch_weights model.safetensors pytorch_model.bin
"""

import sys
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from configs.contract.errors import UserError, command


def unpickle(source: str) -> dict[str, torch.Tensor]:
    """The tensors of a PyTorch weight file, unpickled with weights only."""
    try:
        weights = torch.load(source, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle takes the unpickler anywhere: an empty stack, a key, an attribute
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{source}: not a PyTorch weight file ({reason})") from None
    if not isinstance(weights, dict) or not all(isinstance(w, torch.Tensor) for w in weights.values()):
        raise UserError(f"{source}: not a dictionary of weights")
    return {name: w.contiguous().clone() for name, w in weights.items()}


@command
def main(source: str, target: str) -> int:
    if Path(target).suffix == ".safetensors":
        save_file(unpickle(source), target)
        return 0
    try:
        weights = load_file(source)
    except SafetensorError as error:
        raise UserError(f"{source}: not a whole safetensors file ({error})") from None
    torch.save(weights, target)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
