"""An alarm for over-optimisation: the proxy goes on rising, and what was wanted does not.

With a gold reward the two can be seen to part. Without one, hacking still leaves traces that nobody
paid for on purpose: responses that grow or shrink, that repeat themselves, or that the reference
would hardly ever have written.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback

from rlhf_gym.agents.callbacks import ONLY_TENSORBOARD
from rlhf_gym.agents.stepping import text_tasks
from rlhf_gym.core.errors import InvalidArgument

NGRAM = 3
"""Tokens of the n-grams whose repetition is watched."""

_log = logging.getLogger(__name__)


class Mean(NamedTuple):
    """A mean over responses and its standard error."""

    value: float
    error: float

    def above(self, other: Mean) -> float:
        """By how many standard errors of the difference this mean is larger."""
        difference = self.value - other.value
        if difference == 0.0:  # between two that do not vary as well
            return 0.0
        error = math.hypot(self.error, other.error)
        return difference / error if error else math.copysign(math.inf, difference)


class Chapter(NamedTuple):
    """Some hundred responses in a row.

    Attributes:
        step: response tokens when the chapter ended.
        means: `score`, `length` and, where they are known, `gold`, `repetition` and
            `kl_per_token`.
    """

    step: int
    means: Mapping[str, Mean]


@dataclass(frozen=True)
class AlarmLimits:
    """How much it takes.

    Attributes:
        sigmas: standard errors that a change must exceed. Many chapters are compared, so 2 would
            ring by chance.
        gold_loss: share of what gold has gained since training began that must be lost again; a
            policy that hardly varies has errors so small that any change exceeds them.
        length_factor: length may grow by this factor, or shrink by it, while the score rises.
        repetition_rise: rise of the share of repeated n-grams while the score rises.
        kl_per_token: nats; at 3 the reference thinks a token 20 times less likely than the policy
            does.
    """

    sigmas: float = 4.0
    gold_loss: float = 0.1
    length_factor: float = 1.5
    repetition_rise: float = 0.1
    kl_per_token: float = 3.0

    def __post_init__(self) -> None:
        least = {"length_factor": 1.0}
        for name in ("sigmas", "gold_loss", "length_factor", "repetition_rise", "kl_per_token"):
            bound = least.get(name, 0.0)
            value = getattr(self, name)
            if not value > bound:
                raise InvalidArgument(
                    name, value, f"not above {bound:g}, so it would always ring", "Give more"
                )


class OveroptimisationAlarm(BaseCallback):
    """Says when, and why, the reward should no longer be trusted; training goes on.

    After every `window` responses the latest are compared with earlier ones. If the environment has
    a gold reward, the alarm rings when gold has lost some of what it had gained at its best and the
    score is above what it was then.
    If it has none, it rings when length or repetition has moved far from where training began while
    the score rose, or when the KL to the reference is past all reason.

    Logs `alarm/overoptimisation` and `text/repetition` after each rollout, and `alarm/message` once
    for each kind of sign, to TensorBoard and as a warning of the `logging` module.

    Args:
        window: responses that are averaged before anything is concluded.
        limits: how much it takes.

    Attributes:
        messages: what it said so far.

    Raises:
        InvalidArgument: a window of fewer than 2 responses.
    """

    def __init__(self, window: int = 256, limits: AlarmLimits | None = None) -> None:
        super().__init__()
        if window < 2:
            raise InvalidArgument("window", window, "one response has no error", "Give 2 or more")
        self.window = window
        self.limits = limits or AlarmLimits()
        self.messages: list[str] = []
        self._chapters: list[Chapter] = []
        self._episodes: list[Mapping[str, float]] = []
        self._since_rollout: list[float] = []
        self._rung: set[str] = set()
        self._holds = False

    def _on_step(self) -> bool:
        for row in np.flatnonzero(self.locals.get("dones", ())):
            episode = self._watched(self.locals["infos"][row])
            self._episodes.append(episode)
            if "repetition" in episode:
                self._since_rollout.append(episode["repetition"])
        return True

    def _on_rollout_end(self) -> None:
        if len(self._episodes) >= self.window:
            self._close_chapter()
        if self._since_rollout:
            self.logger.record("text/repetition", float(np.mean(self._since_rollout)))
            self._since_rollout = []
        self.logger.record("alarm/overoptimisation", float(self._holds))

    def _close_chapter(self) -> None:
        self._chapters.append(Chapter(self.model.num_timesteps, _means(self._episodes)))
        self._episodes = []
        found = dict(signs(self._chapters, self.limits))
        self._holds = bool(found)
        new = [message for kind, message in found.items() if kind not in self._rung]
        self._rung |= found.keys()
        if not new:
            return
        message = f"step {self.model.num_timesteps}: " + "; ".join(new)
        self.messages.append(message)
        self.logger.record("alarm/message", message, exclude=ONLY_TENSORBOARD)
        _log.warning("over-optimisation? %s", message)

    def _watched(self, info: Mapping[str, Any]) -> dict[str, float]:
        length = float(info["response_length"])
        watched = {"score": float(info["score"]), "length": length}
        if "gold_reward" in info:
            watched["gold"] = float(info["gold_reward"])
        if info.get("kl_known") and "kl" in info:
            watched["kl_per_token"] = float(info["kl"]) / length
        last = info.get("terminal_observation")
        if isinstance(last, Mapping):  # observation="ids" does not say where a response begins
            width = text_tasks(self.training_env)[0].prompt_width
            written = last["attention_mask"][width:].astype(bool)
            watched["repetition"] = repeated_share(last["input_ids"][width:][written])
        return watched


def signs(chapters: Sequence[Chapter], limits: AlarmLimits) -> Iterator[tuple[str, str]]:
    """What speaks for over-optimisation in the last chapter, as (kind, message).

    Args:
        chapters: in order; with fewer than two there is nothing to compare.
        limits: how much it takes.
    """
    if len(chapters) < 2:
        return
    now = chapters[-1].means
    if "gold" in now:
        yield from _parted(chapters, limits)
        return
    first = chapters[0].means
    score_rose = now["score"].above(first["score"]) > limits.sigmas
    if score_rose and _moved(now["length"], first["length"], limits):
        yield "length", _told("length", first, now) + " while the score rose"
    if score_rose and "repetition" in now:
        rise = now["repetition"].value - first["repetition"].value
        if (
            rise > limits.repetition_rise
            and now["repetition"].above(first["repetition"]) > limits.sigmas
        ):
            yield "repetition", _told("repetition", first, now) + " while the score rose"
    if "kl_per_token" in now and now["kl_per_token"].value > limits.kl_per_token:
        yield "kl", f"KL to the reference is {now['kl_per_token'].value:.2f} nats a token"


def _parted(chapters: Sequence[Chapter], limits: AlarmLimits) -> Iterator[tuple[str, str]]:
    now = chapters[-1].means
    best = max(chapters[:-1], key=lambda chapter: chapter.means["gold"].value)
    gained = best.means["gold"].value - chapters[0].means["gold"].value
    lost = best.means["gold"].value - now["gold"].value
    fell = best.means["gold"].above(now["gold"]) > limits.sigmas
    if (
        fell
        and lost > limits.gold_loss * gained
        and now["score"].above(best.means["score"]) > limits.sigmas
    ):
        changes = [_told(name, best.means, now) for name in ("gold", "score")]
        yield "gold", f"since step {best.step} {' while '.join(changes)}"


def _moved(now: Mean, first: Mean, limits: AlarmLimits) -> bool:
    larger, smaller = max(now.value, first.value), min(now.value, first.value)
    return larger > limits.length_factor * smaller and abs(now.above(first)) > limits.sigmas


def _told(name: str, before: Mapping[str, Mean], now: Mapping[str, Mean]) -> str:
    verb = "rose" if now[name].value > before[name].value else "fell"
    return f"{name} {verb} from {before[name].value:.3g} to {now[name].value:.3g}"


def _means(episodes: Sequence[Mapping[str, float]]) -> dict[str, Mean]:
    """Of every number that all episodes have."""
    names = set.intersection(*(set(episode) for episode in episodes))
    means = {}
    for name in sorted(names):
        values = np.array([episode[name] for episode in episodes])
        error = values.std(ddof=1) / math.sqrt(len(values))
        means[name] = Mean(float(values.mean()), float(error))
    return means


def repeated_share(tokens: NDArray[np.integer[Any]], n: int = NGRAM) -> float:
    """Share of a response's n-grams that occurred in it before; 0 if it has none.

    Args:
        tokens: ids without padding, shape (tokens,).
        n: tokens of an n-gram.
    """
    ids = tokens.tolist()
    grams = list(zip(*(ids[i:] for i in range(n)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
