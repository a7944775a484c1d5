"""Schemes at work where the task is to act: shaping around agents, and what cannot be."""

import functools
from pathlib import Path

import numpy as np
import pytest
import tyro
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor

from rlhf_gym.agents.sb3.critic import CriticPotential
from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.control.pizza import PizzaEnv
from rlhf_gym.envs.control.pizza.recipe import progress
from rlhf_gym.envs.sb3 import required_gamma
from rlhf_gym.envs.shaped import ShapedVecEnv
from rlhf_gym.envs.taught import TaughtVecEnv
from rlhf_gym.pipelines.control_payment import check_payment, shape
from rlhf_gym.pipelines.curves import read_scalars
from rlhf_gym.pipelines.train import TrainConfig, train_either
from rlhf_gym.rewards.control_schemes import control_scheme
from rlhf_gym.rewards.step_payment import SchemePayment

RECIPE = "shaping('rlhf_gym.envs.control.pizza.recipe:progress')"


def shaped_pizzas(written: str, gamma: float = 0.99) -> VecEnv:
    """What a PPO that is paid by a scheme acts in."""
    scheme = control_scheme(written)
    taught = TaughtVecEnv(DummyVecEnv([PizzaEnv] * 2), SchemePayment(scheme))
    agent = PPO("MlpPolicy", VecMonitor(taught), n_steps=8, batch_size=16, gamma=gamma)
    check_payment(scheme, agent, "nothing")
    venv = shape(agent, scheme)
    assert agent.get_env() is venv
    return venv


@functools.lru_cache
def ppo(gamma: float = 0.99) -> PPO:
    return PPO(
        "MlpPolicy", DummyVecEnv([PizzaEnv]), n_steps=8, batch_size=8, gamma=gamma, device="cpu"
    )


def test_a_recipe_by_hand() -> None:
    empty = np.zeros((3, 14), np.float32)
    empty[1, [0, 2]] = 0.3, 1.5 / 8  # three kneads; one and a half portions of sauce
    empty[2, [0, 2, 3, 12]] = 1.0, 1.0, 1.0, 0.5  # far too much of all, half cooked
    np.testing.assert_allclose(progress(empty), [0, 1.5, 4], atol=1e-6)


def test_a_weight_scales_the_potential() -> None:
    venv = shaped_pizzas(f"automated + 0.5 * {RECIPE}", gamma=0.9)
    assert required_gamma(venv) == 0.9  # the agent's, unless told
    venv.seed(0)
    before = progress(venv.reset())
    seen, rewards, _, infos = venv.step(np.array([1, 3]))  # knead; sauce
    expected = 0.9 * 0.5 * progress(seen) - 0.5 * before
    own = [info["automated_reward"] for info in infos]
    np.testing.assert_allclose(rewards - own, expected, atol=1e-5)
    assert expected.min() > 0.1


def test_a_value_model_as_the_potential(tmp_path: Path) -> None:
    ppo().save(tmp_path / "agent.zip")
    potential = CriticPotential(tmp_path / "agent.zip", PPO)
    seen = np.random.default_rng(0).uniform(0, 1, (4, 14)).astype(np.float32)
    values = ppo().policy.predict_values(ppo().policy.obs_to_tensor(seen)[0])
    np.testing.assert_allclose(potential(seen), values.detach().numpy().ravel(), atol=1e-6)
    venv = shaped_pizzas(f"automated + shaping('{tmp_path}/agent.zip')")
    assert isinstance(venv, ShapedVecEnv)
    np.testing.assert_allclose(venv.reset().shape, (2, 14))
    with pytest.raises(InvalidArgument, match="not a trained PPO"):
        CriticPotential(tmp_path / "nothing.zip", PPO)
    (tmp_path / "damaged.zip").write_bytes(b"PK")
    with pytest.raises(InvalidArgument, match="not a trained PPO"):
        CriticPotential(tmp_path / "damaged.zip", PPO)
    other = DQN("MlpPolicy", DummyVecEnv([PizzaEnv]), buffer_size=10)
    other.save(tmp_path / "dqn.zip")
    with pytest.raises(InvalidArgument, match="no value model"):
        CriticPotential(tmp_path / "dqn.zip", DQN)


@pytest.mark.parametrize(
    ("scheme", "judges", "problem"),
    [
        (f"automated + {RECIPE[:-1]}, gamma=0.9)", "both", "discount of 0.9"),
        ("automated + shaping(preferences)", "steps", "says nothing of states"),
        ("automated + shaping('no/such/agent.zip')", "both", "not a trained PPO"),
    ],
)
def test_what_an_agent_cannot_be_paid_by(scheme: str, judges: str, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem):
        check_payment(control_scheme(scheme), ppo(), judges)
    check_payment(control_scheme(f"automated + {RECIPE}"), ppo(), judges)


def test_replayed_steps_must_be_payable_anew() -> None:
    agent = DQN("MlpPolicy", DummyVecEnv([PizzaEnv]), buffer_size=10)
    for scheme in ("preferences - time(0.1)", "clipped(gold)", f"gold + {RECIPE}"):
        check_payment(control_scheme(scheme), agent, "both")
    for scheme in ("clipped(preferences)", f"preferences + {RECIPE}"):
        with pytest.raises(InvalidArgument, match="replays old steps"):
            check_payment(control_scheme(scheme), agent, "both")


def train(output: Path, reward: str, steps: str = "240") -> int:
    args = [
        *("--env", "rlhf_gym/Pizza-v0", "--agent", "sb3.ppo", "--num-envs", "4", "--no-progress"),
        *("--total-timesteps", steps, "--evaluation-episodes", "4", "--labels", "9"),
        *("--preferences.explore", "120", "--preferences.learner.fit.epochs", "2"),
        *("--preferences.learner.judges", "change", "--preferences.learner.members", "1"),
        *("--reward", reward, "--output", str(output)),
        *("--agent-kwargs", "n_steps=30", "batch_size=60", "gamma=0.9"),
    ]
    return train_either(tyro.cli(TrainConfig, args=args)).timesteps


@pytest.mark.parametrize("reward", [f"clipped(gold) + {RECIPE}", "potential"])
def test_any_scheme_trains(reward: str, tmp_path: Path) -> None:
    assert train(tmp_path, reward) == 240
    assert "reward/gold" in read_scalars(tmp_path)


def test_a_resumed_agent_is_shaped_again(tmp_path: Path) -> None:
    assert [train(tmp_path, "potential", steps) for steps in ("240", "360")] == [240, 360]


def test_shaping_leaves_the_best_acts_for_its_own_discount_only() -> None:
    # A corridor of places 0 to 3: 1 goes on, 0 stays, which pays 0.3; coming to 3 pays 1 and ends.
    # Solved by iteration over Q(place, act), with and without shaping by Phi = 4 * place.
    def best(shaped_for: float | None, gamma: float) -> list[int]:
        q = np.zeros((3, 2))
        for _ in range(500):
            for place in range(3):
                for act in (0, 1):
                    there = place + act
                    reward, after = (1.0, 0.0) if there == 3 else (0.3 * (act == 0), q[there].max())
                    if shaped_for is not None:
                        phi = 0.0 if there == 3 else 4.0 * there
                        reward += shaped_for * phi - 4.0 * place
                    q[place, act] = reward + gamma * after
        return q.argmax(-1).tolist()

    # at 0.5: to stay is worth 0.3 / (1 - 0.5) = 0.6; to go on 0.25 from 0, 0.5 from 1, 1 from 2
    assert best(None, 0.5) == [0, 0, 1]
    assert best(0.5, 0.5) == [0, 0, 1]
    assert best(0.9, 0.5) != [0, 0, 1]


def test_a_monitor_sees_what_is_paid_without_shaping() -> None:
    venv = shaped_pizzas(f"automated + {RECIPE}")
    venv.reset()
    own, dones, infos = 0.0, [False], []
    while not dones[0]:
        _, _, dones, infos = venv.step(np.array([3, 1]))
        own += infos[0]["automated_reward"]
    assert infos[0]["episode"]["r"] == pytest.approx(own, abs=1e-4)
    assert isinstance(venv, ShapedVecEnv)
    assert len(venv.episodes) == 2
