"""The device that MindSpore computes on."""

from __future__ import annotations

from configs.contract import schema
from configs.contract.errors import UserError
from mindspore_rt import launch

NEEDS = {
    "GPU": "CUDA 11.6 to 11.8 with cuDNN 8",
    "Ascend": "CANN 8.2.RC1 with its driver and firmware",
    "CPU": "a CPU build",
}


def use_device(config: schema.Experiment | None = None) -> None:
    """Select the device of an experiment with all its settings, and join the other workers if there are any.

    Args:
        config: Experiment; None for the CPU with the default settings.

    Raises:
        UserError: The device is not available; the message says what it needs.
    """
    import mindspore as ms

    from mindspore_rt import parallel

    config = config or schema.Experiment()
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
        parallel.start()
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"device: {config.device} is not available here; MindSpore {ms.__version__} needs {NEEDS[config.device]}; "
            f"it says: {reason}"
        ) from None
