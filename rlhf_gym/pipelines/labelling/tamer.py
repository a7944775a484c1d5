"""An agent that is taught step by step: it does what it expects to be praised for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Discrete
from numpy.typing import NDArray

from rlhf_gym.core.errors import InvalidData
from rlhf_gym.core.feedback import ControlSegment
from rlhf_gym.core.labels import Rating
from rlhf_gym.core.preferences.encoding import Encoding
from rlhf_gym.core.preferences.reward_net import RewardEnsemble
from rlhf_gym.core.store import Feedback, FeedbackStore
from rlhf_gym.pipelines.labelling.shown import ENVIRONMENT

CANDIDATES = 64
"""Actions to choose between where there are infinitely many."""
BATCH, STEPS, LEARNING_RATE = 64, 20, 1e-3
"""Of the regression after each signal."""


class TamerAgent:
    """Predicts what a trainer will say of an action, by regression, and acts greedily on it.

    A trainer's signal already looks ahead, so the agent does not discount or bootstrap: of the
    actions it may take it takes the one with the highest predicted signal.

    Source: Knox and Stone (2009), "Interactively Shaping Agents via Human Reinforcement: The TAMER
    Framework", algorithm 1; here the predictor is a small network, and a share of the actions is
    random so that a trainer sees something new.

    Args:
        encoding: of the task's spaces.
        seed: of the network's beginning, of what is replayed and of the random actions.
        exploration: share of random actions.

    Attributes:
        model: the predictor; `rlhf_gym.rewards.learned.LearnedReward(agent.model)` pays any other
            agent by it.
        signals: how many it was given.
    """

    def __init__(self, encoding: Encoding, *, seed: int = 0, exploration: float = 0.1) -> None:
        self.encoding = encoding
        self.exploration = exploration
        self.model = RewardEnsemble(encoding, members=1, seed=seed)
        self._optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)
        self._rng = np.random.default_rng(seed)
        self._observations: list[NDArray[Any]] = []
        self._actions: list[NDArray[Any]] = []
        self._values: list[float] = []

    @property
    def signals(self) -> int:
        """How many signals it was given."""
        return len(self._values)

    def act(self, observation: NDArray[Any], allowed: NDArray[np.bool_] | None) -> Any:
        """An action of the task's space.

        Args:
            observation: as `Encoding` keeps it.
            allowed: which discrete actions there are, shape (actions,); None for all.
        """
        candidates = self._candidates(allowed)
        if not self.signals or self._rng.random() < self.exploration:
            return candidates[self._rng.integers(len(candidates))]
        seen = np.repeat(observation[None], len(candidates), axis=0)
        return candidates[int(self.model.rewards(seen, candidates).argmax())]

    def learn(
        self,
        observations: NDArray[Any],
        actions: NDArray[Any],
        values: Sequence[float],
        *,
        steps: int = STEPS,
    ) -> float:
        """Take signals, and fit the predictor to a sample of all there have been.

        Args:
            observations: as `Encoding` keeps them, shape (n, ...).
            actions: of the same, shape (n, ...).
            values: signals, shape (n,).
            steps: of the optimiser.

        Returns:
            Mean squared error on the last sample.
        """
        before = self.signals
        self._observations += list(observations)
        self._actions += list(actions)
        self._values += list(values)
        return self._fit(np.arange(before, self.signals), steps)

    def correct(self, number: int, value: float, *, steps: int = STEPS) -> float:
        """Put another value in the place of a signal.

        Args:
            number: of the signal, counted from 0.
            value: what it should have been.
            steps: of the optimiser.

        Returns:
            Mean squared error on the last sample.
        """
        self._values[number] = value
        return self._fit(np.array([number]), steps)

    def _fit(self, newest: NDArray[np.int64], steps: int) -> float:
        loss = torch.zeros(())
        for _ in range(steps):
            # The newest are always in the sample, so that the agent answers to what was just said.
            rows = np.concatenate([self._rng.integers(self.signals, size=BATCH), newest])
            wanted = torch.tensor([self._values[row] for row in rows], dtype=torch.float32)
            predicted = self.model(
                *self.encoding.tensors(
                    np.stack([self._observations[row] for row in rows]),
                    np.stack([self._actions[row] for row in rows]),
                )
            )
            loss = ((predicted - wanted) ** 2).mean()
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
        return float(loss.detach())

    def _candidates(self, allowed: NDArray[np.bool_] | None) -> NDArray[Any]:
        space = self.encoding.action_space
        if isinstance(space, Discrete):
            numbers = np.arange(int(space.n)) if allowed is None else np.flatnonzero(allowed)
            return self.encoding.actions(numbers + int(space.start))
        # A space draws with a generator of its own, which is seeded from ours.
        space.seed(int(self._rng.integers(2**31)))
        return self.encoding.actions(np.stack([space.sample() for _ in range(CANDIDATES)]))


def step_ratings(
    store: FeedbackStore, env_id: str, rater: str | None = None
) -> list[tuple[ControlSegment, float]]:
    """Steps of a task that were rewarded or punished, and how much.

    Args:
        store: where the page kept them.
        env_id: the task.
        rater: only this one's; all by default.
    """
    given: list[Feedback] = store.feedback(
        questions=["rating"], raters=[] if rater is None else [rater]
    )
    found = []
    for one in given:
        (segment,) = one.query.segments
        if one.provenance.get(ENVIRONMENT) == env_id and isinstance(one.label, Rating):
            assert isinstance(segment, ControlSegment)  # this provenance is put on no text
            found.append((segment, one.label.value))
    return found


def agent_from_ratings(
    store: FeedbackStore, env: gym.Env[Any, Any], env_id: str, *, steps: int = 500, seed: int = 0
) -> TamerAgent:
    """An agent taught by all that the page has kept of a task.

    ```
    agent = agent_from_ratings(store, env, "rlhf_gym/Pizza-v0")
    taught = TaughtVecEnv(make_sb3_env("rlhf_gym/Pizza-v0", 16), LearnedReward(agent.model))
    ```

    Args:
        store: where the page kept the ratings.
        env: the task.
        env_id: its id.
        steps: of the optimiser.
        seed: of everything drawn.

    Raises:
        InvalidData: nobody has rated a step of this task.
    """
    ratings = step_ratings(store, env_id)
    if not ratings:
        raise InvalidData(
            "store", str(store.path), f"no step of {env_id} was rated", "Supervise an agent first"
        )
    agent = TamerAgent(Encoding(env.observation_space, env.action_space), seed=seed)
    agent.learn(
        np.concatenate([segment.observations for segment, _ in ratings]),
        np.concatenate([segment.actions for segment, _ in ratings]),
        [value for _, value in ratings],
        steps=steps,
    )
    return agent
