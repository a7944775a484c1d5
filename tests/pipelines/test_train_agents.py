"""`rlhf-gym train --agent NAME` for every name there is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_gym.agents.registry import AGENTS
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.models import load_causal_lm
from rlhf_gym.pipelines.curves import read_scalars
from rlhf_gym.pipelines.environment import EnvironmentConfig
from rlhf_gym.pipelines.evaluate import EvaluateConfig, evaluate
from rlhf_gym.pipelines.named_values import parse_settings
from rlhf_gym.pipelines.studies.agent_cells import acts_greedily
from rlhf_gym.pipelines.train import TrainConfig, train

ENVIRONMENT = EnvironmentConfig(env="rlhf_gym/Exact-v0", num_envs=16)
MORE_THAN_A_LANGUAGE_MODEL = (
    "contrib.recurrent_ppo",
    "sb3.dqn",
    "contrib.qrdqn",
    "contrib.ars",
)
WITHOUT_CALLBACKS_PER_STEP = ("contrib.ars",)


def config(folder: Path, agent: str, **changes: object) -> TrainConfig:
    base = TrainConfig(
        environment=ENVIRONMENT,
        agent=agent,
        output=str(folder),
        total_timesteps=160,
        checkpoint_every=0,
        progress=False,
    )
    return replace(base, **changes)


@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_leaves_a_whole_run_folder(agent: str, tmp_path: Path) -> None:
    environment = replace(ENVIRONMENT, kl_mode="soft" if acts_greedily(agent) else None)
    result = train(config(tmp_path, agent, environment=environment))
    assert result.timesteps >= 160
    assert json.loads((tmp_path / "config.json").read_text())["agent"] == agent
    assert json.loads((tmp_path / "summary.json").read_text())["timesteps"] == result.timesteps
    scalars = read_scalars(tmp_path)
    if agent not in WITHOUT_CALLBACKS_PER_STEP:
        tags = {"reward/score", "reward/ladder", "text/response_length", "kl/coef"}
        assert tags <= set(scalars)
    if agent in MORE_THAN_A_LANGUAGE_MODEL:
        assert result.policy is None
    else:
        assert result.policy is not None
        assert load_causal_lm(result.policy).num_parameters() > 0


def test_what_a_stock_agent_learned_can_be_evaluated(tmp_path: Path) -> None:
    settings = ("learning_rate=3e-3", "n_steps=5")
    result = train(
        config(tmp_path / "run", "sb3.a2c", total_timesteps=3_000, agent_kwargs=settings)
    )
    evaluation = evaluate(
        EvaluateConfig(
            environment=ENVIRONMENT,
            policy=str(result.policy),
            output=str(tmp_path / "evaluation"),
            episodes=128,
        )
    )
    assert evaluation.reference is not None
    assert evaluation.policy.score.value > evaluation.reference.score.high


def test_settings_reach_agent_and_policy(tmp_path: Path) -> None:
    from stable_baselines3 import A2C

    settings = ("n_steps=3", "policy.share_features_extractor=False")
    train(config(tmp_path / "stock", "sb3.a2c", agent_kwargs=settings))
    agent = A2C.load(tmp_path / "stock" / "agent")
    assert agent.n_steps == 3
    assert agent.gamma == 1.0
    assert not agent.policy.share_features_extractor
    train(config(tmp_path / "ours", "rloo", agent_kwargs=("responses_per_prompt=2",)))


def test_settings_as_python_writes_them() -> None:
    parsed = parse_settings(["a=1e-3", "b=None", "policy.c=x.y", "d=a=b", "e=False"])
    assert parsed == {"a": 1e-3, "b": None, "policy.c": "x.y", "d": "a=b", "e": False}


@pytest.mark.parametrize("pair", ["learning_rate", "=3", ""])
def test_settings_that_are_none(pair: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="agent_kwargs"):
        config(tmp_path, "ppo", agent_kwargs=(pair,))


@pytest.mark.parametrize(
    ("agent", "changes", "message"),
    [
        ("sb3.a2c", {"lora": 2}, "stock agent"),
        ("sb3.a2c", {"policy": "somewhere"}, "stock agent"),
        ("sb3.a2c", {"value_model": "separate"}, "stock agent"),
        ("sb3.a2c", {"agent_kwargs": ("no_such_setting=1",)}, "no_such_setting"),
        ("rloo", {"agent_kwargs": ("no_such_setting=1",)}, "no_such_setting"),
        ("sb3.ppoo", {}, "sb3.ppo"),
    ],
)
def test_what_cannot_work(
    agent: str, changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        train(config(tmp_path, agent, **changes))
