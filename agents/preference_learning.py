"""Any Stable-Baselines3 agent, taught by comparisons of what it does.

Act, choose pairs of clips, have them compared, fit the reward, pay old experience anew, act on.

Sources: Christiano et al. (2017), "Deep Reinforcement Learning from Human Preferences"; Lee et al.
(2021), "PEBBLE" (relabelling of replay buffers).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from rlhf_gym.agents.checkpoint import prepare_folder
from rlhf_gym.agents.detours import take_detours
from rlhf_gym.agents.preference_config import PreferenceConfig as PreferenceConfig
from rlhf_gym.agents.rounds import AgentT, load_agent, newest_round, save_round
from rlhf_gym.agents.sb3.relabelling import relabel
from rlhf_gym.agents.state_files import read_state
from rlhf_gym.agents.teaching import ReturnsCallback, check_taught, unmonitored
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.labelers import Labeler
from rlhf_gym.core.preferences.encoding import Encoding
from rlhf_gym.core.preferences.learner import Metrics, RewardLearner
from rlhf_gym.core.store import FeedbackStore
from rlhf_gym.envs.taught import TaughtVecEnv
from rlhf_gym.rewards.learned import LearnedReward, OccasionalSupervisor, PaymentRule, Supervisor

STORE, ROUNDS = "feedback.db", "rounds"


class PreferenceLearning:
    """The loop around an agent.

    ```
    learning = PreferenceLearning(make_sb3_env("rlhf_gym/Pizza-v0", 16), "runs/pizza", "oracle")
    agent = PPO("MlpPolicy", learning.env)
    learning.learn(agent, 250_000)
    ```

    Off-policy agents take `replay_buffer_class=PreferenceReplayBuffer`.

    After each round the folder holds the agent, the reward and the generators; answers are on disk
    before they are used, in `feedback.db`. A new `PreferenceLearning` on the folder goes on from
    there, with `resume_agent` for the agent. Episodes begin anew then, and SB3 does not keep the
    state of its global generators: a resumed run is not the same to the last bit.

    Args:
        env: the task; a `VecMonitor` around it is replaced by one that sees what is paid.
        folder: of the run.
        labeler: who compares, or the name of a synthetic teacher.
        config: how.
        seed: of questions, reward and exploration.
        resume: go on from what is in the folder; otherwise it must not hold answers yet.
        supervisor: who pays for single steps on top; by default as the configuration says.
        pay: makes what the agent is paid of what was learned; by default that itself.

    Attributes:
        env: for the agent.
        taught: the part of it that pays and remembers.
        learner: the reward and those who teach it.
        history: what the rounds came to, one dictionary each, with `timesteps`.

    Raises:
        InvalidArgument: no such teacher or selection, or answers in the folder and no resumption.
        FolderNotWritable: before any work is done.
        InvalidCheckpoint: the folder's newest round is damaged.
    """

    def __init__(
        self,
        env: VecEnv | VectorEnv[Any, Any, Any],
        folder: str | Path,
        labeler: Labeler | str = "oracle",
        config: PreferenceConfig | None = None,
        *,
        seed: int = 0,
        resume: bool = True,
        supervisor: Supervisor | None = None,
        pay: Callable[[PaymentRule], PaymentRule] | None = None,
    ) -> None:
        self.config = config or PreferenceConfig()
        self.folder = Path(folder)
        self.seed = seed
        self.history: list[Metrics] = []
        prepare_folder(self.folder)
        venv = unmonitored(env)
        encoding = Encoding(
            venv.observation_space,
            venv.action_space,
            both_ends=self.config.learner.judges != "steps",
        )
        self.learner = RewardLearner(
            encoding,
            venv.num_envs,
            FeedbackStore(self.folder / STORE),
            labeler,
            self.config.learner,
            seed=seed,
        )
        if self.learner.asked and not resume:
            raise InvalidArgument(
                "folder", str(folder), "answers of another run are in it", "Choose another folder"
            )
        if supervisor is None and self.config.supervisor:
            supervisor = OccasionalSupervisor(self.config.supervisor, seed=seed)
        rule: PaymentRule = LearnedReward(
            self.learner.ensemble,
            automated_weight=self.config.automated_weight,
            supervisor=supervisor,
        )
        if pay is not None:
            rule = pay(rule)
        self.taught = TaughtVecEnv(
            venv, rule, replay=self.learner.replay, record_frames=self.config.record_frames
        )
        self.env = VecMonitor(self.taught)
        self._saved = newest_round(self.folder / ROUNDS)
        if self._saved is not None:
            state = read_state(self._saved)
            self.learner.load_state_dict(state["learner"])
            self.history = state["history"]

    def resume_agent(self, kind: type[AgentT], **kwargs: Any) -> AgentT | None:
        """The agent of the newest round in the folder; None if there is no round yet.

        Args:
            kind: its class.
            **kwargs: for `kind.load`.
        """
        if self._saved is None:
            return None
        return load_agent(self._saved, kind, self.env, **kwargs)

    def learn(
        self,
        agent: BaseAlgorithm,
        total_timesteps: int,
        *,
        callback: BaseCallback | None = None,
        **kwargs: Any,
    ) -> Metrics:
        """Train the agent, and teach the reward while it learns.

        Args:
            agent: on `env`, or on wrappers of it such as `VecNormalize`.
            total_timesteps: of the agent in all, those before a resumption included; exploration
                does not count.
            callback: of the user.
            **kwargs: for the agent's own `learn`, such as `progress_bar`.

        Returns:
            What the last round came to.

        Raises:
            InvalidArgument: an agent on another environment, a replay buffer that cannot be
                relabelled, episodes shorter than a segment, or more labels than there are pairs.
        """
        check_taught(agent, self.taught, self.learner.ensemble)
        if not self.learner.replay:
            self.explore()
        first = self.config.schedule.due(0.0) - self.learner.asked
        if first > 0:
            self._keep(self.learner.ask(first), agent)
        elif not self.learner.fits:  # answers from before, such as of a run killed while exploring
            self._keep(self.learner.learn(), agent)
        remaining = total_timesteps - agent.num_timesteps
        if remaining > 0:
            asking = _Asking(self, total_timesteps)
            agent.learn(
                remaining,
                callback=[asking] if callback is None else [asking, callback],
                reset_num_timesteps=agent.num_timesteps == 0,
                **kwargs,
            )
            wanted = self.config.schedule.total
            if self.learner.asked < wanted and not asking.asked_last:
                warnings.warn(
                    f"{self.learner.asked} of {wanted} labels were asked for: training ended "
                    "before the others were due. Train for more total_timesteps "
                    "(--total-timesteps), or want fewer labels",
                    stacklevel=2,
                )
        self.save(agent)
        return self.history[-1]

    def explore(self) -> None:
        """Act at random, so that there is something to compare."""
        self.env.reset()
        actions = batch_space(self.env.action_space, self.env.num_envs)
        actions.seed(self.seed)
        rng = np.random.default_rng(self.seed)
        masked = isinstance(self.env.action_space, Discrete) and self.env.has_attr("action_masks")
        done: NDArray[Any] | None = None
        for _ in range(-(-self.config.explore // self.env.num_envs)):
            masks = np.stack(self.env.env_method("action_masks")) if masked else None
            drawn = actions.sample() if masks is None else _allowed(masks, rng)
            if done is not None and self.config.persistence:
                again = rng.random(len(drawn)) < self.config.persistence
                if masks is not None:
                    again &= masks[np.arange(len(drawn)), done]
                drawn[again] = done[again]
            self.env.step(drawn)
            done = drawn
        self.taught.episodes.clear()

    def take_detours(self, agent: BaseAlgorithm) -> None:
        """Episodes to ask about in which the agent does something else now and then."""
        config, seed = self.config, (self.seed, self.learner.asked)
        spacing = config.learner.segment_length
        take_detours(agent, config.detours, config.detour_length, spacing, seed)
        self.taught.episodes.clear()

    def ask_if_due(self, agent: BaseAlgorithm, progress: float) -> None:
        """A round of questions, if enough of them are due; to be called between rollouts.

        Args:
            agent: as it is.
            progress: share of the training that is over.
        """
        schedule = self.config.schedule
        missing = schedule.due(progress) - self.learner.asked
        round_size = -(-(schedule.total - schedule.due(0.0)) // self.config.rounds)
        left = schedule.total - self.learner.asked
        if left > 0 and missing >= min(round_size, left):
            if self.config.detours:
                self.take_detours(agent)
            self._keep(self.learner.ask(missing), agent)
            self.save(agent)

    def save(self, agent: BaseAlgorithm) -> Path:
        """Write what a resumed run needs; a killed process leaves a whole round or none.

        Returns:
            The round's folder.
        """
        state = {"learner": self.learner.state_dict(), "history": self.history}
        return save_round(self.folder / ROUNDS, agent, self.learner.ensemble, state)

    def _keep(self, metrics: Metrics, agent: BaseAlgorithm) -> None:
        self.history.append({"timesteps": float(agent.num_timesteps), **metrics})
        if isinstance(agent, OffPolicyAlgorithm):
            relabel(agent, self.learner.ensemble)


def _allowed(masks: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """An allowed action of each row, all with equal chance, shape (rows,)."""
    chosen: NDArray[np.int64] = (rng.random(masks.shape) * masks).argmax(-1)
    return chosen


class _Asking(ReturnsCallback):
    """Asks between rollouts, and logs what the rounds came to.

    Attributes:
        asked_last: the last occasion to ask was seen as such, and used.
    """

    def __init__(self, learning: PreferenceLearning, total_timesteps: int) -> None:
        super().__init__(learning.taught)
        self.learning = learning
        self.total_timesteps = total_timesteps
        self.asked_last = False
        self._logged = 0
        self._before: float | None = None

    def _on_rollout_start(self) -> None:
        progress = self.model.num_timesteps / self.total_timesteps
        # Before the last rollout there is no later occasion.
        self.asked_last = progress + self._rollout(progress) >= 1.0
        self._before = progress
        self.learning.ask_if_due(self.model, 1.0 if self.asked_last else progress)
        for metrics in self.learning.history[self._logged :]:
            for name, value in metrics.items():
                if name != "timesteps":
                    self.logger.record(f"preferences/{name}", value)
        self._logged = len(self.learning.history)

    def _rollout(self, progress: float) -> float:
        """Share of the training that the rollout which begins now is likely to take."""
        agent = self.model
        if isinstance(agent, OnPolicyAlgorithm):
            return agent.n_steps * agent.n_envs / self.total_timesteps
        # Others tell by the one before; of the first nothing is known.
        return 0.0 if self._before is None else progress - self._before
