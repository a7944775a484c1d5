import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import ARS, QRDQN, TQC, TRPO, CrossQ, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from rlhf_gym.agents.imitation import CloningConfig, Demonstrations, behaviour_cloning
from rlhf_gym.agents.imitation.policy_likelihood import log_likelihood_of
from rlhf_gym.core.errors import InvalidArgument, InvalidData, NonFiniteTraining

CONTINUOUS = [PPO, A2C, TRPO, SAC, TQC, CrossQ, TD3]
DISCRETE = [PPO, DQN, QRDQN, ARS, MaskablePPO]


class Signs(gym.Env):
    """Nothing happens; it is there for its spaces. Actions of a Box go from -2 to 6."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, continuous: bool) -> None:
        box = gym.spaces.Box(-2.0, 6.0, (1,), np.float32)
        self.action_space = box if continuous else gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, False, True, {}

    def action_masks(self):
        return np.ones(2, np.bool_)


def expert(continuous: bool, steps: int = 600) -> Demonstrations:
    """Does what the sign of the first number it sees says."""
    seen = np.random.default_rng(0).uniform(-1, 1, (steps, 2)).astype(np.float32)
    positive = seen[:, 0] > 0
    done = np.where(positive, 4.0, 0.0)[:, None].astype(np.float32) if continuous else positive
    return Demonstrations(
        seen, done if continuous else done.astype(np.int64), np.full(6, steps // 6), np.zeros(6)
    )


def make(kind: type[BaseAlgorithm], continuous: bool, policy: str = "MlpPolicy") -> BaseAlgorithm:
    return kind(policy, make_vec_env(lambda: Signs(continuous), 1), seed=0, device="cpu")


SHORT = CloningConfig(epochs=40, learning_rate=3e-3)


@pytest.mark.parametrize("kind", CONTINUOUS)
def test_a_continuous_expert_is_cloned_by(kind: type[BaseAlgorithm]) -> None:
    """Its two actions are 4 apart; whoever always does one of them, or 2, is 2 away or more."""
    agent = make(kind, True)
    report = behaviour_cloning(agent, expert(True), SHORT)
    assert report.held_out > report.before
    clear = np.array([[0.8, 0.0], [-0.8, 0.0]], np.float32)
    actions, _ = agent.predict(clear, deterministic=True)
    np.testing.assert_allclose(actions[:, 0], [4.0, 0.0], atol=1.0)


@pytest.mark.parametrize("kind", DISCRETE)
def test_a_discrete_expert_is_cloned_by(kind: type[BaseAlgorithm]) -> None:
    agent = make(kind, False, "LinearPolicy" if kind is ARS else "MlpPolicy")
    behaviour_cloning(agent, expert(False), SHORT)
    seen = expert(False).observations
    actions, _ = agent.predict(seen, deterministic=True)
    assert np.mean(actions == (seen[:, 0] > 0)) > 0.95  # a coin gives 0.5


def test_a_random_search_goes_on_from_the_clone() -> None:
    """A linear policy is cloned to the last digit, and ARS keeps its weights twice."""
    shown = expert(True)
    linear = Demonstrations(
        shown.observations,
        shown.observations @ np.array([[1.5], [-0.5]], np.float32),
        shown.lengths,
        shown.returns,
    )
    agent = make(ARS, True, "LinearPolicy")
    assert isinstance(agent, ARS)
    behaviour_cloning(agent, linear, CloningConfig(epochs=60, learning_rate=1e-2, l2=0.0))
    np.testing.assert_allclose(agent.weights.tolist(), [1.5, -0.5], atol=0.02)


def test_likelihoods_by_hand() -> None:
    """ARS begins with weights of 0: its action is 0, in units of half the range 0, and 4 is 1.

    log N(1; 0, 0.1) = -1 / (2 * 0.01) - log(0.1) - log(2 pi) / 2 = -50 + 2.302585 - 0.918939.
    A softmax over two equal values gives log 0.5.
    """
    agent = make(ARS, True, "LinearPolicy")
    torch.nn.init.zeros_(agent.policy.action_net[0].weight)
    log_prob = log_likelihood_of(agent)(torch.zeros(1, 2), torch.tensor([[4.0]]))
    assert log_prob.item() == pytest.approx(-48.616354, abs=1e-4)
    agent = make(ARS, False, "LinearPolicy")
    torch.nn.init.zeros_(agent.policy.action_net[0].weight)
    log_prob = log_likelihood_of(agent)(torch.zeros(1, 2), torch.tensor([1]))
    assert log_prob.item() == pytest.approx(-0.693147, abs=1e-6)


def test_it_stops_when_what_it_has_not_seen_gets_no_likelier() -> None:
    """Actions by chance: whatever is learned of them is wrong for other episodes."""
    shown = expert(False, steps=60)
    rng = np.random.default_rng(1)
    noise = Demonstrations(shown.observations, rng.integers(0, 2, 60), shown.lengths, shown.returns)
    config = CloningConfig(patience=3, learning_rate=1e-2)
    report = behaviour_cloning(make(PPO, False), noise, config)
    assert report.epochs < 40
    assert report.held_out >= report.before  # the best parameters were kept


def test_the_same_seed_gives_the_same_clone() -> None:
    first, second = (
        behaviour_cloning(make(PPO, False), expert(False), CloningConfig(epochs=3), seed=5)
        for _ in range(2)
    )
    assert first == second


def test_an_agent_behind_a_normaliser_sees_what_it_will_see() -> None:
    env = VecNormalize(make_vec_env(lambda: Signs(False), 1), norm_reward=False)
    env.obs_rms.mean, env.obs_rms.var = np.array([0.5, 0.0]), np.ones(2)
    agent = PPO("MlpPolicy", env, seed=0, device="cpu")
    behaviour_cloning(agent, expert(False), SHORT)
    seen = expert(False).observations
    actions, _ = agent.predict(env.normalize_obs(seen), deterministic=True)
    assert np.mean(actions == (seen[:, 0] > 0)) > 0.95


class Named(Signs):
    """The two numbers under two names."""

    observation_space = gym.spaces.Dict(
        {name: gym.spaces.Box(-1.0, 1.0, (1,), np.float32) for name in ("first", "second")}
    )

    def reset(self, *, seed=None, options=None):
        return {name: np.zeros(1, np.float32) for name in ("first", "second")}, {}


def test_dictionaries_are_cloned_from() -> None:
    shown = expert(False)
    parts = {"first": shown.observations[:, :1], "second": shown.observations[:, 1:]}
    named = Demonstrations(parts, shown.actions, shown.lengths, shown.returns)
    agent = PPO("MultiInputPolicy", make_vec_env(lambda: Named(False), 1), device="cpu", seed=0)
    behaviour_cloning(agent, named, SHORT)
    actions, _ = agent.predict(parts, deterministic=True)
    assert np.mean(actions == (parts["first"][:, 0] > 0)) > 0.95


def test_who_cannot_be_cloned() -> None:
    env = make_vec_env(lambda: Signs(False), 1)
    agent = RecurrentPPO("MlpLstmPolicy", env, device="cpu")
    with pytest.raises(InvalidArgument, match="Recurrent"):
        behaviour_cloning(agent, expert(False))
    with pytest.raises(InvalidData, match="not of Discrete"):
        behaviour_cloning(make(PPO, False), expert(True))
    with pytest.raises(InvalidArgument, match="held_out=1"):
        CloningConfig(held_out=1)


def test_a_likelihood_that_is_not_finite_leaves_the_policy_alone() -> None:
    agent = make(PPO, True)
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    with pytest.raises(NonFiniteTraining, match="learning rate"):
        behaviour_cloning(agent, expert(True), CloningConfig(learning_rate=1e30))
    for name, value in agent.policy.state_dict().items():
        assert torch.equal(value, before[name])
