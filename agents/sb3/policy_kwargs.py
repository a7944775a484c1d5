"""What a policy must know of its environment, as SB3's `policy_kwargs`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper
from torch import nn
from transformers import PreTrainedModel

from rlhf_gym.agents.sb3.distributions import Channel, RowChannels
from rlhf_gym.agents.sb3.starting_model import StartingModel
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.sb3 import GymnasiumVecEnv

ADAM_EPS = 1e-5
"""As SB3 has it for PPO; A2C would take RMSprop, under which pretrained weights are soon lost."""


def lm_policy_kwargs(env: VecEnv | gym.Env[Any, Any], **choices: Any) -> dict[str, Any]:
    """`policy_kwargs` for the policies of this package.

    They hold no modules and no weights: SB3 pickles them with the agent and compares them when it
    is loaded. To go on training a loaded agent, connect it with its environment:

    ```python
    PPO.load("agent.zip", env=env, policy_kwargs=lm_policy_kwargs(env))
    ```

    Args:
        env: what the algorithm will train on: from `make_sb3_env`, any VecEnv of text environments,
            or one text environment.
        **choices: further arguments of the policy, or other values: `model` (a directory or hub
            name instead of the environment's reference), `backend`, `optimizer_class`,
            `optimizer_kwargs`, `share_features_extractor=False` (a trunk of its own for values),
            `lora_rank` (adapters instead of all weights; actor-critic policies).

    Raises:
        InvalidArgument: no text environment, no model to start from, a wrapper that hides
            `action_masks`, or truncated episodes that SB3 could not bootstrap.
    """
    rules = _attributes(env, "rules")[0]
    uses_masks = bool(_attributes(env, "uses_action_masks")[0])
    if uses_masks:
        _check_masks(env)
    _check_bootstrap(env)
    model = choices.pop("model", None)
    if isinstance(model, nn.Module):
        raise InvalidArgument(
            "model",
            type(model).__name__,
            "SB3 pickles policy_kwargs and compares them when an agent is loaded",
            "Save it with save_pretrained and give the folder, or make it the reference",
        )
    return {
        "model": _starting_model(env) if model is None else str(model),
        "rules": rules,
        "prompt_width": int(_attributes(env, "prompt_width")[0]),
        "channel": _channel(env),
        "uses_action_masks": uses_masks,
        "optimizer_class": torch.optim.Adam,
        "optimizer_kwargs": {"eps": ADAM_EPS},
        **choices,
    }


def _attributes(env: VecEnv | gym.Env[Any, Any], name: str) -> list[Any]:
    """An attribute of every row."""
    try:
        if isinstance(env, VecEnv):
            return env.get_attr(name)
        if isinstance(env, gym.Env):
            return [env.get_wrapper_attr(name)]
    except AttributeError as error:
        raise InvalidArgument(
            "env",
            env,
            f"not a text environment: it has no {name}",
            "Make one with make_sb3_env, or keep wrappers from hiding it",
        ) from error
    raise InvalidArgument(
        "env", env, "not an environment that SB3 trains on", "Make one with make_sb3_env"
    )


def _starting_model(env: VecEnv | gym.Env[Any, Any]) -> StartingModel:
    reference = _attributes(env, "reference")[0]
    if not isinstance(reference, PreTrainedModel):
        raise InvalidArgument(
            "env",
            {"reference": None if reference is None else type(reference).__name__},
            "the environment has no reference to start from, and no model is named",
            "Call lm_policy_kwargs(env, model=directory), or give the environment a reference",
        )
    return StartingModel(reference)


def _channel(env: VecEnv | gym.Env[Any, Any]) -> Channel:
    channels = _attributes(env, "channel")
    if all(channel is channels[0] for channel in channels):
        one: Channel = channels[0]
        return one
    return RowChannels(tuple(channels))


def _check_masks(env: VecEnv | gym.Env[Any, Any]) -> None:
    try:
        _attributes(env, "action_masks")
    except InvalidArgument as error:
        raise InvalidArgument(
            "env",
            env,
            "the environment masks actions, but a wrapper hides its action_masks()",
            "Give the wrapper a method action_masks that asks the environment below",
        ) from error


def _check_bootstrap(env: VecEnv | gym.Env[Any, Any]) -> None:
    """SB3 adds the value of a cut-off text if info says that it was cut off; some VecEnv must."""
    base = env
    while isinstance(base, VecEnvWrapper):
        base = base.venv
    if not isinstance(base, VecEnv) or isinstance(
        base, GymnasiumVecEnv | DummyVecEnv | SubprocVecEnv
    ):
        return
    if _attributes(env, "length_limit")[0] == "truncate":
        raise InvalidArgument(
            "length_limit",
            "truncate",
            f"{type(base).__name__} is not known to report TimeLimit.truncated and "
            "terminal_observation, so SB3 would take cut-off texts for finished ones",
            'Use make_sb3_env, or length_limit="terminate"',
        )
