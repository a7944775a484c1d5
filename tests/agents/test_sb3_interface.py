"""PPO is an SB3 algorithm: learn, predict, save, load, callbacks, logger, progress bar."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import (
    BaseCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.vec_env import VecMonitor
from torch import Tensor

from rlhf_gym.agents.ppo import PPO
from rlhf_gym.agents.rollout import RolloutBatch
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.sb3 import GymnasiumVecEnv
from rlhf_gym.envs.text import TextGenerationEnv

Maker = Callable[..., Any]


def agent_for(env: Any, **kwargs: Any) -> PPO:
    return PPO("LMPolicy", env, **{"seed": 0, "device": "cpu"} | kwargs)


def parameters(agent: PPO) -> Tensor:
    return torch.nn.utils.parameters_to_vector(agent.policy.parameters()).detach().clone()


def first_observation(env: Any) -> dict[str, Any]:
    observation, _ = env.reset(seed=3)
    return observation  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "policy_kwargs",
    [{}, {"value_model": "separate"}, {"lora_rank": 2}, {"freeze": 1}],
    ids=["trunk", "separate", "lora", "frozen"],
)
def test_save_and_load(make_env: Maker, tmp_path: Path, policy_kwargs: dict[str, Any]) -> None:
    env = make_env()
    agent = agent_for(env, policy_kwargs=policy_kwargs, learning_rate=1e-2)
    agent.learn(60)
    agent.save(tmp_path / "agent")
    observation = first_observation(make_env())

    alone = PPO.load(tmp_path / "agent", device="cpu")  # no environment: for predictions
    assert torch.equal(parameters(agent), parameters(alone))
    assert alone.config == agent.config
    expected, _ = agent.predict(observation, deterministic=True)
    assert np.array_equal(alone.predict(observation, deterministic=True)[0], expected)
    with pytest.raises(InvalidArgument, match="set_env"):
        _ = alone.stepper

    loaded = PPO.load(tmp_path / "agent", env=make_env(num_envs=4), device="cpu")
    assert torch.equal(parameters(agent), parameters(loaded))
    moments = loaded.policy.optimizer.state_dict()["state"]
    assert len(moments) == len(agent.policy.optimizer.state_dict()["state"]) > 0
    loaded.learn(60, reset_num_timesteps=False)
    assert loaded.num_timesteps >= agent.num_timesteps + 60
    assert not torch.equal(parameters(agent), parameters(loaded))


def test_load_compares_policy_kwargs(make_env: Maker, tmp_path: Path) -> None:
    agent_for(make_env(), policy_kwargs={"freeze": 1}).save(tmp_path / "agent")
    with pytest.raises(ValueError, match="policy kwargs"):
        PPO.load(tmp_path / "agent", policy_kwargs={"freeze": 2})


def test_set_env_serves_the_new_environment(make_env: Maker) -> None:
    agent = agent_for(make_env())
    agent.learn(30)
    other = make_env(reward=lambda prompts, responses: [7.0] * len(prompts))
    agent.set_env(GymnasiumVecEnv(other))
    agent.learn(30, reset_num_timesteps=False)
    assert agent.logger.name_to_value == {}
    assert other.episodes_seen > 0


def test_an_id_is_enough() -> None:
    agent = agent_for("rlhf_gym/Exact-v0", episodes_per_update=96)
    assert agent.n_envs == 48
    agent.learn(1)
    assert agent._episode_num == 96


def test_a_single_environment_is_enough(make_model: Maker, tokenizer: Any) -> None:
    env = TextGenerationEnv(
        ["a film"],
        tokenizer,
        lambda prompts, responses: [1.0],
        max_response_tokens=3,
        reference=make_model(),
    )
    agent = agent_for(env, episodes_per_update=4)
    agent.learn(10)
    assert agent._episode_num >= 4


def test_callbacks_see_every_step(make_env: Maker) -> None:
    class Watching(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.order: list[str] = []
            self.ended = 0

        def _on_training_start(self) -> None:
            self.order.append("start")

        def _on_rollout_start(self) -> None:
            self.order.append("rollout")

        def _on_step(self) -> bool:
            self.ended += int(self.locals["dones"].sum())
            assert len(self.locals["infos"]) == 8
            return True

        def _on_rollout_end(self) -> None:
            self.order.append("end")

        def _on_training_end(self) -> None:
            self.order.append("done")

    watching = Watching()
    agent_for(make_env()).learn(60, callback=watching)
    assert watching.order[:3] == ["start", "rollout", "end"]
    assert watching.order[-1] == "done"
    assert watching.ended == 8 * watching.order.count("end")
    # A function is a callback too, and False stops at once.
    agent = agent_for(make_env())
    agent.learn(60, callback=lambda locals_, globals_: False)
    assert agent.num_timesteps == 8


def test_callbacks_of_sb3(make_env: Maker, tmp_path: Path) -> None:
    agent = agent_for(make_env())
    eval_env = VecMonitor(GymnasiumVecEnv(make_env()))
    evaluation = EvalCallback(
        eval_env, n_eval_episodes=8, eval_freq=6, log_path=str(tmp_path), verbose=0
    )
    with pytest.warns(UserWarning, match="not of the same type"):
        agent.learn(150, callback=[evaluation, StopTrainingOnMaxEpisodes(3)])
    assert agent._episode_num <= 24  # 3 episodes for each of 8 rows
    assert len(evaluation.evaluations_results) > 0


def test_evaluating_in_the_middle_of_a_wave_does_not_disturb_it(make_env: Maker) -> None:
    class Predicting(BaseCallback):
        def _on_step(self) -> bool:
            self.model.predict(first_observation(make_env()))
            return True

    quiet, disturbed = agent_for(make_env()), agent_for(make_env())
    quiet.learn(60)
    disturbed.learn(60, callback=Predicting())
    assert torch.equal(parameters(quiet), parameters(disturbed))


def test_progress_bar_counts_tokens(make_env: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlhf_gym.agents.callbacks import TokenProgressBar

    bars = []
    start = TokenProgressBar._on_training_start

    def watched(self: Any) -> None:
        start(self)
        bars.append(self.pbar)

    monkeypatch.setattr(TokenProgressBar, "_on_training_start", watched)
    agent_for(make_env()).learn(60, progress_bar=True)
    (bar,) = bars
    assert bar.n == bar.total == 60


def test_no_prompt_is_skipped_at_the_start(make_env: Maker) -> None:
    """SB3 resets the environment before the first rollout; those prompts are answered."""
    answered = []

    class Watched(PPO):
        def update(self, batch: RolloutBatch) -> None:
            answered.append(batch.prompt_index.tolist())

    env = make_env(prompt_order="sequential", autoreset_mode="Disabled", num_envs=2)
    Watched("LMPolicy", env, seed=0, device="cpu", minibatches=2).learn(20)
    assert answered[:3] == [[0, 1], [2, 3], [4, 5]]


def test_learning_twice_goes_on_or_starts_anew(make_env: Maker) -> None:
    agent = agent_for(make_env())
    agent.learn(60)
    first = agent.num_timesteps
    agent.learn(60, reset_num_timesteps=False)
    assert agent.num_timesteps >= first + 60
    agent.learn(60)
    assert agent.num_timesteps < first + 60


def test_wrong_environments_and_policies(make_env: Maker) -> None:
    with pytest.raises(InvalidArgument, match="not a text environment"):
        agent_for(gym.make_vec("CartPole-v1", num_envs=2))
    with pytest.raises(ValueError, match="MlpPolicy"):
        PPO("MlpPolicy", make_env())
    assert issubclass(PPO, BaseAlgorithm)
