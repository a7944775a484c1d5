"""Several reward models as one, sceptical where they disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint
from rlhf_gym.rewards.base import RewardFunction, RewardTerm, ScoreTerm
from rlhf_gym.rewards.penalty import not_negative
from rlhf_gym.rewards.wrapping import as_inner

Combination = Literal["mean", "minimum", "deviations", "variance"]


class EnsembleReward(ScoreTerm):
    """The scores of several rewards as one, in their unit.

        mean        the mean
        minimum     the lowest: worst-case optimisation
        deviations  mean - k * deviation
        variance    mean - k * variance: uncertainty-weighted optimisation

    Deviation and variance are those of the members' scores of one response, dividing by their
    number. All but the mean hold back where the members disagree, which is where a policy finds
    their mistakes. Members should be normalised to one scale: `RewardModel.normalise`.

    Args:
        members: two or more rewards, for example reward models of different seeds.
        combine: see above.
        k: weight of the deviation or variance, 0 or more.
        name: tag of the term.

    Raises:
        InvalidArgument: fewer than two members, an unknown combination, a negative k.

    Source: Coste et al. (2023), "Reward Model Ensembles Help Mitigate Overoptimization"
    (mean, worst case, and the variance); the deviation instead has the reward's unit.
    """

    def __init__(
        self,
        members: Sequence[RewardTerm | RewardFunction],
        combine: Combination = "mean",
        *,
        k: float = 1.0,
        name: str = "ensemble",
    ) -> None:
        if len(members) < 2:
            raise InvalidArgument(
                "members", members, "nobody to agree or disagree with", "Give two or more"
            )
        if combine not in get_args(Combination):
            raise InvalidArgument(
                "combine",
                combine,
                "no such combination",
                f"Choose one of {', '.join(get_args(Combination))}",
            )
        self.members = [as_inner(member, type(self).__name__) for member in members]
        self.batchwise = any(member.batchwise for member in self.members)
        self.combine = combine
        self.k = not_negative("k", k)
        self.name = name

    def member_scores(self, episodes: Episodes) -> Tensor:
        """Every member's score of every response, shape (members, batch)."""
        scores = [member.token_rewards(episodes).cpu().sum(-1) for member in self.members]
        return torch.stack(scores)

    def scores(self, episodes: Episodes) -> Tensor:
        """The combined score of each response, shape (batch,)."""
        scores = self.member_scores(episodes)
        mean = scores.mean(0)
        if self.combine == "mean":
            return mean
        if self.combine == "minimum":
            return scores.amin(0)
        variance = (scores - mean).square().mean(0)
        return mean - self.k * (variance if self.combine == "variance" else variance.sqrt())

    def state_dict(self) -> dict[str, Any]:
        """The states of the members, by their place."""
        return {str(i): member.state_dict() for i, member in enumerate(self.members)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            InvalidCheckpoint: the state of another number of members.
        """
        if set(state) != {str(i) for i in range(len(self.members))}:
            raise InvalidCheckpoint(
                self.name,
                sorted(state),
                f"the saved state is not that of {len(self.members)} members",
                "Resume with the reward that the run was started with",
            )
        for i, member in enumerate(self.members):
            member.load_state_dict(state[str(i)])
