"""What agents ask of running text episodes, beside Gymnasium's `reset` and `step`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from rlhf_gym.core.errors import EpisodeEnded
from rlhf_gym.core.tokens import TokenRules
from rlhf_gym.envs.text import calls
from rlhf_gym.envs.text.engine import TextEngine
from rlhf_gym.envs.text.prompts import PromptSet
from rlhf_gym.rewards.base import WeightedReward

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


class AgentSide(VectorEnv[Any, Any, NDArray[Any]]):
    """Masks, prompts, KL coefficient, texts, saved state; `TextGenerationVectorEnv` adds the rest.

    The attributes are set by the subclass, which says what they are.
    """

    rules: TokenRules
    prompts: PromptSet
    prompt_width: int
    max_response_tokens: int
    autoreset_mode: AutoresetMode
    reward: WeightedReward | None
    reward_timing: str
    ends: str
    _engine: TextEngine
    _started: bool

    def next_prompts(self, count: int) -> IntArray:
        """Take the next prompts out of their order, to be given to `reset`; shape (count,)."""
        return self._engine.order.draw(count, self.np_random)

    def action_masks(self) -> BoolArray:
        """Which actions are allowed now, shape (N, V); at least one per row.

        Raises:
            EpisodeEnded: before the first reset.
        """
        if not self._started:
            raise EpisodeEnded("action_masks() was called before reset()")
        return self._engine.allowed()

    @property
    def live(self) -> BoolArray:
        """True where an episode is running, shape (N,); a copy."""
        return self._engine.responses.live.copy()

    @property
    def kl_coef(self) -> float | None:
        """Reward per nat of KL in force; None without a KL penalty."""
        return self._engine.ledger.kl_coef

    @property
    def required_gamma(self) -> float | None:
        """The only discount that the reward is right for; None if it is for any."""
        return None if self.reward is None else self.reward.gamma

    @property
    def episodes_seen(self) -> int:
        """Episodes that have ended."""
        return self._engine.episodes_seen

    def update_kl(self) -> float | None:
        """Let the KL controller see the episodes that ended since the last call, and move once.

        Episodes whose KL is not known do not count; without any, nothing moves.

        Returns:
            The new coefficient, or None without a KL penalty.
        """
        return self._engine.ledger.update_kl()

    def render(self) -> tuple[str, ...] | None:
        """Prompt and response so far of each row, as text; None without a render mode."""
        return None if self.render_mode is None else self._engine.texts()

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, in the middle of episodes too.

        Returns:
            Generator, prompt order, episodes, KL and reward states: nested dictionaries of NumPy
            arrays, numbers, strings and None.
        """
        return {
            "fingerprint": self._fingerprint(),
            "started": self._started,
            "seed": self.np_random_seed,
            "generator": self.np_random.bit_generator.state,
            "engine": self._engine.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; the next step is then the one that would have followed.

        Raises:
            InvalidCheckpoint: the state of another environment, or no such state.
        """
        with calls.loading(state, self._fingerprint()):
            self._engine.load_state_dict(state["engine"])
            self.np_random.bit_generator.state = state["generator"]
            self._np_random_seed = state["seed"]
            self._started = bool(state["started"])

    def _fingerprint(self) -> dict[str, Any]:
        """What must be equal for a saved state to fit."""
        return {
            "num_envs": self.num_envs,
            "prompt_width": self.prompt_width,
            "max_response_tokens": self.max_response_tokens,
            "vocab_size": self.rules.vocab_size,
            "autoreset_mode": self.autoreset_mode.value,
            "reward_timing": self.reward_timing,
            "ends": self.ends,
            "prompts": self.prompts.digest,
        }
