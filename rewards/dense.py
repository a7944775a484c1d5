"""A reward for every token, read off the reward model at every prefix."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.rewards.base import RewardTerm, TokenStep
from rlhf_gym.rewards.model import RewardModel
from rlhf_gym.rewards.prefixes import begun, written


class ScoresPrefixes(Protocol):
    """What has an opinion of a response while it is being written, such as a reward model."""

    def prefix_scores(self, episodes: Episodes) -> Tensor:
        """Score of the response's first t tokens, shape (batch, 1 + time); 0 behind its end."""


class PartialScores(RewardTerm):
    """What each token adds to the score of the text so far.

        reward_t = s_t - s_{t-1},    sum over t = s_T - s_0

    s_t is the score of the prompt with the response's first t tokens. The sum telescopes to the
    terminal score; with `from_prompt` the prompt's own score s_0 is taken off, otherwise the first
    token is paid s_1 whole. Either way the return is the terminal score but for a constant of the
    prompt, so with gamma = 1 the optimum stays where it is. With gamma below 1 it moves, unlike
    that of `PotentialShaping`.

    Args:
        reward_model: a causal model that shares the policy's tokenizer; or a `RewardPotential`,
            for a reward that is no model.
        from_prompt: begin at the prompt's score rather than at 0.
        name: tag of the term.

    Source: the telescoping sum of Ng et al. (1999), "Policy Invariance under Reward
    Transformations", with the score as the potential.
    """

    def __init__(
        self, reward_model: ScoresPrefixes, *, from_prompt: bool = False, name: str = "dense"
    ) -> None:
        self.reward_model = reward_model
        self.from_prompt = from_prompt
        self.name = name

    def token_rewards(self, episodes: Episodes) -> Tensor:
        """Gain of the score at each token, shape (batch, time)."""
        scores = self.reward_model.prefix_scores(episodes)
        if not self.from_prompt:
            scores[:, 0] = 0.0
        return scores.diff(dim=-1) * episodes.mask.cpu()

    def step_rewards(self, step: TokenStep) -> Tensor:
        """Gain of the score in one step, shape (n,), at one pass of the model per step."""
        after = written(begun(step, self.name), step.actions)
        last = after.lengths.cpu().unsqueeze(-1) - 1
        return self.token_rewards(after).gather(1, last).squeeze(-1)


class TokenHeads(RewardTerm):
    """The reward model's head at each token is that token's reward, as it stands.

    For models that were trained so that their per-token outputs add up (or average) to the score of
    the response. A model trained on its last output alone gives numbers here that promise nothing:
    the return is another than its score, and so is the optimum.

    Args:
        reward_model: a causal model that shares the policy's tokenizer.
        average: divide by the response's length, for a model whose outputs average to the score.
        name: tag of the term.

    Source: Yang et al. (2023), "Preference-grounded Token-level Guidance for Language Model
    Fine-tuning" (sum and average as aggregation of token rewards).
    """

    def __init__(
        self, reward_model: RewardModel, *, average: bool = False, name: str = "token_heads"
    ) -> None:
        self.reward_model = reward_model
        self.average = average
        self.name = name

    def token_rewards(self, episodes: Episodes) -> Tensor:
        """The head's output at each response token, shape (batch, time)."""
        scores = self.reward_model.token_scores(episodes)
        return scores / episodes.lengths.unsqueeze(-1).cpu() if self.average else scores
