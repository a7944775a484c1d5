import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import configure

from rlhf_gym.agents.imitation import (
    Apprenticeship,
    ApprenticeshipConfig,
    Demonstrations,
    Discriminator,
    FeatureEncoding,
    FeatureMatching,
)
from rlhf_gym.agents.imitation.discriminator import DiscriminatorConfig
from rlhf_gym.agents.imitation.features import FeatureConfig
from rlhf_gym.agents.sb3.relabelling import PreferenceReplayBuffer
from rlhf_gym.core.errors import InvalidArgument, InvalidData
from rlhf_gym.core.preferences.encoding import Encoding
from rlhf_gym.envs.sb3 import make_sb3_env

GLOSSARY = Path(__file__).parents[3] / "docs" / "metrics.md"
LINE = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)


class Push(gym.Env):
    """Ten steps at a place by chance; whoever pushes the other way round (-place) is paid best."""

    observation_space = action_space = LINE

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._see(), {}

    def step(self, action):
        paid = -abs(float(action[0] + self.place[0]))
        self.steps += 1
        return self._see(), paid, False, self.steps == 10, {}

    def _see(self):
        self.place = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.place.copy()


def env(rows: int = 8):
    return make_sb3_env(
        gym.vector.SyncVectorEnv([Push] * rows, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    )


def expert() -> Demonstrations:
    seen = np.random.default_rng(0).uniform(-1, 1, (200, 1)).astype(np.float32)
    return Demonstrations(seen, -seen, np.full(20, 10), np.zeros(20))


def true_return(agent: BaseAlgorithm) -> float:
    seen = np.linspace(-1, 1, 41, dtype=np.float32)[:, None]
    actions, _ = agent.predict(seen, deterministic=True)
    return -10 * float(np.abs(actions + seen).mean())


def ppo(learning: Apprenticeship) -> PPO:
    return PPO(
        "MlpPolicy",
        learning.env,
        n_steps=32,
        batch_size=64,
        n_epochs=5,
        learning_rate=3e-3,
        gamma=0.0,
        seed=0,
        device="cpu",
    )


def test_an_adversarial_reward_teaches_what_the_expert_does() -> None:
    """Not moving earns -5 (the mean distance of a place from 0 is a half, ten times)."""
    config = ApprenticeshipConfig(every=256, memory=512)
    learning = Apprenticeship.adversarial(
        env(), expert(), config, DiscriminatorConfig(learning_rate=3e-3, hidden=(32,))
    )
    agent = ppo(learning)
    assert true_return(agent) < -4
    metrics = learning.learn(agent, 6_000)
    assert true_return(agent) > -2.5
    assert set(metrics) == {"loss", "expert_share", "agent_share"}


def test_named_features_are_met() -> None:
    """Of place * action the expert's mean is -1/3; a clone of it is the only way there."""
    plain = Encoding(LINE, LINE)
    named = FeatureEncoding(
        plain,
        ["against", "effort"],
        lambda seen, done: np.concatenate([seen * done, done**2], -1),
    )
    config = ApprenticeshipConfig(every=256, memory=512)
    learning = Apprenticeship.features(env(), expert(), config, encoding=named)
    agent = ppo(learning)
    learning.learn(agent, 6_000)
    assert true_return(agent) > -3
    assert isinstance(learning.source, FeatureMatching)
    assert learning.source.weights["against"] < 0


@pytest.mark.parametrize("method", ["adversarial", "features"])
def test_an_off_policy_agents_experience_is_paid_anew(method: str) -> None:
    make = getattr(Apprenticeship, method)
    learning = make(env(2), expert(), ApprenticeshipConfig(every=64, automated_weight=0.5))
    agent = SAC(
        "MlpPolicy",
        learning.env,
        buffer_size=400,
        learning_starts=10,
        batch_size=8,
        replay_buffer_class=PreferenceReplayBuffer,
        policy_kwargs={"net_arch": [8]},
        device="cpu",
    )
    learning.learn(agent, 128)
    learning.update(agent)
    buffer = agent.replay_buffer
    seen, done = buffer.observations[: buffer.pos], buffer.actions[: buffer.pos]
    paid = learning.source.reward.rewards(seen.reshape(-1, 1), done.reshape(-1, 1))
    own = -np.abs(seen + done).reshape(-1)
    np.testing.assert_allclose(
        buffer.rewards[: buffer.pos].reshape(-1), paid + 0.5 * own, atol=1e-5
    )


def test_the_glossary_has_every_tag_of_both_sources(tmp_path: Path) -> None:
    explained = re.findall(r"^\| `imitation/([^`]+)`", GLOSSARY.read_text(), flags=re.MULTILINE)
    known: set[str] = set()
    for make in (Apprenticeship.adversarial, Apprenticeship.features):
        learning = make(env(2), expert(), ApprenticeshipConfig(every=32))
        agent = PPO("MlpPolicy", learning.env, n_steps=16, batch_size=32, device="cpu")
        agent.set_logger(configure(str(tmp_path), ["csv"]))
        known |= set(learning.learn(agent, 64))
        logged = (tmp_path / "progress.csv").read_text()
        assert all(f"imitation/{name}" in logged for name in learning.metrics)
        assert "reward/gold" in logged
    assert set(explained) == known


def test_a_discriminator_that_cannot_tell_pays_nothing_much() -> None:
    """Expert and agent do the same: the loss is that of a coin, 2 log 2, for either."""
    seen, done = expert().encoded(Encoding(LINE, LINE))
    source = Discriminator(Encoding(LINE, LINE), (seen, done))
    assert source.update((seen, done))["loss"] == pytest.approx(2 * np.log(2), abs=0.05)


def test_a_step_of_feature_matching_by_hand() -> None:
    """The expert sees 1 and does 0 or 2, the agent sees 3 and does 0.

    Feature `seen`: variances 0 and 0, so the deviation is 1 and the gap 1 - 3 = -2.
    Feature `done`: means 1 and 0, variances 1 and 0, deviation sqrt(1/2), gap sqrt 2.
    One step of 0.1: weights -0.2 and 0.1414; root mean square of the gap sqrt((4 + 2) / 2).
    """
    wide = gym.spaces.Box(-9.0, 9.0, (1,), np.float32)
    named = FeatureEncoding(
        Encoding(wide, wide), ["seen", "done"], lambda seen, done: np.concatenate([seen, done], -1)
    )
    column = np.array([[0.0], [2.0]], np.float32)
    source = FeatureMatching(named, (np.ones((2, 1), np.float32), column), FeatureConfig(0.1, 0.5))
    metrics = source.update((np.full((2, 1), 3.0, np.float32), np.zeros((2, 1), np.float32)))
    assert metrics["gap"] == pytest.approx(np.sqrt(3))
    assert source.weights == pytest.approx({"seen": -0.2, "done": 0.1 * np.sqrt(2)})
    # The network's own weights are per unit, not per deviation: 0.1414 / sqrt(1/2) = 0.2.
    (layer,) = source.reward.layers
    np.testing.assert_allclose(layer.weight.flatten().tolist(), [-0.2, 0.2], rtol=1e-5)


def test_features_without_names_are_all_numbers_and_their_squares() -> None:
    named = FeatureEncoding(Encoding(LINE, LINE))
    assert named.names == ("observation[0]", "action[0]", "observation[0]^2", "action[0]^2")
    rest, shown = named.tensors(np.array([[2.0]], np.float32), np.array([[-3.0]], np.float32))
    assert shown.tolist() == [[2.0, -3.0, 4.0, 9.0]]
    assert rest.shape == (1, 0)


def test_a_linear_reward_is_saved_and_read(tmp_path) -> None:
    named = FeatureEncoding(Encoding(LINE, LINE))
    source = FeatureMatching(named, expert().encoded(named))
    source.update((np.zeros((4, 1), np.float32), np.ones((4, 1), np.float32)))
    path = source.reward.save(tmp_path / "reward.safetensors")
    read = type(source.reward).load(path, named)
    steps = torch.linspace(-1, 1, 5)[:, None].numpy()
    np.testing.assert_allclose(read.rewards(steps, -steps), source.reward.rewards(steps, -steps))


def test_mistakes_are_named() -> None:
    picture = gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    with pytest.raises(InvalidArgument, match="pixels are no features"):
        FeatureEncoding(Encoding(picture, LINE))
    with pytest.raises(InvalidArgument, match="go together"):
        FeatureEncoding(Encoding(LINE, LINE), ["one"])
    wrong = FeatureEncoding(Encoding(LINE, LINE), ["one"], lambda seen, done: seen * np.nan)
    with pytest.raises(InvalidData, match="not finite"):
        FeatureMatching(wrong, expert().encoded(wrong))
    with pytest.raises(InvalidArgument, match="every=0"):
        ApprenticeshipConfig(every=0)
    with pytest.raises(InvalidArgument, match="updates=0"):
        DiscriminatorConfig(updates=0)
    with pytest.raises(InvalidArgument, match="decay=1"):
        FeatureConfig(decay=1)
    learning = Apprenticeship.adversarial(env(2), expert())
    with pytest.raises(InvalidArgument, match="another environment"):
        learning.learn(PPO("MlpPolicy", env(2), device="cpu"), 10)
