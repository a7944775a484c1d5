"""From flags to an environment: a registered task, or the user's own model, prompts and reward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import gymnasium as gym
from gymnasium.error import Error as GymnasiumError
from gymnasium.vector import VectorEnv

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.registry import load_object
from rlhf_gym.envs.registration import CONTROL_ENVIRONMENTS, ENVIRONMENTS
from rlhf_gym.pipelines.named_values import parse_settings

if TYPE_CHECKING:
    from rlhf_gym.rewards.base import RewardTerm
    from rlhf_gym.rewards.controllers import KLController


Ends = Literal["apart", "together"]


@dataclass(frozen=True)
class EnvironmentConfig:
    """Which task to train on."""

    env: str = "rlhf_gym/Sentiment-v0"
    """A registered id; with `model` given, the task is built from the flags below instead."""
    env_kwargs: tuple[str, ...] = ()
    """Arguments of a registered task by name, as `gym.make` takes them: `taste=spicy`,
    `continuous=True`."""
    num_envs: int = 64
    """How many responses are written side by side."""
    model: str | None = None
    """Your own policy and reference: a directory or a hub name."""
    end_token: str | None = None
    """The token of your own model that ends a response; if not given, its tokenizer's EOS and what
    its generation settings list beside it."""
    prompts: str | None = None
    """Your own prompts: a file or folder with a column `prompt`; of a .txt file, every line."""
    prompt_column: str = "prompt"
    """The column that holds the prompt, when it has another name."""
    chat_template: bool = False
    """Render your own prompts (texts, or lists of messages) with the tokenizer's chat template."""
    reward: str | None = None
    """A reward model's directory, or `module:function`: (prompts, responses) -> numbers. Where the
    task is to act: a scheme such as preferences, gold, preferences + 0.5 * automated, or automated,
    the default there; or demonstrations."""
    gold: str | None = None
    """A judge that is only watched, never trained on; given as `reward` is."""
    kl_coef: float | None = None
    """Weight of the KL penalty in nats; by default the task's own, or 0.05."""
    kl_estimator: Literal["k1", "k2", "k3", "exact"] | None = None
    """How KL is estimated from samples, or exactly; by default the task's own, or k1."""
    kl_placement: Literal["token", "sequence"] | None = None
    """Where the penalty is paid: at each token, or at the last; by default at each token."""
    kl_mode: Literal["sampled", "soft"] | None = None
    """sampled: of the policy that sampled, the default; soft: reward + kl_coef * log pi_ref, for
    agents that have no distribution, such as DQN, or bring its entropy themselves."""
    kl_target: float | None = None
    """Steer the coefficient towards this many nats a response (Ziegler et al. 2019)."""
    max_prompt_tokens: int | None = None
    """Longest prompt; by default that of the prompts."""
    max_response_tokens: int | None = None
    """Budget of a response in tokens; by default the task's own, or 32."""
    temperature: float = 1.0
    """Divides the logits, in rollout, reference and update alike."""
    device: str = "auto"
    """Where policy, reference and reward model live: auto (a GPU if there is one), cpu, cuda or
    cuda:1. Where the task is to act, agents are small and live on the CPU."""

    def __post_init__(self) -> None:
        if self.num_envs < 1:
            raise InvalidArgument("num_envs", self.num_envs, "no episode", "Give 1 or more")
        if self.kl_coef is not None and not self.kl_coef >= 0:  # nor NaN
            raise InvalidArgument(
                "kl_coef",
                self.kl_coef,
                "a negative coefficient pays for leaving the reference",
                "Give 0 or more",
            )
        for name in ("max_prompt_tokens", "max_response_tokens"):
            tokens = getattr(self, name)
            if tokens is not None and tokens < 1:
                raise InvalidArgument(name, tokens, "no token", "Give 1 or more")
        if self.model is not None and self.prompts is None:
            raise InvalidArgument(
                "prompts", None, "a model of your own needs prompts", "Add --prompts FILE"
            )
        self.parsed_env_kwargs()
        if self.model is not None and self.env_kwargs:
            raise InvalidArgument(
                "env_kwargs",
                self.env_kwargs,
                "a model of your own makes a task of your own",
                "Leave it out; the other flags are the arguments of that task",
            )
        if self.model is None and self.prompts is not None:
            raise InvalidArgument(
                "model", None, "prompts of your own need a model", "Add --model DIRECTORY"
            )
        if self.model is None:
            for name in ("end_token", "chat_template", "max_prompt_tokens"):
                if getattr(self, name):
                    raise InvalidArgument(
                        name,
                        getattr(self, name),
                        "a registered task has its own",
                        "Leave it out, or add --model DIRECTORY",
                    )

    def parsed_env_kwargs(self) -> dict[str, Any]:
        """Arguments of the registered task.

        Raises:
            InvalidArgument: not of the form name=value.
        """
        return parse_settings(self.env_kwargs, "env_kwargs", "taste=spicy")


def is_control(env_id: str) -> bool:
    """Whether a registered task is one of acting, not of writing.

    Ids that are unknown or made by a function count as tasks of writing.

    Raises:
        InvalidArgument: a task whose packages are not installed.
    """
    if env_id in ENVIRONMENTS:  # ours are told apart without importing one
        return env_id in CONTROL_ENVIRONMENTS
    from rlhf_gym.envs.text.single import TextGenerationEnv

    try:
        entry_point = gym.spec(env_id).entry_point
    except GymnasiumError:
        return False
    if not isinstance(entry_point, str):
        return False
    try:
        creator = gym.envs.registration.load_env_creator(entry_point)
    except (GymnasiumError, ImportError) as error:
        raise InvalidArgument(
            "env", env_id, str(error), "For MuJoCo's tasks: pip install 'rlhf-gym[mujoco]'"
        ) from error
    return isinstance(creator, type) and not issubclass(creator, TextGenerationEnv)


def make_environment(
    config: EnvironmentConfig, *, ends: Ends | None = None, **settings: Any
) -> VectorEnv:
    """The vector environment that the flags describe.

    Args:
        config: the flags.
        ends: how its episodes end, see `TextGenerationVectorEnv`; None leaves it to the task.
        **settings: other arguments of the environment, which win over the flags.
    """
    import rlhf_gym  # noqa: F401  registers the tasks
    from rlhf_gym.core.devices import choose_device

    choose_device(config.device)
    make = _own_task if config.model is not None else _registered_task
    return make(config, settings if ends is None else {"ends": ends, **settings})


def _registered_task(config: EnvironmentConfig, settings: dict[str, Any]) -> VectorEnv:
    steered = config.kl_coef is not None or config.kl_target is not None
    given = {
        "kl_coef": kl_controller(config.kl_coef, config.kl_target) if steered else None,
        "kl_estimator": config.kl_estimator,
        "kl_placement": config.kl_placement,
        "kl_mode": config.kl_mode,
        "max_response_tokens": config.max_response_tokens,
    }
    overrides = config.parsed_env_kwargs()
    overrides |= {key: value for key, value in given.items() if value is not None}
    try:  # before a reward is looked for, which may not be meant for this task
        gym.spec(config.env)
    except GymnasiumError as error:
        raise no_such_task(config.env, error) from error
    if config.reward is not None:
        overrides["reward"] = load_reward(config.reward, "reward", config.device)
    if config.gold is not None:
        overrides["gold"] = load_reward(config.gold, "gold", config.device)
    if config.device != "auto":  # not every environment knows of devices
        overrides["device"] = config.device
    if config.temperature != 1.0:
        overrides["temperature"] = config.temperature
    try:
        return gym.make_vec(config.env, num_envs=config.num_envs, **{**overrides, **settings})
    except TypeError as error:
        if config.env_kwargs:
            raise unknown_env_kwargs(config.parsed_env_kwargs(), error) from error
        raise
    except GymnasiumError as error:
        raise no_such_task(config.env, error) from error


def no_such_task(env_id: str, error: Exception) -> InvalidArgument:
    """What to say where Gymnasium does not know a task."""
    return InvalidArgument("env", env_id, str(error), "`rlhf-gym list` shows the environments")


def unknown_env_kwargs(kwargs: Mapping[str, Any], error: TypeError) -> InvalidArgument:
    """What to say where a task has no such arguments."""
    remedy = "The task's docstring lists what it takes"
    return InvalidArgument("env_kwargs", dict(kwargs), str(error), remedy)


def _own_task(config: EnvironmentConfig, settings: dict[str, Any]) -> VectorEnv:
    from rlhf_gym.core.data import read_prompts
    from rlhf_gym.core.supervised.language_model import load_for_training
    from rlhf_gym.envs.text import TextGenerationVectorEnv
    from rlhf_gym.rewards.kl import KLPenalty

    assert config.model is not None
    assert config.prompts is not None
    if config.reward is None and config.gold is None:
        raise InvalidArgument(
            "reward",
            None,
            "a model of your own needs something that judges it",
            "Add --reward DIRECTORY of a reward model, or --reward module:function",
        )
    # What is quickly read comes first: a large model may take minutes.
    prompts = read_prompts(config.prompts, config.prompt_column)
    reward, gold = (
        None if source is None else load_reward(source, field, config.device)
        for field, source in (("reward", config.reward), ("gold", config.gold))
    )
    reference, tokenizer = load_for_training(
        config.model, end_token=config.end_token, device=config.device
    )
    if reward is not None:
        reward = reward - KLPenalty(
            reference,
            kl_controller(config.kl_coef, config.kl_target),
            estimator=config.kl_estimator or "k1",
            placement=config.kl_placement or "token",
            mode=config.kl_mode or "sampled",
        )
    return TextGenerationVectorEnv(
        prompts,
        tokenizer,
        chat_template=config.chat_template,
        reference=reference,
        num_envs=config.num_envs,
        max_prompt_tokens=config.max_prompt_tokens,
        max_response_tokens=32
        if config.max_response_tokens is None
        else config.max_response_tokens,
        temperature=config.temperature,
        **{"reward": reward, "gold": gold, **settings},
    )


def kl_controller(coef: float | None, target: float | None) -> float | KLController:
    """A fixed coefficient, or one that is steered when a target is given."""
    from rlhf_gym.rewards.controllers import AdaptiveKL

    if target is None:
        return 0.05 if coef is None else coef
    return AdaptiveKL(initial=0.15 if coef is None else coef, target=target)


def load_reward(source: str, field: str, device: str = "auto") -> RewardTerm:
    """A reward term from a reward model's directory or from `module:function`.

    A directory of directories `member-0`, `member-1` and so on is an ensemble, paid by its mean.

    Args:
        source: which.
        field: names it, in errors and in the log.
        device: where a reward model goes.
    """
    from rlhf_gym.core.models import load_reward_model, load_tokenizer
    from rlhf_gym.rewards.base import as_reward
    from rlhf_gym.rewards.ensemble import EnsembleReward
    from rlhf_gym.rewards.model import RewardModel

    if ":" in source and not Path(source).exists():
        return as_reward(load_object(source, field))
    name = "reward_model" if field == "reward" else field
    folders = [str(path) for path in sorted(Path(source).glob("member-*"))] or [source]
    members = [
        RewardModel(
            load_reward_model(folder, device=device, field=field),
            load_tokenizer(folder),
            name=name,
        )
        for folder in folders
    ]
    return EnsembleReward(members, name=name) if len(members) > 1 else members[0]
