"""The value model of a trained agent as a potential to shape by."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy

from rlhf_gym.core.errors import InvalidArgument


class CriticPotential:
    """Phi(s): the return that a trained agent's critic expects from s on.

    Args:
        file: that the agent's `save` wrote.
        kind: its class.

    Raises:
        InvalidArgument: no such file, one of another class, or an agent without a value model.
    """

    def __init__(self, file: str | Path, kind: type[BaseAlgorithm]) -> None:
        try:
            policy = kind.load(file, device="cpu").policy
        except (OSError, KeyError, ValueError, AttributeError, zipfile.BadZipFile) as error:
            raise InvalidArgument(
                "shaping",
                str(file),
                f"not a trained {kind.__name__} ({error})",
                "Give the file that an agent of the same kind was saved to, or module:function",
            ) from error
        if not isinstance(policy, ActorCriticPolicy):
            raise InvalidArgument(
                "shaping", str(file), "it has no value model", "Give that of an actor-critic"
            )
        self.policy = policy
        policy.set_training_mode(False)

    @torch.no_grad()
    def __call__(self, observations: Any) -> NDArray[np.float64]:
        """Values of n observations, shape (n,)."""
        seen, _ = self.policy.obs_to_tensor(observations)
        values: NDArray[np.float64] = self.policy.predict_values(seen).double().numpy().ravel()
        return values
