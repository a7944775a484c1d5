"""Potential-based shaping: advice on the way that leaves the goal where it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.rewards.base import RewardTerm, TokenStep
from rlhf_gym.rewards.discount import check_discount
from rlhf_gym.rewards.model import RewardModel
from rlhf_gym.rewards.potentials import (
    Potential,
    TextPotentialFunction,
    as_potential,
    check_potential,
)
from rlhf_gym.rewards.prefixes import begun, written

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PotentialShaping(RewardTerm):
    """F(s, s') = gamma * Phi(s') - Phi(s), with Phi = 0 where the response has ended.

        reward = RewardModel(path) + PotentialShaping(RewardModel(path), gamma=1.0)

    The discounted sum over a response is -Phi(prompt) whatever is written, so every policy gains
    the same and the optimal policies are those without it, for an agent with the same discount:
    environments tell `gamma` to agents, which refuse to learn with another. Unit: reward per token.

    Args:
        potential: Phi: a `Potential`, a reward model or value model, or a function
            `(prompts, responses so far) -> numbers`. It must not change while an agent learns.
        gamma: the agent's discount per token, from 0 to 1.
        name: tag of the term.

    Raises:
        InvalidArgument: a discount outside 0 to 1.

    Source: Ng, Harada and Russell (1999), "Policy Invariance under Reward Transformations",
    theorem 1; Grzes (2017), "Reward Shaping in Episodic Reinforcement Learning", for
    Phi = 0 at terminal states.
    """

    gamma: float

    def __init__(
        self,
        potential: Potential | RewardModel | PreTrainedModel | str | Path | TextPotentialFunction,
        gamma: float = 1.0,
        name: str = "shaping",
    ) -> None:
        self.gamma = check_discount(gamma)
        self.potential = as_potential(potential)
        self.name = name

    def token_rewards(self, episodes: Episodes) -> Tensor:
        """F at each response token, shape (batch, time)."""
        values = self.potential.values(episodes).float().cpu()
        check_potential(values, episodes, self.name)
        written = torch.arange(values.shape[1])
        # State t is behind t tokens; the one behind the last token is terminal.
        values = values.masked_fill(written >= episodes.lengths.cpu().unsqueeze(-1), 0.0)
        return self.gamma * values[:, 1:] - values[:, :-1]

    def step_rewards(self, step: TokenStep) -> Tensor:
        """F of one step, shape (n,); asks for the potential before and behind the action."""
        before = begun(step, self.name)
        after = self.potential.current(written(before, step.actions)).float().cpu()
        after = after.masked_fill(step.ended.cpu(), 0.0)
        return self.gamma * after - self.potential.current(before).float().cpu()
