"""What pays an agent that acts: from a scheme to environments, checked before anything is learned.

`rlhf-gym train --reward` and `rlhf-gym compare --schemes` take the same expressions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from rlhf_gym.agents.callbacks import ONLY_TENSORBOARD
from rlhf_gym.agents.sb3.critic import CriticPotential
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.preferences.reward_net import RewardEnsemble
from rlhf_gym.envs.shaped import BatchPotential, ShapedVecEnv
from rlhf_gym.rewards.discount import check_gamma
from rlhf_gym.rewards.step_payment import LearnedPotential, SchemePayment
from rlhf_gym.rewards.step_sums import StepShaping, StepSum, StepTerm, WeightedShaping

GAMMA_REMEDY = "Give shaping(..., gamma=) and the agent the same, by --agent-kwargs gamma="


def check_payment(scheme: StepSum, agent: BaseAlgorithm, judges: str) -> None:
    """Refuse a scheme that an agent cannot be paid by, before anything is learned.

    Args:
        scheme: what is paid.
        agent: as it is made for the task.
        judges: what a learned reward looks at, see `RewardLearnerConfig`.

    Raises:
        InvalidArgument: shaping for another discount, a learned reward that is no potential, a
            potential that cannot be had, or a replay buffer that could not be paid anew.
    """
    for _, shaping in scheme.shapings:
        check_gamma(shaping.gamma, _gamma(agent), GAMMA_REMEDY)
        if shaping.reads_learned and judges in ("steps", "outcome"):
            raise InvalidArgument(
                "schemes",
                "shaping(preferences)",
                "the learned reward judges single steps, and says nothing of states",
                "Add --preferences.learner.judges change",
            )
        if isinstance(shaping.potential, str):
            CriticPotential(shaping.potential, type(agent))
    replays = isinstance(agent, OffPolicyAlgorithm) and scheme.reads_learned
    if replays and (scheme.shapings or not scheme.pays_learned_as_it_is):
        raise InvalidArgument(
            "schemes",
            "preferences",
            f"{type(agent).__name__} replays old steps, which are paid anew as more is learned; "
            "that goes for preferences as they are and fixed terms beside them",
            "Write preferences + 0.5 * automated, or take an agent without a replay buffer",
        )


def shape(agent: BaseAlgorithm, scheme: StepSum, ensemble: RewardEnsemble | None = None) -> VecEnv:
    """Put the scheme's shaping around the environment that an agent acts in.

    Args:
        agent: in the task, paid by the rest of the scheme; it is given the new environment.
        scheme: what is paid, see `check_payment`.
        ensemble: the reward learned from comparisons, where there is one.

    Returns:
        The agent's environment.
    """
    venv = agent.get_env()
    assert venv is not None  # agents are made in one
    for weighted in scheme.shapings:
        venv = ShapedVecEnv(venv, _potential(weighted, type(agent), ensemble), _gamma(agent))
        agent.set_env(venv)
    return venv


class PaymentHistograms(BaseCallback):
    """Logs how each term of a scheme is distributed over the episodes of a rollout: `terms/...`.

    Args:
        payment: the scheme at work.
        env: the agent's, with shaping around it or not.
    """

    def __init__(self, payment: SchemePayment, env: VecEnv) -> None:
        super().__init__()
        self.payment = payment
        self.shaping = env if isinstance(env, ShapedVecEnv) else None

    def _on_training_start(self) -> None:
        self.payment.episodes.clear()  # those of exploration

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        episodes = list(self.payment.episodes)
        self.payment.episodes.clear()
        if not episodes:
            return
        for name in episodes[0]:
            self._record(name, [episode[name] for episode in episodes])
        if self.shaping is not None:
            self._record(StepShaping.name, list(self.shaping.episodes))
            self.shaping.episodes.clear()

    def _record(self, name: str, totals: list[float]) -> None:
        self.logger.record(f"terms/{name}", torch.tensor(totals), exclude=ONLY_TENSORBOARD)


def _potential(
    weighted: WeightedShaping, kind: type[BaseAlgorithm], ensemble: RewardEnsemble | None
) -> BatchPotential:
    """Phi, times its weight: that of a sum scales the potential."""
    source = weighted.shaping.potential
    potential: Callable[[Any], Any]
    if isinstance(source, StepTerm):
        assert ensemble is not None  # the only term that is a potential is the learned one
        potential = LearnedPotential(ensemble)
    elif isinstance(source, str):
        potential = CriticPotential(source, kind)
    else:
        potential = source
    return lambda observations: weighted.weight * potential(observations)


def _gamma(agent: BaseAlgorithm) -> float:
    """The discount of an agent; one without it, such as random search, counts as 1."""
    return float(vars(agent).get("gamma", 1.0))
