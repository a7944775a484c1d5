"""What is noted while a cell trains: how far it is, what each reward term pays, the exact share."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback

from rlhf_gym.agents.callbacks import ONLY_TENSORBOARD
from rlhf_gym.core.supervised.common import write_json
from rlhf_gym.pipelines.experiments.cells import PROGRESS
from rlhf_gym.pipelines.experiments.events import JUDGED, CellEvents

LOOKS = 5
"""How often the exact share is computed in a run, which costs as much as a small update."""


class ProgressCallback(BaseCallback):
    """Writes after every rollout how far a cell is, for the table of all processes.

    Args:
        folder: of the cell.
        budget: timesteps in all.
    """

    def __init__(self, folder: Path, budget: int) -> None:
        super().__init__()
        self.folder = folder
        self.budget = budget
        self._gold: float | None = None

    def _on_training_start(self) -> None:
        self._started, self._first = time.monotonic(), self.model.num_timesteps

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        seconds = max(time.monotonic() - self._started, 1e-9)
        self._gold = self.logger.name_to_value.get("reward/gold", self._gold)
        write_json(
            self.folder / PROGRESS,
            {
                "timesteps": self.model.num_timesteps,
                "budget": self.budget,
                "per_second": (self.model.num_timesteps - self._first) / seconds,
                "gold": self._gold,
            },
        )


class TermHistograms(BaseCallback):
    """Logs how each reward term is distributed over the responses of a rollout.

    Means hide what schemes do to a reward: clipping, whitening and penalties change its shape.
    """

    def _on_training_start(self) -> None:
        self._sums: dict[str, list[float]] = defaultdict(list)

    def _on_step(self) -> bool:
        for row in np.flatnonzero(self.locals.get("dones", ())):
            for name, total in self.locals["infos"][row]["reward_terms"].items():
                self._sums[name].append(total)
        return True

    def _on_rollout_end(self) -> None:
        for name, totals in self._sums.items():
            self.logger.record(f"terms/{name}", torch.tensor(totals), exclude=ONLY_TENSORBOARD)
        self._sums.clear()


class ExactShare(BaseCallback):
    """Writes the share of the way to the optimum about `LOOKS` times in a run.

    Args:
        share: gives it, by enumeration.
        events: where it goes.
        budget: timesteps in all.
    """

    def __init__(self, share: Callable[[], float], events: CellEvents, budget: int) -> None:
        super().__init__()
        self.share = share
        self.events = events
        self.budget = budget
        self._looks = -1

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        due = self.model.num_timesteps * LOOKS // self.budget
        if due > self._looks:
            self._looks = due
            self._write()

    def _on_training_end(self) -> None:
        self._write()

    def _write(self) -> None:
        writer, step = self.events.writer, self.model.num_timesteps
        writer.add_scalar(f"{JUDGED}share_so_far", self.share(), step)
        writer.flush()
