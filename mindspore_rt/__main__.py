"""python -m mindspore_rt STAGE CONFIG [key=value ...]"""

from __future__ import annotations

import argparse
import os
import sys

os.environ.setdefault("GLOG_v", "3")  # MindSpore's own warnings say nothing a user can act on

from configs import schema  # noqa: E402
from configs.errors import UserError, command  # noqa: E402
from configs.run_dir import RunDir  # noqa: E402

STAGES = {
    "prepare": "write normalised train, dev and test splits",
    "finetune": "fine-tune the pre-trained model",
    "search": "learn the masks of the fine-tuned model on the adversarial loss",
    "draw": "draw tickets at the asked sparsities",
    "retrain": "fine-tune every ticket from the pre-trained weights",
    "run": "all of the above, in order",
}


def parser() -> argparse.ArgumentParser:
    stages = "\n".join(f"  {name:10s} {text}" for name, text in STAGES.items())
    result = argparse.ArgumentParser(
        prog="python -m mindspore_rt",
        description="Find and train robust lottery tickets with MindSpore.",
        epilog=f"stages:\n{stages}\n\nkeys of a configuration, with their defaults:\n{schema.help_text()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("stage", choices=STAGES, metavar="STAGE", help="one of the stages below")
    result.add_argument("config", metavar="CONFIG", help="name of a file in configs/ (demo, sst2 ...), or a YAML file")
    result.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the configuration")
    return result


def use_device(device: str) -> None:
    """Select CPU, GPU or Ascend. Raises `UserError` if it is not there."""
    import mindspore as ms

    try:
        ms.set_device(device)
        ms.set_context(mode=ms.GRAPH_MODE, jit_config={"jit_level": "O0"})
    except (RuntimeError, ValueError):
        needs = {
            "GPU": "CUDA 11.1 or 11.6 with cuDNN 8.0 or 8.5",
            "Ascend": "CANN 8.2.RC1 with its driver and firmware",
            "CPU": "a CPU build",
        }
        raise UserError(
            f"device: {device} is not available here; MindSpore {ms.__version__} needs {needs[device]}"
        ) from None


@command
def main() -> int:
    arguments = parser().parse_args()
    config = schema.load(arguments.config, arguments.overrides)
    use_device(config.device)
    from mindspore_rt import stages

    run = RunDir(config)
    run.save_config()
    if arguments.stage == "run":
        stages.run_all(config, run)
    elif arguments.stage == "prepare":
        stages.prepare(config, run)
    elif arguments.stage == "finetune" or "robust" in config.methods:
        for seed in config.seeds:
            if arguments.stage == "retrain":
                for sparsity in config.sparsities:
                    stages.retrain(config, run, seed, sparsity)
            else:
                getattr(stages, arguments.stage)(config, run, seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
