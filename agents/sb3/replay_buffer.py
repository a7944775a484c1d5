"""A replay buffer for text: each transition once, in as few bytes as its token ids need."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from rlhf_gym.core.errors import InvalidAction, InvalidArgument
from rlhf_gym.core.tokens import TokenRules

Observations = dict[str, NDArray[Any]]


class TextReplayBuffer(DictReplayBuffer):
    """`DictReplayBuffer` for text environments; what it samples is the same to the bit.

    But for what follows a text that has ended, which has no value and is hardly shown. With
    `n_steps` it is `NStepReplayBuffer` too, which SB3 has for observations of one part alone.

    SB3 keeps two observations per transition, each of int64 ids and an int8 mask. Here the later
    one is kept, its ids in 16 bits if the vocabulary allows; the earlier one is the same without
    the last token, which is the action; and a mask is where a text begins and ends.

    Args:
        buffer_size: transitions.
        observation_space: of a text environment, a Dict of ids and mask.
        action_space: the vocabulary.
        device: where samples go.
        n_envs: rows.
        optimize_memory_usage: must be False, as in SB3's.
        handle_timeout_termination: do not take cut-off texts for finished ones.
        rules: PAD, and the tokens that are never legal.
        n_steps: transitions whose rewards are summed before the rest is left to the target network;
            as many as a response has tokens, and a response that has ended is taken for what it
            earned. What the steps behind the first one were is the policy's choice of that time.
        gamma: the algorithm's discount, of rewards within `n_steps`.

    Attributes:
        ids: texts with the action, shape (steps, rows, width).
        first, end: columns of a text's first token and behind its last, shape (steps, rows).

    Raises:
        InvalidArgument: `optimize_memory_usage`, no steps, or a discount outside (0, 1].
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Dict,
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        *,
        rules: TokenRules,
        n_steps: int = 1,
        gamma: float = 1.0,
    ) -> None:
        if optimize_memory_usage:
            raise InvalidArgument(
                "optimize_memory_usage", True, "this buffer keeps no text twice", "Leave it out"
            )
        if n_steps < 1:
            raise InvalidArgument("n_steps", n_steps, "nothing would be earned", "Give 1 or more")
        if not 0 < gamma <= 1:
            raise InvalidArgument("gamma", gamma, "not a discount", "Give the algorithm's own")
        # Past SB3's constructors of replay buffers, which allocate what is not needed here.
        super(ReplayBuffer, self).__init__(
            buffer_size, observation_space, action_space, device, n_envs=n_envs
        )
        self.buffer_size = max(buffer_size // n_envs, 1)
        self.optimize_memory_usage = False
        self.handle_timeout_termination = handle_timeout_termination
        shape = (self.buffer_size, n_envs)
        self.ids = np.zeros((*shape, _width(observation_space)), dtype=_ids_type(rules.vocab_size))
        self.first = np.zeros(shape, dtype=np.int32)
        self.end = np.zeros(shape, dtype=np.int32)
        self.rewards = np.zeros(shape, dtype=np.float32)
        self.dones = np.zeros(shape, dtype=np.bool_)
        self.timeouts = np.zeros(shape, dtype=np.bool_)
        self.n_steps = n_steps
        self.gamma = gamma
        self._pad_id = rules.pad_id
        self._illegal_ids = np.array(rules.illegal_ids)

    @staticmethod
    def transitions_in(budget: int, observation_space: spaces.Dict, rules: TokenRules) -> int:
        """How many transitions a budget of bytes holds.

        Raises:
            InvalidArgument: none.
        """
        each = _width(observation_space) * _ids_type(rules.vocab_size).itemsize + _BYTES_BESIDE
        if budget < each:
            raise InvalidArgument(
                "buffer_bytes", budget, f"one transition takes {each} bytes", "Give more"
            )
        return budget // each

    def add(  # type: ignore[override]
        self,
        obs: Observations,
        next_obs: Observations,
        action: NDArray[Any],
        reward: NDArray[Any],
        done: NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """Keep one transition of every row.

        Args:
            obs: observations that were acted on, arrays of shape (rows, width).
            next_obs: the same texts with one more token each.
            action: those tokens, shape (rows,) or (rows, 1).
            reward: shape (rows,).
            done: True where an episode ended, shape (rows,).
            infos: one per row; `TimeLimit.truncated` is read.

        Raises:
            InvalidAction: an illegal token, which only SB3's own exploration draws.
            InvalidArgument: observations that are no text with one more token.
        """
        tokens = np.asarray(action).reshape(self.n_envs)
        self._check_legal(tokens)
        mask = np.asarray(next_obs["attention_mask"], dtype=np.bool_)
        at = self.pos
        self.ids[at] = next_obs["input_ids"]
        self.first[at] = mask.argmax(-1)
        self.end[at] = mask.shape[-1] - mask[:, ::-1].argmax(-1)
        rows = np.arange(self.n_envs)
        steps = np.full(self.n_envs, at)
        end = self.end[at]
        kept, kept_next = (self._observations(steps, rows, up_to) for up_to in (end - 1, end))
        if not (_equal(kept, obs) and _equal(kept_next, next_obs)) or (
            (self._actions(steps, rows) != tokens).any()
        ):
            raise InvalidArgument(
                "next_obs",
                next_obs["input_ids"],
                "not the text that was acted on, with one token more",
                "Keep wrappers from changing observations, or use SB3's DictReplayBuffer",
            )
        self.rewards[at], self.dones[at] = reward, done
        if self.handle_timeout_termination:
            self.timeouts[at] = [info.get("TimeLimit.truncated", False) for info in infos]
        self.pos = (at + 1) % self.buffer_size
        self.full |= self.pos == 0

    def _get_samples(  # type: ignore[override]
        self, batch_inds: NDArray[np.int64], env: VecNormalize | None = None
    ) -> DictReplayBufferSamples:
        """Transitions of some steps, each from a row drawn at random as SB3 draws it."""
        rows = np.random.randint(0, high=self.n_envs, size=(len(batch_inds),))  # noqa: NPY002
        last, rewards, discounts = self._look_ahead(batch_inds, rows, env)
        ended = self.dones[last, rows] & ~self.timeouts[last, rows]
        before = self.end[batch_inds, rows] - 1
        # Nothing follows a text that has ended: its first token is enough for the target network to
        # read, and texts that are the same are read once.
        after = np.where(ended, self.first[last, rows] + 1, self.end[last, rows])
        observations = self._normalize_obs(self._observations(batch_inds, rows, before), env)
        following = self._normalize_obs(self._observations(last, rows, after), env)
        assert isinstance(observations, dict)
        assert isinstance(following, dict)
        return DictReplayBufferSamples(
            observations={key: self.to_torch(value) for key, value in observations.items()},
            actions=self.to_torch(self._actions(batch_inds, rows).reshape(-1, 1)),
            next_observations={key: self.to_torch(value) for key, value in following.items()},
            dones=self.to_torch(ended.astype(np.float32).reshape(-1, 1)),
            rewards=self.to_torch(rewards.reshape(-1, 1)),
            # As SB3's buffers have it: without n steps the discount is the algorithm's own.
            discounts=self.to_torch(discounts.reshape(-1, 1)) if self.n_steps > 1 else None,
        )

    def _look_ahead(
        self, steps: NDArray[np.int64], rows: NDArray[np.int64], env: VecNormalize | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
        """Follow transitions for `n_steps`, or to where an episode or what is stored ends.

        Returns:
            The last transition that is counted, the discounted sum of rewards up to it, and the
            discount of what comes behind it; each of shape (batch,).
        """
        order = np.arange(self.n_steps)
        window = (steps[:, None] + order) % self.buffer_size
        newest = (self.pos - 1 - steps) % self.buffer_size
        is_last = self.dones[window, rows[:, None]] | (order == newest[:, None])
        is_last[:, -1] = True
        ahead = is_last.argmax(-1)
        powers = np.float32(self.gamma) ** np.arange(self.n_steps + 1, dtype=np.float32)
        rewards = self._normalize_reward(self.rewards[window, rows[:, None]], env)
        counted = rewards * powers[:-1] * (order <= ahead[:, None])
        return window[np.arange(len(steps)), ahead], counted.sum(-1), powers[ahead + 1]

    def _observations(
        self, steps: NDArray[np.int64], rows: NDArray[np.int64], end: NDArray[Any]
    ) -> Observations:
        """Texts up to a column, shape (batch,), as they were given."""
        columns = np.arange(self.ids.shape[-1])
        first, end = self.first[steps, rows, None], end[:, None]
        mask = (columns >= first) & (columns < end)
        space = self.observation_space
        ids = np.where(mask, self.ids[steps, rows], self._pad_id)
        return {
            "input_ids": ids.astype(space["input_ids"].dtype),
            "attention_mask": mask.astype(space["attention_mask"].dtype),
        }

    def _actions(self, steps: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.ids[steps, rows, self.end[steps, rows] - 1].astype(np.int64)

    def _check_legal(self, tokens: NDArray[np.int64]) -> None:
        illegal = np.isin(tokens, self._illegal_ids)
        if illegal.any():
            raise InvalidAction(
                "action",
                int(tokens[illegal][0]),
                "an illegal token, drawn by SB3's own exploration from the whole vocabulary",
                "Leave exploration to the policy: learning_starts=0 and both exploration_*_eps=0, "
                "as lm_q_kwargs(env) has them",
            )


_BYTES_BESIDE = 4 + 4 + 4 + 1 + 1
"""Of a transition, besides its ids: where they begin and end, reward, done, cut off."""


def _width(observation_space: spaces.Dict) -> int:
    shape = observation_space["input_ids"].shape
    assert shape is not None
    return shape[0]


def _ids_type(vocab_size: int) -> np.dtype[Any]:
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.int32)


def _equal(kept: Observations, given: Observations) -> bool:
    return all(np.array_equal(kept[key], given[key]) for key in kept)
