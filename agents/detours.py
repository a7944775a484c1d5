"""Episodes that leave the agent's way for some steps: what it might do instead.

An agent gives up a move long before the reward is sure about it, and then nothing that is asked
tells of it any more. In a detour one random act is done for some steps; then the agent goes on, at
its best, without chance, so that pairs of clips tell what the act is worth to an agent as good as
this one. An act of one step says little where a thing has to be done several times before it helps
(Dabney et al. 2021, "Temporally-Extended Epsilon-Greedy Exploration", on acts that repeat).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Space
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3.common.base_class import BaseAlgorithm

EARLY = 0.5
"""Probability with which an episode begins with a detour: some things help only if done first, and
an agent that begins otherwise never comes there."""
Bools = NDArray[np.bool_]


class Detours:
    """When each row leaves the agent's way, and what it does there: one random act, repeated.

    An episode begins with a detour, or it has its first one, with equal chance, after any number of
    steps below `spacing`; as many steps after one comes the next.

    Args:
        space: of the actions of one row.
        rows: environments side by side.
        longest: most steps of a detour; each length up to it is as likely as another.
        spacing: steps; with those of a clip, hardly a clip has two.
        seed: of everything drawn here.
    """

    def __init__(
        self, space: Space[Any], rows: int, longest: int, spacing: int, seed: tuple[int, ...]
    ) -> None:
        self.longest = longest
        self.spacing = spacing
        self._rng = np.random.default_rng(seed)
        self._space = batch_space(space, rows)
        self._space.seed(int(self._rng.integers(2**31)))
        self._acts = np.asarray(self._space.sample())
        self._wait = np.zeros(rows, np.int64)
        self._left = np.zeros(rows, np.int64)
        self.begin_episodes(np.ones(rows, np.bool_))

    def begin_episodes(self, begun: Bools) -> None:
        """Tell in which rows an episode has begun, shape (rows,)."""
        wait = self._rng.integers(0, self.spacing, len(begun))
        wait[self._rng.random(len(begun)) < EARLY] = 0
        self._plan(begun, wait)

    def step(self, own: NDArray[Any], masks: Bools | None = None) -> NDArray[Any]:
        """What is done next.

        Args:
            own: the agent's actions, shape (rows, ...).
            masks: allowed actions, shape (rows, actions); where a detour's is not, the agent's is
                done.

        Returns:
            Actions, shape of `own`.
        """
        away = self._wait <= 0
        self._wait -= 1
        self._left -= away
        allowed = away if masks is None else away & masks[np.arange(len(own)), self._acts]
        done = _choose(allowed, self._acts, own)
        self._plan(self._left == 0, np.full(len(own), self.spacing))
        return done

    def _plan(self, rows: Bools, wait: NDArray[np.int64]) -> None:
        """The next detour of some rows."""
        if rows.any():
            length = self._rng.integers(1, self.longest + 1, len(rows))
            self._wait = np.where(rows, wait, self._wait)
            self._left = np.where(rows, length, self._left)
            self._acts = _choose(rows, np.asarray(self._space.sample()), self._acts)


def take_detours(
    agent: BaseAlgorithm, steps: int, longest: int, spacing: int, seed: tuple[int, ...]
) -> None:
    """Act as the agent does at its best, but for detours; it does not learn from it.

    An agent that still tries everything makes clips about its tries, and what it would do without
    them, and does in the end, would be new to the reward.

    It acts in its own environment; its episodes begin anew afterwards. What a `VecNormalize` has
    measured stays as it is.

    Args:
        agent: as it is, between two rollouts.
        steps: of all rows together.
        longest: see `Detours`.
        spacing: see `Detours`.
        seed: of the detours.
    """
    env = agent.get_env()
    assert env is not None  # whoever teaches it has checked
    rows, normalised = env.num_envs, agent.get_vec_normalize_env()
    measures = normalised is not None and normalised.training
    if normalised is not None:
        normalised.training = False
    detours = Detours(env.action_space, rows, longest, spacing, seed)
    seen: Any = env.reset()
    state, begun = None, np.ones(rows, np.bool_)
    for _ in range(-(-steps // rows)):
        if isinstance(agent, MaskablePPO):
            masks = get_action_masks(env)
            own, _ = agent.predict(seen, action_masks=masks, deterministic=True)
        else:
            masks = None
            own, state = agent.predict(seen, state, begun, deterministic=True)
        seen, _, begun, _ = env.step(detours.step(own, masks))
        detours.begin_episodes(begun)
    agent._last_obs = env.reset()  # type: ignore[assignment]  # SB3 types it as one array
    agent._last_episode_starts = np.ones(rows, np.bool_)
    if normalised is not None:
        agent._last_original_obs = normalised.get_original_obs()
        normalised.training = measures


def _choose(rows: Bools, one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """Whole rows of one batch of actions or of the other."""
    return np.where(rows.reshape(-1, *[1] * (one.ndim - 1)), one, other)
