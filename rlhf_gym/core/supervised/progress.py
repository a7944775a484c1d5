"""A progress bar that a person likes to watch, in place of Trainer's printed dictionaries."""

from __future__ import annotations

from typing import Any, Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_SHOWN = {"loss": "loss", "eval_perplexity": "held-out perplexity", "eval_accuracy": "accuracy"}


class StageProgress(TrainerCallback):
    """One line: stage, bar, updates, time gone and left, latest loss and held-out metric.

    Args:
        stage: name at the beginning of the line.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
        )
        self._task = TaskID(0)
        self._metrics: dict[str, str] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Show the bar, already full up to where a resumed run stopped."""
        self._task = self._bar.add_task(
            self._stage, total=state.max_steps, completed=state.global_step, metrics=""
        )
        self._bar.start()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Move on."""
        self._bar.update(self._task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Show the latest numbers."""
        logs = kwargs["logs"]
        self._metrics |= {
            label: f"{label} {logs[name]:.4g}" for name, label in _SHOWN.items() if name in logs
        }
        if self._bar.tasks:
            self._bar.update(self._task, metrics="  ".join(self._metrics.values()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Also after an error or Ctrl-C: an open bar would swallow what is printed next.
        self._bar.stop()
