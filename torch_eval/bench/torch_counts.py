"""The PyTorch worker of `python -m torch_eval bench device`: what a step of a reference asks for.

    python -m torch_eval.bench.torch_counts CASE official|transformers      (official: in our restatement)

Every operation of PyTorch counts as one kernel that reads its inputs and writes its outputs; a view counts as none. The
tensors are fake, of the right shapes and without values, so that nothing is computed. One JSON object goes to standard
output, with the counts of the second step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from configs.contract.basics import bench_case
from torch_eval.bench import torch_step_worker


class Counter(TorchDispatchMode):
    """Counts the operations inside of its context.

    Attributes:
        counts: As `bench_case.COUNTS` names them, as far as they can be seen here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts = dict.fromkeys(("primitives", "bytes", "product_bytes", "multiplications"), 0)

    def __torch_dispatch__(
        self, operation: Any, types: Any, arguments: tuple = (), keywords: dict | None = None
    ) -> Any:
        """Run one operation and count it."""
        result = operation(*arguments, **(keywords or {}))
        returns = operation._schema.returns
        is_view = any(value.alias_info and not value.alias_info.is_write for value in returns)
        is_view |= operation._overloadpacket is torch.ops.aten._unsafe_view  # says nothing of what it shares
        if is_view or not returns and not operation._schema.is_mutable:
            return result
        size = _bytes(tree_leaves((arguments, keywords))) + _bytes(tree_leaves(result))
        formula = flop_registry.get(operation._overloadpacket)
        products = formula(*arguments, **(keywords or {}), out_val=result) // 2 if formula else 0
        self.counts["primitives"] += 1
        self.counts["bytes"] += size
        self.counts["product_bytes"] += size if products else 0
        self.counts["multiplications"] += products
        return result


def _bytes(values: Iterable[Any]) -> int:
    return sum(math.prod(x.shape) * x.element_size() for x in values if isinstance(x, torch.Tensor))


def count(case: bench_case.StepCase, variant: str) -> dict[str, int]:
    """Count the second step of a case; the first one also makes the state of the optimizer."""
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        patch.object(torch.Tensor, "item", lambda tensor: 1.0),
        patch.object(torch.Tensor, "__bool__", lambda tensor: True),  # asked of masks without padding
        sdpa_kernel(SDPBackend.MATH),
    ):
        official = variant == "official"
        step = torch_step_worker.restated_step(case, False) if official else torch_step_worker.transformers_step(case)
        step()
        with Counter() as counter:
            step()
    return counter.counts


def main() -> None:
    """Count one case."""
    case, (variant,), answers = bench_case.start()
    answers.write(json.dumps(count(case, variant)) + "\n")


if __name__ == "__main__":
    main()
