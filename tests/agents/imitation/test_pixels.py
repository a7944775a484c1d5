"""Rewards that look at pictures: from comparisons and from demonstrations."""

from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import AddRenderObservation, TransformObservation
from stable_baselines3 import PPO

import rlhf_gym  # noqa: F401
from rlhf_gym.agents.imitation import Apprenticeship, record_demonstrations
from rlhf_gym.agents.imitation.discriminator import DiscriminatorConfig
from rlhf_gym.agents.preference_learning import PreferenceConfig, PreferenceLearning
from rlhf_gym.core.preferences import FitConfig, LabelSchedule, RewardLearnerConfig

SIDE = 48


def pictured() -> gym.Env:
    pizza = gym.make("rlhf_gym/Pizza-v0", render_mode="rgb_array")
    seen = AddRenderObservation(pizza)
    stride = seen.observation_space.shape[0] // SIDE
    small = gym.spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
    return TransformObservation(
        seen, lambda image: image[::stride, ::stride][:SIDE, :SIDE].copy(), small
    )


def env() -> SyncVectorEnv:
    return SyncVectorEnv([pictured] * 2, autoreset_mode=AutoresetMode.SAME_STEP)


def ppo(venv) -> PPO:
    kwargs = {"features_extractor_kwargs": {"features_dim": 8}}
    return PPO("CnnPolicy", venv, n_steps=28, batch_size=28, n_epochs=1, policy_kwargs=kwargs)


def test_any_environments_pictures_are_compared(tmp_path: Path) -> None:
    config = PreferenceConfig(
        schedule=LabelSchedule(total=8, initial=0.5),
        learner=RewardLearnerConfig(segment_length=4, members=2, memory=200, fit=FitConfig(2)),
        rounds=2,
        explore=112,
    )
    learning = PreferenceLearning(env(), tmp_path, config=config)
    last = learning.learn(ppo(learning.env), 112)
    assert last["labels"] == 8
    assert learning.learner.ensemble.eyes is not None  # convolutions
    segment = learning.learner.store.feedback()[0].query.segments[0]
    assert segment.observations.shape == (4, SIDE, SIDE, 3)
    assert segment.observations.dtype == np.uint8


def test_an_expert_is_told_apart_by_pictures() -> None:
    shown = record_demonstrations(env(), lambda seen: np.full(len(seen), 1), 2)
    assert shown.observations.shape == (56, SIDE, SIDE, 3)
    few = DiscriminatorConfig(updates=2, batch_size=16)
    learning = Apprenticeship.adversarial(env(), shown, discriminator=few)
    metrics = learning.learn(ppo(learning.env), 56)
    assert metrics == {}  # not yet: 56 steps are no update
    learning.update(ppo(learning.env))
    assert np.isfinite(learning.metrics["loss"])
