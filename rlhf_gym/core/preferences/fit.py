"""Fitting a reward ensemble to comparisons."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rlhf_gym.core.calibration import Estimate, wilson_interval
from rlhf_gym.core.errors import InvalidArgument, InvalidData, NonFiniteTraining
from rlhf_gym.core.likelihoods import bradley_terry, plackett_luce
from rlhf_gym.core.preferences.comparisons import Comparisons
from rlhf_gym.core.preferences.fit_config import FitConfig as FitConfig
from rlhf_gym.core.preferences.reward_members import Clips
from rlhf_gym.core.preferences.reward_net import RewardEnsemble

L2_STEP = 1.2
"""Factor by which an epoch may move a member's l2 penalty."""
L2_RANGE = (1e-7, 1e-1)


class FitReport(NamedTuple):
    """What a fit came to.

    Attributes:
        epochs: passes made.
        comparisons: rows of data.
        loss: mean negative log-likelihood of what the members saw, nats.
        held_out_loss: of what they did not see, nats; NaN if they saw everything.
        accuracy: share of pairs that the ensemble orders as the raters did, ties left out.
        held_out_accuracy: the same, each pair judged by the members that did not see it.
    """

    epochs: int
    comparisons: int
    loss: float
    held_out_loss: float
    accuracy: float
    held_out_accuracy: Estimate


class _Data(NamedTuple):
    """`Comparisons` as an ensemble reads them."""

    clips: Clips
    items: Tensor
    preference: Tensor
    weights: Tensor


def fit_ensemble(
    ensemble: RewardEnsemble,
    comparisons: Comparisons,
    config: FitConfig | None = None,
    *,
    generator: torch.Generator,
) -> FitReport:
    """Fit every member to its own sample of the comparisons, from where it stands.

    Each member ends with the parameters that had the lowest loss on the comparisons it never sees.

    Args:
        ensemble: changed in place.
        comparisons: for as many members.
        config: how.
        generator: for the order of the data.

    Raises:
        InvalidArgument: comparisons for another number of members.
        InvalidData: nothing was compared.
        NonFiniteTraining: a loss that is not finite; the ensemble is as it was before.
    """
    config = config or FitConfig()
    if comparisons.members != ensemble.members:
        raise InvalidArgument(
            "comparisons",
            comparisons.members,
            f"weights for so many members, the ensemble has {ensemble.members}",
            "Make both with the same number",
        )
    if not len(comparisons):
        raise InvalidData(
            "comparisons",
            0,
            f"no label compares anything ({comparisons.skipped} were skipped)",
            "Collect labels first, or lower what the teacher skips below",
        )
    observations = comparisons.observations
    ensemble.cover(observations)
    data = _Data(
        ensemble.read(observations, comparisons.actions),
        comparisons.items,
        comparisons.preference,
        comparisons.weights,
    )
    return _Fit(ensemble, data, config, generator).run()


class _Fit:
    """One fit: what changes from epoch to epoch, one number a member."""

    def __init__(
        self,
        ensemble: RewardEnsemble,
        data: _Data,
        config: FitConfig,
        generator: torch.Generator,
    ) -> None:
        self.ensemble, self.data, self.config, self.generator = ensemble, data, config, generator
        # Small tensors: fused, a fit takes two thirds of the time.
        self.optimizer = torch.optim.Adam(
            ensemble.parameters(), lr=config.learning_rate, fused=True
        )
        self.l2 = torch.where(ensemble.l2 > 0, ensemble.l2, config.l2)
        self.best_loss = torch.full((ensemble.members,), torch.inf)
        self.best = [torch.empty_like(values) for values in ensemble.parameters()]
        self.stale = torch.zeros(ensemble.members)

    def run(self) -> FitReport:
        passes = 0
        self._keep_best(self._losses()[1])
        while passes < self.config.epochs and (self.stale < self.config.patience).any():
            self._pass()
            passes += 1
            seen, unseen = self._losses()
            if not seen.isfinite().all():
                self._restore()
                raise NonFiniteTraining(
                    "the loss of the reward ensemble is not finite; it is as it was. Lower the "
                    f"learning rate, now {self.config.learning_rate}"
                )
            self._keep_best(unseen)
            self._adapt(unseen / seen)
        self._restore()
        self.ensemble.l2.copy_(self.l2)
        return self._report(passes)

    @torch.enable_grad()
    def _pass(self) -> None:  # some agents (ARS) act, and so ask, with gradients switched off
        order = torch.randperm(len(self.data.items), generator=self.generator)
        for rows in torch.split(order, self.config.batch_size):
            weighted = self.data.weights[:, rows] * self._log_likelihood(rows)
            squares = sum(
                values.flatten(1).square().sum(1) for values in self.ensemble.parameters()
            )
            # The members' losses share no parameter: their sum fits each as if alone.
            loss = (-weighted.mean(1) + 0.5 * self.l2 * squares).sum()
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()

    def _returns(self, rows: Tensor) -> Tensor:
        """Of the segments of some comparisons, best first, shape (members, rows, longest)."""
        # Behind a ranking's last segment any one stands in; the mask of the likelihood drops it.
        items = self.data.items[rows].clamp_min(0)
        returns = self.ensemble.sums(self.data.clips.take(items.flatten()))
        return returns.reshape(self.ensemble.members, *items.shape)

    def _log_likelihood(self, rows: Tensor) -> Tensor:
        """Of the answers, under each member, nats, shape (members, rows)."""
        returns = self._returns(rows)
        pairs = bradley_terry(
            returns[..., 0], returns[..., 1], self.data.preference[rows], noise=self.config.noise
        )
        real = self.data.items[rows] >= 0
        if real.shape[1] == 2:
            return pairs
        longer = plackett_luce(returns, real.expand_as(returns), noise=self.config.noise)
        return torch.where(real[:, 2], longer, pairs)

    @torch.no_grad()
    def _losses(self) -> tuple[Tensor, Tensor]:
        """Each member's loss on what it sees and on what it does not, shapes (members,).

        A member that sees everything has nothing but that to go by.
        """
        every = torch.arange(len(self.data.items))
        parts = [self._log_likelihood(rows) for rows in torch.split(every, 512)]
        surprise = -torch.cat(parts, 1)
        weights, unseen = self.data.weights, (self.data.weights == 0).float()
        seen_loss = (weights * surprise).sum(1) / weights.sum(1)
        # A member that sees nothing (one comparison, bad luck) has the loss on all.
        seen_loss = torch.where(weights.sum(1) > 0, seen_loss, surprise.mean(1))
        unseen_loss = (unseen * surprise).sum(1) / unseen.sum(1)
        return seen_loss, torch.where(unseen.sum(1) > 0, unseen_loss, seen_loss)

    @torch.no_grad()
    def _keep_best(self, losses: Tensor) -> None:
        better = losses < self.best_loss
        self.stale = torch.where(better, 0.0, self.stale + 1)
        self.best_loss = torch.where(better, losses, self.best_loss)
        for kept, values in zip(self.best, self.ensemble.parameters(), strict=True):
            kept[better] = values[better]

    @torch.no_grad()
    def _restore(self) -> None:
        for kept, values in zip(self.best, self.ensemble.parameters(), strict=True):
            values.copy_(kept)

    def _adapt(self, ratio: Tensor) -> None:
        low, high = self.config.overfit
        factor = torch.where(ratio > high, L2_STEP, torch.where(ratio < low, 1 / L2_STEP, 1.0))
        self.l2 = torch.where(self.l2 > 0, (self.l2 * factor).clamp(*L2_RANGE), 0.0)

    @torch.no_grad()
    def _report(self, epochs: int) -> FitReport:
        seen, unseen = self._losses()
        items, weights = self.data.items, self.data.weights
        # The first of a longer ranking against the second stands for it.
        asked = self.data.preference != 0.5
        every = torch.arange(len(items))
        returns = torch.cat([self._returns(rows)[..., :2] for rows in torch.split(every, 512)], 1)
        ahead = torch.sigmoid(returns[..., 0] - returns[..., 1])
        right = _right(ahead.mean(0))[asked]
        unknown = (weights == 0).float()
        judged = asked & (unknown.sum(0) > 0)
        alone = (unknown * ahead).sum(0) / unknown.sum(0).clamp_min(1)
        held_out = _right(alone)[judged]
        share = float(held_out.mean()) if len(held_out) else math.nan
        return FitReport(
            epochs=epochs,
            comparisons=len(items),
            loss=float(seen.mean()),
            held_out_loss=float(unseen.mean()) if (unknown.sum() > 0) else math.nan,
            accuracy=float(right.mean()) if len(right) else math.nan,
            held_out_accuracy=wilson_interval(share, len(held_out)),
        )


def _right(probability: Tensor) -> Tensor:
    """1 where the better segment is held to be better, 0.5 at a coin's throw."""
    return (probability > 0.5).float() + 0.5 * (probability == 0.5).float()
