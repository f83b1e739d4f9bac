"""The device that MindSpore computes on."""

from __future__ import annotations

import os
from pathlib import Path

from configs.contract.basics.errors import UserError
from configs.contract.experiment import schema
from mindspore_rt import launch

NEEDS = {
    "GPU": "CUDA 11.6 to 11.8 with cuDNN 8",
    "Ascend": "CANN 8.2.RC1 with its driver and firmware",
    "CPU": "a CPU build",
}
# The first MindSpore whose oneDNN rounds the inputs of float32 products to bfloat16 when it is asked to.
ROUNDS_ON_CPU = (2, 10)


def use_device(config: schema.Experiment | None = None) -> None:
    """Select the device of an experiment with all its settings, and join the other workers if there are any.

    Args:
        config: Experiment; None for the CPU with the default settings.

    Raises:
        UserError: The device is not available, or cannot compute in the number type; the message says what it needs.
            Or the workers do not meet.
    """
    import mindspore as ms

    from mindspore_rt import parallel

    config = config or schema.Experiment()
    if rounds_products(config):
        _round_products(ms.__version__)
    try:
        ms.set_device(config.device, launch.device_id(config))
        ms.set_context(mode=ms.GRAPH_MODE, jit_config={"jit_level": config.jit_level})
        if config.deterministic:
            ms.set_deterministic(True)
        if config.device_memory:
            ms.runtime.set_memory(max_size=f"{config.device_memory:g}GB")
        if config.tf32 and config.device == "GPU":
            ms.device_context.gpu.op_precision.matmul_allow_tf32(True)
        if config.tf32 and config.device == "Ascend":
            ms.device_context.ascend.op_precision.matmul_allow_hf32(True)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"device: {config.device} is not available here; MindSpore {ms.__version__} needs {NEEDS[config.device]}; "
            f"it says: {_reason(error)}"
        ) from None
    try:
        parallel.start()
    except (RuntimeError, ValueError) as error:
        place = ":".join(os.environ.get(name, "?") for name in ("MS_SCHED_HOST", "MS_SCHED_PORT"))
        raise UserError(
            f"workers: {launch.ranks()} processes did not meet at {place}; look whether the others run, and whether "
            f"master_addr and master_port can be reached from here; MindSpore says: {_reason(error)}"
        ) from None


def _reason(error: Exception) -> str:
    """Return the first line of what MindSpore says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def rounds_products(config: schema.Experiment) -> bool:
    """Tell whether oneDNN rounds the inputs of products, so that the model casts nothing: for bfloat16 on CPU.

    MindSpore's own casts take a pass over each tensor on CPU, and cost more than they save.
    """
    return config.device == "CPU" and config.amp == "bfloat16"


def _round_products(mindspore: str) -> None:
    """Let oneDNN compute the products of this process in bfloat16, and say by which instructions.

    Args:
        mindspore: Version of MindSpore.

    Raises:
        UserError: MindSpore or the processor cannot.
    """
    if tuple(map(int, mindspore.split(".")[:2])) < ROUNDS_ON_CPU:
        raise UserError(
            f"amp_dtype: bfloat16 on CPU needs MindSpore 2.10.0, which requirements.txt takes on Python 3.12; "
            f"this is {mindspore}"
        )
    instructions = next((name for name in ("amx_bf16", "avx512_bf16") if name in _processor()), None)
    if not instructions:
        raise UserError(
            "amp_dtype: bfloat16 on CPU needs a processor with amx_bf16 or avx512_bf16; this one has neither"
        )
    os.environ["ONEDNN_DEFAULT_FPMATH_MODE"] = "BF16"  # oneDNN reads it at its first product
    print(f"products: bfloat16 by {instructions}", flush=True)


def _processor() -> set[str]:
    """Return the features of the processor, as Linux names them."""
    return set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
