"""An agent that acts, paid by a scheme: by rules alone, or with a reward that is being learned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymnasium.vector import VectorEnv
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from rlhf_gym.agents.callbacks import GammaCallback
from rlhf_gym.agents.preference_learning import ROUNDS, STORE, PreferenceLearning
from rlhf_gym.agents.rounds import newest_round
from rlhf_gym.agents.teaching import ReturnsCallback
from rlhf_gym.core.store import FeedbackStore
from rlhf_gym.envs.sb3 import GymnasiumVecEnv
from rlhf_gym.envs.taught import TaughtVecEnv
from rlhf_gym.pipelines.control_payment import PaymentHistograms, check_payment, shape
from rlhf_gym.rewards.learned import PaymentRule
from rlhf_gym.rewards.step_payment import SchemePayment
from rlhf_gym.rewards.step_sums import StepSum

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from rlhf_gym.agents.sb3.control import ControlAgent
    from rlhf_gym.pipelines.train import Attached, TrainConfig


def is_begun(folder: Path) -> bool:
    """Whether an agent was taught in this folder: it holds answers, or a round."""
    if newest_round(folder / ROUNDS) is not None:
        return True
    if not (folder / STORE).is_file():
        return False
    with FeedbackStore(folder / STORE) as store:
        return store.progress().labels > 0


@dataclass(frozen=True)
class SchemeTraining:
    """Training of an agent on what a scheme pays.

    Attributes:
        config: of the command.
        kind: the agent.
        env: the task.
        settings: arguments of the agent.
        scheme: what is paid; with `preferences` in it they are learned meanwhile.
        attached: the caller's callbacks and logger.
    """

    config: TrainConfig
    kind: ControlAgent
    env: VectorEnv[Any, Any, Any]
    settings: dict[str, Any]
    scheme: StepSum
    attached: Attached

    def run(self) -> tuple[BaseAlgorithm, int]:
        """Train.

        Returns:
            The agent, and how many comparisons were asked for.

        Raises:
            InvalidArgument: see `check_payment`.
        """
        return self._with_comparisons() if self.scheme.reads_learned else self._by_rules()

    def _by_rules(self) -> tuple[BaseAlgorithm, int]:
        payment = SchemePayment(self.scheme)
        taught = TaughtVecEnv(GymnasiumVecEnv(self.env), payment)
        agent = self.kind.make(VecMonitor(taught), **self.settings)
        check_payment(self.scheme, agent, "nothing")
        venv = shape(agent, self.scheme)
        self.attached.attach(agent)
        agent.learn(
            self.config.total_timesteps,
            callback=CallbackList([ReturnsCallback(taught), *self._callbacks(payment, venv)]),
            progress_bar=self.config.progress,
            tb_log_name=self.config.agent,
        )
        return agent, 0

    def _with_comparisons(self) -> tuple[BaseAlgorithm, int]:
        payments: list[SchemePayment] = []

        def pay(learned: PaymentRule) -> PaymentRule:
            payments.append(SchemePayment(self.scheme, learned))
            return payments[0]

        config = self.config
        task = config.environment
        teaching = config.teaching.for_task(task.env, task.parsed_env_kwargs())
        learning = PreferenceLearning(
            self.env,
            Path(config.output),
            config.teaching.teacher,
            teaching,
            seed=config.seed,
            resume=config.resume,
            pay=pay,
        )
        agent = learning.resume_agent(self.kind.load_class(), tensorboard_log=config.output)
        agent = agent or self.kind.make(learning.env, **self.settings)
        check_payment(self.scheme, agent, teaching.learner.judges)
        venv = shape(agent, self.scheme, learning.learner.ensemble)
        self.attached.attach(agent)
        learning.learn(
            agent,
            config.total_timesteps,
            callback=CallbackList(self._callbacks(payments[0], venv)),
            progress_bar=config.progress,
            tb_log_name=config.agent,
        )
        return agent, learning.learner.asked

    def _callbacks(self, payment: SchemePayment, venv: VecEnv) -> list[BaseCallback]:
        return [PaymentHistograms(payment, venv), GammaCallback(), *self.attached.callbacks]
