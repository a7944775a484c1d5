"""Behaviour cloning: make what the expert did likely.

Source: Pomerleau (1989), "ALVINN"; Ho and Ermon (2016), section 6, for what it is compared with.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sb3_contrib import ARS
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from rlhf_gym.agents.imitation.demonstrations import Demonstrations
from rlhf_gym.agents.imitation.policy_likelihood import LogLikelihood, log_likelihood_of
from rlhf_gym.core.errors import InvalidArgument, NonFiniteTraining


@dataclass(frozen=True)
class CloningConfig:
    """How a policy is cloned."""

    epochs: int = 200
    """Passes over the steps at most."""
    patience: int = 15
    """Passes without a higher held-out log-likelihood after which it ends."""
    held_out: float = 0.2
    """Share of the episodes that is kept to judge by; at least one, where there are two."""
    learning_rate: float = 1e-3
    """Of Adam."""
    batch_size: int = 64
    """Steps of an update."""
    l2: float = 1e-5
    """Weight of half the sum of squared parameters of the policy."""

    def __post_init__(self) -> None:
        for field, fits, expected in (
            ("epochs", self.epochs >= 1, "1 or more"),
            ("patience", self.patience >= 1, "1 or more"),
            ("held_out", 0 <= self.held_out < 1, "a share below 1"),
            ("learning_rate", 0 < self.learning_rate < math.inf, "a number above 0"),
            ("batch_size", self.batch_size >= 1, "1 or more"),
            ("l2", 0 <= self.l2 < math.inf, "0 or more"),
        ):
            if not fits:
                raise InvalidArgument(
                    field, getattr(self, field), f"not {expected}", f"Give {expected}"
                )


class CloningReport(NamedTuple):
    """What cloning came to; log-likelihoods are means per step, nats (densities for a Box).

    Attributes:
        epochs: passes made.
        log_likelihood: of the episodes learned from.
        held_out: of the others; NaN without any.
        before: of those judged by, before cloning.
    """

    epochs: int
    log_likelihood: float
    held_out: float
    before: float


def behaviour_cloning(
    agent: BaseAlgorithm,
    demonstrations: Demonstrations,
    config: CloningConfig | None = None,
    *,
    seed: int = 0,
) -> CloningReport:
    """Fit an agent's policy to what an expert did; the agent may learn on from there.

    ```
    agent = PPO("MlpPolicy", env)
    behaviour_cloning(agent, Demonstrations.load("expert.npz"))
    agent.learn(100_000)
    ```

    The policy ends with the parameters of the highest held-out log-likelihood. Only the actor
    learns: critics know nothing of the task yet, and an agent whose actor follows its critic at
    once (SAC, TD3, DQN) forgets most of it before they do. ARS with an `MlpPolicy` needs
    `zero_policy=False`: nothing flows through weights of 0.

    Args:
        agent: see `log_likelihood_of`; changed in place.
        demonstrations: of the agent's task; a `VecNormalize` of the agent's is applied to them.
        config: how.
        seed: of what is held out and of the order of steps.

    Raises:
        InvalidArgument: a policy that cannot be cloned.
        InvalidData: demonstrations of other spaces.
        NonFiniteTraining: a likelihood that is not finite; the policy is as it was before.
    """
    config = config or CloningConfig()
    demonstrations.check(agent.observation_space, agent.action_space)
    likelihood = log_likelihood_of(agent)
    held_out, learned = _split(len(demonstrations), config.held_out, np.random.default_rng(seed))
    data = _steps_of(agent, demonstrations.take(learned))
    judges = _steps_of(agent, demonstrations.take(held_out)) if len(held_out) else data
    report = _Cloning(agent, likelihood, data, judges, config, seed).run(bool(len(held_out)))
    if isinstance(agent, ARS):  # its search goes on from a copy of its own
        weights: Any = parameters_to_vector(agent.policy.parameters()).detach()
        agent.weights = weights
    return report


class _Steps(NamedTuple):
    """Steps as a policy reads them."""

    observations: Any
    actions: Tensor

    def take(self, rows: Tensor) -> _Steps:
        """Some of them."""
        seen = self.observations
        some = (
            {key: one[rows] for key, one in seen.items()} if isinstance(seen, dict) else seen[rows]
        )
        return _Steps(some, self.actions[rows])

    def batches(self, size: int, order: Tensor) -> list[_Steps]:
        """Them all, in an order."""
        return [self.take(rows) for rows in torch.split(order, size)]


class _Cloning:
    """One fit."""

    def __init__(
        self,
        agent: BaseAlgorithm,
        likelihood: LogLikelihood,
        data: _Steps,
        judges: _Steps,
        config: CloningConfig,
        seed: int,
    ) -> None:
        self.policy = agent.policy
        self.likelihood, self.data, self.judges, self.config = likelihood, data, judges, config
        self.generator = torch.Generator().manual_seed(seed)
        # Its own optimizer: the agent's keeps its state for what it will learn.
        self.optimizer = torch.optim.Adam(
            self.policy.parameters(), lr=config.learning_rate, weight_decay=config.l2
        )

    def run(self, has_held_out: bool) -> CloningReport:
        before = best = self._mean(self.judges)
        kept: Mapping[str, Tensor] = copy.deepcopy(self.policy.state_dict())
        stale = epochs = 0
        while epochs < self.config.epochs and stale < self.config.patience:
            judged = self._judged_pass()
            epochs += 1
            if not math.isfinite(judged):
                self.policy.load_state_dict(kept)
                raise NonFiniteTraining(
                    "the log-likelihood is not finite; the policy is the best one before. Lower "
                    f"the learning rate, now {self.config.learning_rate}"
                )
            stale = 0 if judged > best else stale + 1
            if judged > best:
                best, kept = judged, copy.deepcopy(self.policy.state_dict())
        self.policy.load_state_dict(kept)
        return CloningReport(
            epochs, self._mean(self.data), best if has_held_out else math.nan, before
        )

    def _judged_pass(self) -> float:
        """One pass, and the mean log-likelihood after it; NaN where there is none."""
        try:
            self._pass()
            return self._mean(self.judges)
        except ValueError:  # torch's distributions refuse parameters that are not finite
            return math.nan

    @torch.enable_grad()
    def _pass(self) -> None:
        self.policy.set_training_mode(True)
        order = torch.randperm(len(self.data.actions), generator=self.generator)
        for batch in self.data.batches(self.config.batch_size, order):
            loss = -self.likelihood(batch.observations, batch.actions).mean()
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()

    @torch.no_grad()
    def _mean(self, steps: _Steps) -> float:
        self.policy.set_training_mode(False)
        every = torch.arange(len(steps.actions))
        parts = [
            self.likelihood(batch.observations, batch.actions)
            for batch in steps.batches(1024, every)
        ]
        return float(torch.cat(parts).mean())


def _split(
    episodes: int, share: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of episodes to judge by and to learn from."""
    count = 0 if share == 0 or episodes < 2 else max(1, round(share * episodes))
    order = rng.permutation(episodes)
    return order[:count], order[count:]


def _steps_of(agent: BaseAlgorithm, demonstrations: Demonstrations) -> _Steps:
    seen: Any = demonstrations.observations
    normaliser = agent.get_vec_normalize_env()
    if normaliser is not None:
        seen = normaliser.normalize_obs(seen)
    observations, _ = agent.policy.obs_to_tensor(seen)
    actions = torch.as_tensor(demonstrations.actions, device=agent.device)
    # Discrete actions are class numbers, all others go into densities.
    whole = not torch.is_floating_point(actions)
    return _Steps(observations, actions.long() if whole else actions.float())
