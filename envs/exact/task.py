"""`rlhf_gym/Exact-v0`: a language so small that the KL-regularised optimum is known."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from rlhf_gym.core.devices import Device, choose_device
from rlhf_gym.envs.exact.babbler import babbler, check_horizon, letter_tokenizer
from rlhf_gym.envs.exact.judge import ExactJudge, Optimum, Policy
from rlhf_gym.envs.exact.ladder import LadderReward
from rlhf_gym.envs.penalised import penalised
from rlhf_gym.envs.text.single import TextGenerationEnv
from rlhf_gym.envs.text.vector import TextGenerationVectorEnv
from rlhf_gym.rewards.base import RewardFunction, RewardTerm
from rlhf_gym.rewards.controllers import KLController
from rlhf_gym.rewards.kl import Estimator, Mode, Placement

PROMPTS = ("b", "a d", "e b c")
"""Of one, two and three letters, so that an agent that mistakes padding for text is found out."""


class ExactVectorEnv(TextGenerationVectorEnv):
    """Seven tokens, five steps, and the exact answer.

    ## Description
    A response is up to five letters; `<stop>` ends it. The reference LM, a random but fixed GPT-2
    of two layers x 32, babbles. Prompts and responses are so few (3 x 3,906) that the objective of
    any policy, E[reward] - kl_coef * KL, and its optimum are computed exactly: `optimum(kl_coef)`,
    `objective(policy)`, `share_of_the_way(policy)`.

    ## Action Space
    `Discrete(7)`: `<pad>` (never legal), `<stop>`, `a`, `b`, `c`, `d`, `e`.

    ## Observation Space
    As `TextGenerationVectorEnv`, P = 3, T = 5.

    ## Starting State
    One of the prompts `b`, `a d`, `e b c`.

    ## Rewards
    `ladder` (see `LadderReward`): bait that pays at once and costs twice as much in the end, and a
    ladder that pays only in the end. Minus the KL penalty, `kl`. Looking one step ahead is not
    enough: the policy that follows the next reward alone ends below the reference, one step of
    policy improvement on the reference's own values comes a third of the way.

    ## Episode End
    `<stop>`, or five tokens, which halves what the ladder pays.

    ## Information
    As `TextGenerationVectorEnv`.

    ## Arguments
    Args:
        num_envs: rows.
        kl_coef: reward per nat of KL, 0 or more, or a controller that moves it.
        kl_estimator: "k1", "k2", "k3" or "exact".
        kl_placement: "token" or "sequence".
        kl_target: steer the coefficient, which begins at `kl_coef`, towards so many nats a
            response.
        kl_mode: "sampled", or "soft" (reward + kl_coef * log pi_ref), see `KLPenalty`.
        reward: in place of `LadderReward`, for example with shaping added; the KL penalty is
            subtracted unless it holds one. The judge goes on judging by the ladder.
        max_response_tokens: T; the optimum is computed for up to eight.
        device: where the reference goes; "auto" is a GPU if there is one.
        **options: other arguments of `TextGenerationVectorEnv`, but for prompts and tokenizer.

    Attributes:
        judge: computes the exact answers.

    ## References
    Ziegler et al. (2019), "Fine-Tuning Language Models from Human Preferences", equation 2.

    ## Version History
    v0: first.
    """

    def __init__(
        self,
        *,
        num_envs: int = 1,
        kl_coef: float | KLController = 0.1,
        kl_estimator: Estimator = "k1",
        kl_placement: Placement = "token",
        kl_target: float | None = None,
        kl_mode: Mode = "sampled",
        reward: RewardTerm | RewardFunction | None = None,
        max_response_tokens: int = 5,
        device: Device = "auto",
        **options: Any,
    ) -> None:
        reference = babbler()
        nn.Module.to(reference, choose_device(device))
        check_horizon(max_response_tokens)
        super().__init__(
            PROMPTS,
            letter_tokenizer(),
            penalised(
                LadderReward(max_response_tokens) if reward is None else reward,
                reference,
                kl_coef=kl_coef,
                kl_estimator=kl_estimator,
                kl_placement=kl_placement,
                kl_target=kl_target,
                kl_mode=kl_mode,
            ),
            num_envs=num_envs,
            reference=reference,
            max_response_tokens=max_response_tokens,
            device=device,
            **options,
        )
        self.judge = ExactJudge(
            [letter_tokenizer()(prompt)["input_ids"] for prompt in PROMPTS],
            self.rules,
            max_response_tokens,
            babbler(),
            LadderReward(max_response_tokens),
            self.prompt_width,
            self.masks,
        )

    def optimum(self, kl_coef: float | None = None) -> Optimum:
        """The KL-regularised optimum and its value.

        Args:
            kl_coef: reward per nat, above 0; by default the environment's own, as it is now.

        Raises:
            InvalidArgument: a coefficient of 0 or less.
        """
        return self.judge.optimum(self._coefficient(kl_coef))

    def objective(self, policy: Policy, kl_coef: float | None = None) -> float:
        """E[reward] - kl_coef * KL of a policy, exactly; the mean over prompts.

        Args:
            policy: a Hugging Face causal LM (of an LM agent: `agent.policy.model`), a function from
                a batch of observations to logits (n, vocab), or a table such as
                `Optimum.log_probs`.
            kl_coef: reward per nat; by default the environment's own, as it is now.
        """
        return self.judge.performance(policy).objective(self._coefficient(kl_coef))

    def share_of_the_way(self, policy: Policy, kl_coef: float | None = None) -> float:
        """How far a policy has come: 0 is the reference's objective, 1 the optimum's.

        Args:
            policy: as in `objective`.
            kl_coef: as in `optimum`.
        """
        return self.judge.share_of_the_way(policy, self._coefficient(kl_coef))

    def _coefficient(self, kl_coef: float | None) -> float:
        coefficient = self.kl_coef if kl_coef is None else kl_coef
        assert coefficient is not None  # `penalised` has seen to it
        return coefficient


class ExactEnv(TextGenerationEnv):
    """`ExactVectorEnv` with one row; its page describes the task.

    Args:
        **kwargs: as `ExactVectorEnv`, without `num_envs`.
    """

    vector_class: ClassVar[type[TextGenerationVectorEnv]] = ExactVectorEnv
    vector_env: ExactVectorEnv

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    @property
    def judge(self) -> ExactJudge:
        """Computes the exact answers."""
        return self.vector_env.judge

    def optimum(self, kl_coef: float | None = None) -> Optimum:
        """See `ExactVectorEnv.optimum`."""
        return self.vector_env.optimum(kl_coef)

    def objective(self, policy: Policy, kl_coef: float | None = None) -> float:
        """See `ExactVectorEnv.objective`."""
        return self.vector_env.objective(policy, kl_coef)

    def share_of_the_way(self, policy: Policy, kl_coef: float | None = None) -> float:
        """See `ExactVectorEnv.share_of_the_way`."""
        return self.vector_env.share_of_the_way(policy, kl_coef)
