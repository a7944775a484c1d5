"""The tools of Stable-Baselines3 and the wrappers of Gymnasium, with stock agents and with ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import vector as vector_wrappers
from sb3_contrib import MaskablePPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import HParam
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlhf_gym.agents.ppo import PPO as OurPPO
from rlhf_gym.agents.sb3 import (
    LMActorCriticPolicy,
    LMMaskableActorCriticPolicy,
    LMQPolicy,
    lm_policy_kwargs,
    lm_q_kwargs,
)
from rlhf_gym.core.errors import InvalidArgument, RewardWasWrapped
from rlhf_gym.envs.exact import ExactEnv, ExactVectorEnv
from rlhf_gym.envs.sb3 import GymnasiumVecEnv, make_sb3_env
from rlhf_gym.envs.text.single import TextGenerationEnv

Maker = Callable[..., Any]


def a2c(env: Any, **kwargs: Any) -> BaseAlgorithm:
    kwargs = {"gamma": 1.0, "seed": 0, "device": "cpu"} | kwargs
    return A2C(LMActorCriticPolicy, env, policy_kwargs=lm_policy_kwargs(env), **kwargs)


def dqn(env: Any, **kwargs: Any) -> BaseAlgorithm:
    return DQN(LMQPolicy, env, seed=0, device="cpu", **lm_q_kwargs(env), **kwargs)


def ours(env: Any, **kwargs: Any) -> BaseAlgorithm:
    return OurPPO("LMPolicy", env, seed=0, device="cpu", episodes_per_update=4, **kwargs)


EVERY_KIND = pytest.mark.parametrize("make", [a2c, dqn, ours])
"""On-policy, value-based, and ours."""

pytestmark = pytest.mark.filterwarnings("ignore:the policy did not write")


def exact(num_envs: int = 4) -> VecMonitor:
    return make_sb3_env(ExactVectorEnv(num_envs=num_envs))


@EVERY_KIND
def test_evaluation_checkpoints_and_stopping(make: Maker, tmp_path: Path) -> None:
    """Evaluates twice at most: the threshold is below anything there is, so training stops."""
    evaluation = EvalCallback(
        exact(),
        n_eval_episodes=6,
        eval_freq=10,
        best_model_save_path=str(tmp_path / "best"),
        log_path=str(tmp_path / "log"),
        callback_on_new_best=StopTrainingOnRewardThreshold(-1e9, verbose=0),
        verbose=0,
    )
    checkpoints = CheckpointCallback(save_freq=4, save_path=str(tmp_path), name_prefix="agent")
    agent = make(exact())
    agent.learn(10_000, callback=[checkpoints, evaluation])
    assert agent.num_timesteps < 100
    results = np.load(tmp_path / "log" / "evaluations.npz")["results"]
    assert results.shape == (1, 6)
    shown = exact().reset()
    best = type(agent).load(tmp_path / "best" / "best_model", device="cpu")
    kept = sorted(tmp_path.glob("agent_*_steps.zip"))
    assert len(kept) == 2
    for loaded in (best, type(agent).load(kept[-1], device="cpu")):
        assert loaded.predict(shown)[0].shape == (4,)


@EVERY_KIND
def test_an_evaluation_is_that_of_the_greedy_policy(make: Maker) -> None:
    """Three prompts, one greedy response each; six episodes are twice the three."""
    env = make_sb3_env(ExactVectorEnv(num_envs=1, prompt_order="sequential"))
    agent = make(exact())
    returns, lengths = evaluate_policy(agent, env, 6, return_episode_rewards=True)
    # Where the policy knows its own KL, it is a little less than the score.
    assert returns[:3] == pytest.approx(returns[3:], abs=1e-5)
    assert lengths[:3] == lengths[3:]
    assert all(1 <= length <= 5 for length in lengths)


@pytest.mark.parametrize("make", [a2c, dqn])
def test_normalised_rewards_and_a_monitor_outside(make: Maker, tmp_path: Path) -> None:
    env = VecNormalize(exact(), norm_obs=False, gamma=1.0)
    agent = make(VecMonitor(env, filename=str(tmp_path / "episodes")))
    agent.learn(100)
    assert env.ret_rms.count > 50
    rows = (tmp_path / "episodes.monitor.csv").read_text().splitlines()
    assert len(rows) > 10
    env.save(str(tmp_path / "normaliser"))
    again = VecNormalize.load(str(tmp_path / "normaliser"), exact())
    assert again.ret_rms.mean == env.ret_rms.mean
    make(again).learn(20)


def test_our_agents_refuse_rewards_that_tokens_cannot_be_credited_with() -> None:
    env = VecNormalize(exact(), norm_obs=False)
    with pytest.raises(RewardWasWrapped, match="reward_timing"):
        ours(env).learn(100)
    by_step = make_sb3_env(ExactVectorEnv(num_envs=4, reward_timing="step"))
    ours(VecNormalize(by_step, norm_obs=False)).learn(50)


@EVERY_KIND
def test_hyperparameters_in_tensorboard(make: Maker, tmp_path: Path) -> None:
    class Note(BaseCallback):
        def _on_training_start(self) -> None:
            chosen = {"algorithm": type(self.model).__name__, "lr": 1e-3}
            hparams = HParam(chosen, {"rollout/ep_rew_mean": 0.0})
            self.logger.record("hparams", hparams, exclude=("stdout", "log", "json", "csv"))
            self.logger.dump(self.num_timesteps)

        def _on_step(self) -> bool:
            return True

    make(exact(), tensorboard_log=str(tmp_path)).learn(40, callback=Note())
    (folder,) = {path.parent for path in tmp_path.rglob("events*")} & set(tmp_path.iterdir())
    events = EventAccumulator(str(folder)).Reload()
    assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")


class TestGymnasiumWrappers:
    @EVERY_KIND
    def test_statistics_of_single_environments(self, make: Maker) -> None:
        env = wrappers.RecordEpisodeStatistics(ExactEnv())
        agent = make(DummyVecEnv([lambda: env]))
        agent.learn(40)
        assert len(env.return_queue) >= 8
        assert all(1 <= length <= 5 for length in env.length_queue)

    @EVERY_KIND
    @pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
    def test_statistics_of_vectors(self, make: Maker, mode: AutoresetMode) -> None:
        env = vector_wrappers.RecordEpisodeStatistics(
            ExactVectorEnv(num_envs=4, autoreset_mode=mode)
        )
        make(env if make is ours else GymnasiumVecEnv(env)).learn(60)
        assert len(env.return_queue) >= 12
        assert all(1 <= length <= 5 for length in env.length_queue)

    @pytest.mark.parametrize("make", [a2c, dqn])
    def test_a_time_limit_truncates_and_is_told(self, make: Maker) -> None:
        env = wrappers.TimeLimit(ExactEnv(), max_episode_steps=2)
        seen: list[bool] = []

        def note(locals_: dict[str, Any], _: dict[str, Any]) -> bool:
            for done, info in zip(locals_["dones"], locals_["infos"], strict=True):
                if done:
                    seen.append(info["TimeLimit.truncated"])
                    assert info["episode"]["l"] <= 2
            return True

        make(VecMonitor(DummyVecEnv([lambda: env]))).learn(60, callback=note)
        assert set(seen) == {True, False}

    def test_our_agents_take_no_limit_below_the_environments_own(self) -> None:
        """Ours learn from whole responses; a limit that never cuts one off is let through."""

        def limited(steps: int) -> DummyVecEnv:
            return DummyVecEnv([lambda: wrappers.TimeLimit(ExactEnv(), max_episode_steps=steps)])

        ours(limited(5)).learn(20)
        with pytest.raises(InvalidArgument, match="max_response_tokens"):
            ours(limited(2)).learn(60)

    @EVERY_KIND
    def test_normalised_rewards(self, make: Maker) -> None:
        """Paid by step: what is scaled by a moving deviation cannot be credited afterwards."""
        vector = vector_wrappers.NormalizeReward(
            ExactVectorEnv(num_envs=4, reward_timing="step"), gamma=1.0
        )
        make(vector if make is ours else GymnasiumVecEnv(vector)).learn(60)
        assert vector.return_rms.count > 40
        one = wrappers.NormalizeReward(ExactEnv(reward_timing="step"), gamma=1.0)
        make(DummyVecEnv([lambda: one])).learn(24)
        assert one.return_rms.count > 20


class HidesMasks(gym.Wrapper[Any, Any, Any, Any]):
    """A wrapper that lets nothing through but what Gymnasium asks for."""

    def has_wrapper_attr(self, name: str) -> bool:
        return name != "action_masks" and super().has_wrapper_attr(name)

    def get_wrapper_attr(self, name: str) -> Any:
        if name == "action_masks":
            raise AttributeError(name)
        return super().get_wrapper_attr(name)


class TestBadUse:
    def test_a_wrapper_that_hides_the_masks(self) -> None:
        env = DummyVecEnv([lambda: HidesMasks(ExactEnv(min_response_tokens=2))])
        with pytest.raises(InvalidArgument, match="action_masks"):
            MaskablePPO(LMMaskableActorCriticPolicy, env, policy_kwargs=lm_policy_kwargs(env))
        with pytest.raises(InvalidArgument, match="action_masks"):
            lm_q_kwargs(env)

    @pytest.mark.parametrize("make", [a2c, dqn])
    def test_multidiscrete_actions(self, make: Maker) -> None:
        env = exact()
        env.action_space = gym.spaces.MultiDiscrete([7, 7])
        with pytest.raises((InvalidArgument, AssertionError), match=r"[Dd]iscrete"):
            make(env)

    @pytest.mark.parametrize("make", [a2c, dqn, ours])
    def test_no_text_environment(self, make: Maker) -> None:
        env = DummyVecEnv([lambda: gym.make("CartPole-v1")])
        with pytest.raises(InvalidArgument, match="not a text environment"):
            make(env)

    def test_a_policy_for_another_vocabulary(self, make_env: Maker) -> None:
        env = make_sb3_env(make_env())
        for algorithm, policy, kwargs in (
            (PPO, LMActorCriticPolicy, {"policy_kwargs": lm_policy_kwargs(env)}),
            (DQN, LMQPolicy, lm_q_kwargs(env)),
        ):
            with pytest.raises(InvalidArgument, match="vocabulary"):
                algorithm(policy, exact(), **kwargs)

    def test_policies_have_no_use_for_single_rows_of_ids(self) -> None:
        env = DummyVecEnv([lambda: ExactEnv(observation="ids")])
        with pytest.raises(InvalidArgument, match="observation"):
            PPO(LMActorCriticPolicy, env, policy_kwargs=lm_policy_kwargs(env))
        assert isinstance(env.envs[0].unwrapped, TextGenerationEnv)
