"""Live supervision: the page shows what an agent does, the rater rewards or punishes it."""

from __future__ import annotations

import base64
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.error import Error as GymnasiumError
from gymnasium.spaces import Discrete
from numpy.typing import NDArray
from PIL import Image

from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.core.feedback import ControlSegment, Query
from rlhf_gym.core.labels import Rating
from rlhf_gym.core.preferences.encoding import Encoding
from rlhf_gym.core.store import FeedbackStore
from rlhf_gym.core.store.rater_view import revise
from rlhf_gym.envs.control.base import ControlEnv
from rlhf_gym.pipelines.labelling.answers import read_number, read_text
from rlhf_gym.pipelines.labelling.shown import ENVIRONMENT, picture
from rlhf_gym.pipelines.labelling.tamer import TamerAgent, step_ratings

REMEMBERED = 64
"""Steps back that a signal may be about."""
CATCHING_UP = 500
"""Steps of the optimiser when a rater comes back to what they taught before."""


class Step(NamedTuple):
    """What happened in one step.

    Attributes:
        segment: observation, action, and the picture after it.
        provenance: task, episode and step.
    """

    segment: ControlSegment
    provenance: dict[str, Any]


class Lesson:
    """One rater with one agent in one environment.

    Args:
        env_id: the task.
        seed: of the environment and the agent.

    Attributes:
        steps: what may still be rewarded or punished, by number.
        said: the agent's number of the signal about each of these steps.
    """

    def __init__(self, env_id: str, seed: int) -> None:
        self.env_id = env_id
        self.env = make_supervised(env_id)
        self.agent = TamerAgent(
            Encoding(self.env.observation_space, self.env.action_space), seed=seed
        )
        self.lock = threading.Lock()
        self.steps: dict[int, Step] = {}
        self.said: dict[int, int] = {}
        self.count = 0
        self.episode = 0
        self.ended = False
        self._observation = self._kept(self.env.reset(seed=seed)[0])

    def step(self) -> dict[str, Any]:
        """Act once; what the page shows of it."""
        if self.ended:
            self._observation = self._kept(self.env.reset()[0])
            self.episode += 1
        action = self.agent.act(self._observation, self._allowed())
        observation, _, terminated, truncated, _ = self.env.step(action)
        frame = np.asarray(self.env.render(), np.uint8)
        self.count += 1
        self.steps[self.count] = Step(
            ControlSegment(
                self._observation[None],
                self.agent.encoding.actions(np.asarray(action)[None]),
                frames=frame[None],
            ),
            {ENVIRONMENT: self.env_id, "episode": self.episode, "step": self.count},
        )
        self.steps.pop(self.count - REMEMBERED, None)
        self.said.pop(self.count - REMEMBERED, None)
        self._observation = self._kept(observation)
        self.ended = bool(terminated or truncated)
        encoded = base64.b64encode(picture(Image.fromarray(frame))).decode()
        return {
            "step": self.count,
            "episode": self.episode,
            "ended": self.ended,
            "signals": self.agent.signals,
            "picture": f"data:image/webp;base64,{encoded}",
        }

    def learn(self, number: int, value: float) -> None:
        """Learn from what was said of a step; a second thought replaces the first."""
        if number in self.said:
            self.agent.correct(self.said[number], value)
            return
        self.said[number] = self.agent.signals
        segment = self.steps[number].segment
        self.agent.learn(segment.observations, segment.actions, [value])

    def _kept(self, observation: Any) -> NDArray[Any]:
        return kept_observation(self.agent.encoding, observation)

    def _allowed(self) -> NDArray[np.bool_] | None:
        return allowed_actions(self.env)


class Supervision:
    """Lessons of all raters; signals are in the store before the agent learns from them.

    Args:
        path: of the store.
        env_id: the task; it must draw rgb_array.
        seed: of environments and agents.
        timeout: seconds to wait while another process writes to the store.

    Raises:
        InvalidArgument: no such task, or one that cannot be shown.
    """

    def __init__(
        self, path: str | Path, env_id: str, *, seed: int = 0, timeout: float = 5.0
    ) -> None:
        make_supervised(env_id).close()
        self.store = FeedbackStore(path, timeout=timeout)
        self.env_id = env_id
        self.seed = seed
        self._lessons: dict[str, Lesson] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the store and the environments."""
        for lesson in self._lessons.values():
            lesson.env.close()
        self.store.close()

    def step(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The next step of a rater's agent."""
        lesson = self._lesson(_rater(request))
        with lesson.lock:
            return lesson.step()

    def reward(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a signal about a step, then learn from it. A second one replaces the first.

        Raises:
            InvalidData: a step that is not remembered, or a value other than 1 and -1.
        """
        rater = _rater(request)
        lesson = self._lesson(rater)
        number, value = read_number(request.get("step"), "step"), request.get("value")
        if value not in (1, -1):
            raise InvalidData("value", value, "no signal", "Send 1 or -1")
        session = request.get("session")
        with lesson.lock:
            step = lesson.steps.get(number)
            if step is None:
                raise InvalidData("step", number, "too long ago", f"Within {REMEMBERED} steps")
            query = Query((step.segment,), "rating")
            (query_id,) = self.store.add([query], provenance=step.provenance)
            label = revise(
                self.store,
                query_id,
                rater,
                Rating(float(value)),
                session=None if session is None else read_number(session, "session"),
                ticket=read_text(request.get("ticket"), "ticket"),
            )
            lesson.learn(number, float(value))
            return {"label": label, "signals": lesson.agent.signals}

    def _lesson(self, rater: str) -> Lesson:
        with self._lock:
            if rater not in self._lessons:
                lesson = Lesson(self.env_id, self.seed)
                ratings = step_ratings(self.store, self.env_id, rater)
                if ratings:
                    lesson.agent.learn(
                        np.concatenate([segment.observations for segment, _ in ratings]),
                        np.concatenate([segment.actions for segment, _ in ratings]),
                        [value for _, value in ratings],
                        steps=CATCHING_UP,
                    )
                self._lessons[rater] = lesson
            return self._lessons[rater]


def make_supervised(env_id: str) -> gym.Env[Any, Any]:
    """A task that can be shown.

    Raises:
        InvalidArgument: no such task, or it draws no pictures.
    """
    import rlhf_gym  # noqa: F401  registers the tasks

    try:
        env: gym.Env[Any, Any] = gym.make(env_id, render_mode="rgb_array")
        env.reset(seed=0)
        # Some find out only now that what they draw with is not installed.
        drawn = env.render()
    except (GymnasiumError, InvalidArgument, TypeError) as error:
        raise InvalidArgument(
            "supervise", env_id, str(error), "Name a task that draws, such as rlhf_gym/Pizza-v0"
        ) from error
    if not isinstance(drawn, np.ndarray) or drawn.ndim != 3:
        raise InvalidArgument(
            "supervise", env_id, "it draws no pictures", "Name one, such as rlhf_gym/Pizza-v0"
        )
    return env


def kept_observation(encoding: Encoding, observation: Any) -> NDArray[Any]:
    """One observation as `Encoding` keeps it, a copy: an environment may write into its own."""
    batch = (
        {name: np.asarray(part)[None] for name, part in observation.items()}
        if isinstance(observation, Mapping)
        else np.asarray(observation)[None]
    )
    return np.array(encoding.observations(batch)[0])


def allowed_actions(env: gym.Env[Any, Any]) -> NDArray[np.bool_] | None:
    """Which discrete actions are allowed now, shape (actions,); None where all are."""
    task = env.unwrapped
    if isinstance(task, ControlEnv) and isinstance(env.action_space, Discrete):
        return task.action_masks()
    return None


def _rater(request: Mapping[str, Any]) -> str:
    rater = read_text(request.get("rater"), "rater").strip()
    if not rater:
        raise InvalidData("rater", rater, "no name", "Give one")
    return rater
