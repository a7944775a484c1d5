"""The half of an agent that Stable-Baselines3 asks for: construction, seeding, saving, loading."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from rlhf_gym.agents.building import build_policy, make_env, make_schedule
from rlhf_gym.agents.callbacks import default_callbacks
from rlhf_gym.agents.checkpoint import read_checkpoint, restore
from rlhf_gym.agents.config import TextAlgorithmConfig, make_config
from rlhf_gym.agents.lm_policy import LMPolicy
from rlhf_gym.agents.metrics import UpdateMetrics
from rlhf_gym.agents.optimizers import make_optimizer
from rlhf_gym.agents.saved_file import check_saved_file
from rlhf_gym.agents.stepping import TextStepper, make_stepper
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.seeds import check_seed
from rlhf_gym.envs.sb3 import GymnasiumVecEnv
from rlhf_gym.envs.text.observed_masks import ObservedMasks


class LMAlgorithm(BaseAlgorithm):
    """An SB3 algorithm around a language model; `TextAlgorithm` adds the training.

    Args:
        policy: "LMPolicy" or a subclass of it.
        env: an id, a TextGenerationEnv, a TextGenerationVectorEnv, or an SB3 VecEnv of either.
        config: settings; the class's defaults if None.
        policy_kwargs: strings and numbers for the policy: `model` (directory or hub name; the
            environment's reference by default), `value_model`, `lora_rank`, `freeze`, `backend`.
        tensorboard_log: folder for TensorBoard events.
        verbose: 1 prints the log.
        seed: of sampling, minibatches and environment; drawn if None.
        device: where the policy is trained.
        _init_setup_model: build the networks now; SB3's `load` does it later.
        **fields: fields of the config, overriding it.

    Raises:
        InvalidArgument: a field that does not exist or cannot work.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"LMPolicy": LMPolicy}
    config_class: ClassVar[type[TextAlgorithmConfig]] = TextAlgorithmConfig
    default_policy_kwargs: ClassVar[dict[str, Any]] = {}
    """What `policy_kwargs` are unless the user says otherwise."""
    policy: LMPolicy
    policy_class: type[LMPolicy]

    def __init__(
        self,
        policy: str | type[LMPolicy],
        env: GymEnv | VectorEnv[Any, Any, Any] | str | None,
        config: TextAlgorithmConfig | None = None,
        *,
        policy_kwargs: dict[str, Any] | None = None,
        tensorboard_log: str | Path | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        **fields: Any,
    ) -> None:
        check_seed(seed)
        self.config = make_config(self.config_class, config, fields)
        if isinstance(env, str):
            env = make_env(env, self.config.episodes_per_update)
        super().__init__(
            policy,
            env,  # type: ignore[arg-type]  # _wrap_env takes vector environments too
            learning_rate=make_schedule(self.config),
            policy_kwargs={**self.default_policy_kwargs, **(policy_kwargs or {})},
            tensorboard_log=None if tensorboard_log is None else str(tensorboard_log),
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
            supported_action_spaces=(gym.spaces.Discrete,),
        )
        self.metrics = UpdateMetrics()
        self._stepper: TextStepper | None = None
        self._policy_parameters: dict[str, Any] | None = None
        self._observation_is_fresh = False
        if _init_setup_model:
            self._setup_model()

    @property
    def stepper(self) -> TextStepper:
        """The environment, ready to be stepped.

        Raises:
            InvalidArgument: the agent has no environment.
        """
        if self.env is None:
            raise InvalidArgument("env", None, "there is nothing to act in", "Call set_env first")
        if self._stepper is None or self._stepper.venv is not self.env:
            self._stepper = make_stepper(self.env)
        return self._stepper

    @property
    def episodes_per_update(self) -> int:
        """Responses collected before each update."""
        return self.config.episodes_per_update or self.stepper.num_envs

    @staticmethod
    def _wrap_env(
        env: GymEnv | VectorEnv[Any, Any, Any], verbose: int = 0, monitor_wrapper: bool = True
    ) -> VecEnv:
        if isinstance(env, VectorEnv):
            # Only a batch that an agent steps itself may have NEXT_STEP's dead steps in it.
            stepped_by_sb3 = isinstance(env.unwrapped, SyncVectorEnv)
            return GymnasiumVecEnv(env, refuse_next_step=stepped_by_sb3)
        return BaseAlgorithm._wrap_env(env, verbose, monitor_wrapper)

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self._seed_generators()
        if self.env is not None:
            self._check_environment()
        if self._policy_parameters is not None:
            # Loading: the architecture is known, the weights come later.
            self.policy = self.policy_class(**self._policy_parameters)
        else:
            self.policy = build_policy(
                self.policy_class,
                self.stepper,
                self.policy_kwargs,
                seed=self._policy_seed,
                device=self.device,
            )
            self._policy_parameters = self.policy.constructor_parameters()
        if self.env is not None:
            self._connect_policy()
        self.policy = self.policy.to(self.device)
        self.policy.optimizer = make_optimizer(
            self.config.optimizer,
            self.policy.parameters(),
            learning_rate=self.config.learning_rate,
            eps=self.config.adam_eps,
        )
        self._trained = [p for p in self.policy.parameters() if p.requires_grad]

    def _connect_policy(self) -> None:
        """Let `predict` write to the environment's channel and obey its action masks."""
        task = self.stepper.tasks[0]
        self.policy.channel = task.channel
        self.policy.masks = ObservedMasks(task.masks, task.reference, task.prompt_width)

    def _check_environment(self) -> None:
        """Refuse what would only fail, or mislead, after the first rollout."""
        stepper, config = self.stepper, self.config
        _warn_of_two_devices(self.device, stepper.reference)
        if self.episodes_per_update % stepper.num_envs:
            raise InvalidArgument(
                "episodes_per_update",
                config.episodes_per_update,
                f"not a multiple of the environment's {stepper.num_envs} rows",
                "Give a multiple, so that every row writes as many responses",
            )
        if self.episodes_per_update % config.responses_per_prompt:
            raise InvalidArgument(
                "responses_per_prompt",
                config.responses_per_prompt,
                f"{self.episodes_per_update} episodes per update are no multiple of it",
                "Give a divisor, or other episodes_per_update or num_envs",
            )
        if config.minibatches > self.episodes_per_update:
            raise InvalidArgument(
                "minibatches",
                config.minibatches,
                f"there are only {self.episodes_per_update} episodes per update",
                "Give fewer minibatches or more episodes",
            )
        if config.kl_loss_coef and stepper.kl_coef:
            raise InvalidArgument(
                "kl_loss_coef",
                config.kl_loss_coef,
                f"the reward already charges {stepper.kl_coef} per nat of KL",
                "Set one of them to 0",
            )
        if config.kl_loss_coef and stepper.reference is None:
            raise InvalidArgument(
                "kl_loss_coef",
                config.kl_loss_coef,
                "the environment has no reference",
                "Pass reference=... to the environment",
            )

    def _seed_generators(self) -> None:
        """Generators of this agent alone: the global ones are neither used nor moved."""
        sequence = np.random.SeedSequence(self.seed)
        sampling, shuffling, policy, env = (int(s) for s in sequence.generate_state(4))
        self.generators = {
            "sampling": torch.Generator(self.device).manual_seed(sampling),
            "shuffling": torch.Generator().manual_seed(shuffling),
        }
        self._policy_seed = policy
        if self.env is not None:
            self.action_space.seed(env)
            self.env.seed(env)

    def set_random_seed(self, seed: int | None = None) -> None:
        """Start all generators of this agent and its environment anew; None draws a seed."""
        self.seed = seed
        self._seed_generators()

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        before = self._last_obs
        result = super()._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        # SB3 may have reset the environment; the first wave must not throw those prompts away.
        self._observation_is_fresh = self._last_obs is not before
        return result

    @classmethod
    def load(cls, path: str | Path | io.BufferedIOBase, *args: Any, **kwargs: Any) -> Self:
        """An agent from a file that `save` wrote.

        Args:
            path: of the file.
            *args: of SB3's `load`: `env`, `device` and so on.
            **kwargs: likewise.

        Raises:
            InvalidCheckpoint: foreign, of another agent, truncated or no zip file.
        """
        check_saved_file(path, cls.__name__, cls.config_class.__name__)
        return super().load(path, *args, **kwargs)

    @classmethod
    def resume(
        cls,
        folder: str | Path,
        env: GymEnv | VectorEnv[Any, Any, Any] | str,
        policy: str | type[LMPolicy] = "LMPolicy",
        *,
        tensorboard_log: str | Path | None = None,
        verbose: int = 0,
        device: torch.device | str = "auto",
    ) -> Self:
        """An agent that goes on exactly where a checkpoint was made.

        What is left of an interrupted `learn(total)` is
        `agent.learn(total - agent.num_timesteps, reset_num_timesteps=False)`.

        Args:
            folder: one checkpoint, or the folder a `CheckpointCallback` wrote to.
            env: built as in the saved run; it gets its state back too.
            policy: the policy's class, if it was a subclass.
            tensorboard_log: folder for TensorBoard events.
            verbose: 1 prints the log.
            device: where the policy is trained.

        Raises:
            InvalidCheckpoint: truncated, foreign, or of another algorithm or environment.
        """
        state, parameters = read_checkpoint(folder, cls.__name__)
        agent = cls(
            policy,
            env,
            cls.config_class(**state["config"]),
            policy_kwargs=state["policy_kwargs"],
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            seed=state["seed"],
            device=device,
            _init_setup_model=False,
        )
        agent._policy_parameters = parameters
        agent._setup_model()
        restore(agent, state)
        return agent

    def _prompts_by_wave(self) -> Sequence[NDArray[np.int64] | None]:
        """Prompts of each wave of a rollout, shape (num_envs,); None if the environment chooses."""
        waves = self.episodes_per_update // self.stepper.num_envs
        repeats = self.config.responses_per_prompt
        if repeats == 1:
            return [None] * waves
        prompts = self.stepper.next_prompts(self.episodes_per_update // repeats)
        return list(np.repeat(prompts, repeats).reshape(waves, -1))

    def _first_observation(self, prompts: NDArray[np.int64] | None) -> dict[str, NDArray[Any]]:
        """Begin the next wave: with these prompts, those SB3 has just drawn, or new ones."""
        if prompts is not None or not self._observation_is_fresh:
            self._last_obs = self.stepper.reset(prompts)
        self._observation_is_fresh = False
        return self.stepper.checked(self._last_obs)

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        return super()._init_callback(default_callbacks(callback, progress_bar), False)

    def _excluded_save_params(self) -> list[str]:
        ours = ["_stepper", "metrics", "generators", "_trained", "_last_obs"]
        return [*super()._excluded_save_params(), *ours]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []


def _warn_of_two_devices(device: torch.device, reference: nn.Module | None) -> None:
    """A reference beside a GPU works, but takes most of the time of a rollout."""
    if reference is None:
        return
    place = next(reference.parameters()).device
    if place.type != device.type:
        warnings.warn(
            f"the policy is on {device}, the environment's reference is on {place}: its passes "
            f"will take long. Load it with device='{device.type}', or give the agent "
            f"device='{place.type}'",
            stacklevel=2,
        )
