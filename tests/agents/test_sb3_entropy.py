"""An entropy bonus that falls while PPO learns."""

from pathlib import Path

import pytest
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO

from rlhf_gym.agents.registry import CONTROL_AGENTS
from rlhf_gym.agents.sb3.entropy import FallingEntropy, ScheduledPPO
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.sb3 import make_sb3_env


def test_by_hand() -> None:
    bonus = FallingEntropy(0.4, 0.1, begin=0.5)
    assert bonus(1.0) == bonus(0.5) == pytest.approx(0.4)
    # Halfway down a quarter is left to go by half: 0.4 * sqrt(0.1 / 0.4) = 0.2.
    assert bonus(0.25) == pytest.approx(0.2)
    assert bonus(0.0) == pytest.approx(0.1)


@pytest.mark.parametrize("settings", [(0.0, 0.0), (0.1, 0.2), (0.1, 0.0), (0.2, 0.1, 1.0)])
def test_no_schedule(settings: tuple[float, ...]) -> None:
    with pytest.raises(InvalidArgument):
        FallingEntropy(*settings)


def test_ppo_follows_it_and_takes_a_plain_number(tmp_path: Path) -> None:
    env = make_sb3_env("rlhf_gym/Tutor-v0", 2)
    make = CONTROL_AGENTS.load("sb3.ppo").make
    small = {"n_steps": 8, "batch_size": 16, "n_epochs": 1, "seed": 0}
    agent = make(env, ent_coef=FallingEntropy(0.4, 0.1, begin=0.5), **small)
    assert agent.ent_coef == 0.4
    agent.learn(64)  # four rollouts of 16; the last update has nothing of the training left
    assert agent.ent_coef == pytest.approx(0.1)
    agent.save(tmp_path / "agent")
    for kind in (ScheduledPPO, PPO):  # whoever only acts with it needs no class of ours
        assert kind.load(tmp_path / "agent").ent_coef == pytest.approx(0.1)
    plain = make(env, ent_coef=0.3, **small)
    plain.learn(16)
    assert plain.ent_coef == 0.3


def test_masks_stay() -> None:
    kind = CONTROL_AGENTS.load("contrib.maskable_ppo").load_class()
    assert issubclass(kind, MaskablePPO)
