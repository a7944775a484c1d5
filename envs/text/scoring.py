"""What finished episodes earned: reward terms with their addresses, gold score, KL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.errors import InvalidArgument, InvalidReward
from rlhf_gym.rewards.base import (
    RewardFunction,
    RewardTerm,
    TokenStep,
    WeightedReward,
    as_weighted,
)
from rlhf_gym.rewards.kl import KLPenalty
from rlhf_gym.rewards.kl_estimators import kl_k1


class Scored(NamedTuple):
    """What a batch of finished episodes earned.

    Attributes:
        token_rewards: reward at each response token, shape (batch, time), 0 off the mask.
        due: what is paid now; all of it but what stepwise terms have paid before, shape (batch,).
        terms: each term's sum over the response, weight applied, name -> shape (batch,).
        score: sum of the terms that are no KL penalty, shape (batch,).
        gold: the gold reward, shape (batch,), or None without one.
        kl: sampled KL to the reference in nats, shape (batch,), 0 where unknown; None without a
            reference.
        kl_known: True where every token's log pi is known, shape (batch,).
    """

    token_rewards: Tensor
    due: Tensor
    terms: dict[str, Tensor]
    score: Tensor
    gold: Tensor | None
    kl: Tensor | None
    kl_known: Tensor


class RewardLedger:
    """Asks the reward terms and checks what they say.

    Args:
        reward: a term or sum of terms, a plain function, or None for no reward at all.
        gold: the same; reported, never part of the reward.
        reference: for the KL that is reported; the KL penalty's own if the reward has one.
        by_step: pay terms that are not terminal in every step (`reward_timing="step"`).

    Attributes:
        reward: the sum of terms, or None.
        reference: the frozen LM that KL is measured to, or None.
        penalty: the KL penalty in the reward, or None.
        step_names: the terms that are paid step by step.

    Raises:
        InvalidArgument: more than one KL penalty, or a term that cannot be paid step by step.
    """

    def __init__(
        self,
        reward: RewardTerm | RewardFunction | None,
        gold: RewardTerm | RewardFunction | None,
        reference: nn.Module | None,
        *,
        by_step: bool,
    ) -> None:
        self.reward = None if reward is None else as_weighted(reward)
        self.gold = None if gold is None else as_weighted(gold)
        parts = [] if self.reward is None else self.reward.parts
        penalties = [(weight, term) for weight, term in parts if isinstance(term, KLPenalty)]
        if len(penalties) > 1:
            raise InvalidArgument(
                "reward",
                [term.name for _, term in penalties],
                "two KL penalties, and only one reference to report KL to",
                "Keep one of them",
            )
        self.penalty = penalties[0][1] if penalties else None
        self._penalty_weight = -penalties[0][0] if penalties else 0.0
        self.reference = self.penalty.reference if self.penalty else reference
        stepwise = [(w, term) for w, term in parts if by_step and not term.terminal]
        for _, term in stepwise:
            _check_pays_by_step(term)
        self._stepwise = WeightedReward(stepwise) if stepwise else None
        self.step_names = tuple(term.name for _, term in stepwise)
        self._at_end = [(w, term) for w, term in parts if term.name not in self.step_names]
        self._kl_sum, self._kl_episodes = 0.0, 0

    @property
    def kl_coef(self) -> float | None:
        """Reward per nat of KL in force, or None without a KL penalty."""
        return None if self.penalty is None else self._penalty_weight * self.penalty.coef

    @property
    def wants_distribution(self) -> bool:
        """True if the policy must write its whole distribution."""
        return self.penalty is not None and self.penalty.wants_distribution

    @property
    def keeps_distributions(self) -> bool:
        """True if those distributions are needed until the episode ends."""
        if self.penalty is None or not self.penalty.wants_distribution:
            return False
        return self.penalty.name not in self.step_names

    def pay_step(self, step: TokenStep) -> dict[str, Tensor]:
        """Each stepwise term's share of one step, name -> shape (n,).

        Raises:
            InvalidReward: a share that is not finite, or of the wrong shape.
        """
        if self._stepwise is None:
            return {}
        shares = self._stepwise.step_term_rewards(step)
        for name, share in shares.items():
            _check(name, share, step.actions.shape)
        return shares

    def score(
        self,
        episodes: Episodes,
        paid: dict[str, Tensor],
        reference_log_probs: Tensor | None = None,
    ) -> Scored:
        """Score finished episodes.

        Args:
            episodes: the batch.
            paid: what stepwise terms have paid at each token, name -> shape (batch, time).
            reference_log_probs: log pi_ref of each token if it is known already, shape (batch,
                time); otherwise one teacher-forced pass finds it.

        Raises:
            InvalidReward: a term with a NaN or infinity, of the wrong shape, or off the response.
        """
        due = {term.name: weight * _checked(term, episodes) for weight, term in self._at_end}
        zeros = torch.zeros(episodes.response_ids.shape)
        terms = {name: tokens.sum(-1) for name, tokens in {**paid, **due}.items()}
        kl_name = self.penalty.name if self.penalty else None
        scores = [total for name, total in terms.items() if name != kl_name]
        kl, known = self._kl(episodes, reference_log_probs)
        if kl is not None:
            self._kl_sum += float(kl[known].double().sum())
            self._kl_episodes += int(known.sum())
        at_end = sum(due.values(), start=zeros)
        return Scored(
            token_rewards=sum(paid.values(), start=at_end),
            due=at_end.double().sum(-1),
            terms=terms,
            score=sum(scores, start=zeros.sum(-1)),
            gold=self._gold(episodes),
            kl=kl,
            kl_known=known,
        )

    def update_kl(self) -> float | None:
        """Let the KL controller see the episodes scored since the last call, and move once.

        Episodes whose KL is not known do not count; without any, nothing moves.

        Returns:
            The new coefficient, or None without a KL penalty.
        """
        if self.penalty is not None and self._kl_episodes:
            mean = self._kl_sum / self._kl_episodes
            self.penalty.controller.update(mean, self._kl_episodes)
        self._kl_sum, self._kl_episodes = 0.0, 0
        return self.kl_coef

    def state_dict(self) -> dict[str, Any]:
        """The states of reward and gold, and the KL the controller has not seen yet."""
        return {
            "reward": {} if self.reward is None else self.reward.state_dict(),
            "gold": {} if self.gold is None else self.gold.state_dict(),
            "kl_sum": self._kl_sum,
            "kl_episodes": self._kl_episodes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for name, reward in (("reward", self.reward), ("gold", self.gold)):
            if reward is not None:
                reward.load_state_dict(state[name])
        self._kl_sum, self._kl_episodes = float(state["kl_sum"]), int(state["kl_episodes"])

    def _gold(self, episodes: Episodes) -> Tensor | None:
        if self.gold is None:
            return None
        parts = [weight * _checked(term, episodes) for weight, term in self.gold.parts]
        return torch.stack(parts).sum((0, -1))

    def _kl(
        self, episodes: Episodes, reference_log_probs: Tensor | None
    ) -> tuple[Tensor | None, Tensor]:
        nobody = torch.zeros(len(episodes), dtype=torch.bool)
        if self.reference is None:
            return None, nobody
        if episodes.log_probs is None:
            return torch.zeros(len(episodes)), nobody
        if reference_log_probs is None:
            reference_log_probs = self._reference_log_probs(episodes, self.reference)
        mask = episodes.mask.cpu()
        nats = kl_k1(episodes.log_probs.cpu().float(), reference_log_probs.cpu().float())
        known = ~nats.isnan() | ~mask
        return nats.masked_fill(~(mask & known), 0.0).sum(-1), known.all(-1)

    def _reference_log_probs(self, episodes: Episodes, reference: nn.Module) -> Tensor:
        if not self.keeps_distributions:
            return episodes.reference_log_probs(reference)
        # The exact estimator has read the whole distributions by now: no second pass for one
        # column.
        distributions = episodes.reference_log_distributions(reference)
        tokens = episodes.response_ids.to(distributions.device).unsqueeze(-1)
        return distributions.gather(-1, tokens).squeeze(-1)


def _checked(term: RewardTerm, episodes: Episodes) -> Tensor:
    rewards = term.token_rewards(episodes).detach().cpu().float()
    _check(term.name, rewards, episodes.response_ids.shape)
    off = ~episodes.mask.cpu()
    if rewards[off].any():
        raise InvalidReward(
            term.name,
            rewards[off].abs().max().item(),
            "the term pays tokens behind the end of a response",
            "Multiply it by episodes.mask",
        )
    return rewards


def _check(name: str, rewards: Tensor, shape: torch.Size) -> None:
    if rewards.shape != shape:
        raise InvalidReward(
            name,
            tuple(rewards.shape),
            f"the term's shape should be {tuple(shape)}",
            "Return one number per response token",
        )
    if not torch.isfinite(rewards).all():
        bad = rewards[~torch.isfinite(rewards)][0].item()
        raise InvalidReward(name, bad, "the term is not finite", "Return finite numbers")


def _check_pays_by_step(term: RewardTerm) -> None:
    if type(term).step_rewards is RewardTerm.step_rewards:
        raise InvalidArgument(
            "reward_timing",
            "step",
            f"the term {term.name!r} cannot be paid token by token",
            "Use reward_timing='end', or give the term a step_rewards method",
        )
