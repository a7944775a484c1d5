"""The learned reward: what an ensemble of small networks pays, and how it is kept on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rlhf_gym.core.errors import InvalidCheckpoint, InvalidData
from rlhf_gym.core.preferences.encoding import Encoding
from rlhf_gym.core.preferences.learner_config import HIDDEN
from rlhf_gym.core.preferences.reward_members import RewardMembers

CHUNK = 8192
"""Transitions of a forward pass without gradients; images count as 32 each."""


class RewardEnsemble(RewardMembers):
    """A learned reward: the mean of networks that also differ in the answers they saw.

    What an agent is paid is the mean of the members, each shifted and scaled to mean 0 and standard
    deviation 1 on the transitions `normalise` was given (Christiano et al. 2017, section 2.2.1).
    Comparisons of segments of equal length say nothing of the shift; in tasks whose episodes end
    early, remember that a mean of 0 is a choice. A potential is not shifted: no change is worth 0.

    Args:
        encoding: of the environment's spaces.
        members: how many networks; disagreement needs two or more.
        hidden: see `RewardMembers`.
        bins: see there.
        judges_acts: see there.
        judges_outcomes: see there.
        seed: of their beginnings.

    Attributes:
        mean: of each member's rewards, shape (members,).
        std: of each member's rewards, shape (members,).
        l2: each member's weight of the l2 penalty, which `fit` moves; 0 before, shape (members,).

    Raises:
        InvalidArgument: no members, no width, or images too small for the convolutions.
    """

    mean: Tensor
    std: Tensor
    l2: Tensor

    def __init__(
        self,
        encoding: Encoding,
        members: int = 3,
        hidden: Sequence[int] = HIDDEN,
        bins: int = 0,
        *,
        judges_acts: bool = False,
        judges_outcomes: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(
            encoding,
            members,
            hidden,
            bins,
            judges_acts=judges_acts,
            judges_outcomes=judges_outcomes,
            seed=seed,
        )
        self.register_buffer("mean", torch.zeros(members))
        self.register_buffer("std", torch.ones(members))
        self.register_buffer("l2", torch.zeros(members))

    @torch.no_grad()
    def judge(self, observations: NDArray[Any], actions: NDArray[Any]) -> Tensor:
        """Rewards of every member as it gives them, without gradients, in chunks.

        Args:
            observations: as `Encoding` keeps them, shape (n, ...).
            actions: of the same, shape (n, ...).

        Returns:
            Shape (members, n).

        Raises:
            InvalidData: steps as another encoding keeps them.
        """
        if observations.shape[1:] != self.encoding.observation_shape:
            raise InvalidData(
                "observations",
                observations.shape,
                f"not of shape (n, {', '.join(map(str, self.encoding.observation_shape))})",
                "Keep steps with the ensemble's own encoding",
            )
        step = CHUNK // 32 if self.encoding.is_image else CHUNK
        chunks = [
            self(*self.encoding.tensors(observations[i : i + step], actions[i : i + step]))
            for i in range(0, len(actions), step)
        ]
        return torch.cat(chunks, 1) if chunks else torch.zeros(self.members, 0)

    def rewards(self, observations: NDArray[Any], actions: NDArray[Any]) -> NDArray[np.float64]:
        """What an agent is paid: the mean of the normalised members, shape (n,).

        Args:
            observations: as `Encoding` keeps them, shape (n, ...).
            actions: of the same, shape (n, ...).
        """
        normalised = (self.judge(observations, actions) - self.mean[:, None]) / self.std[:, None]
        paid: NDArray[np.float64] = normalised.mean(0).double().numpy()
        return paid

    def normalise(self, observations: NDArray[Any], actions: NDArray[Any]) -> None:
        """Make mean 0 and deviation 1 of each member's rewards for these transitions.

        Args:
            observations: as `Encoding` keeps them, shape (n, ...).
            actions: of the same, shape (n, ...).
        """
        rewards = self.judge(observations, actions)
        self.mean.copy_(torch.zeros_like(self.mean) if self.judges_change else rewards.mean(1))
        # A member that gives one reward for all is left at its scale, not blown up.
        std = rewards.std(1, correction=0)
        self.std.copy_(torch.where(std > 1e-6, std, 1.0))

    @torch.no_grad()
    def begin_anew(self, seed: int) -> None:
        """Forget everything: parameters of other beginnings, no shift, no scale, no penalty."""
        fresh = RewardEnsemble(
            self.encoding,
            self.members,
            self.hidden,
            self.bins,
            judges_acts=self.acts is not None,
            judges_outcomes=self.outcomes is not None,
            seed=seed,
        )
        self.load_state_dict(fresh.state_dict())

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it to one safetensors file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = {"members": self.members, "hidden": self.hidden, "bins": self.bins}
        shape["judges_acts"] = self.acts is not None
        shape["judges_outcomes"] = self.outcomes is not None
        save_file(self.state_dict(), path, metadata={"ensemble": json.dumps(shape)})
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str], encoding: Encoding) -> RewardEnsemble:
        """Read what `save` wrote.

        Raises:
            InvalidCheckpoint: no such file, damaged, another file, or of other spaces.
        """
        try:
            with safe_open(path, "pt") as file:
                shape = json.loads((file.metadata() or {})["ensemble"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            ensemble = cls(encoding, **shape)
            ensemble.load_state_dict(tensors)
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise InvalidCheckpoint(
                "path",
                str(path),
                f"not a reward ensemble of this task ({error})",
                "Give the file that `save` wrote for the same environment",
            ) from error
        return ensemble
