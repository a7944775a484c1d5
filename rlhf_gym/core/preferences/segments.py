"""The recent past of N environments side by side, and segments drawn from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.core.feedback import ControlSegment
from rlhf_gym.core.preferences.encoding import Encoding

Floats = NDArray[np.floating]


class SegmentBatch(NamedTuple):
    """n segments of k steps, all arrays of shape (n, k, ...).

    Attributes:
        observations: as `Encoding` keeps them.
        actions: as `Encoding` keeps them.
        gold: what the task's judge makes of each step.
        frames: pictures, where they were recorded.
    """

    observations: NDArray[Any]
    actions: NDArray[Any]
    gold: Floats
    frames: NDArray[np.uint8] | None

    def segment(self, number: int) -> ControlSegment:
        """One of them, to be shown to a rater."""
        return ControlSegment(
            self.observations[number],
            self.actions[number],
            self.gold[number],
            None if self.frames is None else self.frames[number],
        )


class SegmentReplay:
    """A ring of the last transitions of each row.

    A segment is named by its last step: that step's place in its episode says whether the k - 1
    steps before it belong to the same episode, so no list of episodes has to be kept.

    Args:
        encoding: of the environment's spaces.
        num_envs: rows.
        capacity: transitions to keep, of all rows together.

    Raises:
        InvalidArgument: room for less than one step of each row.
    """

    def __init__(self, encoding: Encoding, num_envs: int, capacity: int) -> None:
        slots = capacity // num_envs
        if slots < 1:
            raise InvalidArgument(
                "capacity", capacity, f"no room for a step of {num_envs} rows", "Give more"
            )
        self.encoding = encoding
        self.num_envs = num_envs
        kind = np.uint8 if encoding.is_image else np.float32
        self._observations = np.zeros((slots, num_envs, *encoding.observation_shape), kind)
        self._actions = np.zeros(
            (slots, num_envs, *encoding.action_shape), encoding.action_space.dtype
        )
        self._gold = np.zeros((slots, num_envs))
        self._episode_step = np.zeros((slots, num_envs), np.int64)
        self._frames: NDArray[np.uint8] | None = None
        self._next_step = np.zeros(num_envs, np.int64)
        self._written = 0

    def __len__(self) -> int:
        """Transitions kept now."""
        return self._filled * self.num_envs

    @property
    def _filled(self) -> int:
        return min(self._written, len(self._gold))

    def add(
        self,
        observations: Any,
        actions: Any,
        gold: Floats,
        ended: NDArray[np.bool_],
        frames: NDArray[np.uint8] | None = None,
    ) -> None:
        """Keep one step of every row: `add_encoded` of raw observations and actions.

        Args:
            observations: a batch of the observation space, of an encoding without both ends.
            actions: a batch of the action space.
            gold: see there.
            ended: see there.
            frames: see there.
        """
        kept = self.encoding.observations(observations), self.encoding.actions(actions)
        self.add_encoded(*kept, gold, ended, frames)

    def add_encoded(
        self,
        observations: NDArray[Any],
        actions: NDArray[Any],
        gold: Floats,
        ended: NDArray[np.bool_],
        frames: NDArray[np.uint8] | None = None,
    ) -> None:
        """Keep one step of every row.

        Args:
            observations: what was seen before the step, as `Encoding` keeps it, shape (rows, ...).
            actions: what was done, as `Encoding` keeps it, shape (rows, ...).
            gold: the judge's reward of the step, shape (rows,).
            ended: the step was its episode's last, shape (rows,).
            frames: what the step looked like, shape (rows, height, width, 3), always or never.

        Raises:
            InvalidData: numbers that are not finite; nothing is kept then.
        """
        kept = (("observations", observations), ("actions", actions), ("gold", gold))
        for name, array in kept:
            if not np.isfinite(array).all():
                raise InvalidData(
                    name, array, "not finite numbers", "Look for what the environment divides by"
                )
        slot = self._written % len(self._gold)
        self._observations[slot] = observations
        self._actions[slot] = actions
        self._gold[slot] = gold
        self._episode_step[slot] = self._next_step
        if frames is not None:
            if self._frames is None:
                self._frames = np.zeros((len(self._gold), *frames.shape), np.uint8)
            self._frames[slot] = frames
        self._next_step = np.where(ended, 0, self._next_step + 1)
        self._written += 1

    def interrupt(self) -> None:
        """The environment was reset: the next steps are the first of their episodes."""
        self._next_step[:] = 0

    def recent(self, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Observations and actions of the last transitions, `count` or a few more of all rows.

        Raises:
            InvalidData: there are none.
        """
        if not self._written:
            raise InvalidData("replay", 0, "nothing was recorded", "Act in the environment first")
        steps = min(self._filled, -(-count // self.num_envs))
        slots = np.arange(self._written - steps, self._written) % len(self._gold)
        observations, actions = self._observations[slots], self._actions[slots]
        return (
            observations.reshape(-1, *observations.shape[2:]),
            actions.reshape(-1, *actions.shape[2:]),
        )

    def pairs(self, length: int) -> int:
        """How many pairs of distinct segments there are.

        Raises:
            InvalidArgument: longer than every episode so far.
        """
        ends = len(self._ends(length))
        return ends * (ends - 1) // 2

    def sample_up_to(self, count: int, length: int, rng: np.random.Generator) -> SegmentBatch:
        """Distinct segments, drawn with equal chance; fewer if there are no more.

        Raises:
            InvalidArgument: longer than every episode so far.
        """
        ends = self._ends(length)
        chosen = rng.choice(len(ends), min(count, len(ends)), replace=False)
        return self._segments(ends[chosen], length)

    def sample_pairs(self, count: int, length: int, rng: np.random.Generator) -> SegmentBatch:
        """Distinct pairs of distinct segments; pair i is made of segments 2 i and 2 i + 1.

        Raises:
            InvalidArgument: longer than every episode so far, or fewer pairs than asked for.
        """
        ends = self._ends(length)
        pairs = len(ends) * (len(ends) - 1) // 2
        if count > pairs:
            raise InvalidArgument(
                "labels",
                count,
                f"{len(ends)} segments of {length} steps make {pairs} pairs",
                "Ask for fewer labels, or act longer before asking",
            )
        # Pair number c is (i, j) with j < i and c = i (i - 1) / 2 + j.
        code = rng.choice(pairs, count, replace=False)
        first = ((1 + np.sqrt(1 + 8 * code)) / 2).astype(np.int64)
        members = np.stack([first, code - first * (first - 1) // 2], -1)
        # Which of the two is shown first must not say which is older.
        members = rng.permuted(members, axis=1)
        return self._segments(ends[members.reshape(-1)], length)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs; pictures are left out, their segments were shown already."""
        return {
            "observations": self._observations[: self._filled],
            "actions": self._actions[: self._filled],
            "gold": self._gold[: self._filled],
            "episode_step": self._episode_step[: self._filled],
            "next_step": self._next_step,
            "written": self._written,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` of a replay of the same size gave."""
        self._written = state["written"]
        for name in ("observations", "actions", "gold", "episode_step"):
            getattr(self, f"_{name}")[: self._filled] = state[name]
        self._next_step = np.array(state["next_step"])

    def _ends(self, length: int) -> NDArray[np.int64]:
        """Slot and row of the last step of every whole segment, shape (segments, 2), by age."""
        if length < 1:
            raise InvalidArgument("segment_length", length, "no steps", "Give 1 or more")
        age_order = np.arange(self._written - self._filled, self._written) % len(self._gold)
        in_episode = self._episode_step[age_order] >= length - 1
        # What came before the oldest step kept is overwritten.
        in_episode[: length - 1] = False
        place, row = np.nonzero(in_episode)
        if not len(place):
            longest = int(self._episode_step[: self._filled].max(initial=-1)) + 1
            raise InvalidArgument(
                "segment_length",
                length,
                f"{self._filled} steps of each row are kept, the longest episode has {longest}",
                "Choose shorter segments, or act longer before asking",
            )
        return np.stack([age_order[place], row], -1)

    def _segments(self, ends: NDArray[np.int64], length: int) -> SegmentBatch:
        """Segments by their last steps, shape of `ends` (n, 2)."""
        slots = (ends[:, :1] + np.arange(1 - length, 1)) % len(self._gold)
        rows = ends[:, 1:]
        return SegmentBatch(
            self._observations[slots, rows],
            self._actions[slots, rows],
            self._gold[slots, rows],
            None if self._frames is None else self._frames[slots, rows],
        )
