"""Whoever answers queries: one interface, and six synthetic teachers behind it.

A teacher knows the true reward and answers as a rater of some weakness would. The six are those of
B-Pref, carried over from pairs to every question a query may ask.

Source: Lee et al. (2021), "B-Pref: Benchmarking Preference-Based Reinforcement Learning", section
4.1; order of the decisions as in its code (rll-research/BPref, reward_model.py, get_label).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.core.errors import InvalidArgument, InvalidReward
from rlhf_gym.core.feedback import ControlSegment, Query, Segment, TextSegment
from rlhf_gym.core.labels import Best, Label, Likert, Ranking, Rating, Skip, Thumb

Floats = NDArray[np.float64]

SegmentRewards = Callable[[Sequence[Segment]], Sequence[Floats]]
"""True rewards of each step of each segment, one array of shape (steps,) per segment."""


class Labeler(Protocol):
    """Answers queries.

    Attributes:
        name: who it is, for provenance.
    """

    name: str

    def label(self, queries: Sequence[Query]) -> list[Label]:
        """One label per query, in order."""


@dataclass(frozen=True)
class TeacherConfig:
    """How a synthetic teacher departs from perfection; the defaults do not.

    A segment's return is the sum of its true rewards. Its utility is the same with earlier steps
    discounted: sum over t of discount^(last - t) r_t.

    Attributes:
        rationality: answers follow Bradley-Terry (rankings Plackett-Luce, levels the ordinal model)
            with utilities times this number; infinite for a teacher that never errs by chance.
        discount: below 1 for a myopic teacher, to whom the last steps matter most.
        mistakes: probability of the wrong answer: two neighbours of a ranking swapped, the
            second best named best, a thumb turned, a level missed by one.
        skip_below: a query is skipped if no segment's return reaches this.
        equal_within: a ranking is a tie if no two returns differ by more than this.
        cuts: utilities at which one level ends and the next begins; the middle one cuts thumbs.
    """

    rationality: float = math.inf
    discount: float = 1.0
    mistakes: float = 0.0
    skip_below: float = -math.inf
    equal_within: float = 0.0
    cuts: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        ascending = len(self.cuts) > 0 and all(a < b for a, b in pairwise(self.cuts))
        for field, fits, expected in (
            ("rationality", self.rationality > 0, "a number above 0"),
            ("discount", 0 < self.discount <= 1, "a number above 0, at most 1"),
            ("mistakes", 0 <= self.mistakes <= 1, "a probability"),
            ("skip_below", not math.isnan(self.skip_below), "a number"),
            ("equal_within", self.equal_within >= 0, "a number of 0 or more"),
            ("cuts", ascending, "one or more ascending numbers"),
        ):
            if not fits:
                raise InvalidArgument(
                    field, getattr(self, field), f"not {expected}", f"Give {expected}"
                )


class Teacher:
    """A synthetic rater.

    Args:
        rewards: the true rewards; asked once per call of `label`, with all segments.
        config: its weaknesses.
        seed: of its own generator.
        name: who it is, for provenance.
    """

    def __init__(
        self, rewards: SegmentRewards, config: TeacherConfig, *, seed: int, name: str
    ) -> None:
        self.rewards = rewards
        self.config = config
        self.name = name
        self._rng = np.random.default_rng(seed)

    def label(self, queries: Sequence[Query]) -> list[Label]:
        """Answer each query.

        Raises:
            InvalidReward: true rewards that are not one finite array per segment.
            InvalidArgument: a question that no score answers (choice, edit, demonstration, review),
                or a Likert scale that does not have one level more than there are cuts.
        """
        for query in queries:
            self._check(query)
        segments = [segment for query in queries for segment in query.segments]
        rewards = iter(_checked(self.rewards(segments), len(segments)))
        return [self._answer(query, [next(rewards) for _ in query.segments]) for query in queries]

    def state_dict(self) -> dict[str, Any]:
        """State of the generator, for an exact resume."""
        return {"generator": self._rng.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self._rng.bit_generator.state = state["generator"]

    def _check(self, query: Query) -> None:
        if query.question in ("choice", "edit", "demonstration", "review"):
            raise InvalidArgument(
                "question",
                query.question,
                f"the teacher {self.name!r} scores, it neither reads nor writes",
                "Ask for a ranking, best, thumb, likert or rating",
            )
        if query.question == "likert" and query.levels != len(self.config.cuts) + 1:
            raise InvalidArgument(
                "cuts",
                self.config.cuts,
                f"they do not make the query's {query.levels} levels",
                f"Give {query.levels - 1} cuts",
            )

    def _answer(self, query: Query, rewards: Sequence[Floats]) -> Label:
        returns = np.array([steps.sum() for steps in rewards])
        utilities = np.array([self._utility(steps) for steps in rewards])
        if returns.max() < self.config.skip_below:
            return Skip("none is good enough")
        if len(returns) == 1:
            return self._judge(query, utilities[0])
        # Gumbel noise makes a sorted order a draw from Plackett-Luce, and of two Bradley-Terry.
        order = np.argsort(-(utilities + self._noise(len(utilities), gumbel=True)), kind="stable")
        if self._rng.random() < self.config.mistakes:
            _swap(order, 0 if query.question == "best" else int(self._rng.integers(len(order) - 1)))
        if query.question == "best":
            return Best(int(order[0]))
        tie = bool(np.ptp(returns) <= self.config.equal_within)
        return Ranking(tuple(order.tolist()), tie)

    def _judge(self, query: Query, utility: float) -> Label:
        """Thumb, level or rating of one segment."""
        perceived = utility + self._noise(1, gumbel=False)[0]
        mistaken = bool(self._rng.random() < self.config.mistakes)
        cuts = self.config.cuts
        if query.question == "rating":
            # There is no wrong number, only an imprecise one.
            return Rating(float(perceived))
        if query.question == "thumb":
            return Thumb(bool(perceived > cuts[len(cuts) // 2]) != mistaken)
        level = int(np.sum(perceived > np.array(cuts)))
        if mistaken:
            level += 1 if level == 0 or (level < len(cuts) and self._rng.random() < 0.5) else -1
        return Likert(level)

    def _utility(self, steps: Floats) -> float:
        weights = self.config.discount ** np.arange(len(steps) - 1, -1, -1)
        return float(weights @ steps)

    def _noise(self, count: int, *, gumbel: bool) -> Floats:
        """What chance adds to utilities, shape (count,); nothing for a rational teacher."""
        if math.isinf(self.config.rationality):
            return np.zeros(count)
        draw = self._rng.gumbel if gumbel else self._rng.logistic
        return draw(size=count) / self.config.rationality


TEACHERS: Mapping[str, TeacherConfig] = {
    "oracle": TeacherConfig(),
    "mistake": TeacherConfig(mistakes=0.1),
    "stochastic": TeacherConfig(rationality=1.0),
    "skip": TeacherConfig(skip_below=0.1),
    "myopic": TeacherConfig(discount=0.9),
    "equal": TeacherConfig(equal_within=0.1),
}
"""The six of B-Pref with its parameters, for segments whose typical return is 1."""

MODEL = "model"
"""Name of a language model as a labeler; `rlhf_gym.core.ai_config` says which one."""


def make_teacher(name: str, rewards: SegmentRewards, *, seed: int, scale: float = 1.0) -> Teacher:
    """One of the six by name.

    Args:
        name: a key of `TEACHERS`.
        rewards: the true rewards.
        seed: of the teacher's own generator.
        scale: typical return of a segment; thresholds grow and rationality shrinks with it, so
            that a teacher is the same whatever unit the reward is in.

    Raises:
        InvalidArgument: no teacher of that name, or a scale that is not above 0.
    """
    if name not in TEACHERS:
        raise InvalidArgument(
            "labeler", name, "no such teacher", f"Choose one of {', '.join(TEACHERS)}"
        )
    if not (math.isfinite(scale) and scale > 0):
        raise InvalidArgument("scale", scale, "not a number above 0", "Give a number above 0")
    config = TEACHERS[name]
    config = replace(
        config,
        rationality=config.rationality / scale,
        skip_below=config.skip_below * scale,
        equal_within=config.equal_within * scale,
    )
    return Teacher(rewards, config, seed=seed, name=name)


def text_rewards(function: Callable[[list[str], list[str]], Sequence[float]]) -> SegmentRewards:
    """True rewards of text segments: one score each, from `(prompts, completions) -> scores`."""

    def rewards(segments: Sequence[Segment]) -> list[Floats]:
        texts = [segment for segment in segments if isinstance(segment, TextSegment)]
        if len(texts) < len(segments):
            raise InvalidArgument(
                "segments", "control", "a function of texts cannot score it", "Pass text segments"
            )
        scores = function([text.prompt for text in texts], [text.completion for text in texts])
        return [np.array([score], dtype=np.float64) for score in scores]

    return rewards


def recorded_rewards(segments: Sequence[Segment]) -> list[Floats]:
    """True rewards of control segments: those recorded with them."""
    rewards = []
    for segment in segments:
        if not isinstance(segment, ControlSegment) or segment.rewards is None:
            raise InvalidArgument(
                "segments", type(segment).__name__, "no rewards in it", "Record the task's rewards"
            )
        rewards.append(np.asarray(segment.rewards, dtype=np.float64))
    return rewards


def _checked(rewards: Sequence[Floats], count: int) -> Sequence[Floats]:
    if len(rewards) != count:
        raise InvalidReward(
            "rewards", len(rewards), f"for {count} segments", "Return one array per segment"
        )
    for steps in rewards:
        if steps.ndim != 1 or not len(steps) or not np.isfinite(steps).all():
            raise InvalidReward(
                "rewards", steps, "not finite numbers of shape (steps,)", "Return one per step"
            )
    return rewards


def _swap(order: NDArray[np.intp], place: int) -> None:
    order[[place, place + 1]] = order[[place + 1, place]]
