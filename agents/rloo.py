"""REINFORCE leave-one-out: the whole response is one action, its siblings are the baseline.

    collect responses        y_1 ... y_k ~ pi_old(. | x), k of them to every prompt
    credit                   R_i = score minus KL to the reference, of the whole response
    advantages               A_i = R_i - mean of R_j over the other k - 1
    minimise                 -min(ratio_i A_i, clip(ratio_i) A_i),  ratio_i = pi(y_i) / pi_old(y_i)

No value model and no credit by token. In the first minibatch, where every ratio is 1, the gradient
is exactly REINFORCE's; the clip only bounds what the minibatches after it may do.

Sources: Ahmadian et al., "Back to Basics: Revisiting REINFORCE Style Optimization for Learning from
Human Feedback in LLMs" (2024), equation 8; Kool et al., "Buy 4 REINFORCE Samples, Get a Baseline
for Free!" (2019). The authors take one step per batch (`epochs=1, minibatches=1`) and clip nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from rlhf_gym.agents.config import TextAlgorithmConfig
from rlhf_gym.agents.functional import clipped_policy_loss, leave_one_out
from rlhf_gym.agents.metrics import record_move
from rlhf_gym.agents.minibatches import Minibatch
from rlhf_gym.agents.rloo_config import RLOOConfig as RLOOConfig
from rlhf_gym.agents.rollout import RolloutBatch
from rlhf_gym.agents.text_algorithm import TextAlgorithm


class RLOO(TextAlgorithm):
    """REINFORCE with a leave-one-out baseline; see `LMAlgorithm` for the arguments."""

    config_class: ClassVar[type[TextAlgorithmConfig]] = RLOOConfig
    default_policy_kwargs: ClassVar[dict[str, Any]] = {"value_model": "none"}
    config: RLOOConfig

    def compute_advantages(self, batch: RolloutBatch) -> RolloutBatch:
        """One advantage for every response, shape (batch,)."""
        returns = batch.token_rewards.sum(-1)
        return batch._replace(advantages=leave_one_out(returns, self.config.responses_per_prompt))

    def loss(self, minibatch: Minibatch) -> Tensor:
        """Clipped surrogate of whole responses and, where asked for, KL to the reference."""
        config, batch = self.config, minibatch.batch
        assert batch.advantages is not None
        now = self.policy.evaluate(batch.input_ids, batch.attention_mask, batch.action_masks)
        policy_loss = minibatch.episode_mean(
            clipped_policy_loss(
                now.log_probs.sum(-1),
                batch.log_probs.sum(-1),
                batch.advantages,
                config.clip_range,
            )
        )
        record_move(self.metrics, minibatch, now.log_probs, config.clip_range)
        self.metrics.add("policy_gradient_loss", policy_loss)
        self.metrics.add("entropy", minibatch.mean(now.entropy))
        return policy_loss + self.kl_loss(minibatch, now.log_probs)
