"""Runs the code of a checkout of the official repository (github.com/ruizheng20/robust_ticket), unchanged.

Nothing on disk is changed. What today's transformers lacks or does differently is supplied in memory: the AdamW class
that was dropped, and eager attention, without which only 37 of BERT-base's 73 matrices would get a mask. Models and
batches are passed to its `main` functions.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import sys
import tempfile
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from transformers import BertConfig

from configs.contract.basics.errors import UserError
from torch_eval.reference import restatement

MODULES = ("masked_linear", "masked_bert", "utils", "search_ticket", "draw_retrain_ticket")
TorchBatch = tuple[dict[str, Tensor], Tensor]


class Checkout:
    """The repository's modules.

    Args:
        path: Folder of the checkout.

    Raises:
        UserError: The folder is no such checkout.
    """

    def __init__(self, path: Path) -> None:
        path = Path(path).resolve()
        missing = [f"{name}.py" for name in MODULES if not (path / f"{name}.py").is_file()]
        if missing:
            raise UserError(f"official={path}: {missing[0]} is missing; give a checkout of ruizheng20/robust_ticket")
        # It reads data through `datasets`; here batches are passed in, so an empty module is enough.
        stand_in = {"datasets": types.ModuleType("datasets")}
        with (
            # Not `import transformers`: it puts another module in its place while it loads.
            mock.patch.object(sys.modules["transformers"], "AdamW", restatement.AdamW, create=True),
            mock.patch.object(sys, "path", [str(path), *sys.path]),
            mock.patch.dict(sys.modules, stand_in),
            mock.patch.object(sys, "dont_write_bytecode", True),
        ):
            loaded = {name: importlib.import_module(name) for name in MODULES}
        self.masked_bert, self.searching, self.retraining = (loaded[name] for name in (MODULES[1], *MODULES[3:]))
        for module in (self.searching, self.retraining):
            module.logger.setLevel(logging.ERROR)
            vars(module)["tqdm"] = functools.partial(vars(module)["tqdm"], disable=True)

    def model(self, config: BertConfig, block: tuple[int, int] = (1, 1)) -> nn.Module:
        """Return its masked BERT with random weights."""
        config._attn_implementation = "eager"
        return self.masked_bert.MaskedBertForSequenceClassification(config, *block, restatement.MASK_P)

    @staticmethod
    def log_alpha(model: nn.Module) -> dict[str, nn.Parameter]:
        """Return its scores, each (1, rows, 1, columns), by the name of the weight."""
        ending = ".mask.mask_scores"
        return {
            name.removesuffix(ending) + ".weight": p for name, p in model.named_parameters() if name.endswith(ending)
        }

    def search(self, model: nn.Module, batches: Iterable[TorchBatch], total_steps: int, **arguments: Any) -> None:
        """Run its search loop over `batches`, one step each.

        A step is done when the next batch is asked for. `arguments` are its options, such as `adv_steps=3`.
        """
        self._run(self.searching, model, batches, total_steps, arguments)

    def retrain(
        self,
        model: nn.Module,
        masks: dict[str, Tensor],
        batches: Iterable[TorchBatch],
        total_steps: int,
        **arguments: Any,
    ) -> None:
        """Run its retraining loop from the weights of `model`, as `search`.

        `masks` replace its draw, which knows only BERTs of 12 layers.
        """

        def settle(model: nn.Module, masks: dict[str, Tensor]) -> None:
            for name, scores in self.log_alpha(model).items():
                mask = masks[name].to(scores).view_as(scores)
                scores.data = restatement.KEPT * mask + restatement.PRUNED * (1 - mask)

        with (
            mock.patch.object(self.retraining, "draw_ticket_mask", lambda *_: masks),
            mock.patch.object(self.retraining, "init_mask_score", settle),
            contextlib.redirect_stdout(sys.stderr),
        ):
            self._run(self.retraining, model, batches, total_steps, arguments)

    def draw(self, model: nn.Module, sparsity: float) -> dict[str, Tensor]:
        """Return the bool masks that it draws for 12 layers, by the name of the weight; changes the scores."""
        ending = ".mask.mask_scores_mask"
        masks = self.retraining.draw_ticket_mask(model, sparsity)
        return {name.removesuffix(ending) + ".weight": mask.bool()[0, :, 0] for name, mask in masks.items()}

    def _run(
        self,
        module: types.ModuleType,
        model: nn.Module,
        batches: Iterable[TorchBatch],
        total_steps: int,
        arguments: dict[str, Any],
    ) -> None:
        feed = _Feed(batches, total_steps)
        ready = types.SimpleNamespace(from_pretrained=lambda *_, **__: model)
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(sys, "argv", [module.__name__, "--ckpt_dir", folder]),
        ):
            settings = module.parse_args()
            vars(settings).update(arguments, model_name="model", epochs=1, bsz=1)
            state = torch.random.get_rng_state()  # its main seeds torch; noise stays the caller's
            with mock.patch.multiple(
                module,
                MaskedBertForSequenceClassification=ready,
                AutoConfig=ready,
                AutoTokenizer=ready,
                load_data=lambda *_: (range(total_steps), feed, [], []),
                set_seed=lambda _: torch.random.set_rng_state(state),
            ):
                with contextlib.suppress(_Finished):
                    module.main(settings)
            for handler in [h for h in module.logger.handlers if isinstance(h, logging.FileHandler)]:
                handler.close()
                module.logger.removeHandler(handler)


class _Finished(Exception):
    """Ends the official loop after its last step, before it evaluates and saves."""


class _Feed:
    """Replaces its data loader: has the length of the whole training, and ends it after the given batches."""

    def __init__(self, batches: Iterable[TorchBatch], total_steps: int) -> None:
        self.batches, self.total_steps = batches, total_steps

    def __len__(self) -> int:
        return self.total_steps

    def __iter__(self) -> Iterator[TorchBatch]:
        for inputs, labels in self.batches:
            yield inputs, labels[:, None]
        raise _Finished
