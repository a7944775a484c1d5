"""What is watched and kept while an agent trains; the first two work with any SB3 agent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    ConvertCallback,
    ProgressBarCallback,
)
from stable_baselines3.common.type_aliases import MaybeCallback

from rlhf_gym.agents.checkpoint import CheckpointCallback
from rlhf_gym.agents.stepping import text_tasks
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.sb3 import required_gamma
from rlhf_gym.rewards.discount import check_gamma

__all__ = [
    "CheckpointCallback",
    "GammaCallback",
    "SampleTableCallback",
    "TextMetricsCallback",
    "TokenProgressBar",
    "default_callbacks",
    "episode_metrics",
]

ONLY_TENSORBOARD = ("stdout", "log", "json", "csv")
"""Log formats that tables are kept out of."""


class TextMetricsCallback(BaseCallback):
    """Logs what a text environment reports about its episodes, with the same tags for every agent.

    Means over the episodes since the log was last written; see docs/metrics.md for the tags.

    Args:
        update_kl: move the environment's KL controller after each rollout. For stock agents; ours
            do it themselves.
    """

    def __init__(self, update_kl: bool = False) -> None:
        super().__init__()
        self.update_kl = update_kl

    def _on_step(self) -> bool:
        # ARS plays inside SB3's `evaluate_policy` and shows callbacks nothing of it.
        for row in np.flatnonzero(self.locals.get("dones", ())):
            for tag, value in episode_metrics(self.locals["infos"][row]).items():
                self.logger.record_mean(tag, value)
        return True

    def _on_rollout_end(self) -> None:
        task = text_tasks(self.training_env)[0]
        if task.kl_coef is not None:
            self.logger.record("kl/coef", task.kl_coef)
        if self.update_kl:
            task.update_kl()


def episode_metrics(info: Mapping[str, Any]) -> dict[str, float]:
    """What one finished episode's info says, by tag."""
    length = float(info["response_length"])
    metrics = {
        "reward/score": info["score"],
        "text/response_length": length,
        "text/stopped": float(info["finish_reason"] == "stop"),
        "text/cut_at_limit": float(info["finish_reason"] == "length"),
        "kl/known": float(info["kl_known"]),
    }
    metrics |= {f"reward/{name}": total for name, total in info["reward_terms"].items()}
    if "gold_reward" in info:
        metrics["reward/gold"] = info["gold_reward"]
    if "kl" in info:
        metrics["kl/reference"] = info["kl"]
        metrics["kl/reference_per_token"] = info["kl"] / length
    return {tag: float(value) for tag, value in metrics.items()}


class SampleTableCallback(BaseCallback):
    """Shows what the policy writes: a table in TensorBoard, and JSON lines in a folder.

    Args:
        every: rollouts between two tables.
        rows: episodes per table, the first of the rollout to end.
        folder: where `samples-<timesteps>.jsonl` goes; None writes none.
    """

    def __init__(self, every: int = 10, rows: int = 8, folder: str | Path | None = None) -> None:
        super().__init__()
        for name, value in (("every", every), ("rows", rows)):
            if value < 1:
                raise InvalidArgument(name, value, "nothing would be shown", "Give at least 1")
        self.every = every
        self.rows = rows
        self.folder = None if folder is None else Path(folder)
        self._rollouts = 0
        self._samples: list[dict[str, Any]] = []

    def _on_rollout_start(self) -> None:
        self._samples = []

    def _on_step(self) -> bool:
        if self._rollouts % self.every == 0:
            for row in np.flatnonzero(self.locals["dones"]):
                if len(self._samples) < self.rows:
                    self._samples.append(self._sample(self.locals["infos"][row]))
        return True

    def _on_rollout_end(self) -> None:
        self._rollouts += 1
        if not self._samples:
            return
        self.logger.record("text/samples", _markdown(self._samples), exclude=ONLY_TENSORBOARD)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            lines = "".join(json.dumps(sample) + "\n" for sample in self._samples)
            path = self.folder / f"samples-{self.model.num_timesteps:09d}.jsonl"
            path.write_text(lines, encoding="utf-8")

    def _sample(self, info: Mapping[str, Any]) -> dict[str, Any]:
        task = text_tasks(self.training_env)[0]
        last = info["terminal_observation"]
        ids, mask = last["input_ids"], last["attention_mask"].astype(bool)
        width = task.prompt_width

        def text(part: slice) -> str:
            kept = ids[part][mask[part]]
            return str(task.tokenizer.decode(kept, skip_special_tokens=True))

        numbers = {"score": info["score"], "gold": info.get("gold_reward"), "kl": info.get("kl")}
        return {
            "prompt": text(slice(0, width)),
            "response": text(slice(width, None)),
            **{name: float(value) for name, value in numbers.items() if value is not None},
            "finish_reason": str(info["finish_reason"]),
        }


class TokenProgressBar(ProgressBarCallback):
    """SB3's progress bar, counting the tokens that were written instead of rows times steps."""

    def _on_step(self) -> bool:
        done = self.model.num_timesteps - self.model._num_timesteps_at_start
        self.pbar.update(min(done, self.pbar.total or done) - self.pbar.n)
        return True


class GammaCallback(BaseCallback):
    """Refuses to learn if the reward is shaped for another discount than the agent's.

    For stock agents: ours compare by themselves. An agent without a discount counts as 1.

    Raises:
        InvalidArgument: at the start of `learn`, before a step is taken.
    """

    def _on_training_start(self) -> None:
        gamma = float(vars(self.model).get("gamma", 1.0))
        remedy = f"Give {type(self.model).__name__} and the shaping the same gamma"
        check_gamma(required_gamma(self.training_env), gamma, remedy)

    def _on_step(self) -> bool:
        return True


def default_callbacks(callback: MaybeCallback, progress_bar: bool) -> CallbackList:
    """The user's callbacks, and those every agent of ours has unless the user brought them."""
    if callback is None:
        given: list[BaseCallback] = []
    elif isinstance(callback, CallbackList):
        given = list(callback.callbacks)
    elif isinstance(callback, list):
        given = list(callback)
    else:
        given = [callback if isinstance(callback, BaseCallback) else ConvertCallback(callback)]
    for kind in (TextMetricsCallback, SampleTableCallback):
        if not any(isinstance(one, kind) for one in given):
            given.append(kind())
    if progress_bar:
        given.append(TokenProgressBar())
    return CallbackList(given)


def _markdown(samples: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for sample in samples for name in sample))
    lines = [columns, ["---"] * len(columns)]
    for sample in samples:
        cells = [sample.get(name, "") for name in columns]
        lines.append([f"{c:.3f}" if isinstance(c, float) else _cell(str(c)) for c in cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
