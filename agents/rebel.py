"""REBEL: the log-ratios of two responses are regressed on the difference of their rewards.

    collect responses        y_1 ... y_n ~ pi_old(. | x), n of them to every prompt
    credit                   R_i = score minus KL to the reference, of the whole response
    pair                     y = argmax R_i, y' = argmin R_i: best and worst of n
    minimise                 ( (1/eta) (log-ratio(y) - log-ratio(y')) - (R(y) - R(y')) )^2

where log-ratio(y) = log pi(y | x) - log pi_old(y | x): the policy that sampled is the anchor. Were
the regression solved exactly, the new policy would be proportional to pi_old exp(eta R), a step of
mirror descent; with a KL penalty of weight 1/eta in the reward that is the optimum itself.

Source: Gao et al., "REBEL: Reinforcement Learning via Regressing Relative Rewards" (2024),
arXiv 2404.16767, equation 1 and algorithm 1. Filters and best and worst of n as in the authors'
`src/ultrafeedback_largebatch/filter_tokenize.py` (ZhaolinGao/REBEL): a prompt is dropped if it or
any of its responses is too long, or if best and worst are the same text. Their code multiplies the
residual by eta, which scales the loss by eta^2; here it is the paper's.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from rlhf_gym.agents.config import TextAlgorithmConfig
from rlhf_gym.agents.metrics import record_move
from rlhf_gym.agents.minibatches import Minibatch
from rlhf_gym.agents.rebel_config import REBELConfig as REBELConfig
from rlhf_gym.agents.rollout import RolloutBatch
from rlhf_gym.agents.text_algorithm import TextAlgorithm


class REBEL(TextAlgorithm):
    """Regression on relative rewards; see `LMAlgorithm` for the arguments."""

    config_class: ClassVar[type[TextAlgorithmConfig]] = REBELConfig
    default_policy_kwargs: ClassVar[dict[str, Any]] = {"value_model": "none"}
    episodes_together: ClassVar[int] = 2
    config: REBELConfig

    def update(self, batch: RolloutBatch) -> None:
        """Learn from the pairs of a rollout; from none, if all are filtered out."""
        compared = self.pairs(batch)
        share = len(compared) * self.config.responses_per_prompt / (2 * len(batch.mask))
        self.logger.record("train/pairs_kept", share)
        super().update(batch.select(compared))

    def pairs(self, batch: RolloutBatch) -> Tensor:
        """Rows of best and worst of every prompt that passes the filters: best, worst, best, ...

        Args:
            batch: a rollout, the responses to a prompt one after another.

        Returns:
            Shape (2 * pairs,).
        """
        config, width = self.config, self.stepper.prompt_width
        by_prompt = (-1, config.responses_per_prompt)
        returns = batch.token_rewards.sum(-1).view(by_prompt)
        first = torch.arange(returns.numel(), device=returns.device).view(by_prompt)[:, 0]
        best, worst = first + returns.argmax(-1), first + returns.argmin(-1)
        responses = batch.input_ids[:, width:].masked_fill(~batch.mask, self.stepper.rules.pad_id)
        kept = (responses[best] != responses[worst]).any(-1)
        if config.max_prompt_tokens is not None:
            prompts = batch.attention_mask[first, :width].sum(-1)
            kept &= prompts <= config.max_prompt_tokens
        if config.max_response_tokens is not None:
            longest = batch.lengths.view(by_prompt).amax(-1)
            kept &= longest <= config.max_response_tokens
        return torch.stack([best, worst], dim=-1)[kept].flatten()

    def loss(self, minibatch: Minibatch) -> Tensor:
        """Squared residual of the pairs, the mean over pairs, and KL to the reference if asked."""
        batch = minibatch.batch
        now = self.policy.evaluate(batch.input_ids, batch.attention_mask, batch.action_masks)
        log_ratios = (now.log_probs - batch.log_probs).sum(-1)
        residuals = difference(log_ratios) / self.config.eta - difference(
            batch.token_rewards.sum(-1)
        )
        # Half as many pairs as episodes.
        loss = 2.0 * minibatch.episode_mean(residuals.square())
        record_move(self.metrics, minibatch, now.log_probs, clip_range=0.2)
        self.metrics.add("entropy", minibatch.mean(now.entropy))
        return loss + self.kl_loss(minibatch, now.log_probs)


def difference(values: Tensor) -> Tensor:
    """First minus second of every pair.

    Args:
        values: best, worst, best, ..., shape (2 * pairs,).

    Returns:
        Shape (pairs,).
    """
    return values[0::2] - values[1::2]
