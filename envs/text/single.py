"""Text generation as a single environment: a batch of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from rlhf_gym.core.errors import InvalidAction
from rlhf_gym.envs.text.infos import row_info
from rlhf_gym.envs.text.vector import TextGenerationVectorEnv


class TextGenerationEnv(gym.Env[Any, Any]):
    """One response being written, one token per step.

    `TextGenerationVectorEnv` with one row: its page describes actions, observations, rewards,
    episode end and information. `step` after the end raises `EpisodeEnded` at once.

    Args:
        *args: as `TextGenerationVectorEnv`.
        **kwargs: as `TextGenerationVectorEnv`, without `num_envs` and `autoreset_mode`.

    Attributes:
        vector_env: the batch of one that does the work; has the attributes this one has.
        vector_class: what `vector_env` is; a subclass sets its own.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012
    vector_class: ClassVar[type[TextGenerationVectorEnv]] = TextGenerationVectorEnv

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        vector_env = self.vector_class(
            *args, num_envs=1, autoreset_mode=AutoresetMode.DISABLED, **kwargs
        )
        self.vector_env = vector_env
        self.observation_space = vector_env.single_observation_space
        self.action_space = vector_env.single_action_space
        self.render_mode = vector_env.render_mode
        self.rules = vector_env.rules
        self.tokenizer = vector_env.tokenizer
        self.prompts = vector_env.prompts
        self.reward = vector_env.reward
        self.reference = vector_env.reference
        self.channel = vector_env.channel
        self.prompt_width = vector_env.prompt_width
        self.max_response_tokens = vector_env.max_response_tokens
        self.reward_timing = vector_env.reward_timing
        self.uses_action_masks = vector_env.uses_action_masks

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start a new episode; `options["prompt_index"]` chooses its prompt."""
        if self._np_random is not None and self._np_random is not self.vector_env.np_random:
            self.vector_env.np_random = self._np_random
        observation, info = self.vector_env.reset(seed=seed, options=options)
        # One generator: whoever reads or sets env.np_random has the one that draws prompts.
        self._np_random = self.vector_env.np_random
        self._np_random_seed = self.vector_env.np_random_seed
        return _first(observation), row_info(info, 0)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Append one token.

        Args:
            action: a token id.

        Raises:
            InvalidAction: not a token id of the vocabulary.
            EpisodeEnded: before `reset`, or after the end.
        """
        token = np.asarray(action)
        if token.size != 1:
            raise InvalidAction("action", action, "not one token id", "Give an integer")
        observation, rewards, terminated, truncated, info = self.vector_env.step(token.reshape(1))
        single = row_info(info, 0)
        del single["active"]
        return (
            _first(observation),
            float(rewards[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            single,
        )

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are allowed now, shape (V,)."""
        masks: NDArray[np.bool_] = self.vector_env.action_masks()[0]
        return masks

    def render(self) -> str | None:
        """Prompt and response so far, as text; None without a render mode."""
        rendered = self.vector_env.render()
        return None if rendered is None else rendered[0]

    @property
    def kl_coef(self) -> float | None:
        """Reward per nat of KL in force; None without a KL penalty."""
        return self.vector_env.kl_coef

    @property
    def required_gamma(self) -> float | None:
        """The only discount that the reward is right for; None if it is for any."""
        return self.vector_env.required_gamma

    @property
    def episodes_seen(self) -> int:
        """Episodes that have ended."""
        return self.vector_env.episodes_seen

    def update_kl(self) -> float | None:
        """See `TextGenerationVectorEnv.update_kl`."""
        return self.vector_env.update_kl()

    def state_dict(self) -> dict[str, Any]:
        """See `TextGenerationVectorEnv.state_dict`."""
        return self.vector_env.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `TextGenerationVectorEnv.load_state_dict`."""
        self.vector_env.load_state_dict(state)
        self._np_random = self.vector_env.np_random
        self._np_random_seed = self.vector_env.np_random_seed


def _first(observation: dict[str, NDArray[Any]] | NDArray[np.int64]) -> Any:
    if isinstance(observation, dict):
        return {key: value[0] for key, value in observation.items()}
    return observation[0]
