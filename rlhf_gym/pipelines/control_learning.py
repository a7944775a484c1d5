"""An agent that acts, paid by a scheme: by rules alone, or with a reward that is being learned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymnasium.vector import VectorEnv
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.vec_env import VecMonitor

from rlhf_gym.agents.callbacks import GammaCallback
from rlhf_gym.agents.preference_learning import PreferenceLearning
from rlhf_gym.agents.teaching import ReturnsCallback
from rlhf_gym.envs.sb3 import GymnasiumVecEnv
from rlhf_gym.envs.taught import TaughtVecEnv
from rlhf_gym.pipelines.control_payment import PaymentHistograms, check_payment, shaped
from rlhf_gym.rewards.learned import PaymentRule
from rlhf_gym.rewards.step_payment import SchemePayment
from rlhf_gym.rewards.step_sums import StepSum

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from rlhf_gym.agents.sb3.control import ControlAgent
    from rlhf_gym.pipelines.train import Attached, TrainConfig


def by_scheme(
    config: TrainConfig,
    kind: ControlAgent,
    env: VectorEnv[Any, Any, Any],
    settings: dict[str, Any],
    scheme: StepSum,
    attached: Attached,
) -> tuple[BaseAlgorithm, int]:
    """Train an agent on what a scheme pays.

    Args:
        config: of the command.
        kind: the agent.
        env: the task.
        settings: arguments of the agent.
        scheme: what is paid; with `preferences` in it they are learned meanwhile.
        attached: the caller's callbacks and logger.

    Returns:
        The agent, and how many comparisons were asked for.

    Raises:
        InvalidArgument: see `check_payment`.
    """
    learn = _with_comparisons if scheme.reads_learned else _by_rules
    return learn(config, kind, env, settings, scheme, attached)


def _by_rules(
    config: TrainConfig,
    kind: ControlAgent,
    env: VectorEnv[Any, Any, Any],
    settings: dict[str, Any],
    scheme: StepSum,
    attached: Attached,
) -> tuple[BaseAlgorithm, int]:
    payment = SchemePayment(scheme)
    taught = TaughtVecEnv(GymnasiumVecEnv(env), payment)
    venv = shaped(VecMonitor(taught), scheme, kind)
    agent = kind.make(venv, **settings)
    check_payment(scheme, agent, "nothing")
    attached.attach(agent)
    agent.learn(
        config.total_timesteps,
        callback=[
            ReturnsCallback(taught),
            PaymentHistograms(payment, venv),
            GammaCallback(),
            *attached.callbacks,
        ],
        progress_bar=config.progress,
        tb_log_name=config.agent,
    )
    return agent, 0


def _with_comparisons(
    config: TrainConfig,
    kind: ControlAgent,
    env: VectorEnv[Any, Any, Any],
    settings: dict[str, Any],
    scheme: StepSum,
    attached: Attached,
) -> tuple[BaseAlgorithm, int]:
    payments: list[SchemePayment] = []

    def pay(learned: PaymentRule) -> PaymentRule:
        payments.append(SchemePayment(scheme, learned))
        return payments[0]

    teaching = config.teaching.for_task(config.environment.env)
    learning = PreferenceLearning(
        env,
        Path(config.output),
        config.teaching.teacher,
        teaching,
        seed=config.seed,
        resume=config.resume,
        pay=pay,
    )
    venv = shaped(learning.env, scheme, kind, learning.learner.ensemble)
    agent = learning.resume_agent(kind.load_class(), tensorboard_log=config.output)
    if agent is None:
        agent = kind.make(venv, **settings)
    else:
        agent.set_env(venv)
    check_payment(scheme, agent, teaching.learner.judges)
    attached.attach(agent)
    learning.learn(
        agent,
        config.total_timesteps,
        callback=CallbackList(
            [PaymentHistograms(payments[0], venv), GammaCallback(), *attached.callbacks]
        ),
        progress_bar=config.progress,
        tb_log_name=config.agent,
    )
    return agent, learning.learner.asked
