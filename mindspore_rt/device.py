"""The device that MindSpore computes on."""

from __future__ import annotations

from configs.contract.errors import UserError


def use_device(device: str, jit_level: str = "O0") -> None:
    """Select the device, and join the other workers if there are any.

    Args:
        device: CPU, GPU or Ascend.
        jit_level: How far MindSpore optimises its graphs.

    Raises:
        UserError: The device is not available; the message says what it needs.
    """
    import mindspore as ms

    from mindspore_rt import parallel

    needs = {
        "GPU": "CUDA 11.6 to 11.8 with cuDNN 8",
        "Ascend": "CANN 8.2.RC1 with its driver and firmware",
        "CPU": "a CPU build",
    }
    try:
        ms.set_device(device)
        ms.set_context(mode=ms.GRAPH_MODE, jit_config={"jit_level": jit_level})
        parallel.start()
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"device: {device} is not available here; MindSpore {ms.__version__} needs {needs[device]}; "
            f"it says: {reason}"
        ) from None
