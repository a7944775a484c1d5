"""A reward that tells the expert's steps from the agent's: generative adversarial imitation.

Source: Ho and Ermon (2016), "Generative Adversarial Imitation Learning", algorithm 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from rlhf_gym.agents.imitation.feature_encoding import FeatureEncoding, Steps
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.preferences.encoding import Encoding
from rlhf_gym.core.preferences.reward_net import RewardEnsemble


@dataclass(frozen=True)
class DiscriminatorConfig:
    """How expert and agent are told apart."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers."""
    learning_rate: float = 1e-3
    """Of Adam."""
    updates: int = 40
    """Gradient steps each time that the agent has acted."""
    batch_size: int = 256
    """Steps of the expert, and as many of the agent, in an update."""
    l2: float = 1e-3
    """Weight of half the sum of squared parameters: without it the two are soon told apart for
    certain, and a reward that only says so shows no way."""

    def __post_init__(self) -> None:
        for field, fits, expected in (
            ("learning_rate", 0 < self.learning_rate < math.inf, "a number above 0"),
            ("updates", self.updates >= 1, "1 or more"),
            ("batch_size", self.batch_size >= 1, "1 or more"),
            ("l2", 0 <= self.l2 < math.inf, "0 or more"),
        ):
            if not fits:
                raise InvalidArgument(
                    field, getattr(self, field), f"not {expected}", f"Give {expected}"
                )


class Discriminator:
    """Learns how far a step looks like the expert's; its log-odds are the reward.

        D(s, a) = sigmoid(f(s, a)),  loss = -log D(expert) - log(1 - D(agent)),  reward = f

    f is a `RewardEnsemble` of one member, shown numbers in units of the expert's deviation, and
    the agent is paid its log-odds at mean 0 and deviation 1. Ho and Ermon pay -log(1 - D), which
    never punishes; log-odds are what is left of it once an optimal D is put in and the policy's
    entropy is counted (Fu et al. 2018, AIRL, section 4). In tasks whose episodes end early a mean
    of 0 is a choice.

    Args:
        encoding: of the environment's spaces.
        expert: steps of the expert.
        config: how.
        seed: of the network and the minibatches.

    Attributes:
        reward: the learned reward.
    """

    def __init__(
        self,
        encoding: Encoding,
        expert: Steps,
        config: DiscriminatorConfig | None = None,
        *,
        seed: int = 0,
    ) -> None:
        self.config = config or DiscriminatorConfig()
        if not encoding.is_image:
            encoding = FeatureEncoding.standardised(encoding, expert)
        self.reward = RewardEnsemble(encoding, 1, self.config.hidden, seed=seed)
        self._expert = expert
        self._generator = torch.Generator().manual_seed(seed)
        self._optimizer = torch.optim.Adam(
            self.reward.parameters(), lr=self.config.learning_rate, weight_decay=self.config.l2
        )

    @torch.enable_grad()
    def update(self, recent: Steps) -> dict[str, float]:
        """Learn from what the agent has done of late, and normalise the reward on it.

        Args:
            recent: steps of the agent.

        Returns:
            For the log: `loss` (nats; 2 log 2 = 1.39 when nothing tells them apart), `expert_share`
            and `agent_share` of steps that were told right.
        """
        totals = torch.zeros(3)
        for _ in range(self.config.updates):
            shown, done = self._logits(self._expert), self._logits(recent)
            loss = functional.softplus(-shown).mean() + functional.softplus(done).mean()
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            right = (shown > 0).float().mean(), (done < 0).float().mean()
            totals += torch.stack([loss.detach(), *right])
        self.reward.normalise(*recent)
        loss_mean, expert, agent = (totals / self.config.updates).tolist()
        return {"loss": loss_mean, "expert_share": expert, "agent_share": agent}

    def _logits(self, steps: Steps) -> Tensor:
        observations, actions = steps
        rows = torch.randint(
            len(actions), (self.config.batch_size,), generator=self._generator
        ).numpy()
        logits: Tensor = self.reward(
            *self.reward.encoding.tensors(observations[rows], actions[rows])
        )
        return logits
