"""Numbers gathered while an update goes through its minibatches."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

import torch
from stable_baselines3.common.logger import HParam
from torch import Tensor

from rlhf_gym.agents.config import TextAlgorithmConfig
from rlhf_gym.agents.minibatches import Minibatch
from rlhf_gym.rewards.kl_estimators import kl_k3


class UpdateMetrics:
    """Means and maxima over the minibatches of one update.

    Inside a minibatch the parts' shares are added up, as their losses are; across minibatches the
    mean is taken. Nothing is read back from the device before `summary`.
    """

    def __init__(self) -> None:
        self._open: dict[str, Tensor] = {}
        self._closed: dict[str, list[Tensor]] = defaultdict(list)
        self._maxima: dict[str, Tensor] = {}

    def add(self, name: str, share: Tensor) -> None:
        """Add a part's share of its minibatch's value, shape ()."""
        share = share.detach()
        self._open[name] = self._open[name] + share if name in self._open else share

    def maximum(self, name: str, value: Tensor) -> None:
        """Raise the maximum over the whole update to `value`, shape ()."""
        value = value.detach()
        seen = self._maxima.get(name)
        self._maxima[name] = value if seen is None else torch.maximum(seen, value)

    def current(self, name: str) -> float:
        """Value of the minibatch that is being worked on; NaN if nobody added it."""
        return float(self._open[name]) if name in self._open else float("nan")

    def end_minibatch(self) -> None:
        """Close the minibatch; what comes next belongs to another."""
        for name, value in self._open.items():
            self._closed[name].append(value)
        self._open = {}

    def summary(self) -> dict[str, float]:
        """Means over minibatches and maxima, by name."""
        means = {name: float(torch.stack(values).mean()) for name, values in self._closed.items()}
        return means | {name: float(value) for name, value in self._maxima.items()}


def record_move(
    metrics: UpdateMetrics, minibatch: Minibatch, log_probs: Tensor, clip_range: float
) -> None:
    """Note how far the policy has moved since it sampled: KL, ratio and clip fraction.

    Args:
        metrics: of the update.
        minibatch: holds the log-probabilities of the policy that sampled.
        log_probs: under the policy being trained, shape (batch, time).
        clip_range: beyond 1 +- this a ratio counts as clipped.
    """
    with torch.no_grad():
        old = minibatch.batch.log_probs
        ratio = (log_probs - old).exp()
        # KL(pi_old || pi) from samples of pi_old: estimator k3 with the roles exchanged.
        metrics.add("approx_kl", minibatch.mean(kl_k3(old, log_probs)))
        metrics.add("ratio", minibatch.mean(ratio))
        metrics.maximum("ratio_max", ratio.masked_fill(~minibatch.mask, 0.0).max())
        metrics.add("clip_fraction", minibatch.mean(((ratio - 1).abs() > clip_range).float()))


def hyperparameters(config: TextAlgorithmConfig) -> HParam:
    """The configuration as TensorBoard's hyperparameter table, beside the metrics that matter."""
    values = dataclasses.asdict(config).items()
    shown = {name: "none" if value is None else value for name, value in values}
    return HParam(shown, {"rollout/ep_rew_mean": 0.0, "reward/score": 0.0, "kl/reference": 0.0})
