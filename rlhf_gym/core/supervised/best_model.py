"""The best parameters of a run so far, on disk, so that a resumed run still has them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open
from safetensors.torch import load_model, save_model

from rlhf_gym.core.supervised.common import CHECKPOINTS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FILE = "best.safetensors"


class BestModel:
    """Keeps the parameters with the lowest validation loss among the checkpoints of a run.

    Args:
        folder: output folder of the run; what is found there is gone on with.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / CHECKPOINTS / FILE
        self._loss = math.inf
        if self._file.is_file():
            with safe_open(self._file, "pt") as saved:
                self._loss = float(saved.metadata()["loss"])

    def offer(self, model: PreTrainedModel, loss: float) -> None:
        """Keep these parameters if no earlier ones had as low a loss."""
        if not loss < self._loss:
            return
        self._loss = loss
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(".partial")
        save_model(model, str(partial), metadata={"loss": repr(loss)})
        partial.replace(self._file)

    def restore(self, model: PreTrainedModel) -> None:
        """Give the model the best parameters back, if any were offered."""
        if self._file.is_file():
            load_model(model, self._file, device=str(model.device))
