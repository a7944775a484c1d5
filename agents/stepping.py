"""One way to step text environments, whichever vector interface they came through.

An agent of ours acts in a Gymnasium VectorEnv directly, without one dict per row and step, or in
any SB3 VecEnv of text environments, wrappers included.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, unwrap_vec_normalize
from torch import Tensor

from rlhf_gym.core.errors import InvalidArgument, InvalidCheckpoint
from rlhf_gym.envs.sb3 import GymnasiumVecEnv
from rlhf_gym.envs.text.infos import row_info
from rlhf_gym.envs.text.single import TextGenerationEnv
from rlhf_gym.envs.text.vector import TextGenerationVectorEnv

BoolArray = NDArray[np.bool_]
Info = Mapping[str, Any]


class Step(NamedTuple):
    """What a step gave.

    Attributes:
        rewards: what `step` returned, wrappers included, shape (num_envs,).
        ended: True where an episode ended, shape (num_envs,).
        writing: True where a response goes on, shape (num_envs,); where none does and the episode
            has not ended either, it waits for the others.
        infos: one per row, as SB3 has them; complete where an episode ended, its last observation
            under `terminal_observation`, possibly empty elsewhere.
    """

    rewards: NDArray[Any]
    ended: BoolArray
    writing: BoolArray
    infos: Sequence[Info]


class TextStepper(ABC):
    """Rows of text environments, stepped together.

    Args:
        venv: the algorithm's environment, outermost wrapper.
        tasks: the text environments inside, one that holds all rows or one per row.
    """

    def __init__(self, venv: VecEnv, tasks: Sequence[TextGenerationVectorEnv]) -> None:
        self.venv = venv
        self.tasks = list(tasks)
        self.num_envs = venv.num_envs
        first = self.tasks[0]
        self.rules = first.rules
        self.tokenizer = first.tokenizer
        self.reference = first.reference
        self.prompt_width = first.prompt_width
        self.max_response_tokens = first.max_response_tokens
        self.reward_timing = first.reward_timing
        self.uses_action_masks = first.uses_action_masks
        self.wants_distribution = any(task.channel.wants_distribution for task in self.tasks)

    @abstractmethod
    def step(self, actions: NDArray[np.int64]) -> Step:
        """Act in every row.

        Args:
            actions: token ids, shape (num_envs,).
        """

    @abstractmethod
    def write(self, actions: Tensor, log_probs: Tensor, log_distribution: Tensor | None) -> None:
        """Tell the environment how its next actions were drawn.

        Args:
            actions: token ids, shape (num_envs,).
            log_probs: nats, shape (num_envs,).
            log_distribution: shape (num_envs, vocab), or None.
        """

    @abstractmethod
    def action_masks(self) -> BoolArray:
        """What is allowed now, shape (num_envs, vocab)."""

    def reset(self, prompts: NDArray[np.int64] | None = None) -> dict[str, NDArray[Any]]:
        """Begin new episodes in all rows and return their observations.

        Args:
            prompts: which prompts, shape (num_envs,); those that come next if None.
        """
        if prompts is not None and len(self.tasks) == 1:
            self.venv.set_options({"prompt_index": prompts.tolist()})
        elif prompts is not None:
            self.venv.set_options([{"prompt_index": index} for index in prompts.tolist()])
        return self.checked(self.venv.reset())

    def next_prompts(self, count: int) -> NDArray[np.int64]:
        """Take the prompts that come next, for `reset`, shape (count,).

        Raises:
            InvalidArgument: rows have prompts of their own, so one cannot answer another's.
        """
        first = self.tasks[0]
        if len({task.prompts.digest for task in self.tasks}) > 1:
            raise InvalidArgument(
                "responses_per_prompt",
                count,
                "the rows of the environment have different prompts",
                "Build all rows with the same prompts",
            )
        return first.next_prompts(count)

    def checked(self, observation: object) -> dict[str, NDArray[Any]]:
        """An observation as it came from a reset.

        Raises:
            InvalidArgument: it has no attention mask.
        """
        if isinstance(observation, dict):
            return observation
        raise InvalidArgument(
            "observation",
            "ids",
            "agents that keep a cache need the attention mask too",
            "Build the environment with observation='dict'",
        )

    @property
    def kl_coef(self) -> float:
        """Reward per nat of KL that the environment charges, 0 if it charges none."""
        return self.tasks[0].kl_coef or 0.0

    def update_kl(self) -> float | None:
        """Let the KL controller act on the episodes since the last call; the new coefficient."""
        first, *others = [task.update_kl() for task in self.tasks]
        del others  # one controller per environment; they all see the same policy
        return first

    def state_dict(self) -> dict[str, Any]:
        """What the environments need to go on exactly where they are."""
        return {str(number): task.state_dict() for number, task in enumerate(self.tasks)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            InvalidCheckpoint: it was saved with another number of environments.
        """
        if len(state) != len(self.tasks):
            raise InvalidCheckpoint(
                "env",
                len(self.tasks),
                f"the checkpoint was saved with {len(state)} environments",
                "Resume with an environment built as in the saved run",
            )
        for number, task in enumerate(self.tasks):
            task.load_state_dict(state[str(number)])


class _VectorStepper(TextStepper):
    """Steps a Gymnasium vector environment itself; its adapter only resets it."""

    def __init__(self, venv: GymnasiumVecEnv, task: TextGenerationVectorEnv) -> None:
        super().__init__(venv, [task])
        self._env = venv.vector_env
        self._task = task

    def step(self, actions: NDArray[np.int64]) -> Step:
        observation, rewards, terminated, truncated, info = self._env.step(actions)
        ended = terminated | truncated
        infos: list[Info] = [{}] * self.num_envs
        # What SAME_STEP repeats of it for others would be taken apart row by row for nothing.
        info = {name: value for name, value in info.items() if name.lstrip("_") != "final_info"}
        for row in np.flatnonzero(ended).tolist():
            single = row_info(info, row)
            last = {key: value[row] for key, value in observation.items()}
            infos[row] = {**single, "terminal_observation": single.pop("final_obs", last)}
        return Step(rewards, ended, self._task.live & ~ended, infos)

    def write(self, actions: Tensor, log_probs: Tensor, log_distribution: Tensor | None) -> None:
        self._task.channel.write(actions, log_probs, log_distribution)

    def action_masks(self) -> BoolArray:
        return self._task.action_masks()


class _VecEnvStepper(TextStepper):
    """Steps an SB3 VecEnv, so that its wrappers see every step."""

    def step(self, actions: NDArray[np.int64]) -> Step:
        _, rewards, ended, infos = self.venv.step(actions)
        live = np.concatenate([task.live for task in self.tasks])
        return Step(rewards, ended, live & ~ended, infos)

    def write(self, actions: Tensor, log_probs: Tensor, log_distribution: Tensor | None) -> None:
        first = 0
        for task in self.tasks:
            mine = slice(first, first + task.num_envs)
            distribution = None if log_distribution is None else log_distribution[mine]
            task.channel.write(actions[mine], log_probs[mine], distribution)
            first += task.num_envs

    def action_masks(self) -> BoolArray:
        return np.concatenate([task.action_masks() for task in self.tasks])


def make_stepper(venv: VecEnv) -> TextStepper:
    """The stepper for an algorithm's environment.

    Raises:
        InvalidArgument: there is no text environment inside, it lives in another process, or its
            observations are normalised.
    """
    tasks = text_tasks(venv)
    normaliser = unwrap_vec_normalize(venv)
    if normaliser is not None and normaliser.norm_obs:
        raise InvalidArgument(
            "norm_obs",
            True,
            "ids of tokens become other numbers, which no model can read",
            "Normalise the reward alone: VecNormalize(env, norm_obs=False)",
        )
    if isinstance(venv, GymnasiumVecEnv) and venv.vector_env.unwrapped is tasks[0]:
        return _VectorStepper(venv, tasks[0])
    return _VecEnvStepper(venv, tasks)


def text_tasks(venv: VecEnv) -> list[TextGenerationVectorEnv]:
    """The text environments inside an SB3 VecEnv: one that holds all rows, or one per row.

    Raises:
        InvalidArgument: there is none, or it lives in another process.
    """
    base = venv.unwrapped
    if isinstance(base, SubprocVecEnv):
        raise InvalidArgument(
            "env",
            type(base).__name__,
            "a policy cannot write its log-probabilities into another process",
            "Use gym.make_vec(..., num_envs=N): its rows already run together in one process",
        )
    if isinstance(base, GymnasiumVecEnv):
        vector_env = base.vector_env.unwrapped
        if not isinstance(vector_env, SyncVectorEnv):
            return [_task_of(vector_env)]
        return [_task_of(env.unwrapped) for env in vector_env.envs]
    return [_task_of(env.unwrapped) for env in venv.get_attr("unwrapped")]


def _task_of(env: object) -> TextGenerationVectorEnv:
    if isinstance(env, TextGenerationEnv):
        return env.vector_env
    if isinstance(env, TextGenerationVectorEnv):
        return env
    raise InvalidArgument(
        "env",
        type(env).__name__,
        "not a text environment, so there is nothing for a language model to write",
        "Pass a TextGenerationEnv or TextGenerationVectorEnv, or an id such as "
        "'rlhf_gym/Sentiment-v0'",
    )
