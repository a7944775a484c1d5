"""What one cell writes to TensorBoard: its events in its own folder, as one session of a group."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import HParam, KVWriter, Logger, TensorBoardOutputFormat
from tensorboard.plugins.hparams import summary_v2 as hparams
from torch.utils.tensorboard import SummaryWriter

from rlhf_gym.rewards.schemes import Scheme

JUDGED = "judged/"
"""Before the metrics by which schemes are compared."""


class CellEvents(TensorBoardOutputFormat):
    """Events that lie where the cell lies, without what an interrupted run wrote too far.

    The agent's own table of hyperparameters is left out: cells have one of the experiment's, in
    which seeds are sessions of one group.

    Args:
        folder: of the cell.
        after: timesteps of the checkpoint that the run goes on from; events behind it are void.
    """

    def __init__(self, folder: Path, after: int | None = None) -> None:
        # Not SB3's: its writer knows no purge.
        purge = None if after is None else after + 1
        self.writer = SummaryWriter(log_dir=str(folder), purge_step=purge)
        self._is_closed = False
        self._folder = str(folder)

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Write all but hyperparameters."""
        kept = {name: value for name, value in key_values.items() if not isinstance(value, HParam)}
        super().write(kept, {name: key_excluded[name] for name in kept}, step)

    def logger(self) -> Logger:
        """An SB3 logger that writes here and nowhere else."""
        formats: list[KVWriter] = [self]
        return Logger(folder=self._folder, output_formats=formats)


def session(settings: Mapping[str, Any], scheme: Scheme) -> dict[str, Any]:
    """What the HPARAMS tab says of a run: what differs between groups, and what they share.

    Args:
        settings: of the experiment.
        scheme: the group.
    """
    return {
        "scheme": scheme.name,
        "reward": scheme.expression,
        "agent": settings["agent"],
        "env": settings["environment.model"] or settings["environment.env"],
        "budget": settings["budget"],
    }


def write_session(
    writer: SummaryWriter, group: str, settings: Mapping[str, Any], metrics: Mapping[str, float]
) -> None:
    """Settings and metrics of a cell for the HPARAMS tab.

    Args:
        writer: of the cell's folder.
        group: the scheme: sessions of one group make one line, their metrics averaged.
        settings: equal for all cells of the group.
        metrics: by name.
    """
    shown = {name: value for name, value in settings.items() if value is not None}
    file = writer.file_writer
    assert file is not None
    file.add_summary(hparams.hparams_pb(shown, trial_id=group))
    for name, value in metrics.items():
        writer.add_scalar(f"{JUDGED}{name}", value, 0)
    writer.flush()


def remove_events(folder: Path) -> None:
    """Delete the events that lie in a folder itself, for a run that begins anew."""
    for path in folder.glob("events.out.tfevents.*"):
        path.unlink(missing_ok=True)
