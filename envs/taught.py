"""Environments whose reward is replaced by what a person's taste was learned to be.

`TaughtVecEnv` for Stable-Baselines3 also keeps what happened, for segments to be drawn from;
`TaughtVectorEnv` and `TaughtEnv` are Gymnasium wrappers for any other agent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.preferences.encoding import Encoding
from rlhf_gym.core.preferences.segments import SegmentReplay
from rlhf_gym.rewards.learned import ControlSteps, Payment, PaymentRule

KEPT_EPISODES = 10_000


class EpisodeReturns(NamedTuple):
    """Sums over one episode.

    Attributes:
        paid: what the agent got.
        learned: the learned part of it.
        automated: the task's own reward.
        gold: the judge's.
        length: steps.
    """

    paid: float
    learned: float
    automated: float
    gold: float
    length: int


class TaughtVecEnv(VecEnvWrapper):
    """An SB3 VecEnv that pays by a rule, and remembers.

    A step's info has `learned_reward`, `fixed_reward` (the rest of what was paid),
    `automated_reward` and `gold_reward`; without a judge's `gold_reward` in its info the task's own
    reward counts as gold. Put `VecMonitor` and `VecNormalize` around it, not inside: ARS takes
    returns from the monitor.

    Args:
        venv: the environment.
        rule: what is paid.
        replay: where steps are kept; None keeps none.
        encoding: how they are kept and shown to the rule; by default the replay's, or else a plain
            one of the environment's spaces.
        record_frames: keep pictures of the steps too, for people; the environment must have been
            made with `render_mode="rgb_array"`.

    Attributes:
        episodes: returns of finished episodes, oldest first; whoever reads them takes them out.
    """

    def __init__(
        self,
        venv: VecEnv,
        rule: PaymentRule,
        *,
        replay: SegmentReplay | None = None,
        encoding: Encoding | None = None,
        record_frames: bool = False,
    ) -> None:
        super().__init__(venv)
        plain = Encoding(venv.observation_space, venv.action_space)
        self.encoding = encoding or (plain if replay is None else replay.encoding)
        self.rule = rule
        self.replay = replay
        self.record_frames = record_frames
        self.episodes: deque[EpisodeReturns] = deque(maxlen=KEPT_EPISODES)
        self._seen: Any = None
        self._frames: NDArray[np.uint8] | None = None
        self._actions: NDArray[Any] = np.empty(0)
        self._sums = np.zeros((5, self.num_envs))

    def reset(self) -> Any:
        """Begin new episodes."""
        observations = self.venv.reset()
        self._keep_seen(observations)
        self._sums[:] = 0.0
        if self.replay is not None:
            self.replay.interrupt()
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Pass the actions on, and keep them for `step_wait`."""
        self._actions = np.array(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """The step, paid by the rule."""
        observations, automated, dones, infos = self.venv.step_wait()
        gold = np.array(
            [info.get("gold_reward", own) for info, own in zip(infos, automated, strict=True)],
            dtype=np.float64,
        )
        done = self.encoding.actions(self._actions)
        shown = self.encoding.of_steps(self._seen, self._after(observations, dones, infos))
        payment = self.rule(ControlSteps(shown, done, automated, gold, dones))
        if self.replay is not None:
            self.replay.add_encoded(shown, done, gold, dones, self._frames)
        self._count(payment, automated, gold, dones)
        for row, info in enumerate(infos):  # SB3 asks for one dictionary per row
            info["learned_reward"] = float(payment.learned[row])
            info["fixed_reward"] = float(payment.fixed[row])
            info["automated_reward"] = float(automated[row])
            info["gold_reward"] = float(gold[row])
        self._keep_seen(observations)
        return observations, payment.reward.astype(np.float32), dones, infos

    def _after(
        self, observations: Any, dones: NDArray[np.bool_], infos: list[dict[str, Any]]
    ) -> NDArray[Any]:
        """What the steps led to, the last observation where an episode ended, shape (n, ...)."""
        after = self.encoding.observations(observations)
        if self.encoding.both_ends and dones.any():
            after = np.array(after)
            for row in np.flatnonzero(dones).tolist():  # SB3 has them in one dictionary per row
                last = _batch_of_one(infos[row]["terminal_observation"])
                after[row] = self.encoding.observations(last)[0]
        return after

    def _keep_seen(self, observations: Any) -> None:
        # A copy: environments may write the next observation into the same array.
        self._seen = np.array(self.encoding.observations(observations))
        self._frames = self._pictures() if self.record_frames else None

    def _pictures(self) -> NDArray[np.uint8]:
        frames = [frame for frame in self.get_images() if frame is not None]
        if len(frames) < self.num_envs:
            raise InvalidArgument(
                "record_frames",
                True,
                "the environment draws no pictures",
                "Make it with render_mode='rgb_array'",
            )
        return np.stack(frames)

    def _count(
        self,
        payment: Payment,
        automated: NDArray[Any],
        gold: NDArray[Any],
        dones: NDArray[np.bool_],
    ) -> None:
        self._sums += np.stack(
            [payment.reward, payment.learned, automated, gold, np.ones(self.num_envs)]
        )
        for paid, learned, own, judged, length in self._sums[:, dones].T.tolist():
            self.episodes.append(EpisodeReturns(paid, learned, own, judged, int(length)))
        self._sums[:, dones] = 0.0


class TaughtVectorEnv(VectorWrapper[Any, Any, Any, Any]):
    """A Gymnasium VectorEnv that pays by a rule; info as of `TaughtVecEnv`, in arrays.

    Args:
        env: in any autoreset mode; under NEXT_STEP the step that begins an episode is paid nothing.
        rule: what is paid.
        encoding: how steps are shown to the rule; by default a plain one of the spaces.

    Raises:
        InvalidArgument: an environment that does not say its autoreset mode.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        rule: PaymentRule,
        *,
        encoding: Encoding | None = None,
    ) -> None:
        super().__init__(env)
        mode = env.metadata.get("autoreset_mode")
        if mode is None:
            raise InvalidArgument(
                "autoreset_mode", mode, "unknown", "Set metadata['autoreset_mode'] of the env"
            )
        plain = Encoding(env.single_observation_space, env.single_action_space)
        self.encoding = encoding or plain
        self.rule = rule
        self._mode = mode
        self._seen: Any = None
        self._ended = np.zeros(self.num_envs, np.bool_)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin new episodes."""
        observations, info = self.env.reset(seed=seed, options=options)
        self._seen = np.array(self.encoding.observations(observations))
        self._ended[:] = False
        return observations, info

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """The step, paid by the rule."""
        observations, automated, terminated, truncated, info = self.env.step(actions)
        judged = info.get("_gold_reward", np.zeros(self.num_envs, np.bool_))
        gold = np.where(judged, info.get("gold_reward", 0.0), automated)
        done = self.encoding.actions(actions)
        shown = self.encoding.of_steps(self._seen, self._after(observations, info))
        payment = self.rule(ControlSteps(shown, done, automated, gold, terminated | truncated))
        dead = self._ended if self._mode is AutoresetMode.NEXT_STEP else np.zeros_like(self._ended)
        paid = {
            "learned_reward": np.where(dead, 0.0, payment.learned),
            "fixed_reward": np.where(dead, 0.0, payment.fixed),
            "automated_reward": automated,
            "gold_reward": gold,
        }
        self._ended = terminated | truncated
        for target, rows in ((info, ~dead), (info.get("final_info"), self._ended)):
            if isinstance(target, dict):
                target |= paid | {f"_{name}": rows.copy() for name in paid}
        self._seen = np.array(self.encoding.observations(observations))
        reward = paid["learned_reward"] + paid["fixed_reward"]
        return observations, reward, terminated, truncated, info

    def _after(self, observations: Any, info: dict[str, Any]) -> NDArray[Any]:
        """What the steps led to, the last observation where an episode ended, shape (n, ...)."""
        after = self.encoding.observations(observations)
        if self.encoding.both_ends and "final_obs" in info:
            after = np.array(after)
            for row in np.flatnonzero(info["_final_obs"]).tolist():  # one object per ended row
                after[row] = self.encoding.observations(_batch_of_one(info["final_obs"][row]))[0]
        return after


class TaughtEnv(gym.Wrapper[Any, Any, Any, Any]):
    """A Gymnasium environment that pays by a rule; info as of `TaughtVecEnv`.

    Args:
        env: the environment.
        rule: what is paid.
        encoding: how steps are shown to the rule; by default a plain one of the spaces.
    """

    def __init__(
        self, env: gym.Env[Any, Any], rule: PaymentRule, *, encoding: Encoding | None = None
    ) -> None:
        super().__init__(env)
        self.encoding = encoding or Encoding(env.observation_space, env.action_space)
        self.rule = rule
        self._seen: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin a new episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._seen = np.array(self.encoding.observations(_batch_of_one(observation)))
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The step, paid by the rule."""
        observation, own, terminated, truncated, info = self.env.step(action)
        automated = np.array([float(own)])
        gold = np.array([float(info.get("gold_reward", float(own)))])
        done = self.encoding.actions(np.asarray(action)[None])
        after = np.array(self.encoding.observations(_batch_of_one(observation)))
        shown = self.encoding.of_steps(self._seen, after)
        ended = np.array([terminated or truncated])
        payment = self.rule(ControlSteps(shown, done, automated, gold, ended))
        info |= {
            "learned_reward": float(payment.learned[0]),
            "fixed_reward": float(payment.fixed[0]),
            "automated_reward": float(automated[0]),
            "gold_reward": float(gold[0]),
        }
        self._seen = after
        return observation, float(payment.reward[0]), terminated, truncated, info


def _batch_of_one(observation: Any) -> Any:
    if isinstance(observation, Mapping):
        return {key: _batch_of_one(value) for key, value in observation.items()}
    return np.asarray(observation)[None]
