"""Proximal policy optimisation on whole responses.

    collect responses        y ~ pi_old(. | x)
    credit                   r_t = score at the last token, minus KL to the reference at each
    advantages               A_t by GAE, whitened
    minimise                 -min(ratio_t A_t, clip(ratio_t) A_t) + c (V_t - R_t)^2 / 2

Sources: Schulman et al., "Proximal Policy Optimization Algorithms" (2017); Ziegler et al.,
"Fine-Tuning Language Models from Human Preferences" (2019); Stiennon et al., "Learning to Summarize
from Human Feedback" (2020); "The N+ Implementation Details of RLHF with PPO" (arXiv 2403.17031).
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from rlhf_gym.agents.config import TextAlgorithmConfig
from rlhf_gym.agents.functional import (
    clipped_policy_loss,
    clipped_value_loss,
    explained_variance,
    gae,
    whiten,
)
from rlhf_gym.agents.metrics import record_move
from rlhf_gym.agents.minibatches import Minibatch
from rlhf_gym.agents.ppo_config import PPOConfig as PPOConfig
from rlhf_gym.agents.rollout import RolloutBatch
from rlhf_gym.agents.text_algorithm import TextAlgorithm
from rlhf_gym.core.errors import InvalidArgument


class PPO(TextAlgorithm):
    """PPO with a clipped objective and a value model; see `LMAlgorithm` for the arguments."""

    config_class: ClassVar[type[TextAlgorithmConfig]] = PPOConfig
    config: PPOConfig

    def _setup_model(self) -> None:
        super()._setup_model()
        estimates_from_values = type(self).compute_advantages is PPO.compute_advantages
        if estimates_from_values and not self.policy.has_values:
            raise InvalidArgument(
                "value_model",
                "none",
                "advantages are estimated from values",
                "Choose 'trunk', 'separate' or a reward model's folder",
            )
        cuts = self._stepper is not None and any(
            task.length_limit == "truncate" for task in self._stepper.tasks
        )
        if estimates_from_values and cuts:
            raise InvalidArgument(
                "length_limit",
                "truncate",
                "a cut-off response would go on, and its value at the cut is not estimated here: "
                "its last token would be credited as if it were the end",
                'Make the environment with length_limit="terminate", or train it with SB3\'s PPO '
                "and LMActorCriticPolicy, which bootstraps",
            )

    @property
    def gamma(self) -> float:
        """Discount per token."""
        return self.config.gamma

    def compute_advantages(self, batch: RolloutBatch) -> RolloutBatch:
        """Advantages and returns by generalised advantage estimation."""
        assert batch.values is not None
        rewards = batch.token_rewards
        if self.config.whiten_rewards:
            rewards = whiten(rewards, batch.mask, shift_mean=False)
        advantages, returns = gae(
            rewards,
            batch.values,
            batch.mask,
            gamma=self.config.gamma,
            gae_lambda=self.config.gae_lambda,
        )
        explained = explained_variance(batch.values, returns, batch.mask)
        self.logger.record("train/explained_variance", float(explained))
        if self.config.whiten_advantages:
            advantages = whiten(advantages, batch.mask)
        return batch._replace(advantages=advantages, returns=returns)

    def loss(self, minibatch: Minibatch) -> Tensor:
        """Clipped surrogate, value error and, where asked for, entropy and KL to the reference."""
        config, batch = self.config, minibatch.batch
        assert batch.advantages is not None
        assert batch.returns is not None
        assert batch.values is not None
        now = self.policy.evaluate(batch.input_ids, batch.attention_mask, batch.action_masks)
        assert now.values is not None

        policy_loss = minibatch.mean(
            clipped_policy_loss(now.log_probs, batch.log_probs, batch.advantages, config.clip_range)
        )
        value_loss = minibatch.mean(
            clipped_value_loss(now.values, batch.values, batch.returns, config.value_clip_range)
        )
        entropy = minibatch.mean(now.entropy)
        loss = policy_loss + config.value_coef * value_loss
        if config.entropy_coef:  # times 0 it would still be differentiated
            loss = loss - config.entropy_coef * entropy

        record_move(self.metrics, minibatch, now.log_probs, config.clip_range)
        self.metrics.add("policy_gradient_loss", policy_loss)
        self.metrics.add("value_loss", value_loss)
        self.metrics.add("entropy", entropy)
        return loss + self.kl_loss(minibatch, now.log_probs)
