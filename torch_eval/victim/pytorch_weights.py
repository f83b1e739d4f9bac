"""PyTorch weight files from and to safetensors, without running anything that is in them.

python -m torch_eval.victim.pytorch_weights pytorch_model.bin model.safetensors
python -m torch_eval.victim.pytorch_weights model.safetensors pytorch_model.bin
"""

import sys
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from configs.contract.basics.errors import UserError, command, first_reason

NESTED = ("state_dict", "model_state_dict", "model", "module")
REMEDY = "save the model with torch.save(model.state_dict(), FILE)"


def unpickle(source: str) -> dict[str, torch.Tensor]:
    """Read the tensors of a PyTorch weight file, which may be inside a dictionary of training state.

    Args:
        source: The file; it is unpickled with weights only, so nothing in it is run.

    Returns:
        Contiguous tensors under the file's own names.

    Raises:
        UserError: The file is damaged, or is more than weights.
    """
    try:
        weights = torch.load(source, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle takes the unpickler anywhere: an empty stack, a key, an attribute
        raise UserError(f"{source}: not a PyTorch weight file ({first_reason(error)}); {REMEDY}") from None
    # A checkpoint of a training holds the weights beside the optimizer's state.
    weights = next((weights[key] for key in NESTED if isinstance(weights, dict) and key in weights), weights)
    if not isinstance(weights, dict) or not all(isinstance(w, torch.Tensor) for w in weights.values()):
        raise UserError(f"{source}: not a dictionary of weights; {REMEDY}")
    for name, w in weights.items():
        if not isinstance(name, str) or w.layout is not torch.strided or w.is_quantized or w.is_meta:
            raise UserError(
                f"{source}: {name!r:.80} is no name of a dense weight: it is a number, or the weight is sparse, "
                "quantized or without data; convert it with to_dense() or dequantize(), and save the model again"
            )
    return {name: w.contiguous().clone() for name, w in weights.items()}


@command
def main(source: str, target: str) -> int:
    """Convert one file; returns the exit status."""
    if Path(target).suffix == ".safetensors":
        save_file(unpickle(source), target)
        return 0
    try:
        weights = load_file(source)
    except SafetensorError as error:
        raise UserError(f"{source}: not a complete safetensors file ({error})") from None
    torch.save(weights, target)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
